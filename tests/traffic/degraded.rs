//! One source of knowledge after the other is taken away, or spoilt: what is left is used, what is lost is said once, and the clock
//! never stops.

use super::*;
use std::process::{Child, ChildStdin, ChildStdout};

const FAULTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/faults.py");
const CROWD: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/crowd.py");

/// What is done to PID 1 before it becomes lameduck.
const NO_PROC: &str = "mount -t tmpfs none /proc";
const NOBODY_ELSE_SHOWN: &str = "mount -o remount,hidepid=2 /proc";
/// As another root without CAP_SYS_PTRACE. Group 0 is exempt from hidepid.
const UNPRIVILEGED: &[&str] =
    &["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--regid", "65534", "--clear-groups"];
const OTHER_USER: &[&str] = &["setpriv", "--reuid", "33", "--regid", "33", "--clear-groups"];

/// lameduck, after `setup` and by way of the words of `before`, over `app`.
fn start(setup: &str, before: &[&str], options: &[&str], app: &[&str]) -> Pid1 {
    let setup = format!("{setup} && exec \"$@\"");
    Pid1::start(&[&["sh", "-c", &setup, "sh"], before, &[LAMEDUCK], options, &["--"], app].concat())
}

/// The server's whole text: another user may not be able to read the file.
fn server_text() -> String {
    fs::read_to_string(SERVER).expect("the server")
}

/// So much of each warning since the stop signal, in this order, and no other warning.
fn warned(init: &mut Pid1, parts: &[&str]) {
    let since = init.rest().iter().skip_while(|line| !line.contains(" stop-requested "));
    // On a busy machine the app's own word may come late.
    let late = |line: &&String| line.contains("cannot ask --in-flight: no whole answer within 1s");
    let warnings: Vec<&String> = since.filter(|line| line.contains(" lameduck warn ") && !late(line)).collect();
    let as_expected = warnings.len() == parts.len() && warnings.iter().zip(parts).all(|(line, part)| line.contains(part));
    assert!(as_expected, "{parts:?} expected: {warnings:#?}");
}

fn after(init: &mut Pid1) -> f64 {
    seconds(field(&init.line(" stopping "), "after"))
}

const BY_PROC_NET: &str =
    "/proc/net/tcp serves instead: queues are seen, but a request the app is silently working on only for 5 s";
const BLIND: &str = "the delay alone is kept";

// One source taken away.

/// hidepid=2: the app is another user's, so not even its process is to be seen. The cgroup tells its ports from a sidecar's.
#[test]
fn an_app_whose_process_is_hidden_is_known_by_its_cgroup() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let _sidecar = groups.spawn("sidecar", &[PYTHON, "-u", SERVER, "127.0.0.1", "9090"]);
        let setup = format!("echo $$ > {}/app/cgroup.procs && {NOBODY_ELSE_SHOWN}", groups.directory);
        let text = server_text();
        let app = [OTHER_USER, &[PYTHON, "-u", "-c", &text, "127.0.0.1", "8080"]].concat();
        let mut init = start(&setup, UNPRIVILEGED, &["--delay", "1s"], &app);
        listening(8080);
        let request = ask("127.0.0.1:8080", 3.0);
        init.app_line("asked /3");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "found_by"), field(&begun, "ports")), ("cgroup", "8080"), "{begun}");
        answered(request);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[]);
    });
}

/// And behind a shell that is to be seen, and listens on nothing: that is no app that listens on nothing.
#[test]
fn a_shell_in_front_of_a_hidden_app_is_not_the_app() {
    in_own_network(|| {
        let root = Cgroups::new();
        let setup = format!("echo $$ > {}/cgroup.procs && {NOBODY_ELSE_SHOWN}", root.mount);
        let text = server_text();
        let shell = ["sh", "-c", "trap 'wait $!' TERM; \"$@\" & wait $!", "sh"];
        let app = [&shell[..], OTHER_USER, &[PYTHON, "-u", "-c", &text, "127.0.0.1", "8080"]].concat();
        let mut init = start(&setup, UNPRIVILEGED, &[], &app);
        listening(8080);
        let request = ask("127.0.0.1:8080", 7.0);
        init.app_line("asked /7");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "found_by"), field(&begun, "busy")), ("all", "1"), "{begun}");
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        warned(&mut init, &["all that listens here counts, sidecars too"]);
    });
}

