//! Real servers of Debian, and what their own logs tell of each request.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::client::now;
use crate::support::{Pid1, listening};

/// By id: when it began, and when its answer was given to the kernel.
pub type Served = HashMap<usize, (Duration, Option<Duration>)>;

/// In the namespace of the thread that started it; gone when dropped.
pub struct Server {
    processes: Vec<Pid1>,
    log: Log,
    state: State,
}

#[derive(Clone, Copy)]
enum Log {
    /// `$msec $request_time $args`
    Nginx,
    /// `%{begin:usec}t %{end:usec}t %q`
    Apache,
    /// `begin ID TIME` and `end ID TIME`, the application's own, by CLOCK_MONOTONIC.
    App,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Nginx,
    Apache,
    GunicornSync,
    GunicornGthread,
    Puma,
    Node,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Nginx => "nginx",
            Kind::Apache => "apache prefork + mod_php",
            Kind::GunicornSync => "gunicorn sync",
            Kind::GunicornGthread => "gunicorn gthread",
            Kind::Puma => "puma",
            Kind::Node => "node",
        }
    }

    pub fn keeps_alive(self) -> bool {
        !matches!(self, Kind::GunicornSync)
    }

    pub fn start(self) -> Server {
        let mut server = Server { processes: Vec::new(), log: Log::App, state: State::new() };
        let state = &server.state;
        let commands: Vec<Vec<String>> = match self {
            Kind::Nginx => {
                server.log = Log::Nginx;
                state.file("www/fast", "whole\n");
                state.file("www/large", &".".repeat(4 << 20));
                let config = state.file("nginx.conf", include_str!("nginx.conf"));
                vec![node(state, &["@STATE@/backend", "9000"]), command([&program("nginx", "nginx-light"), "-c", &config])]
            }
            Kind::Apache => {
                server.log = Log::Apache;
                state.file("www/index.php", include_str!("index.php"));
                let module = matching("/usr/lib/apache2/modules", "libphp", ".so", "libapache2-mod-php");
                let config = state.file("apache.conf", &include_str!("apache.conf").replace("@LIBPHP@", &module));
                vec![command([&program("apache2", "apache2"), "-DFOREGROUND", "-f", &config])]
            }
            // Fewer workers than clients: some wait in the accept queue.
            Kind::GunicornSync => vec![gunicorn(state, &["--workers", "9"])],
            Kind::GunicornGthread => {
                vec![gunicorn(state, &["--workers", "1", "--worker-class", "gthread", "--threads", "40", "--keep-alive", "30"])]
            }
            Kind::Puma => {
                let app = state.file("app.ru", include_str!("app.ru"));
                let settings = ["-C", "-", "-e", "production", "-t", "40:40", "-b", "tcp://0.0.0.0:8080"];
                vec![command([program("puma", "puma").as_str()].into_iter().chain(settings).chain([app.as_str()]))]
            }
            Kind::Node => {
                let (key, certificate) = (state.path("key.pem"), state.path("certificate.pem"));
                certify(&key, &certificate);
                vec![node(state, &["@STATE@/log", "8080", &key, &certificate, "8443", "8081"])]
            }
        };
        for argv in commands {
            let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
            let directory = &server.state.directory;
            let mut process = Pid1::spawn(&argv, |command| {
                command.env("HOME", directory).env("TMPDIR", directory).current_dir(directory);
            });
            assert!(process.is_running(), "{argv:?} ended at once:\n{}", process.rest().join("\n"));
            server.processes.push(process);
        }
        let ports: &[u16] = match self {
            Kind::Nginx => &[9000, 8080],
            Kind::Node => &[8080, 8443, 8081],
            _ => &[8080],
        };
        ports.iter().copied().for_each(listening);
        server
    }
}

