//! What real servers need: a directory, their programs, a backend.
#![allow(dead_code)] // each test uses some

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// All that a server reads and writes: a directory of one rehearsal, gone with it.
pub struct State {
    pub directory: PathBuf,
}

impl State {
    pub fn new() -> State {
        use std::sync::atomic::{AtomicUsize, Ordering};
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("lameduck-servers-{}-{number}", std::process::id()));
        fs::create_dir_all(&directory).expect("a directory for the server");
        State { directory }
    }

    /// Writes `text` with `@STATE@` replaced, and returns where.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let directory = self.directory.to_str().expect("a plain path");
        fs::write(&path, text.replace("@STATE@", directory)).expect("a file for the server");
        path.to_str().expect("a plain path").to_owned()
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // A namespace whose PID 1 was killed dies soon, but not at once, and what runs there may still write.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.directory).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The path of a program of Debian's. Not the caller's PATH: what a version manager puts there is another server.
pub fn program(name: &str, package: &str) -> String {
    let mut paths = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().map(|directory| format!("{directory}/{name}"));
    paths.find(|path| Path::new(path).exists()).unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A file whose name has a version in it.
pub fn matching(directory: &str, start: &str, end: &str, package: &str) -> String {
    let mut names =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name().into_string().unwrap_or_default());
    let name = names.find(|name| name.starts_with(start) && name.ends_with(end));
    let name = name.unwrap_or_else(|| panic!("{directory}/{start}*{end} is missing: apt-get install {package}"));
    format!("{directory}/{name}")
}

/// An HTTP server outside the init's reach, in its network namespace: a neighbour in the pod. It stays as long as the tests do.
pub fn slow_backend() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 9000)).expect("a port for the backend");
    thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut part = [0; 4096];
                    match stream.read(&mut part) {
                        Ok(0) | Err(_) => return,
                        Ok(read) => request.extend_from_slice(&part[..read]),
                    }
                }
                let request = String::from_utf8_lossy(&request);
                let ms = request.split("ms=").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok());
                thread::sleep(Duration::from_millis(ms.unwrap_or(0)));
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nwhole\n");
            });
        }
    });
}
