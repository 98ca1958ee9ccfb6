//! `/readyz` asks the app when it is asked; warm-up before, and what it says while lame duck.

use std::thread;
use std::time::Duration;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, script};
use crate::{ADMIN, APP, Client, HUP, TERM, USR1, USR2, field, get, get_from, probe, run, seconds, start};

/// What `/readyz` says; `/livez` is 200 whatever that is.
fn ready() -> (u16, String) {
    let answer = get("/readyz");
    assert_eq!(get("/livez").status, 200);
    (answer.status, answer.body.trim_end().to_owned())
}

fn is_ready() -> bool {
    ready().0 == 200
}

fn unready(reason: &str) {
    assert_eq!(ready(), (503, reason.to_owned()));
}

/// A verdict counts for a quarter of a second: what has changed shows after it.
fn becomes(status: u16, reason: &str) {
    eventually(reason, || (ready() == (status, reason.to_owned())).then_some(()));
}

#[test]
fn starting_until_the_app_listens() {
    in_own_network(|| {
        let mut init = start(&[], &["later"]);
        init.app_line("begun");
        unready("starting: the app does not listen");
        unready("starting: the app does not listen");
        init.signal(HUP);
        init.app_line("ready");
        becomes(200, "ready");
        init.line(" info ready");
        assert!(is_ready());
        let said = init.rest().iter().filter(|line| line.contains(" info ready")).count();
        assert_eq!(said, 1, "{:#?}", init.seen);
        assert!(!init.seen.iter().any(|line| line.contains("not ready")), "it is no news that it starts: {:#?}", init.seen);
    });
}

/// Before the spawn, too: while something is waited for.
#[test]
fn starting_before_the_app_is_started() {
    in_own_network(|| {
        let mut init = start(&["--wait-for", "tcp://127.0.0.1:8081"], &[]);
        init.line(" admin ");
        unready("starting");
        let page = get("/metrics").body;
        assert!(page.contains("lameduck_phase{phase=\"serving\"} 1") && !page.contains("lameduck_app_processes "), "{page}");
        assert_eq!(crate::jq(".app.pid", &get("/status").body), "null");
        assert!(!init.seen.iter().any(|line| line.contains(" start ")), "{:#?}", init.seen);
        let _there = std::net::TcpListener::bind("127.0.0.1:8081").unwrap();
        init.app_line("ready");
        assert!(is_ready());
    });
}

/// With --port another listener is not enough.
#[test]
fn only_named_ports_make_it_ready() {
    in_own_network(|| {
        let mut init = start(&["--port", "8888"], &[]);
        init.app_line("ready");
        unready("starting: the app does not listen");
    });
}

#[test]
fn by_http() {
    in_own_network(|| {
        for (path, expected) in [
            ("/status/200", (200, "ready")),
            ("/status/204", (200, "ready")),
            ("/after/0.5", (200, "ready")),
            // Only the head is waited for.
            ("/endless", (200, "ready")),
            ("/status/302", (503, "starting: it answers 302")),
            ("/status/404", (503, "starting: it answers 404")),
            ("/status/500", (503, "starting: it answers 500")),
            ("/silent", (503, "starting: no answer within 3s")),
            ("/drips", (503, "starting: no answer within 3s")),
            ("/endless-head", (503, "starting: the head of the answer is too long")),
            ("/not-http", (503, "starting: not HTTP: invalid HTTP version")),
            ("/cut", (503, "starting: the answer was cut")),
        ] {
            let url = format!("http://127.0.0.1:8080{path}");
            let mut init = start(&["--ready", &url, "--delay", "100ms", "--quiet-period", "0s"], &[]);
            init.app_line("ready");
            let (status, reason) = ready();
            assert_eq!((status, reason.as_str()), expected, "{path}");
            init.app_line(&format!("asked {path}"));
            // What is wrong with the check is said, once: a pod that never becomes ready should tell why.
            let slow = reason.contains("no answer");
            (0..if slow { 1 } else { 3 }).for_each(|_| assert_eq!(ready().0, expected.0, "{path}"));
            if expected.0 != 200 {
                init.line("the app is not ready yet: ");
            }
            let said = init.rest().iter().filter(|line| line.contains("the app is not ready yet: ")).cloned().collect::<Vec<_>>();
            let why = reason.strip_prefix("starting: ");
            assert_eq!(said.len(), usize::from(why.is_some()), "{path}: {said:?}");
            assert!(why.is_none_or(|why| said[0].contains(&format!("\"the app is not ready yet: {why}\""))), "{path}: {said:?}");
            init.signal(TERM);
            assert_eq!(init.exit(), 0);
        }
        let mut init = start(&["--ready", "http://127.0.0.1:9/"], &[]);
        init.app_line("ready");
        unready("starting: Connection refused (os error 111)");
        assert!(!init.rest().iter().any(|line| line.contains("not ready yet")), "nobody is there yet: {:#?}", init.seen);
    });
}

