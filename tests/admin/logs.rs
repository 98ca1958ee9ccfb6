//! The log: four formats of the same events, read by parsers that are not ours; no secrets; and a stderr on which nothing can be written.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network};
use crate::{ADMIN, APP, TERM, field, get, jq, run, seconds};

/// A python that has the readers of LTSV and logfmt from PyPI: tests/run installs it.
const READERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/readers/bin/python");

fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("lameduck-test-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join(name);
    let _ = fs::remove_file(&path);
    path
}

const FORMATS: [&str; 4] = ["json", "logfmt", "ltsv", "text"];

/// A log as JSON, an object a line, by other people's readers. Text is for people: read as a shell would.
fn read(format: &str, log: &str) -> String {
    const READ: &str = "
import json, shlex, sys
def text(line):
    time, name, level, event, *rest = shlex.split(line)
    assert name == 'lameduck', line
    return dict([('time', time), ('level', level), ('event', event)] + [word.split('=', 1) for word in rest])
if sys.argv[1] == 'ltsv':
    import ltsv
    rows = ltsv.DictReader(sys.stdin)
elif sys.argv[1] == 'logfmt':
    import logfmt
    rows = logfmt.parse(sys.stdin)
else:
    rows = map(text, sys.stdin)
for row in rows:
    print(json.dumps(row))
";
    if format == "json" {
        return jq("map_values(tostring)", log);
    }
    let (code, said) = run(&[READERS, "-c", READ, format], log);
    assert_eq!(code, 0, "{format}: {said}\n{log}");
    said
}

/// A whole life, from before the start to the exit, with a warning, and its log.
fn life(format: &str) -> String {
    let log = scratch(&format!("life.{format}"));
    let scene = format!("exec \"$0\" \"$@\" 2>{}", log.display());
    let options = ["--admin", ADMIN, "--delay", "200ms", "--quiet-period", "0s", "--log-format", format];
    let missing = ["--termination-log", "/no/such/place", "--cpu-request", "1500m"];
    let argv = [&["sh", "-c", &scene, LAMEDUCK][..], &options, &missing, &["--", PYTHON, "-u", APP, "a b", "c=\"d\""]].concat();
    let mut init = Pid1::start(&argv);
    init.app_line("ready");
    assert_eq!(get("/readyz").status, 200);
    init.signal(TERM);
    assert_eq!(init.exit(), 0);
    fs::read_to_string(&log).unwrap()
}

#[test]
fn every_format_tells_the_same_events() {
    in_own_network(|| {
        let clock = || run(&["date", "+%s%3N"], "").1.trim().parse::<u64>().unwrap();
        // What differs from run to run: times, and how long things took.
        const STABLE: &str = r#"del(.time) | with_entries(if .key | test("^(after|serving|lame_duck|draining|stopping|flushing)$") then .value = (.value | test("^[0-9.]+m?s$")) else . end)"#;
        let mut told = Vec::new();
        for format in FORMATS {
            let before = clock();
            let log = life(format);
            let after = clock();
            let events = read(format, &log);
            assert_eq!(events.lines().count(), log.lines().count(), "{format}: {events}\n{log}");
            assert_eq!(
                jq("keys_unsorted[:3] | join(\" \")", &events).lines().find(|keys| *keys != "time level event"),
                None,
                "{events}"
            );
            let mut last = before;
            for time in jq(".time", &events).lines() {
                let milli = time.strip_suffix('Z').filter(|time| time.len() == "2026-11-21T08:00:00.000".len());
                assert!(milli.is_some_and(|time| time.as_bytes()[10] == b'T' && time.as_bytes()[19] == b'.'), "{time}");
                // GNU date reads RFC 3339.
                let at: u64 = run(&["date", "-d", time, "+%s%3N"], "").1.trim().parse().expect(time);
                assert!((last..=after).contains(&at), "{format}: {time} is not between {last} and {after}");
                last = at;
            }
            told.push((format, jq(STABLE, &events)));
        }
        let (_, first) = told[0].clone();
        let names = "admin start warning ready stop-requested lame-duck stopping exit warning";
        let seen: Vec<String> = jq(".event", &first).lines().map(str::to_owned).collect();
        for name in names.split(' ') {
            assert!(seen.iter().any(|event| event == name), "no {name} in {seen:?}");
        }
        for (format, events) in &told {
            assert_eq!(*events, first, "{format} tells otherwise than {}", told[0].0);
        }
    });
}

