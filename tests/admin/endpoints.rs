//! Four paths, over HTTP as it is spoken; where it listens, and who sees that.

use std::fs;
use std::net::TcpListener;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, inherited, report, script};
use crate::{ADMIN, APP, Answer, Client, TERM, field, get, get_from, jq, probe, run, seconds, start};

#[test]
fn four_paths_and_nothing_else() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        const TEXT: &str = "text/plain; charset=utf-8";
        for (path, status, kind, body) in [
            ("/livez", 200, TEXT, Some("alive\n")),
            ("/readyz", 200, TEXT, Some("ready\n")),
            ("/readyz?verbose", 200, TEXT, Some("ready\n")),
            ("/metrics", 200, "text/plain; version=0.0.4; charset=utf-8", None),
            ("/status", 200, "application/json", None),
            ("/", 404, TEXT, None),
            ("/metrics/", 404, TEXT, None),
            ("/LIVEZ", 404, TEXT, None),
            ("/../etc/passwd", 404, TEXT, None),
        ] {
            let answer = get(path);
            assert_eq!((answer.status, answer.header("Content-Type")), (status, kind), "{path}: {answer:?}");
            assert!(body.is_none_or(|body| body == answer.body), "{path}: {answer:?}");
            assert_eq!(answer.header("Connection"), "close", "as the probe asked");
        }
        assert_eq!(jq(".phase", &get("/status").body), "serving");
    });
}

/// By somebody else's client: the right status, and as many bytes of body as belong there.
#[test]
fn only_reads() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        for (arguments, path, expected) in [
            (&[][..], "/livez", "200 6"),
            (&["--http1.0"], "/livez", "200 6"),
            (&["-H", "Expect: 100-continue"], "/livez", "200 6"),
            (&["-I"], "/livez", "200 0"),
            (&["-I"], "/metrics", "200 0"),
            (&["-I"], "/nothing", "404 0"),
            (&["-X", "POST", "-d", "x=1"], "/livez", "405 9"),
            (&["-X", "DELETE"], "/metrics", "405 9"),
            (&["-T", "/etc/os-release"], "/readyz", "405 9"),
            (&["-X", "OPTIONS"], "/status", "405 9"),
            (&["-X", "POST"], "/nothing", "404 48"),
        ] {
            let url = format!("http://{ADMIN}{path}");
            let curl = ["curl", "-sS", "-m", "50", "-o", "/dev/null", "-w", "%{http_code} %{size_download}", &url];
            assert_eq!(run(&[&curl, arguments].concat(), ""), (0, expected.to_owned()), "{arguments:?} {path}");
        }
        let (_, head) = run(&["curl", "-sS", "-I", &format!("http://{ADMIN}/metrics")], "");
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).expect("a length").trim();
        assert!(length.parse::<usize>().unwrap() > 1000, "as long as a GET's would be: {head}");
        let (_, head) = run(&["curl", "-sS", "-i", "-X", "PATCH", &format!("http://{ADMIN}/status")], "");
        assert!(head.contains("\r\nAllow: GET, HEAD\r\n"), "{head}");
    });
}