#[test]
fn by_a_connection() {
    in_own_network(|| {
        let socket = std::env::temp_dir().join(format!("lameduck-test-{}-ready.sock", std::process::id()));
        let unix = format!("unix://{}", socket.display());
        for (target, expected) in [
            ("tcp://127.0.0.1:8080", (200, "ready")),
            ("tcp://localhost:8080", (200, "ready")),
            ("tcp://127.0.0.1:9", (503, "starting: Connection refused (os error 111)")),
            (&unix, (503, "starting: No such file or directory (os error 2)")),
        ] {
            let mut init = start(&["--ready", target], &[]);
            init.app_line("ready");
            let (status, reason) = ready();
            assert_eq!((status, reason.as_str()), expected, "{target}");
        }
        let _socket = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut init = start(&["--ready", &unix], &[]);
        init.app_line("ready");
        assert!(is_ready());
        let _ = std::fs::remove_file(&socket);
    });
}

#[test]
fn by_a_command() {
    in_own_network(|| {
        // It floods, its children hold its streams, and it ends well all the same.
        let noisy = script("noisy", "#!/bin/sh\nhead -c 1000000 /dev/zero\nsleep 1000 &\nexit 0\n");
        let slow = script("slow", "#!/bin/sh\nsleep 1000 &\nsleep 1000\n");
        for (command, expected) in [
            ("exec:true", (200, "ready")),
            (&format!("exec:{noisy}"), (200, "ready")),
            ("exec:false", (503, "starting: it exits with 1")),
            ("exec:sh -c exit${IFS}7", (503, "starting: it exits with 7")),
            ("exec:/no/such", (503, "starting: it exits with 127")),
            ("exec:/etc/os-release", (503, "starting: it exits with 126")),
            (&format!("exec:{slow}"), (503, "starting: no answer within 3s")),
        ] {
            let mut init = start(&["--ready", command], &[]);
            init.app_line("ready");
            let (status, reason) = ready();
            assert_eq!((status, reason.as_str()), expected, "{command}");
            let odd = ["126", "127", "no answer"].iter().any(|odd| reason.contains(odd));
            assert_eq!(
                init.rest().iter().any(|line| line.contains("the app is not ready yet: ")),
                odd,
                "{command}: {:#?}",
                init.seen
            );
            if command.ends_with("slow") {
                // It and what it started are gone, and reaped.
                eventually("the check is killed", || (children(init.pid) == 1).then_some(()));
                assert_eq!(ready().0, 503, "it is run again");
            }
        }
    });
}

fn children(pid: i32) -> usize {
    std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default().split_whitespace().count()
}

/// Ready, then not, then ready: each change is one line, whoever asks how often.
#[test]
fn a_change_is_said_once() {
    in_own_network(|| {
        let flag = std::env::temp_dir().join(format!("lameduck-test-{}-flag", std::process::id()));
        std::fs::write(&flag, "").unwrap();
        let mut init = start(&["--ready", &format!("exec:test -e {}", flag.display())], &[]);
        init.app_line("ready");
        for _ in 0..3 {
            assert!(is_ready());
        }
        std::fs::remove_file(&flag).unwrap();
        becomes(503, "it exits with 1");
        for _ in 0..3 {
            unready("it exits with 1");
        }
        std::fs::write(&flag, "").unwrap();
        becomes(200, "ready");
        for _ in 0..3 {
            assert!(is_ready());
        }
        let is_change = |line: &&String| line.contains(" info ready") || line.contains("not ready");
        let said: Vec<String> = init.rest().iter().filter(is_change).cloned().collect();
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[1].contains("the app is not ready any more: it exits with 1"), "{said:#?}");
        let _ = std::fs::remove_file(&flag);
    });
}

/// Whoever asks while a check runs gets its answer; the app is asked once.
#[test]
fn concurrent_questions_share_one_answer() {
    in_own_network(|| {
        let mut init = start(&["--ready", "http://127.0.0.1:8080/gate"], &[]);
        init.app_line("ready");
        let mut clients: Vec<Client> = (0..40).map(|_| Client::open(ADMIN).unwrap()).collect();
        clients.iter_mut().for_each(|client| client.send(&probe("/readyz")).unwrap());
        init.app_line("asked /gate");
        eventually("all have been read", || (unread_on(9102) == 0).then_some(()));
        init.signal(USR1);
        for client in &mut clients {
            assert_eq!(client.answer(false).unwrap().unwrap().line(), (200, "ready"));
        }
        let asked = init.rest().iter().filter(|line| line.contains("asked /gate")).count();
        assert_eq!(asked, 1, "{:#?}", init.seen);
        // A question after a quarter of a second is a new one.
        thread::sleep(Duration::from_millis(260));
        let question = thread::spawn(|| get("/readyz").status);
        init.next_app_line("asked /gate");
        init.signal(USR1);
        assert_eq!(question.join().unwrap(), 200);
    });
}

