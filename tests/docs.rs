//! What is written agrees with what is done.

#[path = "docs/promise.rs"]
mod promise;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use lameduck::core::servers::{KNOWN, KeptAlive, OwnStop};
use lameduck::core::shutdown::Phase;

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_lameduck")).arg("--help").output().expect("lameduck --help");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The words that match, such as options in a text.
fn words(text: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_'))
        .filter(|word| wanted(word))
        .map(str::to_owned)
        .collect()
}

fn option(word: &str) -> bool {
    word.len() > 3 && word.starts_with("--") && word[2..].starts_with(|c: char| c.is_ascii_lowercase())
}

/// Files that speak of our options, and the options in them that are other programs'.
const TEXTS: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "docs/glossary.md",
    "docs/keepalive.md",
    "docs/services.md",
    "docs/shutdown.md",
    "docs/traffic.md",
    "docs/servers.md",
    "docs/design.md",
    "docs/mesh.md",
    "docs/platforms.md",
    "docs/admin.md",
    "docs/install.md",
    "docs/prepare.md",
    "docs/prestop.md",
    "Dockerfile.example",
    "examples/autoscaling/cart.yaml",
    "examples/compose.yaml",
    "examples/job/export.yaml",
    "examples/kubernetes/deployment.yaml",
    "examples/kubernetes/disruption.yaml",
    "examples/no-rebuild/deployment.yaml",
    "examples/platforms/ecs-task.json",
    "examples/platforms/fly.toml",
    "examples/platforms/shop.nomad.hcl",
    "examples/platforms/shop.service",
    "examples/podmonitor.yaml",
    "examples/prestop/deployment.yaml",
    "examples/sidecar/orders.yaml",
    "examples/two-containers/blog.yaml",
];
const OTHERS: &[&str] = &[
    "--build",
    "--release",
    "--target",
    "--locked",
    "--from",
    "--cgi",
    "--http-socket",
    "--add-header",
    "--name",
    "--password",
    "--no-install-recommends",
    "--rm",
    "--url",
    "--rollout",
    "--connections",
    "--pinned",
    "--rate",
    "--delete-pod",
    "--drain-node",
    "--deadline",
    "--image",
    "--delete-emptydir-data",
    "--ignore-daemonsets",
    "--format",
    "--max-heap-size",
    "--max-old-space-size",
    "--max-old-space-size-percentage",
    "--worker-tmp-dir",
    "--bind",
    "--health-check",
    "--http-address",
    "--http-port",
    "--config",
    "--repo",
    "--reuid",
    "--regid",
    "--clear-groups",
];

#[test]
fn every_option_that_is_written_of_exists() {
    let known = words(&help(), option);
    assert!(known.len() > 20);
    for path in TEXTS {
        let named = words(&read(path), |word| option(word) && !OTHERS.contains(&word));
        assert!(named.is_subset(&known), "{path} names options that do not exist: {:?}", named.difference(&known));
    }
}

#[test]
fn every_variable_that_is_written_of_exists() {
    let options: BTreeSet<String> =
        words(&help(), option).iter().map(|name| format!("LAMEDUCK_{}", name[2..].to_uppercase().replace('-', "_"))).collect();
    for path in TEXTS {
        for name in words(&read(path), |word| word.starts_with("LAMEDUCK_")) {
            let special = [
                "LAMEDUCK_CPU_MILLIS",
                "LAMEDUCK_CPU_REQUEST_MILLIS",
                "LAMEDUCK_MEMORY_BYTES",
                "LAMEDUCK_MEMORY_LIMIT",
                "LAMEDUCK_PODINFO",
                "LAMEDUCK_WORKERS",
            ];
            let special = special.contains(&name.as_str());
            assert!(special || options.contains(&name), "{path} names {name}");
        }
    }
}

/// What README.md shows of `lameduck plan` is what it prints; a line of `…` stands for others.
#[test]
fn the_sample_of_plan_is_true() {
    let text = read("README.md");
    let sample = text.split("```\n$ lameduck ").nth(1).and_then(|rest| rest.split("```").next()).expect("a sample in README.md");
    let (words, lines) = sample.split_once('\n').expect("lines behind the command");
    let output = Command::new(env!("CARGO_BIN_EXE_lameduck")).args(words.split(' ')).env_clear().output().expect("lameduck plan");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    for part in lines.split("…\n").filter(|part| !part.is_empty()) {
        assert!(printed.contains(part), "README.md shows\n{part}of\n{printed}");
    }
    assert!(lines.contains("timeline\n"));
}

#[test]
fn every_known_server_is_documented() {
    let text = read("docs/servers.md");
    for server in KNOWN {
        let stop: Vec<String> = server.stop.iter().map(ToString::to_string).collect();
        let row = format!("| {} | {} | {} |", server.name, server.programs.join(", "), stop.join(", then "));
        assert!(text.contains(&row), "docs/servers.md lacks {row}");
        let line = text.lines().find(|line| line.starts_with(&row)).unwrap_or_default();
        assert!(line.contains(&format!("| {} |", kept_alive(server.kept_alive))), "docs/servers.md: {line}");
        assert!(text.contains(server.why) && text.contains(server.source), "docs/servers.md on {}", server.name);
    }
    assert_eq!(text.lines().filter(|line| line.contains("| <http")).count(), KNOWN.len());
    assert!(read("README.md").contains(&format!("[{} servers]", KNOWN.len())));
}