/// What a command may hold arrives as it was; where a format or its reader has no way to say it, by its own rule.
#[test]
fn odd_values_arrive_whole() {
    let odd = "a  b=\"c\" \u{e4}\u{2702}\u{1f986} 'd' {e}:f %s\ttab\nline\u{1}\u{7f}\"g\"";
    in_own_network(move || {
        for (format, expected) in [
            ("json", odd.to_owned()),
            // Labels and values are between tabs: these are shown.
            ("ltsv", odd.replace('\t', "\\t").replace('\n', "\\n")),
            // Quoted as in JSON; this reader drops the backslash of all but quotes, and until the next quote takes none for the end.
            ("logfmt", odd.replace('\t', "t").replace('\n', "n").replace('\u{1}', "u0001").replace('\u{7f}', "u007f")),
        ] {
            let log = scratch(&format!("odd.{format}"));
            let scene = format!("exec \"$0\" \"$@\" 2>{}", log.display());
            let mut init = Pid1::start(&["sh", "-c", &scene, LAMEDUCK, "--log-format", format, "--", "echo", odd]);
            assert_eq!(init.exit(), 0);
            let events = read(format, &fs::read_to_string(&log).unwrap());
            let said = jq("select(.event == \"start\").command", &events);
            assert_eq!(said, format!("echo {expected}"), "{format}");
        }
    });
}

/// In no format, at no level, nowhere: what looks like a secret, by the name of its variable or option, or in a URL.
#[test]
fn no_secret_is_ever_shown() {
    const SECRETS: &[&str] =
        &["hunter2hunter2", "tok-9fz", "s3cr3t with blanks", "abcd1234", "swordfish", "open sesame", "urlpassw0rd", "k-5512"];
    let variables = [
        ("DB_PASSWORD", SECRETS[0]),
        ("API_TOKEN", SECRETS[1]),
        ("CLIENT_SECRET", SECRETS[2]),
        ("aws_access_key_id", SECRETS[3]),
        ("DATABASE_URL", "postgres://shop:urlpassw0rd@db/shop"),
    ];
    // In the command, too: as options, as assignments, in a shell's script; and what a setting quotes.
    let script = format!("SHOP_SECRET='{}' exec \"$@\" {} {} {}", SECRETS[5], SECRETS[0], SECRETS[2], SECRETS[3]);
    let command =
        ["sh", "-c", &script, "sh", PYTHON, "-u", APP, "--password", SECRETS[4], "--api-key=k-5512", "mysql://u:urlpassw0rd@h/x"];
    let command: Vec<String> = command.iter().map(ToString::to_string).collect();
    let is_clean = |what: &str, text: &str| {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{what} shows {secret:?}:\n{text}");
        }
    };
    in_own_network(move || {
        let argv = |options: &[&str]| -> Vec<String> {
            let options = options.iter().map(ToString::to_string);
            options.chain(["--".to_owned()]).chain(command.iter().cloned()).collect()
        };
        let lameduck = |arguments: Vec<String>| {
            let output = Command::new(LAMEDUCK).args(arguments).envs(variables).output().unwrap();
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
        };
        let said = lameduck([vec!["plan".to_owned()], argv(&[])].concat());
        assert!(said.contains("mysql://***@h/x") && said.contains("--password ***"), "{said}");
        is_clean("plan", &said);
        for check in ["exec:check --password swordfish", "exec:env TOKEN=swordfish check", "exec:curl http://u:urlpassw0rd@h/"] {
            let said = lameduck(vec!["plan".into(), "--ready".into(), check.into()]);
            assert!(said.contains("exec:") && said.contains("***"), "{said}");
            is_clean("plan", &said);
        }
        // What cannot be done is quoted as it was written.
        let url = "http://u:urlpassw0rd@127.0.0.1:8080/ok";
        for wrong in [
            &["--admin", "hunter2hunter2"][..],
            &["--ready", url],
            &["--warm-up", url],
            &["--in-flight", url],
            &["--ready", "postgres://u:urlpassw0rd@h"],
            &["--template", "/tok-9fz:/x"],
        ] {
            let said = lameduck(argv(wrong));
            assert!(said.contains("***"), "{wrong:?}: {said}");
            is_clean("an error", &said);
        }
        is_clean("an error", &lameduck(vec!["--".into(), "/no/such/hunter2hunter2".into()]));

        for format in FORMATS {
            let (log, message) = (scratch(&format!("secrets.{format}")), scratch(&format!("secrets.{format}.message")));
            let scene = format!("exec \"$0\" \"$@\" 2>{}", log.display());
            let message_path = message.to_str().unwrap();
            let settings = ["--admin", ADMIN, "--delay", "200ms", "--quiet-period", "0s", "--log-level", "debug"];
            let more = ["--log-format", format, "--termination-log", message_path, "--ready", "exec:env TOKEN=swordfish true"];
            let all =
                [&["sh".to_owned(), "-c".to_owned(), scene, LAMEDUCK.to_owned()][..], &argv(&[&settings[..], &more].concat())]
                    .concat();
            let mut init =
                Pid1::spawn(&all.iter().map(String::as_str).collect::<Vec<_>>(), |command| _ = command.envs(variables));
            init.app_line("ready");
            assert_eq!(get("/readyz").status, 200);
            for path in ["/status", "/status?drawn", "/metrics", "/readyz"] {
                let body = get(path).body;
                assert!(!path.starts_with("/status") || body.contains("--password ***"), "{body}");
                is_clean(path, &body);
            }
            init.signal(TERM);
            assert_eq!(init.exit(), 0);
            let said = fs::read_to_string(&log).unwrap();
            assert!(said.contains("--password ***") && said.contains("mysql://***@h/x") && said.contains("exit"), "{said}");
            is_clean(format, &said);
            is_clean("the termination message", &fs::read_to_string(&message).unwrap());
        }
    });
}

