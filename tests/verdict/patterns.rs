//! What clients do, each on connections of its own.

use std::time::Duration;

use crate::client::{Client, rest};
use crate::servers::Kind;

pub struct Pattern {
    pub name: &'static str,
    pub play: fn(&mut Client),
    /// Makes sense only where connections are kept open.
    pub kept: bool,
    /// Servers that do not answer such a request.
    pub not_on: &'static [Kind],
    /// How many clients do so at the same time.
    pub copies: u64,
    /// Why nobody can see it from outside.
    pub impossible: Option<&'static str>,
    /// Why nobody can see it who has not watched from the start.
    pub impossible_late: Option<&'static str>,
}

pub const fn seen(name: &'static str, play: fn(&mut Client)) -> Pattern {
    Pattern { name, play, kept: false, not_on: &[], copies: 1, impossible: None, impossible_late: None }
}

/// HTTP/1 in plain text: with these, any server.
pub const HTTP1: &[Pattern] = &[
    Pattern { copies: 2, ..seen("slow answer on a fresh connection", slow_answer) },
    Pattern { kept: true, copies: 3, ..seen("kept alive: fast, at rest, fast, at once slow", kept_alive) },
    seen("upload that trickles", trickling_upload),
    seen("upload that stalls", stalled_upload),
    seen("stream with gaps of 0.5 s", stream),
    // Puma drops a request whose client has finished sending before a thread is free for it.
    Pattern { not_on: &[Kind::Puma], ..seen("half-closed with the request", half_closed_at_once) },
    seen("half-closed while it waits", half_closed),
    seen("Expect: 100-continue, and a pause", continues),
    Pattern {
        kept: true,
        impossible_late: Some("25 bytes after an answer nobody saw"),
        ..seen("kept alive: Expect: 100-continue, and a pause", continues_later)
    },
    seen("TCP probes", probes),
    seen("HTTP/1.0, closed by the server", http10),
    seen("slow reader of 4 MB", slow_reader),
    seen("at rest before the first request", idle_first),
    Pattern { impossible: Some("silence inside an answer, the first"), ..seen("stream whose first gap is 3 s", late_stream) },
    // gunicorn's threads leave the second request in a buffer.
    Pattern {
        kept: true,
        not_on: &[Kind::GunicornGthread],
        impossible: Some("the answer to the first masks the second"),
        ..seen("pipelined: fast, slow, fast", pipelined)
    },
    Pattern {
        kept: true,
        impossible: Some("no look between the answer and the 25 bytes"),
        ..seen("kept alive: fast, at once Expect: 100-continue, and a pause", continues_at_once)
    },
    Pattern {
        kept: true,
        impossible: Some("several segments in the tick of the last answer, slower than a tie is held"),
        ..seen("kept alive: fast, at once a slow POST in two segments", two_segments)
    },
];

/// These take longer than the rest: a client counts as gone only after 10 s.
pub const GONE: &[Pattern] =
    &[Pattern { kept: true, ..seen("client gone at rest", gone_at_rest) }, seen("client gone while it waits", gone_waiting)];

fn slow_answer(client: &mut Client) {
    client.connect();
    client.ask("GET /think?ms=1500");
    client.answer();
    rest(2600);
}

fn kept_alive(client: &mut Client) {
    client.connect();
    client.ask("GET /fast?ms=0");
    client.answer();
    rest(2300);
    client.ask("GET /fast?ms=0");
    client.answer();
    // In the same tick of the kernel's clock.
    client.ask("GET /think?ms=1800");
    client.answer();
    client.ask("GET /think?ms=700");
    client.answer();
    rest(2600);
}

fn trickling_upload(client: &mut Client) {
    client.connect();
    for _ in 0..if client.keeps_alive { 2 } else { 1 } {
        let (id, head) = client.head("POST /think?ms=300", "Content-Length: 15\r\n", "1.1");
        client.begin(id, "ms=300", head.as_bytes());
        for _ in 0..15 {
            rest(100);
            client.write(b"x");
        }
        client.answer();
        rest(2300);
    }
}

