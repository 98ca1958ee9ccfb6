//! Starts, stops, and ends that nobody asked for.

use std::time::Instant;

use crate::support::{PYTHON, signal_to};
use crate::{INT, KILL, SLACK, TERM, field, lameduck, process, ready, report, service, services};

#[test]
fn the_main_command_is_stopped_first_and_the_last_companion_next() {
    let (a, b) = (service("exit:0"), service("exit:0"));
    lameduck(&["--with", &a, "--with", &b, "--", report(), "--on", "TERM=exit:5"], |init| {
        ready(init, 3);
        init.signal(TERM);
        assert_eq!(init.exit(), 5, "the main command's own code: {:#?}", init.seen);
        assert_eq!(services(init, "start"), ["report-2", "report-3", "report"]);
        assert_eq!(services(init, "stopping"), ["report", "report-3", "report-2"]);
        let exit = init.line(" exit ");
        assert_eq!(field(&exit, "companions"), "report-2 exited with 0, report-3 exited with 0");
    });
}

#[test]
fn the_next_is_stopped_only_when_the_one_before_has_ended() {
    let companion = service("exit:0");
    let main = "import os, signal, time
signal.signal(15, lambda *_: (os.write(1, b'main has work\\n'), time.sleep(1.5), os.write(1, b'main is done\\n'), os._exit(0)))
os.write(1, b'ready pid=\\n')
while True: time.sleep(1)";
    lameduck(&["--with", &companion, "--", PYTHON, "-c", main], |init| {
        ready(init, 2);
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
        let place =
            |text: &str| init.seen.iter().position(|line| line == text).unwrap_or_else(|| panic!("{text}: {:#?}", init.seen));
        assert!(place("main is done") < place("got TERM"), "{:#?}", init.seen);
    });
}

#[test]
fn a_companion_s_end_is_the_container_s() {
    for (ends_with, code) in [("exit:3", 3), ("exit:0", 1), ("die:9", 137)] {
        let companion = format!("{} --on USR1={ends_with}", report());
        lameduck(&["--with", &companion, "--", report()], move |init| {
            ready(init, 2);
            let pid = process(init, "report-2");
            signal_to(pid, 10);
            assert_eq!(init.exit(), code, "{:#?}", init.seen);
            assert_eq!(field(&init.line(" stop-requested "), "ended"), "report-2");
            assert_eq!(services(init, "stopping"), ["report"]);
            assert!(init.line(" warning ").contains("the container ends with it"));
        });
    }
}

/// In Kubernetes, too, where a deleted pod goes on passing: nobody has deleted this one.
#[test]
fn readyz_fails_at_once_and_says_who_has_ended() {
    let companion = format!("{} --on USR1=exit:3", report());
    let options = ["--admin", "127.0.0.1:9102", "--readyz-on-stop", "pass", "--delay", "3s", "--with", &companion];
    lameduck(&[&options[..], &["--", report(), "--listen", "127.0.0.1:8080"]].concat(), |init| {
        ready(init, 2);
        assert!(crate::get("127.0.0.1:9102", "/readyz").starts_with("HTTP/1.1 200 OK"), "{:#?}", init.seen);
        signal_to(process(init, "report-2"), 10);
        init.line(" lame-duck ");
        let answer = crate::get("127.0.0.1:9102", "/readyz");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("lame-duck: report-2 has ended\n"), "{answer}");
        assert!(crate::get("127.0.0.1:9102", "/status").contains("\"ended_service\":\"report-2\""));
        assert_eq!(init.exit(), 3, "{:#?}", init.seen);
    });
}

#[test]
fn the_end_of_an_expendable_companion_is_a_warning() {
    let companion = format!("-{} --on USR1=exit:3", report());
    lameduck(&["--admin", "127.0.0.1:9102", "--with", &companion, "--", report(), "--on", "TERM=exit:6"], |init| {
        ready(init, 2);
        let pid = process(init, "report-2");
        signal_to(pid, 10);
        assert!(init.line(" warning ").contains("message=\"report-2 exited with 3\""), "{:#?}", init.seen);
        let page = crate::get("127.0.0.1:9102", "/metrics");
        assert!(
            page.contains("lameduck_service_up{service=\"report\"} 1\nlameduck_service_up{service=\"report-2\"} 0\n"),
            "{page}"
        );
        for family in ["processes", "resident_memory_bytes", "cpu_seconds_total"] {
            for name in ["report", "report-2"] {
                assert!(page.contains(&format!("\nlameduck_app_{family}{{service=\"{name}\"}} ")), "{family} {name}: {page}");
            }
        }
        init.signal(TERM);
        assert_eq!(init.exit(), 6, "the main command's");
        assert_eq!(services(init, "stopping"), ["report"]);
    });
}

#[test]
fn when_the_main_command_ends_by_itself_its_companions_are_stopped() {
    let (a, b) = (service("exit:0"), service("exit:9"));
    lameduck(&["--with", &a, "--with", &b, "--", report(), "--on", "USR1=exit:4"], |init| {
        ready(init, 3);
        let began = Instant::now();
        init.signal(10);
        assert_eq!(init.exit(), 4, "{:#?}", init.seen);
        assert!(began.elapsed() < SLACK, "{:?}", began.elapsed());
        assert_eq!(services(init, "stopping"), ["report-3", "report-2"]);
    });
}

