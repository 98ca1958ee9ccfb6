"""A front end on a TCP port and its back end on a unix socket, with a pool of idle connections between them: nginx with `keepalive`.
Arguments: port, path. A request's path says how many seconds the back end thinks. Prints `asked`, and `ready` when both listen."""
import os
import socket
import sys
import threading
import time

port, path = int(sys.argv[1]), sys.argv[2]
back = socket.socket(socket.AF_UNIX)
back.bind(path)
back.listen(16)


def work(connection):
    while line := connection.recv(64):
        time.sleep(float(line))
        connection.sendall(b"answer\n")


if os.fork() == 0:
    while True:
        threading.Thread(target=work, args=(back.accept()[0],), daemon=True).start()

back.close()
pool = [socket.socket(socket.AF_UNIX) for _ in range(5)]
for connection in pool:
    connection.connect(path)
front = socket.socket()
front.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
front.bind(("127.0.0.1", port))
front.listen(16)
print("ready", flush=True)
while True:
    client = front.accept()[0]
    seconds = client.recv(4096).split()[1][1:]
    print("asked", flush=True)
    pool[0].sendall(seconds)
    body = pool[0].recv(64)
    client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body)
    client.close()
