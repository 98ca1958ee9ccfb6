//! Descriptors, directories, streams, and places where something usual is missing.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};

use crate::support::{LAMEDUCK, Pid1, eventually, listening, signal_to};
use crate::{PYTHON, SLACK, child_named, children, inherited, lameduck, report, run, scene, scratch, status};

/// What each open descriptor of a process is.
fn descriptors(pid: i32) -> Vec<(i32, String)> {
    let mut open: Vec<(i32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()))
        })
        .collect();
    open.sort();
    open
}

/// Exits when told, and lasts as long as anything.
fn obeys(init: &mut Pid1) {
    init.signal(15);
    assert_eq!(init.exit(), 0, "{:#?}", init.seen);
}

#[test]
fn inherited_descriptors_reach_the_app_and_are_closed_in_us() {
    let file = scratch("inherited");
    fs::write(&file, "").unwrap();
    let path = file.to_str().unwrap().to_owned();
    let text = format!("exec 3<{path} 7<{path} 9>>{path}; exec \"$0\" \"$@\"");
    run(
        &scene(&text, &["--", report()]),
        |_| {},
        move |init| {
            let ready = init.app_line("ready ");
            let expected = inherited(&[3, 7, 9]);
            assert!(ready.contains(&format!(" fds={expected} ")), "not {expected}: {ready}");
            eventually("we closed them", || (!descriptors(init.pid).iter().any(|(_, what)| *what == path)).then_some(()));
            let app = descriptors(child_named(init.pid, "report"));
            assert_eq!(app.iter().filter(|(_, what)| *what == path).count(), 3, "{app:?}");
            obeys(init);
        },
    );
}

/// PID 1 that was socket-activated: a listening socket as descriptor 3. `$PID` is what LISTEN_PID says.
const ACTIVATED: &str = "import os, socket, sys
s = socket.socket(); s.bind(('127.0.0.1', 8080)); s.listen()
os.dup2(s.fileno(), 3); os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_FDNAMES='web', LISTEN_PID=sys.argv[1])
os.execvp(sys.argv[2], sys.argv[2:])";

#[test]
fn listen_fds_are_passed_and_listen_pid_is_the_apps() {
    let app = "import os, signal, socket, sys
signal.signal(15, lambda *_: sys.exit(0))
s = socket.socket(fileno=3)
assert os.environ['LISTEN_PID'] == str(os.getpid()), os.environ['LISTEN_PID']
print('activated', os.environ['LISTEN_FDS'], os.environ['LISTEN_FDNAMES'], s.getsockname()[1], flush=True)
while True: s.accept()[0].close()";
    let argv = [PYTHON, "-c", ACTIVATED, "1", LAMEDUCK, "--delay", "100ms", "--quiet-period", "0s", "--", PYTHON, "-c", app];
    run(
        &argv,
        |_| {},
        |init| {
            init.app_line("activated 1 web 8080");
            listening(8080);
            let socket = descriptors(child_named(init.pid, "python3")).into_iter().find(|(fd, _)| *fd == 3).unwrap().1;
            eventually("we closed it", || (!descriptors(init.pid).iter().any(|(_, what)| *what == socket)).then_some(()));
            obeys(init);
        },
    );
}

#[test]
fn a_listen_pid_that_is_not_ours_is_left_alone() {
    let argv = [PYTHON, "-c", ACTIVATED, "4711", LAMEDUCK, "--", "sh", "-c", "echo pid is $LISTEN_PID"];
    run(
        &argv,
        |_| {},
        |init| {
            init.app_line("pid is 4711");
            assert_eq!(init.exit(), 0);
        },
    );
}

#[test]
fn no_listen_pid_is_made_up() {
    lameduck(&["--", report()], |init| {
        let ready = init.app_line("ready ");
        assert!(ready.contains("LISTEN_PID=none LISTEN_FDS=none"), "{ready}");
        obeys(init);
    });
}

#[test]
fn the_directory_is_kept_for_the_app_and_not_pinned_by_us() {
    let directory = scratch("directory");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.canonicalize().unwrap();
    let shown = format!(" cwd={} ", path.display());
    run(
        &[LAMEDUCK, "--", report()],
        move |command| _ = command.current_dir(&directory),
        move |init| {
            let ready = init.app_line("ready ");
            assert!(ready.contains(&shown), "{ready}");
            eventually("we went to /", || {
                (fs::read_link(format!("/proc/{}/cwd", init.pid)).unwrap() == Path::new("/")).then_some(())
            });
            obeys(init);
        },
    );
}