/// No netlink: requests in flight are seen all the same, with `--port` and without.
#[test]
fn without_netlink_a_request_is_held_for_by_port_too() {
    side_by_side([(&["--port", "8080"][..], "--port"), (&[], "descriptors")], |(options, found_by)| {
        in_own_network(move || {
            let options = [&["--delay", "1s"], options].concat();
            let mut init = start("true", &[PYTHON, WITHOUT_NETLINK], &options, &[PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
            init.line("ready");
            let request = ask("127.0.0.1:8080", 4.0);
            init.line("asked");
            init.signal(TERM);
            let begun = init.line("lame-duck");
            assert_eq!((field(&begun, "source"), field(&begun, "found_by")), ("proc_net", found_by), "{begun}");
            answered(request);
            assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
            assert!(after(&mut init) < 15.0, "{:#?}", init.seen);
            assert_eq!(init.exit(), 0);
            warned(&mut init, &[BY_PROC_NET]);
        });
    });
}

/// Sockets that are no listeners, all of them in some table: known to listen on nothing, so told at once.
#[test]
fn without_netlink_an_app_that_listens_on_nothing_is_told_at_once() {
    in_own_network(|| {
        let _elsewhere = std::net::TcpListener::bind("127.0.0.1:9090").expect("a listener");
        let program = "import socket, time; s = socket.create_connection(('127.0.0.1', 9090)); p = socket.socketpair(); u = socket.socket(socket.AF_UNIX); d = socket.socket(type=socket.SOCK_DGRAM); d.connect(('127.0.0.1', 53)); print('ready', flush=True); time.sleep(60)";
        let mut init = start("true", &[PYTHON, WITHOUT_NETLINK], &[], &[PYTHON, "-c", program]);
        init.app_line("ready");
        init.signal(TERM);
        assert!(after(&mut init) < 3.0, "{:#?}", init.seen);
        assert!(init.line(" stopping ").contains("because=\"it listens on nothing\""), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[BY_PROC_NET]);
    });
}

/// No /proc at all: netlink sees the connections, `--port` says which.
#[test]
fn without_proc_the_named_port_is_watched() {
    in_own_network(|| {
        let options = ["--delay", "1s", "--port", "8080"];
        let mut init = start(NO_PROC, &[], &options, &[PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 7.0);
        init.line("asked");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "source"), field(&begun, "busy")), ("sock_diag", "1"), "{begun}");
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[]);
    });
}

// Tables that are there and tell little, as a sandbox's kernel may have them.

/// A /proc/net of our own for PID 1: these connections, no tcp6, and the rest as it is.
fn tables(name: &str, rows: &str) -> String {
    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode                                                     ";
    let directory = std::env::temp_dir().join(format!("lameduck-net-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("a directory");
    fs::write(directory.join("tcp"), format!("{HEAD}\n{rows}")).expect("a table");
    fs::write(directory.join("tcp6"), format!("{HEAD}\n")).expect("a table");
    for table in ["snmp", "udp", "udp6", "unix"] {
        std::os::unix::fs::symlink(format!("/proc/thread-self/net/{table}"), directory.join(table)).expect("a link");
    }
    format!("mount --bind {} /proc/$$/net", directory.display())
}

/// Nothing but a header: that no listener is shown does not mean that the app listens on nothing.
#[test]
fn an_empty_table_is_no_app_that_listens_on_nothing() {
    in_own_network(|| {
        let app = [PYTHON, "-u", SERVER, "127.0.0.1", "8080"];
        let mut init =
            start(&tables("empty", ""), &[PYTHON, WITHOUT_NETLINK], &["--grace-period", "20s", "--quiet-period", "3s"], &app);
        init.line("ready");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), "none");
        // The delay's default.
        assert!((5.0..7.0).contains(&after(&mut init)), "{:#?}", init.seen);
        assert!(init.line(" stopping ").contains("because=\"the delay was over\""), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[BY_PROC_NET, "does not show what the app listens on"]);
    });
}

