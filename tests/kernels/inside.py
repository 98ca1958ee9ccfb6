#!/usr/bin/python3 -u
"""What PID 1 runs in an emulated machine: tests/arm64 boots it with lameduck as PID 1 and this as its app. The arguments are the checkout's path
and the names of test binaries.

First what depends on the kernel's modules, then those tests. At last this becomes a server, and the machine's own PID 1 gets its stop
signal while a client in another network waits for an answer. PID 1's exit code is this one's: it stands in the kernel's last words.
"""
import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request

CHECKOUT, TESTS = sys.argv[1], sys.argv[2:]
LAMEDUCK = "/suite/lameduck"
SERVER = CHECKOUT + "/tests/traffic/server.py"
DIAG = ["unix_diag", "tcp_diag", "inet_diag"]
HELPER = "/proc/sys/kernel/modprobe"
SLOW = "/slow-modprobe"
CLONE_NEWNET = 0x40000000
BY_PROC_NET = "/proc/net/tcp serves instead"
CURE = "`modprobe tcp_diag` on the node loads both"
LEFT_OUT = [
    # Load that a real machine bears; under emulation each would take minutes, or all of the memory.
    "arrivals::twenty_thousand_short_connections_are_counted",
    "degraded::a_process_tree_too_large_to_walk",
    "degraded::more_descriptors_than_are_read",
    # Needs the configuration that Apache's package makes when it is installed.
    "ownership::what_apache_says_to_itself_is_no_traffic_and_what_others_say_is",
]


def say(text):
    print("kernels: " + text, flush=True)


def run(*words):
    subprocess.run(words, check=True)


def loaded():
    with open("/proc/modules") as modules:
        return {line.split()[0] for line in modules} & set(DIAG)


def field(line, name):
    return re.search(rf"\b{name}=(\S+)", line)[1]


def seconds(line):
    """The second of the minute at which the log's line was written."""
    return float(re.match(r"\S+:(\d\d\.\d+)Z ", line)[1])


class Stop:
    """A server under lameduck as anybody in namespaces of their own, without a capability left, and how its stop went."""

    def __init__(self, think):
        words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", "setpriv", "--reuid", "65534", "--regid", "65534",
                 "--clear-groups", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs",
                 LAMEDUCK, "--delay", "1s", "--quiet-period", "300ms", "--grace-period", "30s", "--", sys.executable, "-u", SERVER, "127.0.0.1", "8080"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.lines = []
        self.wait_for(process, "ready")
        self.answer = None
        client = threading.Thread(target=self.ask, args=[think])
        client.start()
        self.wait_for(process, "asked")
        self.before = loaded()
        with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
            os.kill(int(children.read().split()[0]), signal.SIGTERM)
        self.wait_for(process, " lame-duck ")
        self.after = loaded()
        self.lines += process.stdout.read().splitlines()
        self.code = process.wait()
        client.join()
        self.source = field(self.line(" lame-duck "), "source")
        self.first_look = round((seconds(self.line(" lame-duck ")) - seconds(self.line(" stop-requested "))) % 60 * 1000)

    def ask(self, think):
        self.answer = urllib.request.urlopen(f"http://127.0.0.1:8080/{think}").read()

    def wait_for(self, process, text):
        for line in process.stdout:
            self.lines.append(line.rstrip())
            if text in line:
                return
        raise AssertionError("\n".join([f"it ended without {text!r}:"] + self.lines))

    def line(self, text):
        return next(line for line in self.lines if text in line)

    def shows(self, source, before, after):
        found = self.source, self.before, self.after, self.answer, self.code, self.warned()
        expected = source, set(before), set(after), b"answer\n", 0, source == "proc_net"
        assert found == expected, "\n".join([f"{found}, not {expected}:"] + self.lines)

    def warned(self):
        return any(BY_PROC_NET in line and CURE in line for line in self.lines)