#[test]
fn a_directory_that_is_gone_is_no_matter() {
    let directory = scratch("gone");
    let text = format!("mkdir {0}; cd {0}; rmdir {0}; exec \"$0\" \"$@\"", directory.display());
    run(
        &scene(&text, &["--", report()]),
        |_| {},
        |init| {
            init.app_line("ready ");
            obeys(init);
        },
    );
}

#[test]
fn closed_streams() {
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        let file = scratch("closed");
        let says = file.to_str().unwrap().to_owned();
        // What the app finds as 0, 1 and 2 must not be a descriptor of ours that took the place.
        let app = format!(
            "ls -l /proc/self/fd >{says}.tmp 2>&1; trap 'exit 9' TERM; mv {says}.tmp {says}; while :; do sleep 0.05; done"
        );
        let text = format!("exec \"$0\" \"$@\" {closed}");
        run(
            &scene(&text, &["--", "sh", "-c", &app]),
            |_| {},
            move |init| {
                eventually("the app runs", || file.exists().then_some(()));
                let found = fs::read_to_string(&file).unwrap();
                assert!(!found.contains("anon_inode") && !found.contains("socket:"), "{closed}: {found}");
                init.signal(15);
                assert_eq!(init.exit(), 9, "{closed}: {:?}", init.seen);
            },
        );
    }
}

#[test]
fn closed_streams_without_dev_null() {
    for (closed, app) in
        [("<&-", "[ -L /proc/self/fd/0 ] && exit 8; exit 9"), ("<&- >&- 2>&-", "[ -L /proc/self/fd/1 ] && exit 8; exit 9")]
    {
        let text = format!("mount -t tmpfs none /dev && exec \"$0\" \"$@\" {closed}");
        run(&scene(&text, &["--", "sh", "-c", app]), |_| {}, move |init| assert_eq!(init.exit(), 9, "{closed}: {:?}", init.seen));
    }
}

/// A pipe of which nobody reads, as stdin: `2>&0` in a scene makes it stderr, which `Pid1` would replace.
fn pipe_as_stderr(fill: bool, app: &'static str, story: impl FnOnce(&mut Pid1, &dyn AsFd, std::io::PipeReader) + Send + 'static) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    if fill {
        let flags = OFlag::from_bits_truncate(fcntl(&writer, FcntlArg::F_GETFL).unwrap());
        fcntl(&writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
        for chunk in [4096, 1] {
            while writer.write(&vec![b'x'; chunk]).is_ok() {}
        }
        fcntl(&writer, FcntlArg::F_SETFL(flags)).unwrap();
    }
    let ours = writer.try_clone().unwrap();
    run(
        &scene("exec \"$0\" \"$@\" 2>&0 </dev/null", &["--delay", "300ms", "--quiet-period", "0s", "--", "sh", "-c", app]),
        move |command| _ = command.stdin(writer),
        move |init| story(init, &ours, reader),
    );
}

fn nonblocking(fd: &dyn AsFd) -> bool {
    OFlag::from_bits_truncate(fcntl(fd.as_fd(), FcntlArg::F_GETFL).unwrap()).contains(OFlag::O_NONBLOCK)
}

const OBEDIENT: &str = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done";

