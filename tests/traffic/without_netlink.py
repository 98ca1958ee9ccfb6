"""Runs its arguments where socket(AF_NETLINK) is refused, as some seccomp profiles and sandboxes do."""
import ctypes
import os
import platform
import struct
import sys

libc = ctypes.CDLL(None, use_errno=True)
socket_call = 41 if platform.machine() == "x86_64" else 198
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
lines = [
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, socket_call),
    (LOAD, 0, 0, 16), (EQUAL, 0, 1, 16),  # the first argument is AF_NETLINK
    (RETURN, 0, 0, 0x00050000 | 93), (RETURN, 0, 0, 0x7FFF0000),  # EPROTONOSUPPORT, or allow
]
program = b"".join(struct.pack("HBBI", *line) for line in lines)


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(lines), program)), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
