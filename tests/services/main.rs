//! Several services in one container, as a real PID 1 runs them: who starts when, whose end is everybody's, who is stopped in which order, and
//! what is left of the one budget for each.

#[path = "../support/mod.rs"]
mod support;

mod before;
mod order;
mod pods;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use support::{LAMEDUCK, Pid1, eventually, in_own_network, report};

const INT: i32 = 2;
const KILL: i32 = 9;
const TERM: i32 = 15;

/// What a loaded machine may add to a time that lameduck keeps.
const SLACK: Duration = Duration::from_secs(4);

/// Runs lameduck as PID 1 with these arguments, in a network of its own, and tells the story on it.
fn lameduck(args: &[&str], story: impl FnOnce(&mut Pid1) + Send + 'static) {
    let argv: Vec<String> = [&[LAMEDUCK], args].concat().into_iter().map(str::to_owned).collect();
    in_own_network(move || {
        let argv: Vec<&str> = argv.iter().map(String::as_str).collect();
        story(&mut Pid1::start(&argv));
    });
}

/// A service that listens on nothing and ends with a code on TERM; with `ignore` it is deaf to it.
fn service(on_term: &str) -> String {
    format!("{} --on TERM={on_term}", report())
}

/// Asks an address of this network, and returns all of the answer.
fn get(address: &str, path: &str) -> String {
    let mut connection = TcpStream::connect(address).expect("connect");
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("write");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).expect("read");
    answer
}

/// The value of a field in a line of lameduck's log.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let rest = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("no {name} in {line:?}")).1;
    match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => rest.split(' ').next().unwrap_or_default(),
    }
}

/// The names of the services in the lines of one event, in their order.
fn services(init: &Pid1, event: &str) -> Vec<String> {
    let lines =
        init.seen.iter().filter(|line| line.split(' ').nth(1) == Some("lameduck") && line.split(' ').nth(3) == Some(event));
    lines.map(|line| field(line, "service").to_owned()).collect()
}

/// Waits until a service has been started, and returns its process as this namespace sees it.
fn process(init: &mut Pid1, service: &str) -> i32 {
    let line = init.line(&format!(" start service={service} "));
    let inside = field(&line, "pid").to_owned();
    let children = format!("/proc/{0}/task/{0}/children", init.pid);
    let is_it = |pid: &&str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with(&format!("\t{inside}")))
    };
    eventually("the service's process", || {
        let list = fs::read_to_string(&children).ok()?;
        list.split_whitespace().find(is_it)?.parse().ok()
    })
}

/// Waits until `count` services have set their handlers.
fn ready(init: &mut Pid1, count: usize) {
    let seen = |init: &Pid1| init.seen.iter().filter(|line| line.starts_with("ready pid=")).count();
    while seen(init) < count {
        init.next_app_line("ready pid=");
    }
}