/// The same with `--port`: arrivals are counted by the namespace's counter, requests in flight are not to be seen.
#[test]
fn an_empty_table_and_a_named_port() {
    in_own_network(|| {
        let app = [PYTHON, "-u", SERVER, "127.0.0.1", "8080"];
        let options = ["--delay", "2s", "--quiet-period", "2s", "--port", "8080"];
        let mut init = start(&tables("named", ""), &[PYTHON, WITHOUT_NETLINK], &options, &app);
        init.line("ready");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), "proc_net");
        // Each is an arrival: for so long it serves on.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(5) {
            answered(ask("127.0.0.1:8080", 0.5));
        }
        assert!(after(&mut init) >= 6.0, "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[BY_PROC_NET, "nothing that listens on port 8080 (--port) is to be seen"]);
    });
}

/// Connections without queues, for ever the same rows: held for 5 s, and no longer.
#[test]
fn a_table_without_queues_holds_for_five_seconds() {
    in_own_network(|| {
        let row = |slot: u32, remote: &str, state: &str, inode: u32| {
            format!(
                "{slot:4}: 0100007F:1F90 {remote} {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 0 0000000000000000 0 0 0 0 0\n"
            )
        };
        let rows = row(0, "00000000:0000", "0A", 77) + &row(1, "0100007F:D431", "01", 78) + &row(2, "0100007F:D432", "01", 79);
        let app = [PYTHON, "-u", SERVER, "127.0.0.1", "8080"];
        let mut init = start(&tables("constant", &rows), &[PYTHON, WITHOUT_NETLINK], &["--delay", "1s", "--port", "8080"], &app);
        init.line("ready");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        // Busy where the kernel's delayed-ACK bit would say that they are asked; on older kernels it says nothing. They are held for both.
        let release = lameduck::sys::kernel_release().expect("the kernel's release");
        let (cooling, busy) = if lameduck::sys::proc::ping_pong_tells(&release) { ("0", "2") } else { ("2", "0") };
        let counts = (field(&begun, "source"), field(&begun, "cooling"), field(&begun, "busy"));
        assert_eq!(counts, ("proc_net", cooling, busy), "{begun}");
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert!((4.9..12.0).contains(&after(&mut init)), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[BY_PROC_NET]);
    });
}

// Nothing left.

/// Without netlink and /proc: the clock is kept, and the exit code is the app's own.
#[test]
fn blind_the_exit_code_is_the_app_s() {
    in_own_network(|| {
        let program =
            "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('ready', flush=True); time.sleep(60)";
        let mut init = start(NO_PROC, &[PYTHON, WITHOUT_NETLINK], &["--delay", "1s"], &[PYTHON, "-c", program]);
        init.app_line("ready");
        init.signal(TERM);
        assert!((1.0..3.0).contains(&after(&mut init)), "{:#?}", init.seen);
        assert_eq!(init.exit(), 7);
        warned(&mut init, &[BY_PROC_NET, BLIND]);
    });
}

/// An app that does not listen to its stop signal is killed in time.
#[test]
fn blind_the_budget_is_kept() {
    in_own_network(|| {
        let program = "import signal, time; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); time.sleep(60)";
        let options = ["--delay", "1s", "--grace-period", "5s"];
        let mut init = start(NO_PROC, &[PYTHON, WITHOUT_NETLINK], &options, &[PYTHON, "-c", program]);
        init.app_line("ready");
        let begun = Instant::now();
        init.signal(TERM);
        assert_eq!(init.exit(), 137);
        assert!((4.4..6.0).contains(&begun.elapsed().as_secs_f64()), "{:?}", begun.elapsed());
        warned(&mut init, &[BY_PROC_NET, BLIND, " killing "]);
    });
}

/// The sockets are not to be seen, but the app says that it is working: its word is enough.
#[test]
fn blind_the_app_s_own_word_is_enough() {
    in_own_network(|| {
        let options = ["--delay", "1s", "--in-flight", "http://127.0.0.1:9100/metrics#jobs{kind=\"web\"}-1"];
        let mut init = start(NO_PROC, &[PYTHON, WITHOUT_NETLINK], &options, &[PYTHON, "-u", METRIC, "counts"]);
        init.line("ready");
        init.signal(TERM);
        init.line("nothing to do any more");
        assert!(!init.seen.iter().any(|line| line.contains(" stopping ")), "{:#?}", init.seen);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[BY_PROC_NET, BLIND]);
    });
}

// Faults in the middle of the wait.

