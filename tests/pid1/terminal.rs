//! With a terminal, as under `docker run -it`.

use crate::support::{LAMEDUCK, script};
use crate::{PYTHON, report, run};

/// Runs `unshare … setsid -c COMMAND` (a session leader as PID 1, the terminal its own) on a new terminal, copies what comes from it
/// to stdout and does what the steps say: `wait TEXT`, `type TEXT`, `term` (TERM to PID 1). Ends with `code=…`.
const HARNESS: &str = r#"
import os, pty, re, select, signal, subprocess, sys, termios, time
steps, command = sys.argv[1].split(';'), sys.argv[2:]
master, slave = pty.openpty()
mode = termios.tcgetattr(slave)
mode[3] |= termios.NOFLSH  # else Ctrl-C and Ctrl-Z discard what was just written, maybe what we wait for
termios.tcsetattr(slave, termios.TCSANOW, mode)
child = subprocess.Popen(['unshare', '--pid', '--fork', '--mount-proc', '--kill-child', '--', 'setsid', '-c', *command], stdin=slave, stdout=slave, stderr=slave)
os.close(slave)
seen, found, ends = '', 0, time.monotonic() + 50
def pump():
    global seen
    if time.monotonic() > ends:
        print('gave up', flush=True); child.kill(); os._exit(1)
    if select.select([master], [], [], 0.05)[0]:
        try:
            text = os.read(master, 65536).decode(errors='replace').replace('\r', '')
        except OSError:
            time.sleep(0.01); return
        seen += text
        print(text, end='', flush=True)
for step in steps:
    what, _, text = step.strip().partition(' ')
    if what == 'wait':
        # In what the app said: our start line quotes its command.
        while (at := re.sub(r'\d{4}-\S+Z lameduck [^\n]*\n?', '', seen).find(text, found)) < 0: pump()
        found = at + len(text)
    elif what == 'type':
        os.write(master, text.encode().decode('unicode_escape').encode())
    elif what == 'term':
        init = open(f'/proc/{child.pid}/task/{child.pid}/children').read().split()[0]
        os.kill(int(init), signal.SIGTERM)
while child.poll() is None: pump()
pump()
print(f'\ncode={child.returncode}', flush=True)
"#;

fn on_a_terminal(steps: &'static str, command: &[&str], check: impl FnOnce(&[String]) + Send + 'static) {
    let argv = [&[PYTHON, "-c", HARNESS, steps], command].concat();
    run(
        &argv,
        |_| {},
        move |harness| {
            harness.app_line("code=");
            check(&harness.seen);
        },
    );
}

/// Its handlers write without Python's buffer: a signal may come while the program itself still prints.
const APP: &str = "import os, signal, sys
signal.signal(2, lambda *_: os.write(1, b'got INT\\n'))
signal.signal(28, lambda *_: os.write(1, b'got WINCH\\n'))
signal.signal(15, lambda *_: sys.exit(9))
print('foreground', os.tcgetpgrp(0) == os.getpgrp(), 'leads', os.getpgrp() == os.getpid(), flush=True)
print('ready', flush=True)
for line in sys.stdin: print('read', line, flush=True)";

#[test]
fn the_app_has_the_terminal() {
    on_a_terminal("wait ready; type hello\\n; wait read hello; term", &[LAMEDUCK, "--", PYTHON, "-c", APP], |seen| {
        assert!(seen.iter().any(|line| line.starts_with("foreground True leads True")), "{seen:#?}");
        assert!(seen.iter().any(|line| line == "code=9"), "{seen:#?}");
    });
}

#[test]
fn ctrl_c_arrives_once() {
    // The terminal signals the foreground group, which is the app's alone: nothing is left to forward.
    on_a_terminal(
        "wait ready; type \\x03; wait got INT; type x\\n; wait read x; term",
        &[LAMEDUCK, "--", PYTHON, "-c", APP],
        |seen| {
            assert_eq!(
                seen.iter().filter(|line| !line.contains(" lameduck ") && line.contains("got INT")).count(),
                1,
                "{seen:#?}"
            );
            assert!(seen.iter().any(|line| line == "code=9"), "{seen:#?}");
        },
    );
}

#[test]
fn a_background_writer_would_be_stopped_but_we_are_not() {
    // With `stty tostop` a log line from our background group would raise TTOU, or fail where nobody could continue us.
    let app = "stty tostop; trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    on_a_terminal("wait ready; term", &[LAMEDUCK, "--", "sh", "-c", app], |seen| {
        assert!(seen.iter().any(|line| line.contains(" stop-requested ")), "{seen:#?}");
        assert!(seen.iter().any(|line| line == "code=9"), "{seen:#?}");
    });
}

#[test]
fn an_interactive_shell_has_job_control() {
    // No shell: one that is stopped between vfork and exec never stops.
    let text = "import signal\nsignal.signal(18, lambda *_: print('job continued', flush=True))\nprint('job runs', flush=True)\nwhile True: signal.pause()\n";
    let job = script("job", &format!("#!{PYTHON}\n{text}"));
    on_a_terminal(
        "wait $; type $JOB\\n; wait job runs; type \\x1a; wait Stopped; type fg\\n; wait job continued; type \\x03; wait $; type exit 7\\n",
        &["env", "PS1=$ ", &format!("JOB={job}"), LAMEDUCK, "--", "sh", "-i"],
        |seen| {
            let all = seen.join("\n");
            assert!(!all.contains("job control turned off") && !all.contains("can't access tty"), "{all}");
            assert!(seen.iter().any(|line| line == "code=7"), "{all}");
        },
    );
}

#[test]
fn int_on_a_terminal_goes_to_the_app_even_if_it_dies_of_it() {
    on_a_terminal("wait ready ; type \\x03", &[LAMEDUCK, "--", report(), "--on", "INT=die:2"], |seen| {
        assert!(seen.iter().any(|line| line == "code=130"), "{seen:#?}");
    });
}

#[test]
fn whoever_comes_after_us_has_the_terminal_again() {
    for command in ["/bin/true", "/no/such"] {
        let script = "\"$0\" -- \"$1\"; echo ready; read line && exit 5; exit 6";
        on_a_terminal("wait ready; type hello\\n", &["sh", "-c", script, LAMEDUCK, command], |seen| {
            assert!(seen.iter().any(|line| line == "code=5"), "{seen:#?}");
        });
    }
}
