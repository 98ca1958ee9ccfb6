//! lameduck-rehearse as it is typed, against servers that lose what they are told to lose, and against real ones. Run as root, as
//! tests/run does; what a plain user may do is tried as one.

mod chaos;
mod cluster;
mod contenders;
mod docs;
mod image;
mod losses;
mod page;
mod pinned;
mod refusals;
mod remains;
mod rollout;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

const REHEARSE: &str = env!("CARGO_BIN_EXE_lameduck-rehearse");
const PYTHON: &str = "/usr/bin/python3";
/// How long anything may take on a loaded machine before a test gives up on it.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory that everybody may use, gone with the value.
struct Place(PathBuf);

impl Place {
    fn new() -> Place {
        use std::os::unix::fs::PermissionsExt;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lameduck-rehearsal-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("open to all users");
        Place(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).display().to_string()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A rehearsal that is to come, without any setting from outside.
fn rehearsal(words: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", &PATIENCE.as_secs().to_string(), REHEARSE]).args(words).stdin(Stdio::null());
    command
}

/// What it said, how it ended, and its report.
#[derive(Debug)]
struct Rehearsed {
    code: i32,
    table: String,
    said: String,
    report: Value,
}

fn rehearse(words: &[&str]) -> Rehearsed {
    let place = Place::new();
    let json = place.path("report.json");
    let output = rehearsal(&[&["--json", &json], words].concat()).output().expect("timeout, from coreutils");
    let text = fs::read_to_string(&json).unwrap_or_default();
    rehearsed(output, serde_json::from_str(&text).unwrap_or_default())
}

fn rehearsed(output: Output, report: Value) -> Rehearsed {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    Rehearsed { code: output.status.code().unwrap_or(-1), table: text(output.stdout), said: text(output.stderr), report }
}

impl Rehearsed {
    /// A figure of a contender's first round.
    #[track_caller]
    fn figure(&self, contender: usize, path: &str) -> u64 {
        let pointer = format!("/contenders/{contender}/rounds/0{path}");
        self.report.pointer(&pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {self:#?}"))
    }

    /// Refused, reset, cut, failed, timed out.
    #[track_caller]
    fn lost(&self, contender: usize) -> [u64; 5] {
        ["refused", "reset", "cut", "failed", "timed_out"].map(|kind| self.figure(contender, &format!("/tally/lost/{kind}")))
    }

    /// What the table has in this row.
    #[track_caller]
    fn cells(&self, name: &str) -> Vec<String> {
        let row = self.table.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("   "));
        let row = row.unwrap_or_else(|| panic!("no {name} in {}", self.table));
        row.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).map(str::to_owned).collect()
    }

    #[track_caller]
    fn lost_in_all(&self, contender: usize) -> u64 {
        self.lost(contender).iter().sum()
    }
}

/// Asks until there is an answer.
#[track_caller]
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn source(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rehearsal").join(name).display().to_string()
}