/// What the kernel says by netlink to this lameduck is spoilt as asked for; faults.py says how.
struct Faults {
    supervisor: Child,
    stdin: ChildStdin,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Faults {
    fn start(options: &[&str], app: &[&str]) -> (Faults, Pid1) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lameduck-faults-{}-{}.sock", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name).to_str().expect("a plain path").to_owned();
        let _ = fs::remove_file(&path);
        let mut supervisor = Command::new(PYTHON)
            .args(["-u", FAULTS, "serve", &path])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let stdin = supervisor.stdin.take().unwrap();
        let lines = BufReader::new(supervisor.stdout.take().unwrap()).lines();
        let mut faults = Faults { supervisor, stdin, lines };
        assert_eq!(faults.line(), "ready");
        let mut init = start("true", &[PYTHON, FAULTS, "run", &path], options, app);
        init.line("ready");
        let _ = fs::remove_file(&path);
        (faults, init)
    }

    fn line(&mut self) -> String {
        self.lines.next().expect("the supervisor's line").expect("the supervisor's line")
    }

    /// From now on, until it has happened at least once.
    fn happens(&mut self, fault: &str) {
        writeln!(self.stdin, "{fault}").expect("the supervisor");
        assert_eq!(Some(&self.line()[..]), fault.split(' ').next());
        assert_eq!(self.line(), "hit");
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        let _ = self.supervisor.kill();
        let _ = self.supervisor.wait();
    }
}

const APP: &[&str] = &[PYTHON, "-u", SERVER, "127.0.0.1", "8080"];

const INCOMPLETE: &str = "a look at the sockets was incomplete: nothing follows from what such a look lacks";

/// A piece that is lost, cut or nonsense: asked again, and nothing is given up.
#[test]
fn one_spoilt_answer_of_the_kernel_changes_nothing() {
    side_by_side(["full once", "cut once", "noise once", "gone once", "torn once"], |fault| {
        in_own_network(move || {
            let (mut faults, mut init) = Faults::start(&["--delay", "1s"], APP);
            let request = ask("127.0.0.1:8080", 7.0);
            init.line("asked /7");
            init.signal(TERM);
            init.line("lame-duck");
            faults.happens(fault);
            answered(request);
            assert!(init.line(" stopping ").contains("because=drained"), "{fault}: {:#?}", init.seen);
            assert_eq!(init.exit(), 0, "{fault}");
            let exit = init.line(" exit ");
            assert_eq!((field(&exit, "finished"), field(&exit, "cut")), ("1", "0"), "{fault}: {exit}");
            assert_eq!(field(&exit, "accepted"), "0", "{fault}: {exit}");
            // Not if it hit the look for new listeners, or the end of a look, which is then taken again.
            let spoilt = ["cut once", "noise once", "torn once"].contains(&fault);
            let incomplete = spoilt && init.seen.iter().any(|line| line.contains(INCOMPLETE));
            warned(&mut init, if incomplete { &[INCOMPLETE] } else { &[] });
        });
    });
}

/// Netlink answers no more in the middle of the wait: /proc/net/tcp takes over, with a baseline of its own, and one warning says so.
#[test]
fn netlink_lost_in_the_middle() {
    side_by_side(["full", "cut", "noise", "gone", "late"], |fault| {
        in_own_network(move || {
            let (mut faults, mut init) = Faults::start(&["--delay", "2s", "--log-level", "debug"], APP);
            init.signal(TERM);
            assert_eq!(field(&init.line("lame-duck"), "source"), "sock_diag");
            let request = ask("127.0.0.1:8080", 4.0);
            init.line(" look busy=1 ");
            faults.happens(fault);
            init.line(BY_PROC_NET);
            answered(request);
            assert!(init.line(" stopping ").contains("because=drained"), "{fault}: {:#?}", init.seen);
            assert!(after(&mut init) < 15.0, "{fault}: {:#?}", init.seen);
            assert_eq!(init.exit(), 0, "{fault}");
            let exit = init.line(" exit ");
            let counts = (field(&exit, "accepted"), field(&exit, "finished"), field(&exit, "cut"));
            assert_eq!(counts, ("1", "1", "0"), "{fault}: {exit}");
            warned(&mut init, &[BY_PROC_NET]);
        });
    });
}

