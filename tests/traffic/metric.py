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
        if times == 60:
            print("nothing to do any more", flush=True)
        jobs = 1 if times >= 60 else 3
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
    elif mode == "nan":
        ok(connection, b'jobs{kind="web"} NaN\n')
    elif mode == "infinite":
        ok(connection, b'jobs{kind="web"} +Inf\n')
    elif mode == "huge":
        ok(connection, b'jobs{kind="web"} 1e300\n')
    elif mode == "flaps":
        if times % 3 == 0:
            connection.sendall(b"HTTP/1.1 500 Internal Server Error\r\n\r\n")
        if times >= 60 and times % 3:
            print("nothing to do any more", flush=True)
        ok(connection, b'jobs{kind="web"} %d\n' % (1 if times >= 60 else 3))
    elif mode == "closes":
        pass
    elif mode == "drips":
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for byte in b'jobs{kind="web"} 7\n' * 50:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    elif mode == "drips head":
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100:
            connection.sendall(bytes([byte]))
            time.sleep(0.05)
    elif mode == "pours":
        ok(connection, b"")
        while True:
            connection.sendall(b'jobs{kind="web"} 0\n' * 5000)
    elif mode == "long":
        ok(connection, b'jobs{kind="web"} 7\n', b"Content-Length: 99999999999999999999\r\n")
    elif mode == "chunks":
        ok(connection, b'14\r\njobs{kind="web"} 7\n\r\n0\r\n\r\n', b"Transfer-Encoding: chunked\r\n")
    elif mode == "gzip":
        ok(connection, b"\x1f\x8b\x08", b"Content-Encoding: gzip\r\n")
    elif mode == "binary":
        ok(connection, bytes(range(256)))
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