/// PID 1 with `stderr`, and what became of it.
struct Deaf {
    init: Pid1,
    message: PathBuf,
}

impl Deaf {
    /// `stderr`: a shell's redirection; its stdin is `stdin`. `wrap`: words before lameduck's.
    fn start(name: &str, stderr: &str, stdin: Option<OwnedFd>, wrap: &[&str], app: &[&str]) -> Deaf {
        let message = scratch(&format!("{name}.message"));
        fs::write(&message, "").unwrap();
        run(&["chmod", "666", message.to_str().unwrap()], "");
        let scene = format!("exec \"$0\" \"$@\" {stderr} </dev/null");
        let words = [wrap, &[LAMEDUCK]].concat();
        let options =
            ["--grace-period", "20s", "--delay", "1s", "--quiet-period", "0s", "--stop-timeout", "5s", "--admin", ADMIN];
        let told = ["--termination-log", message.to_str().unwrap(), "--", PYTHON, "-u", APP];
        let argv = [&["sh", "-c", &scene][..], &words, &options, &told, app].concat();
        let init = Pid1::spawn(&argv, move |command| {
            if let Some(stdin) = stdin {
                command.stdin(stdin);
            }
        });
        Deaf { init, message }
    }

    /// That it serves: it answers, its app runs, and has its streams as they were.
    fn serves(&mut self) {
        self.init.app_line("ready");
        assert_eq!(get("/livez").status, 200);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.init.pid)).unwrap();
        let app = children.split_whitespace().next().unwrap();
        for stream in [1, 2] {
            let Ok(info) = fs::read_to_string(format!("/proc/{app}/fdinfo/{stream}")) else { continue };
            let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
            let flags = i32::from_str_radix(flags.trim(), 8).unwrap();
            assert_eq!(flags & OFlag::O_NONBLOCK.bits(), 0, "{stream}: O_NONBLOCK is the app's now");
        }
    }

    fn dropped() -> u64 {
        let page = get("/metrics").body;
        let count = page.lines().find_map(|line| line.strip_prefix("lameduck_dropped_log_lines_total ")).unwrap();
        count.parse().unwrap()
    }

    /// All in its time, by its own account, which is the termination message; the log has none.
    fn dies_well(mut self) -> String {
        self.init.signal(TERM);
        assert_eq!(self.init.exit(), 0, "{:?}", self.init.seen);
        let message = fs::read_to_string(&self.message).unwrap();
        let took = |phase: &str| {
            let (_, rest) = message.split_once(&format!(" {phase} ")).unwrap_or_else(|| panic!("no {phase} in {message}"));
            seconds(rest.split([',', ';']).next().unwrap())
        };
        assert!(message.contains("began by TERM") && message.contains("stop signal sent because drained"), "{message}");
        assert!((1.0..5.0).contains(&took("lame-duck")) && took("stopping") < 4.0, "{message}");
        message
    }
}

