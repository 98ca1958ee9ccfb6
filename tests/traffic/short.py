"""Answers as fast as it can, one after the other, on port 8080: one process for each CPU. Prints `ready`."""
import os
import socket

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", 8080))
listener.listen(1024)
print("ready", flush=True)
os.fork()
while True:
    connection = listener.accept()[0]
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nanswer\n")
    connection.close()
