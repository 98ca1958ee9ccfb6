"""An HTTP server whose path says how many seconds it thinks: /2.5. Arguments: address, port, then `one` to answer one at a time.
Prints `asked` when it has read a request, `ready` when it listens. Path /big answers with 8 MB."""
import http.server
import socket
import socketserver
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("asked", self.path, flush=True)
        body = b"answer\n"
        if self.path == "/big":
            body = b"x" * 8_000_000
        else:
            time.sleep(float(self.path[1:]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 64
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET


class Threaded(socketserver.ThreadingMixIn, Server):
    daemon_threads = True


if sys.argv[3:] == ["one"]:
    Handler.protocol_version = "HTTP/1.0"
server = (Server if sys.argv[3:] == ["one"] else Threaded)((sys.argv[1], int(sys.argv[2])), Handler)
print("ready", flush=True)
server.serve_forever()