/// One connection: requests one after the other, in one piece, in many, and until somebody has had enough.
#[test]
fn kept_alive_and_pipelined() {
    in_own_network(|| {
        let mut init = start(&["--delay", "1s"], &[]);
        init.app_line("ready");
        let mut client = Client::open(ADMIN).unwrap();
        let next = |client: &mut Client, head| -> Answer {
            let answer = client.answer(head).unwrap().expect("kept alive");
            assert_eq!(answer.header("Connection"), "keep-alive");
            answer
        };
        for _ in 0..3 {
            client.send("GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            assert_eq!(next(&mut client, false).line(), (200, "alive"));
        }
        // Four in one write, and the answers in their order.
        client
            .send("GET /livez HTTP/1.1\r\n\r\nHEAD /metrics HTTP/1.1\r\n\r\nGET /x HTTP/1.1\r\n\r\nGET /readyz HTTP/1.1\r\n\r\n")
            .unwrap();
        assert_eq!(next(&mut client, false).line(), (200, "alive"));
        assert_eq!(next(&mut client, true).status, 200);
        assert_eq!(next(&mut client, false).status, 404);
        assert_eq!(next(&mut client, false).line(), (200, "ready"));
        // Byte by byte.
        for byte in "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".chars() {
            client.send(&byte.to_string()).unwrap();
        }
        assert_eq!(next(&mut client, false).line(), (200, "alive"));
        // A hundred at once: more than is read at a time.
        client.send(&"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100)).unwrap();
        for _ in 0..100 {
            assert_eq!(next(&mut client, false).line(), (200, "alive"));
        }
        // It lasts into the shutdown.
        init.signal(TERM);
        init.line("lame-duck");
        client.send("GET /readyz HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(next(&mut client, false).line(), (503, "lame-duck"));
        client.send("GET /livez HTTP/1.0\r\n\r\n").unwrap();
        let last = client.answer(false).unwrap().expect("an answer");
        assert_eq!((last.line(), last.header("Connection")), ((200, "alive"), "close"));
        assert!(client.is_closed());
    });
}

#[test]
fn what_is_no_request_is_refused() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        let header = format!("X: {}\r\n", "x".repeat(1000));
        for (sent, status) in [
            ("EHLO there\r\n\r\n".to_owned(), 400),
            ("\x16\x03\x01\x02\x00\x01\x00".to_owned(), 400),
            ("GET /livez\r\n\r\n".to_owned(), 400),
            ("GET /livez HTTP/1.1\r\nno colon\r\n\r\n".to_owned(), 400),
            // Many headers are none too many; one that never ends is.
            (format!("GET /livez HTTP/1.1\r\nConnection: close\r\n{}\r\n", "A:\r\n".repeat(1500)), 200),
            (format!("GET /livez HTTP/1.1\r\n{}", header.repeat(9)), 431),
            // A body is not read, so it cannot become a request.
            ("GET /livez HTTP/1.1\r\nContent-Length: 30\r\n\r\nGET /nothing HTTP/1.1\r\n\r\n".to_owned(), 200),
            ("GET /livez HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 200),
        ] {
            let mut client = Client::open(ADMIN).unwrap();
            client.send(&sent).unwrap();
            let answer = client.answer(false).unwrap().expect("an answer");
            assert_eq!((answer.status, answer.header("Connection")), (status, "close"), "{sent:?}: {answer:?}");
            // Reset, if more had come than was read.
            let mut rest = Vec::new();
            let _ = std::io::Read::read_to_end(&mut client.0, &mut rest);
            assert!(rest.is_empty(), "{sent:?}");
        }
        assert_eq!(get("/livez").status, 200);
    });
}

fn with_admin(address: &str) -> Pid1 {
    Pid1::start(&[LAMEDUCK, "--admin", address, "--delay", "100ms", "--quiet-period", "0s", "--", report()])
}

#[test]
fn where_it_listens() {
    in_own_network(|| {
        for (address, asked) in [
            (":9102", &["127.0.0.1:9102", "[::1]:9102"][..]),
            ("127.0.0.1:9102", &["127.0.0.1:9102"]),
            ("[::1]:9102", &["[::1]:9102"]),
            ("localhost:9102", &["127.0.0.1:9102"]),
            // Any port: it says which.
            ("127.0.0.1:0", &[]),
            ("[::1]:0", &[]),
            (":0", &[]),
        ] {
            let mut init = with_admin(address);
            let said = field(&init.line(" admin "), "address").to_owned();
            init.app_line("ready ");
            if address.ends_with(":0") {
                assert!(!said.ends_with(":0"), "{said}");
                assert_eq!(get_from(&said, "/livez").unwrap().status, 200, "{address}");
            }
            for asked in asked {
                assert_eq!(get_from(asked, "/livez").unwrap().status, 200, "{address}");
            }
            if address != ":9102" {
                let other = if said.starts_with('[') { "127.0.0.1" } else { "[::1]" };
                let other = format!("{other}:{}", said.rsplit_once(':').unwrap().1);
                assert!(address == ":0" || get_from(&other, "/livez").is_err(), "{address} answers at {other}");
            }
            init.signal(TERM);
            assert_eq!(init.exit(), 0);
        }
    });
}

/// Where the kernel has no IPv6 `:9102` is IPv4's.
#[test]
fn without_ipv6() {
    in_own_network(|| {
        run(&["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"], "");
        let mut init = with_admin(":9102");
        init.app_line("ready ");
        assert_eq!(get("/livez").status, 200);
        init.signal(TERM);
        assert_eq!(init.exit(), 0);
    });
}

#[test]
fn an_address_in_use_is_69_before_the_app_starts() {
    in_own_network(|| {
        for (taken, address) in [
            ("127.0.0.1:9102", "127.0.0.1:9102"),
            ("[::1]:9102", "[::1]:9102"),
            ("[::]:9102", ":9102"),
            // One family's alone would be half of what was asked for.
            ("[::1]:9102", ":9102"),
            ("127.0.0.1:9102", ":9102"),
        ] {
            // The one before may live a moment longer, in the fork of another test.
            let _taken = eventually("the port is free", || TcpListener::bind(taken).ok());
            let mut init = Pid1::start(&[LAMEDUCK, "--admin", address, "--", "echo", "started"]);
            assert_eq!(init.exit(), 69, "{:?}", init.seen);
            let said = init.seen.join("\n");
            assert!(said.contains(&format!("cannot listen on \"{address}\" (--admin)")) && said.contains("in use"), "{said}");
            assert!(!said.contains("started\n") && !said.contains(" start "), "{said}");
        }
        // Not ours to have.
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", "192.0.2.1:9102", "--", "echo", "started"]);
        assert_eq!(init.exit(), 69, "{:?}", init.seen);
    });
}

#[test]
fn a_bad_setting_is_64_and_says_which() {
    for (option, value) in [
        ("--admin", "9102"),
        ("--admin", ":70000"),
        ("--admin", "example.com:9102"),
        ("--admin", "unix:///run/admin"),
        ("--ready", "https://127.0.0.1/"),
        ("--ready", "127.0.0.1:80"),
        ("--ready", "exec:"),
        ("--warm-up", "http://127.0.0.1/*0"),
        ("--warm-up", "ftp://127.0.0.1/"),
        ("--readyz-on-stop", "maybe"),
        ("--log-format", "xml"),
    ] {
        let (code, said) = run(&[LAMEDUCK, option, value, "--", "echo", "started"], "");
        assert_eq!(code, 64, "{option} {value}: {said}");
        assert!(said.contains(option) && said.contains(value) && !said.contains("started"), "{option} {value}: {said}");
    }
}

/// Whoever asks us is no client of the app: neither seen among its connections nor waited for.
#[test]
fn the_admin_port_is_not_the_app_s_traffic() {
    in_own_network(|| {
        let mut init = start(&["--delay", "2s"], &[]);
        init.app_line("ready");
        // One that is kept alive, and one that is half a request.
        let mut kept = Client::open(ADMIN).unwrap();
        kept.send("GET /livez HTTP/1.1\r\n\r\n").unwrap();
        kept.answer(false).unwrap();
        let mut half = Client::open(ADMIN).unwrap();
        half.send("GET /live").unwrap();
        let is_apart = |what: &str| {
            let page = get("/metrics").body;
            assert!(page.contains("lameduck_connections{port=\"8080\",state=\"busy\"} 0"), "{what}: {page}");
            assert!(!page.contains("9102") && page.contains("\nlameduck_in_flight 0\n"), "{what}: {page}");
        };
        is_apart("serving");
        init.signal(TERM);
        init.line("lame-duck");
        // As often as a probe could: a second without new connections would never come.
        let asking = std::thread::spawn(|| {
            let mut times = 0;
            while get_from(ADMIN, "/readyz").is_ok() {
                times += 1;
            }
            times
        });
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert!((2.0..3.5).contains(&seconds(field(&stopping, "after"))), "{stopping}");
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        assert_eq!((field(&exit, "accepted"), field(&exit, "cut")), ("0", "0"), "{exit}");
        assert!(asking.join().unwrap() > 10);
    });
}

/// Neither the listener nor a connection to it, by the app nor by what `--ready exec:` runs.
#[test]
fn the_app_does_not_inherit_the_admin_port() {
    in_own_network(|| {
        let list = std::env::temp_dir().join(format!("lameduck-test-{}-probe", std::process::id()));
        let ready = format!("exec:{}", script("descriptors", &format!("#!/bin/sh\nexec ls /proc/self/fd >{}\n", list.display())));
        let mut init = Pid1::start(&[
            LAMEDUCK,
            "--admin",
            ADMIN,
            "--ready",
            &ready,
            "--wait-for",
            "tcp://127.0.0.1:8081",
            "--",
            report(),
            "--listen",
            "127.0.0.1:8080",
        ]);
        init.line(" admin ");
        // A connection from before the app's start.
        let mut early = Client::open(ADMIN).unwrap();
        early.send("GET /livez HTTP/1.1\r\n\r\n").unwrap();
        early.answer(false).unwrap();
        let _here = TcpListener::bind("127.0.0.1:8081").unwrap();
        let said = init.app_line("ready ");
        assert_eq!(field(&said, "fds"), inherited(&[]));
        let app = eventually("the app runs", || {
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).ok()?;
            children.split_whitespace().next()?.parse::<i32>().ok()
        });
        let sockets = |pid: i32| -> Vec<String> {
            let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
            let links = entries.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned()));
            links.filter(|link| link.starts_with("socket:")).collect()
        };
        let (ours, theirs) = (sockets(init.pid), sockets(app));
        assert!(ours.len() >= 2 && theirs.iter().all(|socket| !ours.contains(socket)), "ours {ours:?}, the app's {theirs:?}");
        assert_eq!(get("/readyz").line(), (200, "ready"));
        // Its three streams, and the directory that ls lists.
        assert_eq!(fs::read_to_string(&list).unwrap(), "0\n1\n2\n3\n");
        early.send(&probe("/livez")).unwrap();
        assert_eq!(early.answer(false).unwrap().unwrap().status, 200, "the connection is still ours");
    });
}

/// Whatever the machine's default is.
#[test]
fn every_address_of_both_families() {
    in_own_network(|| {
        std::fs::write("/proc/sys/net/ipv6/bindv6only", "1").unwrap();
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", ":9102", "--", PYTHON, "-u", APP]);
        init.app_line("ready");
        for address in ["127.0.0.1:9102", "[::1]:9102"] {
            assert_eq!(get_from(address, "/livez").unwrap().status, 200, "{address}");
        }
    });
}
