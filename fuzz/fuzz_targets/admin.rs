//! One connection to `--admin`, whatever the client sends and in whatever pieces: each answer is HTTP, there are no more answers than requests,
//! and the connection ends when the client has.
#![no_main]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lameduck::core::output::snapshot::{Snapshot, Traffic};
use lameduck::core::shutdown::{Drain, Phase, Timing};
use lameduck::fuzzing;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

fn snapshot() -> Snapshot {
    let second = Duration::from_secs(1);
    Snapshot {
        version: "0",
        uptime: second,
        phase: Phase::Serving,
        since: second,
        pid: Some(7),
        target: Some(7),
        command: "app \"x\"".to_owned(),
        server: None,
        services: Vec::new(),
        timing: Timing {
            grace: second * 30,
            delay: second,
            delay_given: false,
            quiet: second,
            stop_timeout: second,
            idle_after: second,
            drain: Drain::Requests,
        },
        stop: None,
        traffic: Traffic { source: "none", ..Traffic::default() },
        workers: None,
        cpu: None,
        app: None,
        oom_kills: None,
        reaped: 0,
        signals: Vec::new(),
        dropped: 0,
    }
}

/// As good as TCP, and no port is used up.
fn pair() -> (TcpStream, TcpStream) {
    let (a, b) = UnixStream::pair().expect("a pair of sockets");
    let stream = |one: UnixStream| {
        one.set_nonblocking(true).expect("a socket");
        TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(one))).expect("a socket")
    };
    (stream(a), stream(b))
}

async fn converse(pieces: impl Iterator<Item = &[u8]>) -> Vec<u8> {
    let (mut client, server) = pair();
    let (mut answers, mut requests) = client.split();
    let asking = async {
        for piece in pieces {
            if requests.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let _ = requests.shutdown().await;
    };
    let mut answered = Vec::new();
    let all = async { tokio::join!(asking, fuzzing::admin(server, snapshot()), answers.read_to_end(&mut answered)) };
    let ended = tokio::time::timeout(Duration::from_secs(3), all).await;
    assert!(ended.is_ok(), "the client has gone, and it is still there");
    answered
}

/// Reads every answer; how many there are.
fn answers(mut bytes: &[u8], heads: usize) -> usize {
    let mut count = 0;
    while !bytes.is_empty() {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut answer = httparse::Response::new(&mut headers);
        let Ok(httparse::Status::Complete(end)) = answer.parse(bytes) else {
            panic!("no answer: {}", String::from_utf8_lossy(bytes))
        };
        let status = answer.code.unwrap_or_default();
        assert!([200, 400, 404, 405, 408, 431, 503].contains(&status));
        let length = answer.headers.iter().find(|header| header.name == "Content-Length").expect("a length");
        let length: usize = str::from_utf8(length.value).ok().and_then(|text| text.parse().ok()).expect("a number");
        let body = &bytes[end..];
        // After HEAD there is only the next head.
        let no_body = heads > 0 && (body.is_empty() || body.starts_with(b"HTTP/1.1 "));
        bytes = if no_body { body } else { body.get(length..).expect("a whole body") };
        count += 1;
    }
    count
}

fuzz_target!(|bytes: &[u8]| {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        let whole = runtime.block_on(converse([bytes].into_iter()));
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        let heads = bytes.windows(4).filter(|four| four == b"HEAD").count();
        let count = answers(&whole, heads);
        assert!(count <= lines + 1, "{count} answers to {lines} lines");
        let size = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
        let pieces = runtime.block_on(converse(bytes.chunks(size)));
        assert_eq!(String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&whole), "in pieces of {size}");
    });
});