/// As docs/servers.md says it.
fn kept_alive(KeptAlive { own_stop, finishes, is_session }: KeptAlive) -> &'static str {
    match (is_session, own_stop, finishes) {
        (true, ..) => "sessions: waited for",
        (_, OwnStop::Lossless, _) => "own stop",
        (_, OwnStop::Good, true) => "closed at any moment; its own stop is the next best",
        (_, OwnStop::Good, false) => "closed; its own stop is the next best",
        (_, OwnStop::Poor, true) => "closed at any moment",
        (_, OwnStop::Poor, false) => "closed",
    }
}

#[test]
fn every_phase_is_in_the_picture() {
    let text = read("docs/shutdown.md");
    for phase in Phase::ALL {
        assert!(text.contains(&format!("{phase:?}")), "{phase:?}");
    }
}

/// The core thinks: it touches nothing.
#[test]
fn the_core_reaches_for_nothing_outside_itself() {
    let banned = [
        "libc",
        "nix::",
        "tokio",
        "std::env",
        "std::process",
        "std::fs",
        "std::thread",
        "Instant::now",
        "SystemTime",
        "unsafe",
        "crate::",
    ];
    let files = sources("src/core");
    for path in &files {
        let text = fs::read_to_string(path).expect("a source file");
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let line = line.replace("crate::core::", "core::");
            for word in banned {
                assert!(!line.contains(word), "{}:{}: {word}", path.display(), number + 1);
            }
        }
    }
    assert!(files.len() >= 8);
}

/// All files with a suffix in a directory and those below it.
fn sources(directory: &str) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).expect("a directory");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let below = |path: &std::path::PathBuf| format!("{directory}/{}", path.file_name().unwrap().to_str().expect("UTF-8"));
    paths
        .flat_map(|path| if path.is_dir() { sources(&below(&path)) } else { vec![path] })
        .filter(|path| path.extension().is_some())
        .collect()
}

/// libc, nix and unsafe live in sys alone.
#[test]
fn only_sys_touches_the_kernel() {
    for path in sources("src").iter().filter(|path| !path.to_string_lossy().contains("src/sys/")) {
        let text = fs::read_to_string(path).expect("a source file");
        for line in text.lines().filter(|line| !line.trim_start().starts_with("//") && !line.starts_with("#!")) {
            for word in ["libc::", " nix::", "(nix::", "unsafe "] {
                assert!(!line.contains(word), "{}: {line}", path.display());
            }
        }
    }
}

/// A target that Cargo.toml lacks is never run.
#[test]
fn every_fuzz_target_is_run() {
    let manifest = read("fuzz/Cargo.toml");
    for path in sources("fuzz/fuzz_targets") {
        let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8").to_owned();
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}\"")), "fuzz/Cargo.toml lacks {name}");
    }
}

/// The house in docs/design.md has the rooms that stand.
#[test]
fn the_picture_of_the_house_is_true() {
    let text = read("docs/design.md");
    for directory in ["src", "kubectl/src", "rehearse/src", "release/pages/src"] {
        for path in sources(directory) {
            let name = path.file_name().and_then(|name| name.to_str()).expect("UTF-8");
            assert!(name == "mod.rs" || text.contains(name), "docs/design.md lacks {}", path.display());
        }
    }
}

/// The rooms that a line of code names, by `crate::`.
fn rooms_of(line: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            Some(list) => rooms.extend(list.split('}').next().unwrap_or_default().split(',').map(first_name)),
            None => rooms.push(first_name(rest)),
        }
    }
    rooms
}

fn first_name(text: &str) -> String {
    text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

/// Which rooms each room of src/ uses, by its code.
fn arrows() -> BTreeMap<String, BTreeSet<String>> {
    let mut arrows: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources("src") {
        let inside = path.strip_prefix(&root).expect("inside src");
        let room = inside.iter().next().and_then(|room| room.to_str()).expect("UTF-8").trim_end_matches(".rs").to_owned();
        if matches!(room.as_str(), "lib" | "main" | "fuzzing") {
            continue;
        }
        let text = fs::read_to_string(&path).expect("a source file");
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let used = arrows.entry(room.clone()).or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            used.extend(rooms_of(line).into_iter().filter(|name| *name != room));
        }
    }
    arrows
}

/// Its arrows are those of the `use` lines, and there are no circles.
#[test]
fn the_arrows_of_the_house_are_true() {
    let text = read("docs/design.md");
    let picture = text.split("The arrows, as").nth(1).and_then(|rest| rest.split("```").nth(1)).expect("the arrows in a block");
    let lines = picture.lines().filter_map(|line| line.split_once(" → "));
    let drawn: BTreeMap<String, BTreeSet<String>> = lines
        .map(|(room, used)| (room.to_owned(), used.split(", ").filter(|used| *used != "–").map(str::to_owned).collect()))
        .collect();
    let mut arrows = arrows();
    assert_eq!(drawn, arrows);
    // A room that uses nothing that is left can be taken away; where none can, they stand in a circle.
    while !arrows.is_empty() {
        let free: Vec<String> = arrows.iter().filter(|(_, used)| used.is_empty()).map(|(room, _)| room.clone()).collect();
        assert!(!free.is_empty(), "a circle: {arrows:?}");
        arrows.retain(|room, _| !free.contains(room));
        arrows.values_mut().for_each(|used| used.retain(|room| !free.contains(room)));
    }
}
