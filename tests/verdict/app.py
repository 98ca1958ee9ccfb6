"""WSGI: /fast, /think?ms=, /stream?gap=&pieces= and /large, each noted in a log when begun and when answered."""
import os
import time
from urllib.parse import parse_qs

LOG = os.open(os.path.join(os.path.dirname(__file__), "log"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
LARGE = b"." * (4 << 20)


def note(what, number):
    os.write(LOG, f"{what} {number} {time.monotonic():.6f}\n".encode())


def app(environ, start_response):
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    number = query["id"]
    note("begin", number)
    environ["wsgi.input"].read()
    if environ["PATH_INFO"] == "/stream":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return stream(number, int(query["pieces"]), int(query["gap"]) / 1000)
    time.sleep(int(query["ms"]) / 1000)
    body = LARGE if environ["PATH_INFO"] == "/large" else b"whole\n"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    note("end", number)
    return [body]


def stream(number, pieces, gap):
    for piece in range(pieces):
        if piece > 0:
            time.sleep(gap)
        yield b"piece\n"
    note("end", number)