#[test]
fn a_full_stderr_never_blocks_us() {
    pipe_as_stderr(true, OBEDIENT, |init, pipe, _reader| {
        init.app_line("ready");
        assert!(!nonblocking(pipe), "the app shares this description: it may count on blocking");
        let asked = Instant::now();
        init.signal(15);
        assert_eq!(init.exit(), 9);
        assert!(asked.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", asked.elapsed());
        assert!(!nonblocking(pipe));
    });
}

#[test]
fn an_app_that_blocks_on_the_same_full_pipe_is_no_matter() {
    // The writer is blocked within write(2); the main process is not.
    let app = "trap 'exit 9' TERM; cat /dev/zero >&2 & echo ready; while :; do sleep 0.05; done";
    pipe_as_stderr(true, app, |init, _pipe, _reader| {
        init.app_line("ready");
        let asked = Instant::now();
        init.signal(15);
        assert_eq!(init.exit(), 9);
        assert!(asked.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", asked.elapsed());
    });
}

#[test]
fn a_log_line_that_fits_comes_whole() {
    pipe_as_stderr(false, OBEDIENT, |init, pipe, mut reader| {
        init.app_line("ready");
        assert!(!nonblocking(pipe));
        init.signal(15);
        assert_eq!(init.exit(), 9);
        let mut log = vec![0; 65536];
        let n = reader.read(&mut log).unwrap();
        let log = String::from_utf8_lossy(&log[..n]).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        assert!(log.ends_with('\n') && lines.iter().all(|line| line.contains(" lameduck ")), "{log}");
        for event in ["start", "stop-requested", "exit"] {
            assert!(lines.iter().any(|line| line.contains(&format!(" {event}"))), "{event}: {log}");
        }
    });
}

#[test]
fn a_stderr_that_nobody_will_read_is_no_matter() {
    pipe_as_stderr(false, OBEDIENT, |init, _pipe, reader| {
        init.app_line("ready");
        drop(reader); // EPIPE, and a PIPE signal
        init.signal(15);
        assert_eq!(init.exit(), 9);
    });
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    run(
        &scene("exec \"$0\" \"$@\" 2>&0 </dev/null", &["--", "sh", "-c", "exit 9"]),
        move |command| _ = command.stdin(writer),
        |init| {
            assert_eq!(init.exit(), 9);
        },
    );
    // No room at all; not even open for writing.
    for stderr in ["2>/dev/full", "2</dev/null"] {
        let text = format!("exec \"$0\" \"$@\" {stderr}");
        run(
            &scene(&text, &["--", "sh", "-c", "exit 9"]),
            |_| {},
            move |init| assert_eq!(init.exit(), 9, "{stderr}: {:?}", init.seen),
        );
    }
}

/// Both ends of a new terminal.
fn terminal() -> (PtyMaster, fs::File) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let slave = fs::File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_NOCTTY.bits())
        .open(ptsname_r(&master).unwrap())
        .unwrap();
    (master, slave)
}

#[test]
fn a_terminal_that_nobody_reads_never_blocks_us() {
    // More lines than a terminal holds, by signals that are dropped and said to be.
    let app = "import os, signal, sys, time; signal.signal(15, lambda *_: sys.exit(9))\n\
               for _ in range(3000): os.kill(1, 40)\n\
               print('ready', flush=True)\n\
               while True: time.sleep(1)";
    let options = ["--log-level", "debug", "--rewrite", "40:0", "--", PYTHON, "-c", app];
    for text in ["exec \"$0\" \"$@\" 2>&0", "mount -t tmpfs none /proc && exec \"$0\" --delay 0 \"$@\" 2>&0"] {
        let (master, slave) = terminal();
        run(
            &scene(text, &options),
            move |command| _ = command.stdin(slave),
            move |init| {
                init.app_line("ready");
                init.signal(15);
                assert_eq!(init.exit(), 9, "{text}");
                drop(master);
            },
        );
    }
}

#[test]
fn a_terminal_that_hung_up_is_no_matter() {
    // Every write is EIO.
    let (master, slave) = terminal();
    run(
        &scene("exec \"$0\" \"$@\" 2>&0", &["--delay", "300ms", "--", "sh", "-c", OBEDIENT]),
        move |command| _ = command.stdin(slave),
        move |init| {
            init.app_line("ready");
            drop(master);
            init.signal(15);
            assert_eq!(init.exit(), 9);
        },
    );
}

#[test]
fn a_socket_as_stderr() {
    // As of systemd and some runtimes; full, since nobody reads.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    while (&theirs).write(&[b'x'; 4096]).is_ok() {}
    theirs.set_nonblocking(false).unwrap();
    let shared = theirs.try_clone().unwrap();
    run(
        &scene("exec \"$0\" \"$@\" 2>&0 </dev/null", &["--", "sh", "-c", OBEDIENT]),
        move |command| _ = command.stdin(std::os::fd::OwnedFd::from(theirs)),
        move |init| {
            init.app_line("ready");
            assert!(!nonblocking(&shared));
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 9);
            assert!(asked.elapsed() < Duration::from_secs(2) + SLACK, "{:?}", asked.elapsed());
            drop(ours);
        },
    );
}

#[test]
fn a_read_only_root() {
    let text =
        "mount -o remount,bind,ro / && mount -t tmpfs -o ro none /tmp; touch /x 2>/dev/null && exit 99; exec \"$0\" \"$@\"";
    // Its own binary may lie below /tmp: keep what is there.
    let text = if LAMEDUCK.starts_with("/tmp") || report().starts_with("/tmp") {
        text.replace("mount -t tmpfs -o ro none /tmp", "true")
    } else {
        text.into()
    };
    run(
        &scene(&text, &["--", report()]),
        |_| {},
        |init| {
            init.app_line("ready ");
            obeys(init);
        },
    );
}