/// Connections to a port on which something waits to be read, and those that wait for accept.
fn unread_on(port: u16) -> usize {
    let (_, said) = run(&["ss", "-Htnl", "sport", "=", &format!(":{port}")], "");
    let (_, more) = run(&["ss", "-Htn", "sport", "=", &format!(":{port}")], "");
    said.lines().chain(more.lines()).filter(|line| line.split_whitespace().nth(1) != Some("0")).count()
}

/// However often somebody asks: four checks a second, and as many processes.
#[test]
fn a_flood_of_questions_is_no_flood_of_checks() {
    in_own_network(|| {
        let count = std::env::temp_dir().join(format!("lameduck-test-{}-count", std::process::id()));
        let check = script("count", &format!("#!/bin/sh\necho x >> {}\n", count.display()));
        let mut init = start(&["--ready", &format!("exec:{check}")], &[]);
        init.app_line("ready");
        let begun = std::time::Instant::now();
        let mut client = Client::open(ADMIN).unwrap();
        let mut asked = 0;
        while begun.elapsed() < Duration::from_secs(2) {
            client.send(&format!("GET /readyz HTTP/1.1\r\nHost: {ADMIN}\r\n\r\n")).unwrap();
            assert_eq!(client.answer(false).unwrap().unwrap().line(), (200, "ready"));
            asked += 1;
        }
        let checks = std::fs::read_to_string(&count).unwrap().lines().count();
        assert!(asked > 100, "{asked}");
        assert!(checks as f64 <= begun.elapsed().as_secs_f64() * 4.0 + 1.0, "{checks} checks for {asked} questions");
        let _ = std::fs::remove_file(&count);
    });
}

/// The app is asked through /readyz, which is not the app's traffic: it holds up nothing.
#[test]
fn our_own_questions_are_no_traffic() {
    in_own_network(|| {
        let options = ["--ready", "http://127.0.0.1:8080/ok", "--readyz-on-stop", "pass", "--delay", "2s"];
        let mut init = start(&options, &[]);
        init.app_line("ready");
        assert!(is_ready());
        init.signal(TERM);
        init.line("lame-duck");
        let asking = thread::spawn(|| while get_from(ADMIN, "/readyz").is_ok() {});
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!(field(&exit, "accepted"), "0", "{exit}");
        assert!((2.0..3.5).contains(&seconds(field(&exit, "lame_duck"))), "{exit}");
        asking.join().unwrap();
    });
}