/// Fills a descriptor that is then as blocking as before.
fn fill(mut file: &File) {
    let flags = OFlag::from_bits_truncate(fcntl(file, FcntlArg::F_GETFL).unwrap());
    fcntl(file, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).unwrap();
    // A terminal moves what it has to its other end a little later, and has room again.
    while file.write(b"x").is_ok() {
        for chunk in [4096, 1] {
            while file.write(&vec![b'x'; chunk]).is_ok() {}
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    fcntl(file, FcntlArg::F_SETFL(flags)).unwrap();
}

fn full_pipe() -> (std::io::PipeReader, OwnedFd) {
    let (reader, writer) = std::io::pipe().unwrap();
    let writer = File::from(OwnedFd::from(writer));
    fill(&writer);
    (reader, writer.into())
}

/// As uid 33: the pipe is root's, and can't be opened anew.
const AS_ANOTHER: &[&str] = &["setpriv", "--reuid", "33", "--regid", "33", "--clear-groups"];

/// Full, and read again later: what was lost is counted, said, and nothing is written in part.
#[test]
fn a_full_pipe_and_what_was_lost() {
    in_own_network(|| {
        for (name, wrap) in [("own", &[][..]), ("another's", AS_ANOTHER)] {
            let (mut reader, writer) = full_pipe();
            let mut deaf = Deaf::start(name, "2>&0", Some(writer), wrap, &[]);
            deaf.serves();
            let lost = Deaf::dropped();
            // At least `admin` and `start`.
            assert!(lost >= 2, "{name}: {lost}");
            let filled = reader_has(&reader);
            reader.read_exact(&mut vec![0; filled]).unwrap();
            // Something happens: the loss is said first, then that.
            assert_eq!(get("/readyz").status, 200);
            let mut more = [0; 4096];
            let length = reader.read(&mut more).unwrap();
            let text = String::from_utf8_lossy(&more[..length]).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            assert!(
                lines[0].contains("warn warning message=\"log lines were lost: stderr did not take them\""),
                "{name}: {text}"
            );
            assert_eq!(field(lines[0], "lines"), lost.to_string(), "{name}");
            assert!(lines.len() == 2 && lines[1].contains(" info ready"), "{name}: {text}");
            assert_eq!(Deaf::dropped(), lost, "nothing was lost since");
            deaf.dies_well();
            let mut rest = String::new();
            reader.read_to_string(&mut rest).unwrap();
            assert!(rest.lines().last().unwrap().contains(" info exit ") && !rest.contains("lost"), "{rest}");
        }
    });
}

/// How much waits in a pipe.
fn reader_has(reader: &std::io::PipeReader) -> usize {
    use std::os::fd::AsRawFd;
    let mut length: i32 = 0;
    // SAFETY: writes an int to where one is.
    assert_eq!(unsafe { libc::ioctl(reader.as_raw_fd(), libc::FIONREAD, &mut length) }, 0);
    length as usize
}

/// What poll says of a descriptor that is written to.
fn poll(to: &impl std::os::fd::AsRawFd) -> i16 {
    let mut poll = libc::pollfd { fd: to.as_raw_fd(), events: libc::POLLOUT, revents: 0 };
    // SAFETY: one pollfd, and a timeout of zero.
    unsafe { libc::poll(&mut poll, 1, 0) };
    poll.revents
}

/// An app that floods the same pipe, blocked in its write for good.
#[test]
fn a_pipe_that_the_app_floods() {
    in_own_network(|| {
        let (_reader, writer) = std::io::pipe().unwrap();
        let shared = writer.try_clone().unwrap();
        let mut deaf = Deaf::start("flooded", "2>&0", Some(writer.into()), &[], &["floods"]);
        deaf.serves();
        eventually("it is full", || (poll(&shared) & libc::POLLOUT == 0).then_some(()));
        deaf.dies_well();
    });
}

#[test]
fn a_stderr_that_takes_nothing() {
    in_own_network(|| {
        for (name, stderr) in [("closed", "2>&-"), ("read-only", "2</dev/null"), ("no-space", "2>/dev/full")] {
            let mut deaf = Deaf::start(name, stderr, None, &[], &[]);
            deaf.serves();
            // Where it is closed it is /dev/null, which takes everything.
            assert!(name == "closed" || Deaf::dropped() >= 2, "{name}");
            deaf.dies_well();
        }
        // A socket that is full.
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let theirs = File::from(OwnedFd::from(theirs));
        fill(&theirs);
        let mut deaf = Deaf::start("socket", "2>&0", Some(theirs.into()), &[], &[]);
        deaf.serves();
        assert!(Deaf::dropped() >= 2);
        deaf.dies_well();
        drop(ours);
    });
}

fn terminal() -> (nix::pty::PtyMaster, File) {
    use std::os::unix::fs::OpenOptionsExt;
    let master = nix::pty::posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    nix::pty::grantpt(&master).unwrap();
    nix::pty::unlockpt(&master).unwrap();
    let path = nix::pty::ptsname_r(&master).unwrap();
    let slave = File::options().read(true).write(true).custom_flags(OFlag::O_NOCTTY.bits()).open(path).unwrap();
    (master, slave)
}

/// One that nobody reads (Ctrl-S, or a client that went away), and one that has hung up, where every write is EIO.
#[test]
fn a_terminal_that_takes_nothing() {
    in_own_network(|| {
        let (master, slave) = terminal();
        fill(&slave);
        let mut deaf = Deaf::start("full-terminal", "2>&0", Some(slave.into()), &[], &[]);
        deaf.serves();
        assert!(Deaf::dropped() >= 2);
        deaf.dies_well();
        drop(master);

        let (master, slave) = terminal();
        let ours = slave.try_clone().unwrap();
        let mut deaf = Deaf::start("hung-up", "2>&0", Some(slave.into()), &[], &[]);
        deaf.init.app_line("ready");
        drop(master);
        // Children of other tests hold copies until they exec.
        eventually("it has hung up", || (poll(&ours) & libc::POLLHUP != 0).then_some(()));
        let before = Deaf::dropped();
        assert_eq!(get("/readyz").status, 200);
        assert!(Deaf::dropped() > before, "`ready` had nowhere to go");
        deaf.dies_well();
    });
}

/// A disk that fills up takes a line in part; what comes when there is room again stands on a line of its own.
#[test]
fn a_disk_that_fills_up() {
    in_own_network(|| {
        let disk = scratch("disk");
        fs::create_dir_all(&disk).unwrap();
        let path = disk.to_str().unwrap().to_owned();
        assert_eq!(run(&["mount", "-t", "tmpfs", "-o", "size=8k", "none", &path], "").0, 0);
        // Two pages: so much of the first is taken that a line or two still fit.
        fs::write(disk.join("log"), [b'x'; 4096 - 200].as_slice()).unwrap();
        fs::write(disk.join("ballast"), [b'x'; 4096].as_slice()).unwrap();
        let mut deaf = Deaf::start("disk", &format!("2>>{path}/log"), None, &[], &[]);
        deaf.serves();
        let lost = Deaf::dropped();
        assert!(lost >= 1, "{lost}");
        fs::remove_file(disk.join("ballast")).unwrap();
        assert_eq!(get("/readyz").status, 200);
        deaf.dies_well();
        let log = fs::read_to_string(disk.join("log")).unwrap();
        assert_eq!(run(&["umount", &path], "").0, 0);
        let lines: Vec<&str> = log.trim_start_matches('x').lines().collect();
        let said = lines.iter().position(|line| line.contains("log lines were lost")).expect(&log);
        assert_eq!(field(lines[said], "lines"), lost.to_string(), "{log}");
        for line in &lines[said..] {
            assert_eq!(line.matches(" lameduck ").count(), 1, "{line:?} in {log}");
        }
        assert!(lines[..said].last().is_some_and(|torn| !torn.is_empty()), "a line went in part: {log}");
        assert!(lines.last().unwrap().contains(" info exit "), "{log}");
    });
}

/// As many lines as a pipe has room for: short ones do not take a page each.
#[test]
fn many_lines_before_anybody_reads() {
    in_own_network(|| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let scene = "exec \"$0\" \"$@\" 2>&0 </dev/null";
        let options = ["--log-level", "debug", "--rewrite", "URG:0", "--", "sh", "-c"];
        // It waits for each to be taken: signals that are pending already come once.
        let app = "i=0; while [ $i -lt 100 ]; do kill -URG 1; i=$((i+1)); sleep 0.01; done";
        let argv = [&["sh", "-c", scene, LAMEDUCK][..], &options, &[app]].concat();
        let mut init = Pid1::spawn(&argv, move |command| _ = command.stdin(writer));
        assert_eq!(init.exit(), 0);
        let mut log = String::new();
        reader.read_to_string(&mut log).unwrap();
        let said = log.lines().filter(|line| line.contains("signal=URG")).count();
        assert!(said > 50 && !log.contains("lost"), "{said}: {log}");
        assert!(log.lines().last().unwrap().contains(" info exit "), "{log}");
    });
}
