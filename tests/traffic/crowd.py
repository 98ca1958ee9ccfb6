"""An HTTP server on port 8080 as server.py's, with `processes` children that sleep, each with `descriptors` more descriptors.
Prints `ready` when all are there, and `hello` on HUP."""
import gc
import http.server
import os
import resource
import signal
import socketserver
import sys
import time

processes, descriptors = int(sys.argv[1]), int(sys.argv[2])


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        os.write(1, b"asked %s\n" % self.path.encode())
        time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"answer\n")

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    daemon_threads = True


gc.freeze()
limit = descriptors + 64
resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
for _ in range(descriptors):
    os.dup(0)
for _ in range(processes):
    if os.fork() == 0:
        signal.pause()
        os._exit(0)
server = Server(("127.0.0.1", 8080), Handler)
signal.signal(signal.SIGHUP, lambda *_: os.write(1, b"hello\n"))
os.write(1, b"ready\n")
server.serve_forever()
