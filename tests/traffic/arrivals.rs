//! No arrival is missed, however short it lives.

use super::*;

const COUNTER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/short.py");

/// So many connections, one after the other in each of four threads: a request, its answer, and gone.
fn short_connections(count: usize) {
    let clients: Vec<_> = (0..4)
        .map(|_| {
            thread::spawn(move || {
                for _ in 0..count / 4 {
                    let mut stream = TcpStream::connect("127.0.0.1:8080").expect("a connection");
                    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a request sent");
                    let mut answer = String::new();
                    stream.read_to_string(&mut answer).expect("an answer");
                    assert!(answer.ends_with("answer\n"), "{answer:?}");
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().expect("a client"));
}

const STOP: i32 = 19;
const CONT: i32 = 18;

fn number(line: &str, name: &str) -> usize {
    line.split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        .map_or(0, |value| value.parse().expect("a number"))
}

/// What the exit event tells of connections made by `load` while lame duck: how many were counted, how many more there may have been.
fn counts(load: impl FnOnce(&mut Pid1) + Send + 'static) -> (usize, usize) {
    in_own_network(move || {
        let mut init = Pid1::start(&[
            LAMEDUCK,
            "--grace-period",
            "120s",
            "--delay",
            "1s",
            "--quiet-period",
            "3s",
            "--",
            PYTHON,
            "-u",
            COUNTER,
        ]);
        init.line("ready");
        init.signal(TERM);
        init.line("lame-duck");
        load(&mut init);
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!(field(&exit, "cut"), "0", "{exit}");
        (number(&exit, "accepted"), number(&exit, "or_more"))
    })
}

/// Each lives for less than a millisecond; the kernel tells of each one's end.
#[test]
fn twenty_thousand_short_connections_are_counted() {
    let (accepted, or_more) = counts(|_| short_connections(20_000));
    if or_more == 0 {
        assert_eq!(accepted, 20_000);
    } else {
        // On a loaded machine some may be lost: then it says how many.
        assert!(accepted < 20_000 && accepted + or_more >= 20_000, "{accepted} or {or_more} more");
    }
}

/// lameduck sleeps (SIGSTOP) through more ends than the kernel keeps for it: what it could not count it admits.
#[test]
fn what_could_not_be_counted_is_admitted() {
    let (sender, made) = std::sync::mpsc::channel();
    let (accepted, or_more) = counts(move |init| {
        init.signal(STOP);
        let mut made = 0;
        // How many it keeps is the machine's setting (rmem_max); and it tells of ends from a queue of its own, a little late.
        support::eventually("the kernel drops ends", || {
            short_connections(4000);
            made += 4000;
            let sockets = fs::read_to_string("/proc/thread-self/net/netlink").ok()?;
            sockets.lines().skip(1).any(|line| line.split_ascii_whitespace().nth(8) != Some("0")).then_some(())
        });
        init.signal(CONT);
        sender.send(made).expect("a test that waits");
    });
    let made: usize = made.recv().expect("a number");
    assert!(or_more > 0 && accepted < made, "{accepted} or {or_more} more of {made}");
    assert!((made..made + 200).contains(&(accepted + or_more)), "{accepted} or {or_more} more of {made}");
}

/// Without netlink only counters tell of connections that live between two looks. They are arrivals all the same.
#[test]
fn without_events_the_kernels_counter_tells() {
    in_own_network(|| {
        let mut init = Pid1::start(&[
            PYTHON,
            WITHOUT_NETLINK,
            LAMEDUCK,
            "--grace-period",
            "60s",
            "--delay",
            "1s",
            "--",
            PYTHON,
            "-u",
            COUNTER,
        ]);
        init.line("ready");
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "source"), "proc_net");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(9) {
            short_connections(4);
        }
        assert!(!init.rest().iter().any(|line| line.contains(" stopping ")), "told while they came: {:#?}", init.seen);
        assert_eq!(init.exit(), 0);
    });
}
