//! Before the start, against the real binary: templates, waiting, identity and limits, `lameduck exec`, and how many workers of real
//! servers run. What is refused starts nothing and leaves nothing behind.

#[path = "../support/mod.rs"]
mod support;

mod exec;
mod identity;
mod sizes;
mod template;
mod waiting;
mod workers;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use support::{LAMEDUCK, Pid1, in_own_network};

/// A directory of the test's own, gone with it. lameduck starts in it.
struct Stage(PathBuf);

impl Stage {
    fn new() -> Stage {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("lameduck-prepare-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory).expect("a directory");
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o755)).expect("open to all users");
        Stage(directory)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("UTF-8").to_owned()
    }

    fn file(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a directory")).expect("a directory");
        fs::write(&path, text).expect("a file");
        path
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path(name)).is_ok()
    }

    /// All that is in it, hidden or not.
    fn listing(&self) -> Vec<String> {
        fn walk(directory: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                found.push(entry.path().to_str().expect("UTF-8").to_owned());
                if entry.file_type().expect("a type").is_dir() {
                    walk(&entry.path(), found);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.0, &mut found);
        found.sort();
        found
    }

    /// PID 1 of a namespace of its own, here, with these variables and PATH alone.
    fn start(&self, variables: &[(&str, &str)], argv: &[&str]) -> Pid1 {
        Pid1::spawn(argv, |command| self.scene(command, variables))
    }

    fn scene(&self, command: &mut Command, variables: &[(&str, &str)]) {
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").envs(variables.iter().copied()).current_dir(&self.0);
    }

    /// To its end: exit code and all lines.
    fn run(&self, variables: &[(&str, &str)], argv: &[&str]) -> Ended {
        let mut pid1 = self.start(variables, argv);
        let code = pid1.exit();
        Ended { code, lines: pid1.rest().to_vec() }
    }

    fn lameduck(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Ended {
        self.run(variables, &[&[LAMEDUCK], arguments].concat())
    }

    /// The same settings as options and as variables: each time `check` sees the end of `command`.
    fn both_ways(&self, settings: &[(&str, &str)], command: &[&str], check: impl Fn(&Ended)) {
        for (variables, options) in spellings(settings) {
            let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            check(&self.lameduck(&variables, &[&options[..], &["--"], command].concat()));
        }
    }

    /// Refused with this code and one line that has all `parts`, both as options and as variables, by `lameduck` and by `lameduck exec`:
    /// nothing was started, and nothing is left that was not there.
    fn refuses(&self, settings: &[(&str, &str)], code: i32, parts: &[&str]) {
        self.refuses_in(&[], settings, code, parts);
    }

    /// As `refuses`, behind `scene`: a command that runs lameduck.
    fn refuses_in(&self, scene: &[&str], settings: &[(&str, &str)], code: i32, parts: &[&str]) {
        let before = self.listing();
        for (variables, options) in spellings(settings) {
            for verb in [&[][..], &["exec"]] {
                let variables: Vec<(&str, &str)> =
                    variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let options: Vec<&str> = options.iter().map(String::as_str).collect();
                let app = ["--", "touch", &self.path("started")];
                let ended = self.run(&variables, &[scene, &[LAMEDUCK], verb, &options, &app].concat());
                let complaints = ended.complaints();
                assert_eq!((ended.code, complaints.len()), (code, 1), "{settings:?} {verb:?}: {:#?}", ended.lines);
                for part in parts {
                    assert!(complaints[0].contains(part), "{settings:?} {verb:?}: no {part:?} in {:?}", complaints[0]);
                }
                assert_eq!(self.listing(), before, "{settings:?} {verb:?}: started, or something is left behind");
            }
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Variables = Vec<(String, String)>;
type Options = Vec<String>;

/// Settings as variables, then as options. `("--expand-args", "")` is a switch.
fn spellings(settings: &[(&str, &str)]) -> [(Variables, Options); 2] {
    let variable = |(option, value): &(&str, &str)| {
        let name = format!("LAMEDUCK_{}", option[2..].to_uppercase().replace('-', "_"));
        (name, if value.is_empty() { "true" } else { value }.to_owned())
    };
    let mut variables: Variables = Vec::new();
    for (name, value) in settings.iter().map(variable) {
        // What is repeated is separated by commas there.
        match variables.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => *values = format!("{values},{value}"),
            None => variables.push((name, value)),
        }
    }
    // With = between them, so that a value may begin with a dash.
    let option =
        |(option, value): &(&str, &str)| if value.is_empty() { (*option).to_owned() } else { format!("{option}={value}") };
    [(variables, Vec::new()), (Vec::new(), settings.iter().map(option).collect())]
}

struct Ended {
    code: i32,
    lines: Vec<String>,
}

impl Ended {
    /// What the app said.
    fn said(&self) -> Vec<&str> {
        let ours = |line: &&String| line.split(' ').nth(1) == Some("lameduck") || line.starts_with("lameduck: ");
        self.lines.iter().filter(|line| !ours(line)).map(String::as_str).collect()
    }

    fn complaints(&self) -> Vec<&str> {
        self.lines.iter().filter(|line| line.starts_with("lameduck: ")).map(String::as_str).collect()
    }

    #[track_caller]
    fn is(&self, code: i32, said: &[&str]) {
        assert_eq!((self.code, self.said()), (code, said.to_vec()), "{:#?}", self.lines);
    }
}
