//! `--in-flight`: the app says how much it is working on, or lies, hangs, floods.

use super::*;

fn start(mode: &str, more: &[&str]) -> Pid1 {
    let mut argv = vec![LAMEDUCK, "--delay", "2s", "--in-flight", "http://localhost:9100/metrics#jobs{kind=\"web\"}-1"];
    argv.extend(more);
    argv.extend(["--", PYTHON, "-u", METRIC, mode]);
    let mut init = Pid1::start(&argv);
    init.line("ready");
    init
}

/// No connection is busy, but the app says that it is working, until it has been asked 60 times. Our questions are no arrivals.
#[test]
fn the_apps_word_replaces_the_verdict() {
    in_own_network(|| {
        let mut init = start("counts", &["--grace-period", "60s"]);
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), "metric");
        init.line("nothing to do any more");
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert_eq!(init.exit(), 0);
        assert_eq!(field(&init.line(" exit "), "accepted"), "0");
    });
}

/// The app says 0 while a client waits: its word counts, arrivals do all the same.
#[test]
fn arrivals_count_whatever_the_app_says() {
    in_own_network(|| {
        let mut init = start("idle", &["--quiet-period", "4s"]);
        init.signal(TERM);
        init.line("lame-duck");
        let request = ask("127.0.0.1:8080", 0.0);
        answered(request);
        assert_eq!(init.exit(), 0);
        let stopping = init.line(" stopping ");
        assert!(seconds(field(&stopping, "after")) >= 4.0, "{stopping}");
        assert_eq!(field(&init.line(" exit "), "accepted"), "1");
    });
}

/// Whatever the endpoint does instead of answering: the sockets decide, and the log says why, once.
#[test]
fn a_bad_answer_leaves_it_to_the_sockets() {
    let cases = [
        ("absent", "Connection refused"),
        ("hangs", "no whole answer within 1s"),
        ("redirects", "it answers 302"),
        ("floods", "no whole answer within 1s"),
        ("page", "line 1 of the answer is not Prometheus' text format"),
        ("other", "no sample of the answer matches"),
        ("negative", "what matches is not a count"),
        ("nan", "what matches is not a count"),
        ("infinite", "what matches is not a count"),
        ("closes", "the answer was cut"),
        ("drips", "no whole answer within 1s"),
        ("drips head", "no whole answer within 1s"),
        ("pours", "the answer is longer than 16777216 bytes|no whole answer within 1s"),
        ("long", "it answers with a bad Content-Length"),
        ("chunks", "it answers in an encoding that was not asked for"),
        ("gzip", "it answers in an encoding that was not asked for"),
        ("binary", "line 1 of the answer is not Prometheus' text format"),
        ("cut", "the answer was cut"),
        ("noise", "not HTTP"),
        ("head", "the head of the answer is too long"),
        ("line", "line 2 of the answer is not Prometheus' text format"),
    ];
    // Some at a time.
    for cases in cases.chunks(3) {
        side_by_side(cases.to_vec(), |(mode, why)| {
            in_own_network(move || {
                let mut init = start(mode, &[]);
                let request = ask("127.0.0.1:8080", 4.0);
                init.line("asked");
                init.signal(TERM);
                init.line("lame-duck");
                let warning = init.line("cannot ask --in-flight");
                assert!(why.split('|').any(|why| warning.contains(why)), "{mode}: {warning}");
                answered(request);
                let stopping = init.line(" stopping ");
                assert!(stopping.contains("because=drained"), "{mode}: {stopping}");
                assert!((3.0..9.0).contains(&seconds(field(&stopping, "after"))), "{mode}: {stopping}");
                assert_eq!(init.exit(), 0, "{mode}");
                let warnings = init.seen.iter().filter(|line| line.contains("cannot ask --in-flight")).count();
                assert_eq!(warnings, 1, "{mode}: {:#?}", init.seen);
            })
        });
    }
}

/// Every third answer is an error: the log says it once.
#[test]
fn an_endpoint_that_flaps_is_warned_of_once() {
    in_own_network(|| {
        let mut init = start("flaps", &["--grace-period", "60s"]);
        init.signal(TERM);
        assert!(init.line(" stopping ").contains("because=drained"), "{:#?}", init.seen);
        assert_eq!(init.exit(), 0);
        let warnings = init.seen.iter().filter(|line| line.contains("cannot ask --in-flight: it answers 500")).count();
        assert_eq!(warnings, 1, "{:#?}", init.seen);
    });
}

/// More than there can be: it is held until time is up, and no sum overflows, though there are connections at rest.
#[test]
fn a_lie_holds_until_time_is_up() {
    in_own_network(|| {
        let mut init = start("huge", &["--grace-period", "8s", "--stop-timeout", "2s", "--drain", "connections"]);
        let at_rest = [0; 3].map(|_| TcpStream::connect("127.0.0.1:8080").expect("a connection"));
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"the time for waiting was up\""), "{stopping}");
        drop(at_rest);
        assert!((5.0..7.0).contains(&seconds(field(&stopping, "after"))), "{stopping}");
        assert_eq!(init.exit(), 0);
    });
}
