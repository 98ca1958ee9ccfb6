//! What the kernel has accepted and the app has not; listeners of every kind.

use super::*;

/// Fifty clients wait for one worker that is stuck in the first one's request: the kernel has accepted them, so they are in flight.
/// None is reset.
#[test]
fn what_waits_in_the_accept_queue_is_in_flight() {
    in_own_network(|| {
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080", "one"]);
        init.line("ready");
        let stalled = ask("127.0.0.1:8080", 4.0);
        init.line("asked /4");
        let waiting: Vec<_> = (0..50).map(|_| ask("127.0.0.1:8080", 0.02)).collect();
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "queued"), field(&begun, "busy")), ("50", "1"), "{begun}");
        answered(stalled);
        waiting.into_iter().for_each(answered);
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!((field(&exit, "finished"), field(&exit, "cut")), ("51", "0"), "{exit}");
    });
}

/// Two processes, each with a listener and a queue of its own on one port: the kernel shares the clients out.
#[test]
fn both_queues_of_a_reuseport_group_count() {
    in_own_network(|| {
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, "127.0.0.1", "8080", "reuseport"]);
        init.line("ready");
        init.next_line("ready");
        let requests: Vec<_> = (0..40).map(|_| ask("127.0.0.1:8080", 3.0)).collect();
        for _ in 0..40 {
            init.next_line("asked /3");
        }
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "busy"), field(&begun, "ports")), ("40", "8080"), "{begun}");
        requests.into_iter().for_each(answered);
        init.exit();
        assert_eq!(field(&init.line(" exit "), "cut"), "0");
    });
}

/// A dual-stack listener, asked over both: IPv4 comes as v4-mapped there.
#[test]
fn both_families_on_one_listener() {
    in_own_network(|| {
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", PYTHON, "-u", SERVER, "::", "8080"]);
        init.line("ready");
        let requests = [ask("127.0.0.1:8080", 3.0), ask("[::1]:8080", 4.0)];
        init.line("asked /3");
        init.line("asked /4");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "busy"), "2");
        requests.into_iter().for_each(answered);
        assert_eq!(init.exit(), 0);
    });
}

/// A port that the app opens after the stop signal is watched like the others.
#[test]
fn a_listener_that_appears_late_is_watched() {
    in_own_network(|| {
        let mut init = Pid1::start(&[
            LAMEDUCK,
            "--delay",
            "4s",
            "--grace-period",
            "60s",
            "--",
            PYTHON,
            "-u",
            SERVER,
            "127.0.0.1",
            "8080",
            "later",
        ]);
        init.line("ready");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "ports"), "8080");
        init.signal(1);
        init.line("opened 8081");
        init.line("watched from now on");
        let request = ask("127.0.0.1:8081", 8.0);
        init.line("asked /8");
        answered(request);
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!((field(&exit, "finished"), field(&exit, "cut")), ("1", "0"), "{exit}");
    });
}
