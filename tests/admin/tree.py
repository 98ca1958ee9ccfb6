"""A tree of known figures: each of six burns half a second of CPU. Three live: this, a child, a grandchild, each with seven files
open besides its streams and with memory of its own; a child is dead and not reaped, one is reaped, and an orphan and its parent are PID 1's.
Says `ready burned=SECONDS`; USR2 opens five more files."""
import mmap
import os
import signal
import time

HALF = 0.5
held = []


def burn():
    until = time.process_time() + HALF
    while time.process_time() < until:
        pass


def hold():
    held.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(7))
    memory = mmap.mmap(-1, 16 << 20)
    memory.write(b"x" * (16 << 20))
    held.append(memory)


def fork(work):
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    return pid


def stay(work=lambda: None):
    burn()
    hold()
    work()
    os.write(done, b"x")
    signal.pause()


def more(*_):
    held.extend(os.open("/dev/null", os.O_RDONLY) for _ in range(5))
    os.write(1, b"opened\n")


def orphan():
    burn()
    os.write(done, b"x")


def leave_orphan():
    # Whose parent ends first, so that it is PID 1's.
    fork(lambda: fork(orphan))


wait, done = os.pipe()
os.waitpid(fork(burn), 0)
dead = fork(burn)
fork(lambda: stay(lambda: fork(stay)))
os.waitpid(fork(leave_orphan), 0)
burn()
hold()
for _ in range(3):
    os.read(wait, 1)
os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
signal.signal(signal.SIGUSR2, more)
os.write(1, b"ready burned=%.1f\n" % (6 * HALF))
while True:
    time.sleep(3600)
