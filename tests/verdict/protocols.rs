//! What is not HTTP/1 in plain text: TLS 1.3, HTTP/2 and WebSockets, with node. Frames by hand, and only those that matter here.

use std::process::Command;
use std::time::Duration;

use crate::client::{Client, next_id, rest};
use crate::network::{H2_PORT, TLS_PORT};
use crate::patterns::{Pattern, seen};

pub const PROTOCOLS: &[Pattern] = &[
    seen("TLS 1.3 at rest, asked, at rest", tls_kept),
    seen("WebSocket at rest", websocket),
    seen("WebSocket that chats", websocket_chat),
    seen("WebSocket whose last echo had 25 bytes, as 100 Continue has", websocket_25),
    Pattern {
        impossible: Some("session tickets look like an answer"),
        ..seen("TLS 1.3, slow from the first request on", tls_slow)
    },
    Pattern { impossible: Some("one connection, many requests"), ..seen("HTTP/2: one stream slow, one fast", h2_mixed) },
    Pattern { impossible: Some("looks asked"), ..seen("HTTP/2 at rest after a WINDOW_UPDATE", h2_window) },
    Pattern { impossible: Some("looks alive"), ..seen("HTTP/2 at rest, a PING every 0.5 s", h2_ping) },
];

fn tls_kept(client: &mut Client) {
    tls(client, &[Step::Ask("/fast", 0), Step::Rest(2500), Step::Ask("/think", 1500), Step::Rest(2500)]);
}

fn tls_slow(client: &mut Client) {
    tls(client, &[Step::Ask("/think", 3000), Step::Rest(300)]);
}

enum Step {
    Ask(&'static str, u64),
    Rest(u64),
}

/// The script connects; its requests are noted here.
fn tls(client: &mut Client, steps: &[Step]) {
    let mut asked = Vec::new();
    let words = steps.iter().map(|step| match step {
        Step::Rest(millis) => millis.to_string(),
        Step::Ask(path, millis) => {
            let id = next_id();
            let target = format!("{path}?ms={millis}&id={id}");
            asked.push((id, format!("ms={millis}")));
            target
        }
    });
    let mut python = Command::new("/usr/bin/python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/verdict/tls.py"));
    python.args([client.host(), TLS_PORT.to_string()]).args(words.collect::<Vec<_>>());
    let output = python.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut asked = asked.into_iter();
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let words: Vec<&str> = line.split(' ').collect();
        let time = |index: usize| Duration::from_secs_f64(words[index].parse().expect("a time"));
        match words[0] {
            "port" => client.story(words[1].parse().expect("a port")),
            "closed" => client.present().closed = Some(time(1)),
            _ => {
                let (id, thinks) = asked.next().expect("no more answers than requests");
                client.also(id, &thinks, time(1));
                client.present().requests.last_mut().expect("a request").end = Some(time(2));
            }
        }
    }
    assert!(asked.next().is_none(), "requests without an answer");
}

fn websocket(client: &mut Client) {
    upgrade(client);
    rest(4000);
}

fn websocket_chat(client: &mut Client) {
    upgrade(client);
    for _ in 0..12 {
        rest(300);
        say(client, 0);
    }
    rest(3500);
}

fn websocket_25(client: &mut Client) {
    upgrade(client);
    rest(1000);
    say(client, 23);
    rest(5000);
}

fn upgrade(client: &mut Client) {
    client.connect();
    let start = "GET /chat?ms=0";
    let headers = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
    let (id, head) = client.head(start, headers, "1.1");
    client.begin(id, start, head.as_bytes());
    client.upgraded();
}

/// A text of `width` or more, which comes back: the number by which the log names it.
fn say(client: &mut Client, width: usize) {
    let id = next_id();
    let text = format!("{id:0width$}");
    let mut frame = vec![0x81, 0x80 | text.len() as u8, 0, 0, 0, 0];
    frame.extend(text.as_bytes());
    client.begin(id, "ms=0", &frame);
    let echo = client.take(2 + text.len());
    assert_eq!(&echo[2..], text.as_bytes());
    client.end();
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
/// END_STREAM, and of SETTINGS and PING: ACK.
const END_OR_ACK: u8 = 1;
const END_HEADERS: u8 = 4;

fn h2_window(client: &mut Client) {
    h2_connect(client);
    let stream = h2_ask(client, 1, "/fast", 0);
    h2_answer(client, stream);
    // As clients give back what they have read of an answer.
    client.write(&frame(WINDOW_UPDATE, 0, 0, &6u32.to_be_bytes()));
    rest(5000);
}

fn h2_ping(client: &mut Client) {
    h2_connect(client);
    let stream = h2_ask(client, 1, "/fast", 0);
    h2_answer(client, stream);
    for _ in 0..10 {
        rest(500);
        client.write(&frame(PING, 0, 0, &[7; 8]));
        while read_frame(client).0 != PING {}
    }
}

fn h2_mixed(client: &mut Client) {
    h2_connect(client);
    let slow = h2_ask(client, 1, "/think", 3000);
    rest(300);
    let fast = h2_ask(client, 3, "/fast", 0);
    h2_answer(client, fast);
    h2_answer(client, slow);
    rest(300);
}

fn h2_connect(client: &mut Client) {
    client.connect_to(H2_PORT);
    let mut preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    preface.extend(frame(SETTINGS, 0, 0, &[]));
    client.write(&preface);
}

/// Returns the id of the request that the stream carries.
fn h2_ask(client: &mut Client, stream: u32, path: &str, millis: u64) -> usize {
    let id = next_id();
    // :method GET and :scheme http by their numbers; :path and :authority by number, with a value that is not to be remembered.
    let mut block = vec![0x82, 0x86];
    for (name, value) in [(0x04, format!("{path}?ms={millis}&id={id}")), (0x01, "localhost".to_owned())] {
        block.extend([name, value.len() as u8]);
        block.extend(value.as_bytes());
    }
    client.begin(id, &format!("ms={millis}"), &frame(HEADERS, END_OR_ACK | END_HEADERS, stream, &block));
    id
}

/// Reads until a stream has ended, which must be this request's.
fn h2_answer(client: &mut Client, id: usize) {
    loop {
        let (kind, flags) = read_frame(client);
        if kind == SETTINGS && flags & END_OR_ACK == 0 {
            client.write(&frame(SETTINGS, END_OR_ACK, 0, &[]));
        }
        if kind == DATA && flags & END_OR_ACK != 0 {
            return client.end_of(id);
        }
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn read_frame(client: &mut Client) -> (u8, u8) {
    let head = client.take(9);
    client.take(u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize);
    (head[3], head[4])
}
