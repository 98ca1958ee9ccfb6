"""An app that answers on 127.0.0.1:8080 by the path that it is asked for, and says `asked PATH`; see `answer`.
`later`: listens from HUP on. `stays`: TERM is said and ignored, USR2 ends it. `at ADDRESS`: there instead. `twice`: on 8081, too.
`floods`: a child writes to stderr without end.
USR1 lets one request for /gate go; WINCH leaves an orphan, which ends. Says `ready` when it listens."""
import os
import signal
import socket
import sys
import threading
import time

arguments = sys.argv[1:]
address = arguments[arguments.index("at") + 1] if "at" in arguments else "127.0.0.1"
ports = [8080, 8081] if "twice" in arguments else [8080]
gate = threading.Semaphore(0)


def say(text):
    os.write(1, text.encode() + b"\n")


def answer(connection, path):
    """Returns the head's first line, or None if it was answered in another way."""
    if path.startswith("/status/"):
        return "HTTP/1.1 %s Whatever\r\nLocation: /ok" % path[8:]
    if path.startswith("/after/"):
        time.sleep(float(path[7:]))
    elif path == "/gate":
        gate.acquire()
    elif path == "/silent":
        time.sleep(3600)
    elif path == "/endless":
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            connection.sendall(bytes(1 << 16))
    elif path == "/endless-head":
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X: " + b"x" * 1000 + b"\r\n")
    elif path == "/drips":
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000:
            connection.sendall(bytes([byte]))
            time.sleep(0.2)
    elif path == "/not-http":
        connection.sendall(b"220 smtp.example ESMTP\r\n")
        return None
    elif path == "/cut":
        connection.sendall(b"HTTP/1.1 200")
        return None
    return "HTTP/1.1 200 OK"


def serve(connection):
    try:
        asked = b""
        while b"\r\n\r\n" not in asked:
            more = connection.recv(4096)
            if not more:
                return
            asked += more
        path = asked.split(b" ")[1].decode()
        say("asked " + path)
        head = answer(connection, path)
        if head:
            connection.sendall(head.encode() + b"\r\nContent-Length: 7\r\nConnection: close\r\n\r\nanswer\n")
    except OSError:
        pass
    finally:
        connection.close()


def listen():
    listeners = [socket.create_server((address, port), backlog=1024) for port in ports]
    for listener in listeners[1:]:
        threading.Thread(target=accept, args=(listener,), daemon=True).start()
    say("ready")
    accept(listeners[0])


def accept(listener):
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def orphan(*_):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            time.sleep(0.05)
        os._exit(0)
    os.waitpid(child, 0)
    say("orphaned")


def begin(*_):
    threading.Thread(target=listen, daemon=True).start()


# Between a handler's end and pause() a signal would be slept over; each is a byte to be read instead.
wake, woken = os.pipe()
os.set_blocking(woken, False)
signal.set_wakeup_fd(woken)
signal.signal(signal.SIGHUP, begin)
signal.signal(signal.SIGUSR1, lambda *_: gate.release())
signal.signal(signal.SIGWINCH, orphan)
if "stays" in arguments:
    signal.signal(signal.SIGTERM, lambda *_: say("told"))
    signal.signal(signal.SIGUSR2, lambda *_: os._exit(0))
else:
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if "floods" in arguments and os.fork() == 0:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while True:
        os.write(2, b"f" * 4096)
say("begun")
if "later" not in arguments:
    begin()
while True:
    os.read(wake, 1)
