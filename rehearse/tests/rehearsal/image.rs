//! `--image`, with podman and runc on a store of our own.

use super::*;

/// This machine's podman as a program that needs no words to find its store.
fn engine(place: &Place) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = place.path("podman");
    let text = format!(
        "#!/bin/sh\nexec podman --root {0}/storage --runroot {0}/run --tmpdir {0}/run/libpod --runtime runc --cgroup-manager cgroupfs \
         --events-backend file \"$@\"\n",
        place.path("")
    );
    fs::write(&path, text).expect("a script");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("one that runs");
    path
}

/// An image with places for this machine's own programs, and a server as its command.
fn build(place: &Place, engine: &str) {
    let tree = place.0.join("image/tree");
    for directory in ["usr", "etc", "tmp"] {
        fs::create_dir_all(tree.join(directory)).expect("a directory");
    }
    for link in ["bin", "lib", "lib64"] {
        std::os::unix::fs::symlink(format!("usr/{link}"), tree.join(link)).expect("a link");
    }
    let server =
        "import http.server as h; h.ThreadingHTTPServer(('127.0.0.1', 8086), h.SimpleHTTPRequestHandler).serve_forever()";
    let file = format!(
        "FROM scratch\nCOPY tree/ /\nWORKDIR /tmp\nSTOPSIGNAL SIGINT\nENTRYPOINT [\"{PYTHON}\", \"-c\"]\nCMD [\"{server}\"]\n"
    );
    fs::write(place.0.join("image/Dockerfile"), file).expect("a Dockerfile");
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"];
    let built = Command::new(engine).arg("build").args(limits).args(["--tag", "localhost/server", &place.path("image")]).output();
    let built = built.expect("podman (tests/run installs it)");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
}

/// The static one, for a container that has no C library.
fn lameduck() -> String {
    let target = format!("{}-unknown-linux-musl", std::env::consts::ARCH);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let words = ["build", "--release", "--locked", "--package", "lameduck", "--bin", "lameduck", "--target", &target];
    let cargo = Command::new(env!("CARGO")).args(words).arg("--target-dir").arg(directory).output().expect("cargo");
    let said = String::from_utf8_lossy(&cargo.stderr);
    assert!(cargo.status.success(), "this needs `rustup target add {target}` (tests/run does that)\n{said}");
    directory.join(target).join("release/lameduck").display().to_string()
}

#[test]
fn a_container_loses_nothing_with_lameduck_and_none_is_left() {
    let place = Place::new();
    let engine = engine(&place);
    build(&place, &engine);
    let words =
        ["--image", "localhost/server", "--engine", &engine, "--lameduck", &lameduck(), "--url", "http://127.0.0.1:8086/"];
    let more =
        ["--run-option=--volume=/usr:/usr:ro", "--run-option=--volume=/etc:/etc:ro", "--load-for=1s", "--propagate=1s..3s"];
    let rehearsed = rehearse(&[&words[..], &more, &["--against", "none,lameduck --stop-on INT --delay 2s"]].concat());
    assert!(rehearsed.lost_in_all(0) > 20, "{rehearsed:#?}");
    assert_eq!((rehearsed.lost(1), rehearsed.code), ([0; 5], 0), "{rehearsed:#?}");
    assert_eq!(rehearsed.report["settings"]["stop_signal"], "INT", "the image's own");
    let left = Command::new(&engine).args(["ps", "--all", "--quiet"]).output().expect("podman");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "", "containers are left");
}

#[test]
fn a_killed_rehearsal_leaves_no_container() {
    let place = Place::new();
    let engine = engine(&place);
    build(&place, &engine);
    let words = ["--image", "localhost/server", "--engine", &engine, "--url", "http://127.0.0.1:8086/", "--load-for=1h"];
    let more = ["--run-option=--volume=/usr:/usr:ro", "--run-option=--volume=/etc:/etc:ro", "--against=none"];
    let mut rehearsal = Command::new(REHEARSE);
    let rehearsal = rehearsal.args(words).args(more).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut rehearsal = rehearsal.spawn().expect("it starts");
    let containers = || {
        let list = Command::new(&engine).args(["ps", "--all", "--quiet"]).output().expect("podman");
        String::from_utf8(list.stdout).expect("UTF-8").lines().count()
    };
    eventually("its container is there", || (containers() == 1).then_some(()));
    rehearsal.kill().expect("KILL");
    rehearsal.wait().expect("its end");
    eventually("its container is gone", || (containers() == 0).then_some(()));
}

#[test]
fn an_image_that_is_not_there() {
    let place = Place::new();
    let engine = engine(&place);
    let words = ["--image", "localhost/no-such-image", "--engine", &engine, "--url", "http://127.0.0.1:8086/"];
    let rehearsed = rehearse(&words);
    assert_eq!(rehearsed.code, 69, "{rehearsed:#?}");
    assert!(rehearsed.said.starts_with("lameduck-rehearse: cannot get the image localhost/no-such-image: "), "{rehearsed:#?}");
}

/// It would fail inside, in words that nobody understands.
#[test]
fn a_lameduck_that_needs_a_c_library_is_refused() {
    let place = Place::new();
    let engine = engine(&place);
    build(&place, &engine);
    let words = ["--image", "localhost/server", "--engine", &engine, "--url", "http://127.0.0.1:8086/", "--against", "lameduck"];
    let rehearsed = rehearse(&words);
    assert_eq!(rehearsed.code, 69, "{rehearsed:#?}");
    assert!(
        rehearsed.said.contains("needs a C library, which the image may lack; build this rehearsal with --target"),
        "{rehearsed:#?}"
    );
}