def modules():
    """tcp_diag, inet_diag and unix_diag, which are modules here: without them, loaded by the first look, and there before."""
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) == 0
    run("ip", "link", "set", "lo", "up")
    with open(HELPER) as file:
        helper = file.read()
    with open(HELPER, "w") as file:
        file.write("/nobody\n")
    stop = Stop(4)
    stop.shows("proc_net", [], [])
    say(f"modules that cannot be loaded: /proc/net/tcp serves, first look after {stop.first_look} ms")
    with open(SLOW, "w") as file:
        file.write("#!/bin/sh\nexec sleep 60\n")
    os.chmod(SLOW, 0o755)
    with open(HELPER, "w") as file:
        file.write(SLOW + "\n")
    stop = Stop(4)
    stop.shows("proc_net", [], [])
    assert 2000 <= stop.first_look < 10_000, "\n".join(stop.lines)
    say(f"a modprobe that hangs: /proc/net/tcp serves, first look after {stop.first_look} ms")
    with open(HELPER, "w") as file:
        file.write(helper)

    figures = {"loads them": [], "finds them": []}
    for _ in range(5):
        if loaded():
            run("rmmod", *DIAG)
        stop = Stop(0.5)
        stop.shows("sock_diag", [], DIAG)
        figures["loads them"].append(stop.first_look)
        stop = Stop(0.5)
        stop.shows("sock_diag", DIAG, DIAG)
        figures["finds them"].append(stop.first_look)
    for what, milliseconds in figures.items():
        say(f"modules: a first look that {what} is written of after {sorted(milliseconds)} ms")


def tests(name):
    """Runs a test binary. What fails beside others is run once more alone, and said: a test that needs time has little of it in an emulated machine."""
    began = time.monotonic()
    binary = f"/suite/tests/{name}"
    words = [binary, "--test-threads", "4"]
    for test in LEFT_OUT:
        words += ["--skip", test]
    # In a process group of its own: where members of a group are stopped whose first parent is the machine's PID 1, the kernel sends HUP to all of it.
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, process_group=0)
    failed, count = [], 0
    for line in process.stdout:
        print(line, end="", flush=True)
        failed += re.findall(r"^test (\S+) \.\.\. FAILED$", line)
        count += sum(map(int, re.findall(r"^test result: .* (\d+) failed;", line)))
    well = process.wait() == 0 or len(failed) == count > 0
    for test in failed:
        alone = subprocess.run([binary, "--exact", test], stdin=subprocess.DEVNULL, process_group=0).returncode == 0
        say(f"{name}: {test} fails beside others, and {'passes' if alone else 'fails'} alone")
        well = well and alone
    say(f"{name}: {'passed' if well else 'FAILED'} after {time.monotonic() - began:.0f} s")
    return well


def in_child(story):
    """Runs it in a process of its own, whose namespaces go with it. Returns whether it ended well."""
    child = os.fork()
    if child == 0:
        try:
            story()
        except BaseException as error:
            say(f"{type(error).__name__}: {error}")
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def be_stopped():
    """Becomes a server whose PID 1 is the machine's own; a client in another network has that stopped while it waits for an answer."""
    client = os.fork()
    if client == 0:
        assert ctypes.CDLL(None).unshare(CLONE_NEWNET) == 0
        while subprocess.run(["ip", "link", "set", "v1", "up"], stderr=subprocess.DEVNULL).returncode:
            time.sleep(0.1)
        run("ip", "addr", "add", "10.9.9.2/24", "dev", "v1")
        while True:
            try:
                urllib.request.urlopen("http://10.9.9.1:8080/0").read()
                break
            except OSError:
                time.sleep(0.1)
        threading.Timer(2, os.kill, [1, signal.SIGTERM]).start()
        if urllib.request.urlopen("http://10.9.9.1:8080/8").read() == b"answer\n":
            say("the machine's PID 1 was stopped, and the request was answered")
            say("all is well")
        os._exit(0)
    run("modprobe", "veth")
    run("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    run("ip", "addr", "add", "10.9.9.1/24", "dev", "v0")
    run("ip", "link", "set", "v0", "up")
    while os.readlink(f"/proc/{client}/ns/net") == os.readlink("/proc/self/ns/net"):
        time.sleep(0.1)
    run("ip", "link", "set", "v1", "netns", str(client))
    os.execv(sys.executable, [sys.executable, "-u", SERVER, "10.9.9.1", "8080"])


os.environ.update(HOME="/root", PATH="/usr/sbin:/usr/bin:/sbin:/bin")
for words in ["proc proc /proc", "sysfs sys /sys", "devtmpfs dev /dev", "devpts pts /dev/pts", "tmpfs shm /dev/shm"]:
    kind, source, target = words.split()
    os.makedirs(target, exist_ok=True)
    run("mount", "-t", kind, source, target)
for name, number in [("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2")]:
    os.symlink("/proc/self/fd" + number, "/dev/" + name)
with open("/proc/1/comm") as comm:
    assert comm.read() == "lameduck\n"
say(f"{os.uname().release} {os.uname().machine}, {time.monotonic():.1f} s after its start")
ended_well = [in_child(modules), *map(tests, TESTS)]
if not all(ended_well):
    sys.exit(1)
be_stopped()