fn stalled_upload(client: &mut Client) {
    client.connect();
    let (id, head) = client.head("POST /think?ms=200", "Content-Length: 10\r\n", "1.1");
    client.begin(id, "ms=200", (head + "first").as_bytes());
    rest(3000);
    client.write(b"later");
    client.answer();
    rest(2300);
}

fn stream(client: &mut Client) {
    client.connect();
    client.ask("GET /stream?gap=500&pieces=6&ms=2500");
    client.answer();
    rest(3000);
}

fn late_stream(client: &mut Client) {
    client.connect();
    client.ask("GET /stream?gap=3000&pieces=2&ms=3000");
    client.answer();
    rest(500);
}

fn half_closed_at_once(client: &mut Client) {
    client.connect();
    client.ask("GET /think?ms=1500");
    client.finish_sending();
    client.answer();
}

fn half_closed(client: &mut Client) {
    client.connect();
    client.ask("GET /think?ms=2000");
    rest(500);
    client.finish_sending();
    client.answer();
}

fn continues(client: &mut Client) {
    client.connect();
    expect_continue(client);
    rest(2300);
}

fn continues_later(client: &mut Client) {
    client.connect();
    client.ask("GET /fast?ms=0");
    client.answer();
    for _ in 0..2 {
        rest(600);
        expect_continue(client);
    }
    rest(2300);
}

fn continues_at_once(client: &mut Client) {
    client.connect();
    for _ in 0..2 {
        client.ask("GET /fast?ms=0");
        client.answer();
        expect_continue(client);
    }
    rest(500);
}

fn expect_continue(client: &mut Client) {
    let (id, head) = client.head("POST /think?ms=400", "Content-Length: 4\r\nExpect: 100-continue\r\n", "1.1");
    client.begin(id, "ms=400", head.as_bytes());
    client.interim();
    rest(1500);
    client.write(b"body");
    client.answer();
}

fn probes(client: &mut Client) {
    for _ in 0..8 {
        client.connect();
        client.close();
        rest(90);
        client.connect();
        rest(400);
        client.close();
        rest(90);
        client.connect();
        rest(150);
        client.reset();
    }
}

fn http10(client: &mut Client) {
    client.connect();
    let (id, head) = client.head("GET /think?ms=1500", "", "1.0");
    client.begin(id, "ms=1500", head.as_bytes());
    client.answer();
    client.connect();
    let (id, head) = client.head("GET /large?ms=0", "", "1.0");
    client.begin(id, "ms=0", head.as_bytes());
    client.answer();
}

fn slow_reader(client: &mut Client) {
    client.connect_narrow();
    client.ask("GET /large?ms=0");
    client.answer_slowly(20_000, Duration::from_millis(10));
    rest(2300);
}

fn idle_first(client: &mut Client) {
    client.connect();
    rest(2400);
    client.ask("GET /think?ms=1200");
    client.answer();
    rest(2300);
}

fn pipelined(client: &mut Client) {
    client.connect();
    let asked = ["GET /fast?ms=0", "GET /think?ms=2500", "GET /fast?ms=0"].map(|start| (start, client.head(start, "", "1.1")));
    let text: String = asked.iter().map(|(_, (_, head))| head.as_str()).collect();
    client.write(text.as_bytes());
    let begin = client.last_sent();
    for (start, (id, _)) in asked {
        client.also(id, start, begin);
    }
    for _ in 0..3 {
        client.answer();
    }
    rest(500);
}

fn two_segments(client: &mut Client) {
    client.connect();
    for _ in 0..2 {
        client.ask("GET /fast?ms=0");
        client.answer();
        let (id, head) = client.head("POST /think?ms=3500", "Content-Length: 4\r\n", "1.1");
        client.begin(id, "ms=3500", head.as_bytes());
        client.write(b"body");
        client.answer();
    }
}

fn gone_at_rest(client: &mut Client) {
    client.connect();
    client.ask("GET /fast?ms=0");
    client.answer();
    // Its ACK has to arrive.
    rest(500);
    client.vanish();
    rest(5000);
}

fn gone_waiting(client: &mut Client) {
    client.connect();
    client.ask("GET /think?ms=1000");
    rest(300);
    client.vanish();
    rest(15_000);
}
