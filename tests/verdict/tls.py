"""A TLS 1.3 client: tls.py ADDRESS PORT STEP..., where a step is milliseconds of rest or TARGET, whose id= names the request.
Tells its port, and for each request when its first byte left and when the last byte of the answer came, both by its kernel."""
import socket
import ssl
import struct
import sys
import time

TCP_INFO_SENT, TCP_INFO_RECEIVED = 44, 52

address, port, *steps = sys.argv[1:]
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname = False
context.verify_mode = ssl.CERT_NONE
context.minimum_version = ssl.TLSVersion.TLSv1_3
plain = socket.create_connection((address, int(port)))
plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
print("port", plain.getsockname()[1])
stream = context.wrap_socket(plain)


def moment(offset):
    now = time.monotonic()
    info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return now - struct.unpack_from("I", info, offset)[0] / 1000


for step in steps:
    if step.isdigit():
        time.sleep(int(step) / 1000)
        continue
    stream.sendall(f"GET {step} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    begin = moment(TCP_INFO_SENT)
    answer = b""
    while not answer.endswith(b"whole\n"):
        part = stream.recv(4096)
        if not part:
            sys.exit(f"cut: {answer}")
        answer += part
    print("request", begin, max(begin, moment(TCP_INFO_RECEIVED)))
print("closed", time.monotonic())