/// A look that takes longer than a slice is gone on with, a slice each second, and comes to its end.
#[test]
fn looks_that_take_long_are_finished() {
    in_own_network(|| {
        let (mut faults, mut init) = Faults::start(&["--delay", "1s", "--grace-period", "60s"], APP);
        let request = ask("127.0.0.1:8080", 5.0);
        init.line("asked /5");
        init.signal(TERM);
        init.line("lame-duck");
        faults.happens("slow");
        init.signal(18);
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert!(after(&mut init) < 20.0, "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[]);
    });
}

/// Tables that change while they are read, each time: nothing follows from what is missing, so it is held until time is up.
#[test]
fn tables_torn_for_ever_hold_until_time_is_up() {
    in_own_network(|| {
        let options = ["--delay", "1s", "--grace-period", "8s", "--stop-timeout", "2s"];
        let (mut faults, mut init) = Faults::start(&options, APP);
        init.signal(TERM);
        init.line("lame-duck");
        faults.happens("torn");
        assert!(init.line(" stopping ").contains("because=\"the time for waiting was up\""), "{:#?}", init.seen);
        assert!((5.0..7.0).contains(&after(&mut init)), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        warned(&mut init, &[INCOMPLETE]);
    });
}

// Listeners that come, go, and change hands.

/// The app closes its listener while a request is in flight: that is held for all the same.
#[test]
fn a_listener_that_vanishes_takes_no_request_with_it() {
    in_own_network(|| {
        let app = [APP, &["closes"]].concat();
        let mut init = start("true", &[], &["--delay", "1s"], &app);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 6.0);
        init.line("asked /6");
        init.signal(TERM);
        init.line("lame-duck");
        init.signal(1);
        init.line("closed 8080");
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        let exit_code = init.exit();
        let exit = init.line(" exit ");
        assert_eq!((exit_code, field(&exit, "finished"), field(&exit, "cut")), (0, "1", "0"), "{exit}");
        warned(&mut init, &[]);
    });
}

/// Another process takes the port: its connections cannot be told from the app's, which is said; the budget is kept.
#[test]
fn a_port_that_changes_hands_is_said() {
    in_own_network(|| {
        let app = [APP, &["closes"]].concat();
        // It takes the port when it is told to: an interpreter that starts only then may be too late.
        let other = support::Sidecar::start(&[PYTHON, "-u", SERVER, "127.0.0.1", "8079", "later"]);
        let options = ["--delay", "6s", "--grace-period", "12s", "--stop-timeout", "2s"];
        let mut init = start("true", &[], &options, &app);
        init.line("ready");
        init.signal(TERM);
        init.line("lame-duck");
        init.signal(1);
        init.line("closed 8080");
        other.signal(1);
        listening(8080);
        let request = ask("127.0.0.1:8080", 60.0);
        init.line("another process listens on port 8080 now");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the time for waiting was up\""), "{stopping}");
        assert!((8.7..10.5).contains(&after(&mut init)), "{stopping}");
        assert_eq!(init.exit(), 0);
        warned(&mut init, &["its connections count too"]);
        drop(other);
        let _ = request.join();
    });
}

// Too much to look at.

fn held_in_a_crowd(processes: &'static str, descriptors: &'static str) {
    in_own_network(move || {
        let root = Cgroups::new();
        let setup = format!("echo $$ > {}/cgroup.procs", root.mount);
        let options = ["--delay", "3s", "--grace-period", "60s"];
        let mut init = start(&setup, &[], &options, &[PYTHON, "-u", CROWD, processes, descriptors]);
        init.line("ready");
        let request = ask("127.0.0.1:8080", 8.0);
        init.line("asked /8");
        let begun = Instant::now();
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "found_by"), "all");
        assert!(begun.elapsed() < Duration::from_secs(6), "the walk took {:?}", begun.elapsed());
        let hung_up = Instant::now();
        init.signal(1);
        init.line("hello");
        assert!(hung_up.elapsed() < Duration::from_secs(3), "the signal took {:?}", hung_up.elapsed());
        answered(request);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "cut"), "0");
        warned(&mut init, &["all that listens here counts, sidecars too"]);
    });
}

/// 5000 processes: more than are walked.
#[test]
fn a_process_tree_too_large_to_walk() {
    held_in_a_crowd("5000", "0");
}

/// 75,000 descriptors: more than are read.
#[test]
fn more_descriptors_than_are_read() {
    held_in_a_crowd("4", "15000");
}
