//! What is seen from outside: `--admin`, readiness, metrics, status, logs; each on a real PID 1, by clients that are not ours.

mod at_rest;
mod dashboard;
mod endpoints;
mod hostile;
mod logs;
mod metrics;
mod readiness;
mod status;
mod story;
#[path = "../support/mod.rs"]
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use support::{PATIENCE, PYTHON, Pid1};

const HUP: i32 = 1;
const USR1: i32 = 10;
const USR2: i32 = 12;
const TERM: i32 = 15;

/// tests/admin/app.py; how it behaves depends on what it is asked for.
const APP: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/admin/app.py");
const ADMIN: &str = "127.0.0.1:9102";

/// lameduck with `--admin` and `options`, around the app, which was given `arguments`.
fn start(options: &[&str], arguments: &[&str]) -> Pid1 {
    let app = [&["--", PYTHON, "-u", APP][..], arguments].concat();
    Pid1::start(&[&[support::LAMEDUCK, "--admin", ADMIN][..], options, &app].concat())
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let header = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        header.map_or("", |(_, value)| value.as_str())
    }

    fn line(&self) -> (u16, &str) {
        (self.status, self.body.trim_end())
    }
}

/// A connection to the admin port on which anything may be sent.
struct Client(BufReader<TcpStream>);

impl Client {
    fn open(address: &str) -> std::io::Result<Client> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Client(BufReader::new(stream)))
    }

    fn send(&mut self, text: &str) -> std::io::Result<()> {
        self.0.get_mut().write_all(text.as_bytes())
    }

    /// None: the connection was closed. `head`: the answer to a HEAD, which has no body.
    fn answer(&mut self, head: bool) -> std::io::Result<Option<Answer>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                assert!(lines.is_empty(), "cut after {lines:?}");
                return Ok(None);
            }
            match line.strip_suffix("\r\n").expect("a line of a head ends in CR LF") {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let status = lines[0].strip_prefix("HTTP/1.1 ").expect(&lines[0]).split(' ').next().unwrap().parse().unwrap();
        let header = |line: &String| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned()));
        let headers = lines[1..].iter().map(|line| header(line).expect(line)).collect();
        let mut answer = Answer { status, headers, body: String::new() };
        if !head {
            let mut body = vec![0; answer.header("Content-Length").parse().expect("a Content-Length")];
            self.0.read_exact(&mut body)?;
            answer.body = String::from_utf8(body).expect("UTF-8");
        }
        Ok(Some(answer))
    }

    /// Whether the server has closed it, and sent nothing more.
    fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        self.0.read_to_end(&mut rest).is_ok_and(|_| rest.is_empty())
    }
}

/// As the kubelet asks.
fn probe(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nUser-Agent: kube-probe/1.34\r\nAccept: */*\r\nConnection: close\r\n\r\n")
}

fn get_from(address: &str, path: &str) -> std::io::Result<Answer> {
    let mut client = Client::open(address)?;
    client.send(&probe(path))?;
    client.answer(false)?.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
}

fn get(path: &str) -> Answer {
    get_from(ADMIN, path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The value of a field in a log line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let value = line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("no {name} in {line}"))
}

fn seconds(text: &str) -> f64 {
    match text.strip_suffix("ms") {
        Some(millis) => millis.parse::<f64>().expect("a number") / 1000.0,
        None => text.trim_end_matches('s').parse().expect("a number"),
    }
}

/// What a program makes of `input`: its exit code and all that it says.
fn run(argv: &[&str], input: &str) -> (i32, String) {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{}: {error}: tests/run installs it", argv[0]));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writer = std::thread::spawn(move || _ = stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().expect("wait");
    writer.join().unwrap();
    (support::code(output.status), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
}

/// What jq finds in a JSON document.
fn jq(filter: &str, json: &str) -> String {
    let (code, said) = run(&["jq", "-rc", filter], json);
    assert_eq!(code, 0, "{said}\n{json}");
    said.trim_end().to_owned()
}