#[test]
fn without_proc() {
    let text = "mount -t tmpfs none /proc && exec \"$0\" \"$@\"";
    // Nobody can know what it listens on, so the delay is kept.
    let app = "trap 'exit 9' TERM; trap '( : & ); echo forked' HUP; echo ready; while :; do sleep 0.05; done";
    run(
        &scene(text, &["--grace-period", "5s", "--delay", "1s", "--", "sh", "-c", app]),
        |_| {},
        |init| {
            init.app_line("ready");
            for _ in 0..10 {
                init.signal(1);
                init.next_app_line("forked");
            }
            // The shell is the only child but for its own `sleep`s.
            eventually("orphans are reaped", || (children(init.pid).len() == 1).then_some(()));
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 9, "{:#?}", init.seen);
            let took = asked.elapsed();
            assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(5) + SLACK, "{took:?}");
        },
    );
    run(&scene(text, &["--", "sh", "-c", "exit 5"]), |_| {}, |init| assert_eq!(init.exit(), 5, "{:?}", init.seen));
    run(&scene(text, &["--", "/no/such"]), |_| {}, |init| assert_eq!(init.exit(), 127, "{:?}", init.seen));
    // Killing needs no /proc either.
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    run(
        &scene(text, &["--grace-period", "3s", "--", "sh", "-c", deaf]),
        |_| {},
        |init| {
            init.app_line("ready");
            init.signal(15);
            assert_eq!(init.exit(), 137, "{:#?}", init.seen);
        },
    );
}

/// Then our exit takes nobody with it, and /proc names nobody.
#[test]
fn without_proc_and_not_as_pid_1_the_app_is_not_left_behind() {
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    let ends_alone =
        "sh -c 'trap \"\" TERM; echo ready; while :; do sleep 0.05; done' & trap 'exit 4' TERM; while :; do sleep 0.05; done";
    for (app, code) in [(deaf, "code=137"), (ends_alone, "code=4")] {
        run(
            &scene(
                "mount -t tmpfs none /proc && \"$0\" \"$@\"; echo code=$?; exec sleep 1000",
                &["--grace-period", "3s", "--delay", "0", "--stop-timeout", "500ms", "--", "sh", "-c", app],
            ),
            |_| {},
            move |init| {
                init.app_line("ready");
                let name = LAMEDUCK.rsplit('/').next().unwrap();
                signal_to(child_named(init.pid, &name[..name.len().min(15)]), 15);
                init.app_line(code);
                // Nobody reaps here any more.
                let lives = |pid: &i32| !status(*pid, "State").starts_with('Z');
                eventually("all are dead", || (!children(init.pid).iter().any(lives)).then_some(()));
            },
        );
    }
}

/// `unshare --pid` alone: what /proc calls 3 is not who we would signal as 3.
#[test]
fn with_the_proc_of_another_pid_namespace_nobody_else_is_hit() {
    let inner = "\"$0\" \"$@\" & duck=$!; sleep 1000 & bystander=$!; wait $duck; echo code=$?; kill -0 $bystander && echo lives; exec sleep 1000";
    let deaf = "trap '' TERM; echo ready; while :; do sleep 0.05; done";
    run(
        &[&["unshare", "--pid", "--fork"], &scene(inner, &["--grace-period", "2s", "--delay", "0", "--", "sh", "-c", deaf])[..]]
            .concat(),
        |_| {},
        |init| {
            init.app_line("ready");
            let name = LAMEDUCK.rsplit('/').next().unwrap();
            signal_to(child_named(child_named(init.pid, "sh"), &name[..name.len().min(15)]), 15);
            init.app_line("code=137");
            init.app_line("lives");
        },
    );
}

/// Runs the rest of its arguments where socket(AF_NETLINK) is refused, as some seccomp profiles do.
const WITHOUT_NETLINK: &str = r#"
import ctypes, os, platform, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
socket_call = 41 if platform.machine() == 'x86_64' else 198
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
program = b''.join(struct.pack('HBBI', *line) for line in [
    (LOAD, 0, 0, 0), (EQUAL, 0, 3, socket_call),
    (LOAD, 0, 0, 16), (EQUAL, 0, 1, 16),  # the first argument is AF_NETLINK
    (RETURN, 0, 0, 0x00050000 | 97), (RETURN, 0, 0, 0x7fff0000)])
buffer = ctypes.create_string_buffer(program, len(program))
class Program(ctypes.Structure):
    _fields_ = [('len', ctypes.c_ushort), ('filter', ctypes.c_void_p)]
