//! The app of the FROM-scratch images: a server without any graceful stop. std only, so that rustc alone can build it.
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::{env, process, thread, time::Duration};

unsafe extern "C" {
    fn sigprocmask(how: i32, set: *const [u64; 16], old: *mut [u64; 16]) -> i32;
    fn sigwait(set: *const [u64; 16], signal: *mut i32) -> i32;
    fn setsockopt(socket: i32, level: i32, name: i32, value: *const i32, length: u32) -> i32;
}

fn main() {
    let mode = env::args().nth(1).expect("serve, on-term or at-once");
    let port = env::args().nth(2).map_or(8080, |port| port.parse().expect("a port"));
    let listener = TcpListener::bind(("0.0.0.0", port)).expect("bind");
    match mode.as_str() {
        // Answers GET /?ms=300 after so long, keeps connections alive, and dies of TERM like any program that never heard of it.
        "serve" => loop {
            let (connection, _) = listener.accept().expect("accept");
            thread::spawn(move || serve(connection));
        },
        // One large answer: written, closed and exited, all when TERM comes ...
        "on-term" => {
            let term = [1 << 14, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            assert_eq!(unsafe { sigprocmask(0, &term, std::ptr::null_mut()) }, 0);
            let connection = asked(&listener);
            let mut signal = 0;
            assert_eq!(unsafe { sigwait(&term, &mut signal) }, 0);
            answer(connection);
        }
        // ... or as soon as it has been asked for ...
        "at-once" => answer(asked(&listener)),
        // ... or as soon as it has been asked for, by a server that then serves on.
        "large" => loop {
            answer(asked(&listener));
        },
        _ => process::exit(64),
    }
}

fn serve(connection: TcpStream) {
    let mut lines = BufReader::new(connection.try_clone().expect("dup")).lines();
    while let Some(Ok(request)) = lines.next() {
        while lines.next().and_then(Result::ok).is_some_and(|line| !line.is_empty()) {}
        let digits: String = request.chars().skip_while(|c| *c != '=').skip(1).take_while(char::is_ascii_digit).collect();
        thread::sleep(Duration::from_millis(digits.parse().unwrap_or(0)));
        if (&connection).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ndone\n").is_err() {
            return;
        }
    }
}

/// A connection whose request has come. Its send buffer takes the whole answer, so that writing does not wait for the reader.
fn asked(listener: &TcpListener) -> TcpStream {
    let (connection, _) = listener.accept().expect("accept");
    let size = 4 << 20;
    assert_eq!(unsafe { setsockopt(connection.as_raw_fd(), 1, 7, &size, 4) }, 0);
    BufReader::new(&connection).lines().find(|line| line.as_ref().is_ok_and(String::is_empty)).expect("a request").expect("read");
    connection
}

fn answer(mut connection: TcpStream) {
    connection.write_all(&vec![b'x'; 300_000]).expect("write");
    println!("written");
}
