"""What the kernel says by netlink, spoilt on its way, by seccomp's user notification.

`faults.py run PATH COMMAND...` becomes COMMAND, whose socket(AF_NETLINK), sendto and recvfrom are decided by whoever listens at PATH.
`faults.py serve PATH` does so. Each line on its stdin is the fault from then on, for the process that became COMMAND alone:
  none     as it is                          torn   every piece says that the table changed meanwhile (NLM_F_DUMP_INTR)
  full     ENOBUFS in place of a piece       cut    half of a piece, with 8 bytes of the message that is cut
  noise    a piece that is no netlink        gone   EPERM, and no new socket
  slow     60 ms for each piece              late   as `gone`, from the next look for listeners on
With `once` behind it, the fault happens once. Prints `ready`, the fault when it is set, and `hit` when it first happens."""
import array
import ctypes
import fcntl
import os
import platform
import socket
import struct
import sys
import threading
import time

AMD64 = platform.machine() == "x86_64"
SOCKET, SENDTO, RECVFROM = (41, 44, 45) if AMD64 else (198, 206, 207)
SECCOMP = 317 if AMD64 else 277
PIDFD_OPEN, PIDFD_GETFD = 434, 438
NOTIF_RECV, NOTIF_SEND, CONTINUE = 0xC0502100, 0xC0182101, 1
EPERM, EAGAIN, ENOBUFS = 1, 11, 105
MULTI, DONE, DUMP_INTR = 2, 3, 0x10
SOCK_DIAG_BY_FAMILY, DUMP, LISTEN = 20, 0x300, 10
libc = ctypes.CDLL(None, use_errno=True)


def run(path, command):
    LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
    lines = [
        (LOAD, 0, 0, 0), (EQUAL, 4, 0, RECVFROM), (EQUAL, 3, 0, SENDTO), (EQUAL, 0, 3, SOCKET),
        (LOAD, 0, 0, 16), (EQUAL, 0, 1, socket.AF_NETLINK),
        (RETURN, 0, 0, 0x7FC00000), (RETURN, 0, 0, 0x7FFF0000),  # ask, or allow
    ]
    program = b"".join(struct.pack("HBBI", *line) for line in lines)

    class Program(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]

    supervisor = socket.socket(socket.AF_UNIX)
    supervisor.connect(path)
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    listener = libc.syscall(SECCOMP, 1, 8, ctypes.byref(Program(len(lines), program)))
    assert listener >= 0, os.strerror(ctypes.get_errno())
    supervisor.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [listener]))])
    os.close(listener)
    supervisor.close()
    os.execvp(command[0], command)


fault, once, hit = "none", False, False


def listen_to_the_test():
    global fault, once, hit
    for line in sys.stdin:
        words = line.split()
        fault, once, hit = words[0], "once" in words, False
        print(words[0], flush=True)
    os._exit(0)


def happens():
    global fault, hit
    now = fault
    if not hit:
        hit = True
        print("hit", flush=True)
    if once:
        fault = "none"
    return now


def asks_for_listeners(pid, args):
    """Whether what it sends is a request for all TCP sockets that listen, and for no others."""
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        memory.seek(args[1])
        request = memory.read(min(args[2], 24))
    if len(request) < 24:
        return False
    kind, flags = struct.unpack_from("HH", request, 4)
    return kind == SOCK_DIAG_BY_FAMILY and flags & DUMP == DUMP and struct.unpack_from("I", request, 20)[0] == 1 << LISTEN


def receive(pid, pidfd, args):
    """Reads in the other's place. The result: bytes to hand over, or an errno."""
    fd = libc.syscall(PIDFD_GETFD, pidfd, args[0], 0)
    theirs = socket.socket(fileno=fd)
    try:
        data = theirs.recv(args[2], socket.MSG_DONTWAIT)
    except OSError as error:
        return error.errno
    finally:
        theirs.close()
    kind, flags = struct.unpack_from("HH", data, 4)
    # Announcements of ended connections are left alone.
    if fault in ("none", "late") or not (flags & MULTI or kind == DONE):
        return data
    now = happens()
    if now == "torn":
        return data[:6] + struct.pack("H", flags | DUMP_INTR) + data[8:]
    if now == "slow":
        time.sleep(0.06)
        return data
    if now == "cut":
        # At the end of a message nobody could see that others are missing; the kernel cuts none off there.
        return data[:len(data) // 2 // 4 * 4 + 8]
    if now == "noise":
        return bytes(byte * 167 % 251 for byte in range(200))
    return ENOBUFS if now == "full" else EPERM


def serve(path):
    global fault
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(1)
    print("ready", flush=True)
    client = server.accept()[0]
    victim = struct.unpack("iii", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    _, [listener], _, _ = socket.recv_fds(client, 1, 1)
    pidfd = libc.syscall(PIDFD_OPEN, victim, 0)
    threading.Thread(target=listen_to_the_test, daemon=True).start()
    while True:
        request = bytearray(80)
        try:
            fcntl.ioctl(listener, NOTIF_RECV, request)
        except OSError:
            if os.path.exists(f"/proc/{victim}"):
                continue  # somebody was killed while it asked
            return
        number, pid, _, call, _, _, *args = struct.unpack("QIIiIQ6Q", request)
        value, errno, flags = 0, 0, CONTINUE
        if pid == victim and call == SOCKET and fault == "gone":
            value, errno, flags = 0, EPERM, 0
        elif pid == victim and call == SENDTO:
            if fault == "late" and asks_for_listeners(pid, args):
                fault = "gone"
        elif pid == victim and call == RECVFROM:
            result = receive(pid, pidfd, args)
            flags = 0
            if isinstance(result, int):
                errno = result
            else:
                with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
                    memory.seek(args[1])
                    memory.write(result)
                value = len(result)
        try:
            fcntl.ioctl(listener, NOTIF_SEND, struct.pack("QqiI", number, value, -errno, flags))
        except OSError:
            pass


if sys.argv[1] == "run":
    run(sys.argv[2], sys.argv[3:])
else:
    serve(sys.argv[2])
