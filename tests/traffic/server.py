"""An HTTP server whose path says how many seconds it thinks: /2.5. Arguments: address, port, then how:
`one` answers one at a time; `reuseport` is two processes with a listener each, `shares` one of them; `later` opens the next port too, on HUP; `closes`
listens no more from HUP on; `headless` has no first thread any more; `unshared` listens in a thread with descriptors of its own.
An address with a slash is a unix socket's. Prints `asked` when it has read a request, `ready` when it listens. /big answers with 8 MB, /huge with 64 MB,
/push with a line every 300 ms for as long as somebody takes them."""
import http.server
import os
import signal
import socket
import socketserver
import sys
import threading
import time

address, port, how = sys.argv[1], int(sys.argv[2]), (sys.argv[3:] + [""])[0]


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0" if how == "one" else "HTTP/1.1"

    def do_GET(self):
        # One write: lines of two processes must not mix.
        os.write(1, b"asked %s\n" % self.path.encode())
        body = b"answer\n"
        if self.path == "/push":
            while True:
                self.wfile.write(b"news\n")
                time.sleep(0.3)
        if self.path in ("/big", "/huge"):
            body = b"x" * {"/big": 8_000_000, "/huge": 64_000_000}[self.path]
        else:
            time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self):
        return "somebody"

    def log_message(self, *_):
        pass


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 64
    address_family = socket.AF_UNIX if "/" in address else socket.AF_INET6 if ":" in address else socket.AF_INET

    def server_bind(self):
        if how in ("reuseport", "shares"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()


class Threaded(socketserver.ThreadingMixIn, Server):
    daemon_threads = True


def serve(port):
    return (Server if how == "one" else Threaded)(address if "/" in address else (address, port), Handler)


if how == "unshared":
    import ctypes

    def listen():
        assert ctypes.CDLL(None).unshare(0x400) == 0  # CLONE_FILES
        server = serve(port)
        os.write(1, b"ready\n")
        server.serve_forever()
    thread = threading.Thread(target=listen)
    thread.start()
    thread.join()
if how == "reuseport":
    os.fork()
server = serve(port)
if how == "later":
    def open_next(*_):
        threading.Thread(target=serve(port + 1).serve_forever, daemon=True).start()
        print("opened", port + 1, flush=True)
    signal.signal(signal.SIGHUP, open_next)
if how == "closes":
    def close(*_):
        server.shutdown()
        server.server_close()
        print("closed", port, flush=True)
    signal.signal(signal.SIGHUP, lambda *_: threading.Thread(target=close).start())
if how == "headless":
    import ctypes
    threading.Thread(target=server.serve_forever).start()
    threading.Thread(target=lambda: (time.sleep(0.2), os.write(1, b"ready\n"))).start()
    # exit, not exit_group: only this thread ends.
    ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[os.uname().machine], 0)
os.write(1, b"ready\n")
server.serve_forever()
while how == "closes":
    signal.pause()