filtered = Program(len(program) // 8, ctypes.addressof(buffer))
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(filtered), 0, 0) == 0, os.strerror(ctypes.get_errno())
os.execvp(sys.argv[1], sys.argv[1:])
"#;

#[test]
fn without_netlink() {
    let argv = [
        PYTHON,
        "-c",
        WITHOUT_NETLINK,
        LAMEDUCK,
        "--delay",
        "1s",
        "--",
        PYTHON,
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        "8080",
    ];
    run(
        &argv,
        |_| {},
        |init| {
            listening(8080);
            let asked = Instant::now();
            init.signal(15);
            init.line("lame-duck");
            listening(8080);
            assert_eq!(init.exit(), 0, "{:#?}", init.seen);
            assert!(asked.elapsed() >= Duration::from_secs(1), "{:?}", asked.elapsed());
            assert!(init.seen.iter().any(|line| line.contains(" warning ")), "it says what it lost: {:#?}", init.seen);
        },
    );
}

/// The binary where any user can run it: the target directory may be below a closed home.
fn for_anybody() -> String {
    let copy = scratch("lameduck");
    fs::set_permissions(copy.parent().unwrap(), fs::Permissions::from_mode(0o755)).unwrap();
    // By another process: a descriptor of ours could be open for writing in a fork of another test.
    let installed = std::process::Command::new("install").args(["-m", "755", LAMEDUCK, copy.to_str().unwrap()]).status();
    assert!(installed.unwrap().success());
    copy.to_str().unwrap().to_owned()
}

#[test]
fn a_uid_without_a_name_and_without_any_privilege() {
    let binary = for_anybody();
    let argv =
        ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", "--no-new-privs", "--bounding-set", "-all", &binary];
    run(
        &[&argv[..], &["--", "sh", "-c", "id -u; trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"]].concat(),
        |_| {},
        |init| {
            init.app_line("4242");
            init.app_line("ready");
            init.signal(15);
            assert_eq!(init.exit(), 9, "{:?}", init.seen);
            assert!(!init.seen.iter().any(|line| line.contains("CAP_KILL")), "the app has our uid: {:?}", init.seen);
        },
    );
    run(
        &[&argv[..], &["--delay", "1s", "--", PYTHON, "-m", "http.server", "--bind", "127.0.0.1", "8080"]].concat(),
        |_| {},
        |init| {
            listening(8080);
            let asked = Instant::now();
            init.signal(15);
            assert_eq!(init.exit(), 0, "{:?}", init.seen);
            assert!(asked.elapsed() >= Duration::from_secs(1));
        },
    );
}

#[test]
fn an_empty_environment() {
    run(
        &scene("exec env -i \"$0\" \"$@\"", &["--", "sh", "-c", "exit 9"]),
        |_| {},
        |init| assert_eq!(init.exit(), 9, "{:?}", init.seen),
    );
}

#[test]
fn few_descriptors_and_no_memory_to_spare() {
    // Nine is enough for us: 0 to 2, and a handful of ours.
    let text = "ulimit -n 16; ulimit -v 262144; exec \"$0\" \"$@\"";
    run(
        &scene(text, &["--delay", "300ms", "--", "sh", "-c", OBEDIENT]),
        |_| {},
        |init| {
            init.app_line("ready");
            init.signal(15);
            assert_eq!(init.exit(), 9, "{:?}", init.seen);
        },
    );
}

/// As tini needs it; with Rust's debug build a little more.
#[test]
fn a_small_stack() {
    let kilobytes = if option_env!("LAMEDUCK_TEST_BINARY").is_some() { 64 } else { 128 };
    let text = format!("ulimit -s {kilobytes}; exec \"$0\" \"$@\"");
    run(
        &scene(&text, &["--delay", "300ms", "--admin", ":9102", "--", "sh", "-c", OBEDIENT]),
        |_| {},
        |init| {
            init.app_line("ready");
            init.signal(15);
            assert_eq!(init.exit(), 9, "{:?}", init.seen);
        },
    );
}

#[test]
fn too_few_descriptors_are_named_before_anything_is_started() {
    for count in [6, 15] {
        let text = format!("ulimit -n {count}; exec \"$0\" \"$@\"");
        run(
            &scene(&text, &["--", "echo", "started"]),
            |_| {},
            move |init| {
                assert_eq!(init.exit(), 64, "{:?}", init.seen);
                let said = format!(
                    "lameduck: cannot work with {count} open files (RLIMIT_NOFILE): lameduck needs 16; raise the limit (ulimit -n)"
                );
                assert_eq!(init.seen, [said]);
            },
        );
    }
}
