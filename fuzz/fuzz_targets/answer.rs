//! What the app answers when it is asked (`--ready`, `--in-flight`, `--warm-up`), in whatever pieces it comes.
#![no_main]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use lameduck::core::start::url::Url;
use lameduck::fuzzing;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MOST: usize = 1000;

/// As good as TCP, and no port is used up.
fn pair() -> (TcpStream, TcpStream) {
    let (a, b) = UnixStream::pair().expect("a pair of sockets");
    let stream = |one: UnixStream| {
        one.set_nonblocking(true).expect("a socket");
        TcpStream::from_std(std::net::TcpStream::from(OwnedFd::from(one))).expect("a socket")
    };
    (stream(a), stream(b))
}

async fn ask(pieces: impl Iterator<Item = &[u8]>) -> Result<(u16, Vec<u8>), String> {
    let (client, mut server) = pair();
    let url = Url::parse("http://127.0.0.1/x").expect("a URL");
    let asking = async {
        let answer = fuzzing::get(&client, &url, MOST).await;
        // Whoever has heard enough goes.
        drop(client);
        answer
    };
    let answering = async {
        let mut request = [0; 256];
        let length = server.read(&mut request).await.unwrap_or_default();
        assert!(request[..length].starts_with(b"GET /x HTTP/1.0\r\nHost: 127.0.0.1\r\n"));
        for piece in pieces {
            if server.write_all(piece).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(server);
    };
    let both = async { tokio::join!(asking, answering) };
    tokio::time::timeout(Duration::from_secs(3), both).await.expect("it ends when the answer ends").0
}

fuzz_target!(|bytes: &[u8]| {
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().expect("a runtime");
    }
    RUNTIME.with(|runtime| {
        let whole = runtime.block_on(ask([bytes].into_iter()));
        match &whole {
            Ok((status, body)) => {
                assert!((0..=999).contains(status) && body.len() <= MOST);
                // What is said to be the body stands in the answer.
                assert!(body.is_empty() || bytes.windows(body.len()).any(|window| window == body));
            }
            Err(why) => assert!(!why.is_empty()),
        }
        let size = usize::from(bytes.first().copied().unwrap_or_default()) + 1;
        let pieces = runtime.block_on(ask(bytes.chunks(size)));
        assert_eq!(pieces, whole, "in pieces of {size}");
    });
});
