"""Runs its arguments as PID 1 of a pid namespace, traced, and prints the mask of blocked signals at the first system call of Rust's own
start-up: sigaltstack."""
import ctypes
import os
import platform
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
TRACEME, KILL, SYSCALL = 0, 8, 24
CLONE_NEWPID = 0x20000000
SIGALTSTACK = {"x86_64": "131", "aarch64": "132"}[platform.machine()]

assert libc.unshare(CLONE_NEWPID) == 0
init = os.fork()
if init == 0:
    libc.ptrace(TRACEME, 0, None, None)
    os.execv(sys.argv[1], sys.argv[1:])
os.waitpid(init, 0)
while open(f"/proc/{init}/syscall").read().split()[0] != SIGALTSTACK:
    assert libc.ptrace(SYSCALL, init, None, None) == 0
    _, status = os.waitpid(init, 0)
    assert os.WIFSTOPPED(status), status
print([line for line in open(f"/proc/{init}/status") if line.startswith("SigBlk")][0].split()[1], flush=True)
libc.ptrace(KILL, init, None, None)
