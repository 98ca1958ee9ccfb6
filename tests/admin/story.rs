//! The last word: the `exit` event and the termination message tell what happened, each in one line, and both the same.

use std::fs;
use std::process::Command;
use std::thread;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, script, signal_to};
use crate::{ADMIN, APP, TERM, USR1, USR2, field, get, get_from, jq, seconds};

/// The phases of an `exit` event, as its fields are named.
const PHASES: [&str; 7] = ["serving", "lame_duck", "draining", "stopping", "sweeping", "flushing", "killing"];

struct Story {
    init: Pid1,
    message: String,
}

impl Story {
    fn begin(name: &str, options: &[&str], app: &[&str]) -> Story {
        let message = std::env::temp_dir().join(format!("lameduck-test-{}-{name}", std::process::id()));
        let message = message.to_str().unwrap().to_owned();
        let ours = [LAMEDUCK, "--admin", ADMIN, "--quiet-period", "0s", "--termination-log", &message];
        let mut init = Pid1::start(&[&ours[..], options, &["--", PYTHON, "-u", APP], app].concat());
        init.app_line("ready");
        Story { init, message }
    }

    /// The exit event and the termination message, which agree.
    fn end(mut self, code: i32) -> (String, String) {
        assert_eq!(self.init.exit(), code, "{:#?}", self.init.seen);
        let message = fs::read_to_string(&self.message).unwrap();
        let _ = fs::remove_file(&self.message);
        let exit = self.init.line(" info exit ");
        assert!(message.len() < 4096 && !message.contains('\n'), "{message}");
        assert!(message.starts_with(&format!("lameduck: exit {code}, ")), "{message}");
        assert_eq!(field(&exit, "code"), code.to_string());
        for phase in PHASES {
            let took = exit.split(' ').find_map(|word| word.strip_prefix(phase)?.strip_prefix('='));
            let said =
                message.split([',', ';']).find_map(|part| part.trim().strip_prefix(&phase.replace('_', "-"))?.strip_prefix(' '));
            assert_eq!(took, said, "{phase}: {exit}\n{message}");
        }
        if exit.contains(" cut=") {
            let counts = format!("; {} connections finished, {} cut", field(&exit, "finished"), field(&exit, "cut"));
            assert!(message.contains(&counts), "{exit}\n{message}");
        }
        let app = exit.split("app=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(message.contains(app), "{exit}\n{message}");
        (exit, message)
    }
}

fn took(exit: &str, phase: &str) -> f64 {
    seconds(field(exit, phase))
}

fn ask(port: u16, path: &'static str) -> thread::JoinHandle<Option<u16>> {
    thread::spawn(move || get_from(&format!("127.0.0.1:{port}"), path).ok().map(|answer| answer.status))
}

/// One is in flight, one comes after the signal, both are served.
#[test]
fn all_went_well() {
    in_own_network(|| {
        let mut story = Story::begin("well", &["--delay", "2s"], &["stays"]);
        let before = ask(8080, "/gate");
        story.init.app_line("asked /gate");
        story.init.signal(TERM);
        story.init.line("lame-duck");
        eventually("a second is over", || {
            let ago: f64 = jq(".stop.seconds_ago", &get("/status").body).parse().unwrap();
            (ago > 1.0).then_some(())
        });
        assert_eq!(ask(8080, "/ok").join().unwrap(), Some(200));
        let draining = story.init.line(" draining ");
        story.init.signal(USR1);
        assert_eq!(before.join().unwrap(), Some(200));
        story.init.app_line("told");
        let page = get("/metrics").body;
        let scraped = page.lines().find_map(|line| line.strip_prefix("lameduck_shutdown_last_accept_seconds ")).unwrap();
        let stopping = story.init.line(" stopping ");
        story.init.signal(USR2);
        let (exit, message) = story.end(0);
        assert_eq!((field(&exit, "accepted"), field(&exit, "finished"), field(&exit, "cut")), ("1", "2", "0"), "{exit}");
        assert!(!exit.contains("cut_on") && exit.contains("app=\"the app exited with 0\""), "{exit}");
        assert!(message.contains("; began by TERM; ") || message.contains("; began by TERM"), "{message}");
        assert!(message.contains("; stop signal sent because drained;"), "{message}");
        // When the last one came: the metric, the field and the message say the same.
        let last = seconds(field(&exit, "last_accept"));
        assert!((1.0..2.5).contains(&last) && (last - scraped.parse::<f64>().unwrap()).abs() < 0.002, "{scraped}: {exit}");
        assert!(message.ends_with(&format!("; the last new one after {}", field(&exit, "last_accept"))), "{message}");
        // Each phase is as long as it was until the next.
        let (began, told) = (seconds(field(&draining, "after")), seconds(field(&stopping, "after")));
        assert!((took(&exit, "lame_duck") - began).abs() < 0.01 && (2.0..3.5).contains(&began), "{draining}\n{exit}");
        assert!((took(&exit, "lame_duck") + took(&exit, "draining") - told).abs() < 0.02, "{stopping}\n{exit}");
        assert!(took(&exit, "serving") > 0.0 && took(&exit, "stopping") > 0.0 && !exit.contains("killing="), "{exit}");
    });
}

/// Never answered, on one port of two; the app ends when it is told.
#[test]
fn cut_and_where() {
    in_own_network(|| {
        let mut story = Story::begin("cut", &["--grace-period", "4s", "--delay", "300ms", "--stop-timeout", "2s"], &["twice"]);
        let requests = [ask(8081, "/silent"), ask(8081, "/silent"), ask(8080, "/after/0.5")];
        (0..3).for_each(|_| _ = story.init.next_app_line("asked /"));
        story.init.signal(TERM);
        let (exit, message) = story.end(0);
        let answers: Vec<_> = requests.into_iter().map(|request| request.join().unwrap()).collect();
        assert_eq!(answers, [None, None, Some(200)]);
        assert_eq!((field(&exit, "finished"), field(&exit, "cut"), field(&exit, "cut_on")), ("1", "2", "8081"), "{exit}");
        assert!(
            message.contains("stop signal sent because the time for waiting was up; 1 connections finished, 2 cut on 8081"),
            "{message}"
        );
        // Until told: 4 s less the margin of 0.5 s and the 2 s of its own.
        assert!((1.4..2.5).contains(&(took(&exit, "lame_duck") + took(&exit, "draining"))), "{exit}");
        assert_eq!(field(&exit, "accepted"), "0");
        assert!(!exit.contains("last_accept="), "none came: {exit}");
    });
}

/// Both ports, and deaf: what we did about it is said.
#[test]
fn killed() {
    in_own_network(|| {
        let options = ["--grace-period", "4s", "--delay", "300ms", "--stop-timeout", "2s"];
        let mut story = Story::begin("killed", &options, &["stays", "twice"]);
        let requests = [ask(8081, "/silent"), ask(8080, "/silent")];
        (0..2).for_each(|_| _ = story.init.next_app_line("asked /silent"));
        story.init.signal(TERM);
        let (exit, message) = story.end(137);
        requests.into_iter().for_each(|request| assert_eq!(request.join().unwrap(), None));
        assert_eq!((field(&exit, "cut"), field(&exit, "cut_on")), ("2", "8080,8081"), "{exit}");
        assert!(
            message.contains("the app had to be killed; began by TERM") && message.contains("2 cut on 8080, 8081"),
            "{message}"
        );
        assert!((1.9..3.0).contains(&took(&exit, "stopping")) && took(&exit, "killing") < 0.5, "{exit}");
    });
}

/// Other beginnings and other ends.
#[test]
fn other_stories() {
    in_own_network(|| {
        // By itself: nothing began it.
        let story = Story::begin("self", &[], &["stays"]);
        story.init.signal(USR2);
        let (exit, message) = story.end(0);
        assert!(
            message.starts_with("lameduck: exit 0, the app exited with 0; serving ") && !message.contains("told"),
            "{message}"
        );
        assert!(!exit.contains("lame_duck=") && !exit.contains("cut="), "nothing was watched: {exit}");
        // Killed by somebody else, as by an OOM.
        let story = Story::begin("oom", &[], &[]);
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", story.init.pid)).unwrap();
        signal_to(children.trim().parse().unwrap(), 9);
        let (_, message) = story.end(137);
        assert!(message.starts_with("lameduck: exit 137, the app died of KILL; serving "), "{message}");
        // Hurried, by the second signal.
        let mut story = Story::begin("hurried", &["--stop-on", "TERM", "--delay", "10s"], &[]);
        story.init.signal(TERM);
        story.init.line("lame-duck");
        story.init.signal(2);
        let (exit, message) = story.end(0);
        assert!(
            message.contains("; began by TERM;") && message.contains("; stop signal sent because hurried by INT;"),
            "{message}"
        );
        assert!(took(&exit, "lame_duck") < 9.0, "{exit}");
        // By another signal than TERM.
        let story = Story::begin("quit", &["--stop-on", "QUIT", "--delay", "100ms"], &[]);
        story.init.signal(3);
        let (_, message) = story.end(0);
        assert!(message.contains("; began by QUIT;") && message.contains("; stop signal sent because drained;"), "{message}");
        // Nobody listens.
        let message = std::env::temp_dir().join(format!("lameduck-test-{}-none", std::process::id()));
        let path = message.to_str().unwrap();
        let mut init = Pid1::start(&[LAMEDUCK, "--termination-log", path, "--", "sh", "-c", "echo ready; exec sleep 1000"]);
        init.app_line("ready");
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
        let said = fs::read_to_string(&message).unwrap();
        assert!(said.contains("; stop signal sent because it listens on nothing"), "{said}");
        let _ = fs::remove_file(&message);
    });
}

/// As by a shorter grace period than we were told.
#[test]
fn killed_from_outside_it_has_said_where_it_was() {
    in_own_network(|| {
        let story = Story::begin("killed", &["--delay", "20s"], &[]);
        let mut init = story.init;
        init.signal(TERM);
        init.line("lame-duck");
        let said = || fs::read_to_string(&story.message).ok().filter(|message| !message.is_empty());
        eventually("it is written", said);
        init.signal(9);
        init.exit();
        let message = said().unwrap();
        assert!(message.starts_with("lameduck: killed from outside, lame-duck since "), "{message}");
        assert!(message.ends_with(" after TERM; its grace period is 30s (--grace-period)"), "{message}");
        let _ = fs::remove_file(&story.message);
    });
}

#[test]
fn a_refused_start_says_why() {
    in_own_network(|| {
        let message = std::env::temp_dir().join(format!("lameduck-test-{}-refused", std::process::id()));
        let path = message.to_str().unwrap();
        for (arguments, code, part) in [
            (&["--termination-log", path, "/no/such/program"][..], 127, "lameduck: cannot run \"/no/such/program\": "),
            (&["--delay", "5 s", "true"], 64, "lameduck: cannot read delay \"5 s\" from --delay: "),
            (&["--no-such", "true"], 64, "lameduck: cannot read option --no-such: "),
            (&["exec", "/etc/os-release"], 126, "lameduck: cannot run "),
        ] {
            let mut init =
                Pid1::spawn(&[&[LAMEDUCK], arguments].concat(), |command| _ = command.env("LAMEDUCK_TERMINATION_LOG", path));
            assert_eq!(init.exit(), code, "{:#?}", init.seen);
            let said = fs::read_to_string(&message).unwrap_or_default();
            assert!(said.starts_with(part), "{arguments:?}: {said}");
            let _ = fs::remove_file(&message);
        }
    });
}

/// Paths that begin nowhere begin where lameduck was started, for the app and for all that comes later.
#[test]
fn relative_paths() {
    in_own_network(|| {
        let directory = std::env::temp_dir().join(format!("lameduck-test-{}-relative", std::process::id()));
        fs::create_dir_all(directory.join("sub")).unwrap();
        for (place, text) in [(".", "#!/bin/sh\ntest -e here\n"), ("sub", "#!/bin/sh\ntest -e there\n")] {
            // By another process, as `script` does it.
            let source = script(&format!("check-{}", text.len()), text);
            let made = Command::new("cp").arg(source).arg(directory.join(place).join("check")).status();
            assert!(made.unwrap().success());
        }
        fs::write(directory.join("here"), "").unwrap();
        fs::write(directory.join("sub/there"), "").unwrap();
        for chdir in [&[][..], &["--chdir", "sub"]] {
            let options = [&["--ready", "exec:./check", "--termination-log", "ended.txt"][..], chdir].concat();
            let argv = [&[LAMEDUCK, "--admin", ADMIN][..], &options, &["--", PYTHON, "-u", APP]].concat();
            let mut init = Pid1::spawn(&argv, |command| _ = command.current_dir(&directory));
            init.app_line("ready");
            assert_eq!(get("/readyz").line(), (200, "ready"), "{chdir:?}");
            init.signal(TERM);
            assert_eq!(init.exit(), 0);
            let said = fs::read_to_string(directory.join("ended.txt")).unwrap_or_default();
            assert!(said.starts_with("lameduck: exit 0"), "{said}");
            fs::remove_file(directory.join("ended.txt")).unwrap();
        }
    });
}