/// However often somebody asks: PID 1 lives for years.
#[test]
fn questions_leave_nothing_behind() {
    in_own_network(|| {
        let mut init = start(&["--ready", "tcp://127.0.0.1:8080"], &[]);
        init.app_line("ready");
        let mut client = Client::open(ADMIN).unwrap();
        let mut ask = |times: usize| {
            for _ in 0..times {
                client.send("GET /readyz HTTP/1.1\r\n\r\n").unwrap();
                assert_eq!(client.answer(false).unwrap().unwrap().status, 200);
            }
            let status = std::fs::read_to_string(format!("/proc/{}/status", init.pid)).unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        let before = ask(1000);
        let after = ask(10_000);
        assert!(after < before + 200, "{before} KiB, then {after} KiB");
    });
}

#[test]
fn warming_up() {
    in_own_network(|| {
        let mut init = start(&["--warm-up", "http://127.0.0.1:8080/gate*3"], &["later"]);
        init.app_line("begun");
        unready("warming up 0/3");
        init.signal(HUP);
        init.app_line("asked /gate");
        for done in 0..3 {
            unready(&format!("warming up {done}/3"));
            init.signal(USR1);
            if done < 2 {
                init.next_app_line("asked /gate");
            }
        }
        let said = init.line(" warm-up ");
        assert_eq!((field(&said, "requests"), field(&said, "failed")), ("3", "0"), "{said}");
        assert!(is_ready());
        assert_eq!(init.rest().iter().filter(|line| line.contains("asked")).count(), 3, "{:#?}", init.seen);
    });
}

/// A failed request counts as done, and is said; the first one with its reason.
#[test]
fn failures_while_warming_up() {
    in_own_network(|| {
        for (path, why) in [
            ("/status/500", "it answers 500"),
            ("/not-http", "not HTTP: invalid HTTP version"),
            ("/cut", "the answer was cut"),
            ("/endless", "the answer is longer than 67108864 bytes"),
        ] {
            let warm_up = format!("http://127.0.0.1:8080{path}*3");
            let mut init = start(&["--warm-up", &warm_up], &[]);
            let said = init.line("requests=");
            assert_eq!((field(&said, "requests"), field(&said, "failed")), ("3", "3"), "{said}");
            let warned: Vec<&String> = init.seen.iter().filter(|line| line.contains("request failed")).collect();
            assert_eq!(warned.len(), 1, "{:#?}", init.seen);
            assert!(warned[0].contains(&format!("a warm-up request failed: {why}")), "{path}: {warned:?}");
            assert!(is_ready());
        }
        // A redirect is an answer.
        let mut init = start(&["--warm-up", "http://127.0.0.1:8080/status/302"], &[]);
        let said = init.line("requests=");
        assert_eq!((field(&said, "requests"), field(&said, "failed")), ("1", "0"), "{said}");
    });
}

/// The one under way is given up, no other follows, and the stop waits for neither.
#[test]
fn a_stop_ends_the_warm_up() {
    in_own_network(|| {
        let options = ["--warm-up", "http://127.0.0.1:8080/gate*5", "--delay", "1s"];
        let mut init = start(&options, &[]);
        init.app_line("asked /gate");
        unready("warming up 0/5");
        init.signal(TERM);
        init.line("lame-duck");
        unready("lame-duck");
        // Whatever becomes of that one, there is no second.
        init.signal(USR1);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert_eq!(init.exit(), 0);
        assert!(!init.seen.iter().any(|line| line.contains("requests=")), "{:#?}", init.seen);
        assert_eq!(init.seen.iter().filter(|line| line.contains("asked /gate")).count(), 1, "{:#?}", init.seen);
    });
}

#[test]
fn a_foreign_host_is_warmed_up_and_said() {
    in_own_network(|| {
        // An address that is no loopback, where the app listens.
        assert_eq!(run(&["ip", "addr", "add", "198.51.100.1/32", "dev", "lo"], "").0, 0);
        let warm_up = "http://198.51.100.1:8080/ok*2";
        let mut init = start(&["--warm-up", warm_up, "--ready", "http://198.51.100.1:8080/ok"], &["at", "198.51.100.1"]);
        let said = init.line(" warm-up ");
        assert!(said.contains("warming up 198.51.100.1:8080, which is not on this host"), "{said}");
        let said = init.line("requests=");
        assert_eq!((field(&said, "requests"), field(&said, "failed")), ("2", "0"), "{said}");
        assert!(is_ready());
        // One that is here is not worth a word.
        let mut init = Pid1::start(&[LAMEDUCK, "--warm-up", "http://127.0.0.1:8080/ok*2", "--", PYTHON, "-u", APP]);
        init.line("requests=2");
        assert!(!init.seen.iter().any(|line| line.contains("not on this host")), "{:#?}", init.seen);
    });
}

/// What `/readyz` and `/livez` say in each phase of the shutdown.
#[test]
fn while_lame_duck() {
    in_own_network(|| {
        for (on_stop, expected) in [("fail", (503, "draining")), ("pass", (200, "ready"))] {
            let options = ["--readyz-on-stop", on_stop, "--delay", "1s", "--stop-timeout", "10s"];
            let mut init = start(&options, &["stays"]);
            init.app_line("ready");
            assert!(is_ready());
            let request = thread::spawn(|| get_from("127.0.0.1:8080", "/gate").map(|answer| answer.body));
            init.app_line("asked /gate");
            init.signal(TERM);
            init.line("lame-duck");
            let reason = if on_stop == "fail" { (503, "lame-duck".to_owned()) } else { (200, "ready".to_owned()) };
            let said = ready();
            // The second may be over on a busy machine.
            assert!(said == reason || said == (expected.0, expected.1.to_owned()), "{said:?}");
            init.line(" draining ");
            assert_eq!(ready(), (expected.0, expected.1.to_owned()));
            init.signal(USR1);
            assert_eq!(request.join().unwrap().unwrap(), "answer\n");
            init.app_line("told");
            unready("stopping");
            init.signal(USR2);
            assert_eq!(init.exit(), 0, "{:#?}", init.seen);
        }
    });
}

/// A check that never ends by itself does not hold up the end, either.
#[test]
fn a_check_under_way_when_all_ends() {
    in_own_network(|| {
        let slow = script("slower", "#!/bin/sh\necho checking >&2\nsleep 1000\n");
        let mut init = start(&["--ready", &format!("exec:{slow}"), "--delay", "300ms", "--quiet-period", "0s"], &[]);
        init.app_line("ready");
        let question = thread::spawn(|| get_from(ADMIN, "/readyz").map(|answer| answer.status));
        eventually("the check runs", || (children(init.pid) == 2).then_some(()));
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert!(!exit.contains("killing="), "{exit}");
        let _ = question.join();
    });
}
