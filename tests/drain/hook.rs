//! One run of the hook.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

use super::support::{LAMEDUCK, PATIENCE, Pid1, code, eventually};

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stream {
    Out,
    Err,
}

pub struct Hook {
    nsenter: Child,
    lines: Receiver<(Stream, String)>,
    seen: Vec<(Stream, String)>,
}

#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: Vec<String>,
    pub err: Vec<String>,
}

impl Hook {
    pub fn start(pod: &Pid1, flags: &[&str]) -> Hook {
        Hook::start_by(pod, &[], LAMEDUCK, flags)
    }

    /// By a command that runs its arguments. The environment is a container's in Kubernetes, and no more.
    pub fn start_by(pod: &Pid1, by: &[&str], lameduck: &str, flags: &[&str]) -> Hook {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &pod.pid.to_string(), "--pid", "--mount", "--"])
            .args(by)
            .arg(lameduck)
            .arg("drain")
            .args(flags);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut nsenter = command.spawn().expect("nsenter, from util-linux");
        let (sender, lines) = channel();
        let out: Box<dyn Read + Send> = Box::new(nsenter.stdout.take().unwrap());
        let err: Box<dyn Read + Send> = Box::new(nsenter.stderr.take().unwrap());
        for (stream, from) in [(Stream::Out, out), (Stream::Err, err)] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                    let _ = sender.send((stream, String::from_utf8_lossy(&line).into_owned()));
                }
            });
        }
        Hook { nsenter, lines, seen: Vec::new() }
    }

    /// With `--log-level info`: what the first look has found.
    pub fn begun(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.unwrap_or_else(|error| panic!("{error}; seen: {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.1.contains(" lame-duck ") {
                return line.1;
            }
        }
    }

    /// As this namespace sees it.
    pub fn pid(&self) -> i32 {
        let outer = self.nsenter.id();
        let children = format!("/proc/{outer}/task/{outer}/children");
        eventually("nsenter forks", || std::fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok())
    }

    /// Waits for its end, and for that of its streams.
    pub fn ends(mut self) -> Ended {
        let code = self.exit();
        self.seen.extend(self.lines.iter());
        self.ended(code)
    }

    /// Where its streams may outlive it.
    pub fn ends_alone(mut self) -> Ended {
        let code = self.exit();
        self.seen.extend(self.lines.try_iter());
        self.ended(code)
    }

    fn exit(&mut self) -> i32 {
        let seen = &self.seen;
        code(eventually(&format!("the hook ends; seen: {seen:#?}"), || self.nsenter.try_wait().expect("wait for nsenter")))
    }

    fn ended(self, code: i32) -> Ended {
        let of = |stream| self.seen.iter().filter(|line| line.0 == stream).map(|line| line.1.clone()).collect();
        Ended { code, out: of(Stream::Out), err: of(Stream::Err) }
    }
}

impl Ended {
    /// The line, and nothing else on either stream.
    #[track_caller]
    pub fn only_line(&self) -> &str {
        assert!(self.err.is_empty(), "{self:#?}");
        self.line()
    }

    #[track_caller]
    pub fn line(&self) -> &str {
        assert_eq!(self.out.len(), 1, "{self:#?}");
        &self.out[0]
    }

    /// How long the hook waited, in seconds, as it says.
    #[track_caller]
    pub fn after(&self) -> f64 {
        let line = self.line();
        let word = line.split(" after ").nth(1).and_then(|rest| rest.split([';', ')', ' ']).next());
        let seconds = word.and_then(|word| word.strip_suffix('s')?.parse().ok());
        seconds.unwrap_or_else(|| panic!("no time in seconds in {line}"))
    }
}
