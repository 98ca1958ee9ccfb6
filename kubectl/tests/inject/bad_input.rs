//! One clear line, and nothing half-written.

use super::*;

const BARE: &str = "kind: Deployment\nmetadata:\n  name: a\nspec:\n  template:\n    spec:\n      containers:\n        - name: web\n          \
                    image: shop:1\n          ports: [{containerPort: 80}]\n";

#[track_caller]
fn refused(arguments: &[&str], input: &str, code: i32, part: &str) {
    let output = kubectl_lameduck(arguments, input);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {error}");
    assert!(
        error.starts_with("kubectl-lameduck: cannot ") && error.lines().count() == 1 && error.contains(part),
        "{arguments:?}: {error}"
    );
    assert!(output.stdout.is_empty(), "{arguments:?}: something was written");
}

#[test]
fn usage() {
    for (arguments, part) in [
        (&[][..], "no command was given"),
        (&["lint"], "no file was named"),
        (&["lnt"], "lnt"),
        (&["lint", "--fromat", "json", "-"], "--fromat"),
        (&["lint", "--format", "xml", "-"], "\"xml\" from --format"),
        (&["lint", "--fail-on", "fatal", "-"], "\"fatal\" from --fail-on"),
        (&["inject", "-"], "give --image"),
        (&["inject", "--image", "x", "--how", "magic", "-"], "--how"),
        (&["inject", "--image", "x", "--entrypoint", "'a", "-"], "a quote is open"),
        (&["inject", "--image", "x", "--grace-period", "0", "-"], "--grace-period 0"),
        (&["uninject", "--write", "-"], "leave --write out"),
        (&["inject", "--image", "x", "--container", "wbe", "--entrypoint", "a", "-"], "\"wbe\""),
    ] {
        refused(arguments, BARE, 64, part);
    }
}

#[test]
fn manifests_that_cannot_be_read() {
    for (input, part) in [
        ("kind: Deployment\nspec:\n  a: [1\n", "cannot read stdin: line "),
        ("kind: Pod\nspec: {}\nkind: Pod\n", "line 3: the key \"kind\" stands there twice"),
        ("kind: Pod\nname: {{ .Values.name }}\n", "helm template"),
        ("a: 1\n\tb: 2\n", "cannot read stdin: line "),
        ("\u{feff}kind: Pod\n", "byte order mark"),
    ] {
        for verb in [&["lint", "-"][..], &["plan", "-"], &["uninject", "-"], &["inject", "--image", "x", "-"]] {
            refused(verb, input, 78, part);
        }
    }
    refused(&["lint", "/nowhere/x.yaml"], "", 78, "cannot read /nowhere/x.yaml");
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-lameduck"))
        .args(["lint", env!("CARGO_BIN_EXE_kubectl-lameduck")])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not UTF-8"));
}

/// Every workload or none: the second one's fault keeps the first from being written.
#[test]
fn manifests_that_cannot_be_edited() {
    let inject = &["inject", "--image", "x", "-"][..];
    let commanded = BARE.replace("image: shop:1", "image: shop:1\n          command: [serve]");
    let both = format!("{commanded}---\n{BARE}");
    refused(inject, &both, 78, "cannot inject Deployment/a (stdin:13): containers[web]: nobody says what shop:1 runs");
    let taken = commanded.replace("      containers", "      volumes: [{name: lameduck, emptyDir: {}}]\n      containers");
    refused(inject, &taken, 78, "rename it");
    let shared = commanded.replace("command: [serve]", "command: &c [serve]\n          args: *c");
    refused(inject, &shared, 78, "write it out");
    let hook = commanded.replace("command: [serve]", "lifecycle: {preStop: {exec: {command: [quit-nginx]}}}");
    refused(&["inject", "--image", "x", "--how", "prestop", "-"], &hook, 78, "a preStop hook of its own");
    let short = commanded.replace("      containers", "      terminationGracePeriodSeconds: 0\n      containers");
    refused(inject, &short, 78, "shorter than 1s");
}

#[test]
fn what_a_newer_version_did_or_somebody_changed() {
    let commanded = BARE.replace("image: shop:1", "image: shop:1\n          command: [serve]");
    let done = injected(&text("x", &commanded), How::Init).unwrap().text;
    let newer = done.replace(&format!("injected: \"{}", env!("CARGO_PKG_VERSION")), "injected: \"99.1.0");
    assert_ne!(newer, done);
    let changed = done.replace("/lameduck/lameduck", "/elsewhere/lameduck");
    let bad = done.replace("init ", "init x");
    for verb in [&["uninject", "-"][..], &["inject", "--image", "x", "-"]] {
        refused(verb, &newer, 78, "a newer version injected it (99.1.0");
        refused(verb, &changed, 78, "was changed where inject had edited it");
        refused(verb, &bad, 78, "cannot be read");
    }
}