impl Server {
    /// What the log tells by now; asks again until it knows all of these, since some write it after the answer.
    pub fn served(&mut self, ids: &[usize]) -> Served {
        let log = self.state.path("log");
        let mut served = Served::new();
        let whole = |served: &Served| ids.iter().all(|id| served.get(id).is_some_and(|(_, end)| end.is_some()));
        let deadline = now() + Duration::from_secs(20);
        while !whole(&served) && now() < deadline {
            served = self.log.read(&fs::read_to_string(&log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(20));
        }
        let missing: Vec<&usize> = ids.iter().filter(|id| !served.contains_key(id)).collect();
        let said = self.processes.iter_mut().map(|process| process.rest().join("\n")).collect::<Vec<_>>().join("\n");
        assert!(whole(&served), "requests {missing:?} are not in the server's log, or without an end; it said:\n{said}");
        served
    }
}

impl Log {
    fn read(self, text: &str) -> Served {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        // The wall clock, as CLOCK_MONOTONIC.
        let offset = epoch.saturating_sub(now());
        let mut served = Served::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [first, second, third] = words[..] else { continue };
            let id = || third.split(['?', '&']).find_map(|part| part.strip_prefix("id=")?.parse().ok());
            let seconds = |text: &str| text.parse().map(Duration::from_secs_f64).ok();
            let micros = |text: &str| text.parse().map(Duration::from_micros).ok();
            match self {
                Log::Nginx => {
                    if let (Some(end), Some(took), Some(id)) = (seconds(first), seconds(second), id()) {
                        let end = end.saturating_sub(offset);
                        served.insert(id, (end.saturating_sub(took), Some(end)));
                    }
                }
                Log::Apache => {
                    if let (Some(begin), Some(end), Some(id)) = (micros(first), micros(second), id()) {
                        served.insert(id, (begin.saturating_sub(offset), Some(end.saturating_sub(offset))));
                    }
                }
                Log::App => {
                    let (Ok(id), Some(time)) = (second.parse(), seconds(third)) else { continue };
                    match first {
                        "begin" => _ = served.insert(id, (time, None)),
                        _ => _ = served.entry(id).and_modify(|(_, end)| *end = Some(time)),
                    }
                }
            }
        }
        served
    }
}

fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    words.into_iter().map(str::to_owned).collect()
}

fn node(state: &State, settings: &[&str]) -> Vec<String> {
    let script = state.file("server.js", include_str!("server.js"));
    let mut argv = vec![program("node", "nodejs"), script];
    argv.extend(settings.iter().map(|word| state.replaced(word)));
    argv
}

fn gunicorn(state: &State, settings: &[&str]) -> Vec<String> {
    let directory = state.file("app.py", include_str!("app.py")).replace("/app.py", "");
    let program = program("gunicorn", "gunicorn");
    let server = [&program, "--chdir", &directory, "--worker-tmp-dir", &directory, "--bind", "0.0.0.0:8080", "app:app"];
    command(server.into_iter().chain(settings.iter().copied()))
}

fn certify(key: &str, certificate: &str) {
    let mut openssl = Command::new(program("openssl", "openssl"));
    openssl.args(["req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-keyout", key, "-out", certificate]);
    let output = openssl.output().expect("openssl");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All that a server reads and writes: a directory of one run, gone with it.
struct State {
    directory: PathBuf,
}

impl State {
    fn new() -> State {
        let directory =
            std::env::temp_dir().join(format!("lameduck-verdict-{}-{}", std::process::id(), crate::client::next_id()));
        fs::create_dir_all(&directory).expect("a directory for the server");
        State { directory }
    }

    fn replaced(&self, text: &str) -> String {
        text.replace("@STATE@", self.directory.to_str().expect("a plain path"))
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().expect("a plain path").to_owned()
    }

    /// Writes `text` with `@STATE@` replaced, and returns where.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a parent")).expect("a directory");
        fs::write(&path, self.replaced(text)).expect("a file for the server");
        path
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.processes.clear();
        // A namespace whose PID 1 was killed dies soon, but not at once, and what runs there may still write.
        for _ in 0..100 {
            if fs::remove_dir_all(&self.state.directory).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The path of a program of Debian's. Not the caller's PATH: what a version manager puts there is another server.
fn program(name: &str, package: &str) -> String {
    let mut paths = ["/usr/bin", "/usr/sbin", "/usr/local/bin"].iter().map(|directory| format!("{directory}/{name}"));
    paths.find(|path| Path::new(path).exists()).unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A file whose name has a version in it.
fn matching(directory: &str, start: &str, end: &str, package: &str) -> String {
    let mut names =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.file_name().into_string().unwrap_or_default());
    let name = names.find(|name| name.starts_with(start) && name.ends_with(end));
    let name = name.unwrap_or_else(|| panic!("{directory}/{start}*{end} is missing: apt-get install {package}"));
    format!("{directory}/{name}")
}
