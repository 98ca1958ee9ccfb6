"""An HTTP server on port 8080 as server.py's, and a metrics endpoint on 9100 that behaves as the argument says. Prints `asked`."""
import socket
import sys
import threading
import time

mode = sys.argv[1]
times = 0


def listen(port):
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def serve(listener, handle):
    def one(connection):
        try:
            handle(connection, connection.recv(4096))
        except OSError:
            pass
        connection.close()

    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def app(connection, request):
    print("asked", flush=True)
    time.sleep(float(request.split()[1][1:]))
    connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nanswer\n")


def ok(connection, body, head=b""):
    connection.sendall(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n" + body)


def metrics(connection, _):
    global times
    times += 1
    if mode == "counts":
        if times == 150:
            print("nothing to do any more", flush=True)
        jobs = 1 if times >= 150 else 3
        ok(connection, b'# TYPE jobs gauge\njobs{kind="web"} %d\njobs{kind="mail"} 7\n' % jobs)
    elif mode == "idle":
        ok(connection, b'jobs{kind="web",queue="a"} 1')
    elif mode == "hangs":
        time.sleep(60)
    elif mode == "redirects":
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n\r\n")
    elif mode == "floods":
        ok(connection, b"")
        while True:
            connection.sendall(b"# more\n" * 4)
            time.sleep(0.001)
    elif mode == "page":
        ok(connection, b"<html>\n")
    elif mode == "other":
        ok(connection, b'jobs{kind="mail"} 7\n')
    elif mode == "negative":
        ok(connection, b'jobs{kind="web"} -7\n')
    elif mode == "cut":
        ok(connection, b'jobs{kind="web"} 7\n', b"Content-Length: 500\r\n")
    elif mode == "noise":
        connection.sendall(b"SSH-2.0-x\r\n")
    elif mode == "head":
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50 + b"Z: " + b"z" * 20_000)
        time.sleep(60)
    elif mode == "line":
        ok(connection, b"a 1\n" + b"x" * 100_000)


front = listen(8080)
if mode != "absent":
    threading.Thread(target=serve, args=(listen(9100), metrics), daemon=True).start()
print("ready", flush=True)
serve(front, app)
