"""A client that vanishes in the middle of an answer: it takes its end of the wire down. Waits for `v1` to be given to its namespace."""
import socket
import subprocess
import sys
import time

print("born", flush=True)
sys.stdin.readline()
for command in ["ip addr add 10.9.9.2/24 dev v1", "ip link set v1 up"]:
    subprocess.run(command.split(), check=True)
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
while True:
    try:
        client.connect(("10.9.9.1", 8080))
        break
    except OSError:
        time.sleep(0.05)
client.sendall(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
client.recv(4096)
subprocess.run(["ip", "link", "set", "v1", "down"], check=True)
print("gone", flush=True)
sys.stdin.readline()