#[test]
fn all_at_once() {
    let companion = service("exit:0");
    lameduck(&["--with", &companion, "--", report()], |init| {
        ready(init, 2);
        let both = [process(init, "report"), process(init, "report-2")];
        let both = both.map(|pid| pid.to_string());
        assert!(std::process::Command::new("kill").arg("-9").args(both).status().unwrap().success());
        assert_eq!(init.exit(), 137, "{:#?}", init.seen);
    });
}

#[test]
fn a_companion_that_ends_during_the_shutdown_changes_nothing() {
    let companion = format!("{} --on USR1=exit:3", report());
    let main = [report(), "--listen", "127.0.0.1:0", "--on", "TERM=exit:7"];
    lameduck(&[&["--delay", "2s", "--quiet-period", "0s", "--with", &companion, "--"], &main[..]].concat(), |init| {
        ready(init, 2);
        let pid = process(init, "report-2");
        init.signal(TERM);
        init.line(" lame-duck ");
        signal_to(pid, 10);
        assert!(init.line(" warning ").contains("report-2 exited with 3"));
        assert_eq!(init.exit(), 7, "{:#?}", init.seen);
        assert_eq!(services(init, "stopping"), ["report"]);
    });
}

/// The second half of what is left belongs to the companion, and SIGKILL comes in time.
#[test]
fn nobody_s_stop_starves_the_others_or_the_kill() {
    let companion = service("exit:0");
    lameduck(&["--grace-period", "6s", "--with", &companion, "--", report(), "--on", "TERM=ignore"], |init| {
        ready(init, 2);
        let asked = Instant::now();
        init.signal(TERM);
        init.line(" stopping service=report-2 ");
        let share = asked.elapsed();
        assert_eq!(init.exit(), 137, "the main command had to be killed: {:#?}", init.seen);
        assert!(share.as_secs_f64() >= 2.7, "half of 5.4 s: {share:?}");
        assert!(
            asked.elapsed().as_secs_f64() >= 5.4 && asked.elapsed().as_secs_f64() < 6.0 + SLACK.as_secs_f64(),
            "{:?}",
            asked.elapsed()
        );
        assert!(field(&init.line(" exit "), "companions").ends_with("exited with 0"));
    });
    // And the other way round: the code is the main command's, whoever had to be killed.
    let deaf = service("ignore");
    lameduck(&["--grace-period", "3s", "--with", &deaf, "--", report()], |init| {
        ready(init, 2);
        init.signal(TERM);
        assert_eq!(init.exit(), 0, "{:#?}", init.seen);
        assert!(init.seen.iter().any(|line| line.contains(" killing ")), "{:#?}", init.seen);
    });
}

#[test]
fn int_hurries_and_then_kills() {
    let companion = service("ignore");
    let main = [report(), "--listen", "127.0.0.1:0"];
    lameduck(&[&["--grace-period", "60s", "--delay", "30s", "--with", &companion, "--"], &main[..]].concat(), |init| {
        ready(init, 2);
        let asked = Instant::now();
        init.signal(TERM);
        init.line(" lame-duck ");
        init.signal(INT);
        init.line(" stopping service=report-2 ");
        init.signal(INT);
        assert_eq!(init.exit(), 0);
        assert!(asked.elapsed() < SLACK * 2, "{:?}", asked.elapsed());
    });
}

/// What is forwarded is for the main command alone.
#[test]
fn signals_are_forwarded_to_the_main_command() {
    let companion = format!("{} --on USR2=exit:9", report());
    lameduck(&["--with", &companion, "--", report(), "--on", "USR2=exit:8"], |init| {
        ready(init, 2);
        init.signal(12);
        assert_eq!(init.exit(), 8, "{:#?}", init.seen);
    });
}

/// A worker of a known server whose master was killed gets the signal that it understands.
#[test]
fn a_dead_master_is_no_dead_service() {
    // The worker has a title as php-fpm's have, and its master's process group.
    let master = "import ctypes, os, signal, sys, time
if os.fork() == 0:
    signal.signal(3, lambda *_: (os.write(1, b'worker got QUIT\\n'), time.sleep(0.5), os.write(1, b'worker is done\\n'), os._exit(0)))
    signal.signal(15, lambda *_: os.write(1, b'worker got TERM\\n'))
    os.write(1, b'ready pid=worker\\n')
while True: time.sleep(1)";
    let directory = std::env::temp_dir().join(format!("lameduck-services-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let script = directory.join("php-fpm");
    std::fs::write(&script, format!("#!{}\n{master}\n", PYTHON)).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let companion = format!("{} -F", script.display());
    lameduck(&["--with", &companion, "--", report()], |init| {
        ready(init, 2);
        let master = process(init, "php-fpm");
        signal_to(master, KILL);
        assert_eq!(init.exit(), 137, "{:#?}", init.seen);
        let place = |text: &str| init.seen.iter().position(|line| line == text);
        let (main, worker) = (place("got TERM"), place("worker got QUIT"));
        assert!(main.is_some() && main < worker && place("worker is done").is_some(), "{:#?}", init.seen);
        assert_eq!(place("worker got TERM"), None);
    });
}
