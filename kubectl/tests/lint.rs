//! Each rule has a manifest that trips it and one that does not; the table, the documentation and the reports agree.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kubectl_lameduck::lint::{self, Report, Severity};
use kubectl_lameduck::manifest::{self, Source};
use kubectl_lameduck::report::{self, Format};

/// Stands between what trips a rule and what does not.
const FINE: &str = "# ---- fine\n";

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn linted(texts: &[&str]) -> Report {
    let parse = |(number, text): (usize, &&str)| {
        manifest::parse(Source { name: format!("{number}.yaml"), text: (*text).to_owned() })
            .unwrap_or_else(|line| panic!("{line}\n{text}"))
    };
    lint::lint(&texts.iter().enumerate().map(parse).collect::<Vec<_>>())
}

fn codes(report: &Report) -> BTreeSet<&'static str> {
    report.findings.iter().map(|finding| finding.rule.code).collect()
}

fn kubectl_lameduck(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-lameduck")).args(arguments).current_dir(source("..")).output().expect("it runs")
}

#[test]
fn each_rule_has_a_manifest_that_trips_it_and_one_that_does_not() {
    let rules: Vec<_> = lint::rules().collect();
    for rule in &rules {
        let path = source("tests/rules").join(format!("{}.yaml", rule.code));
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (trips, fine) = text.split_once(FINE).unwrap_or_else(|| panic!("{} has no {FINE}", path.display()));
        let tripped = linted(&[trips]);
        let objects = trips.matches("\nkind: Deployment").count().max(1);
        let hits = tripped.findings.iter().filter(|finding| finding.rule.code == rule.code).count();
        assert!(hits >= objects, "{}: {hits} findings for {objects} workloads", rule.code);
        let report = linted(&[fine]);
        assert!(
            !codes(&report).contains(rule.code),
            "{} fires on what is fine:\n{}",
            rule.code,
            report::written(&report, Format::Text)
        );
    }
    let files = fs::read_dir(source("tests/rules")).unwrap().count();
    assert_eq!(files, rules.len(), "a manifest for a rule that does not exist");
}

/// Where the file's line and column are right, and the severity is what it should be.
#[test]
fn findings_point_at_the_place() {
    let text = fs::read_to_string(source("tests/rules/grace-mismatch.yaml")).unwrap();
    let report = linted(&[text.split_once(FINE).unwrap().0]);
    let finding = report.findings.iter().find(|finding| finding.rule.code == "grace-mismatch").unwrap();
    let line = text.lines().nth(finding.line - 1).unwrap();
    assert!(line[finding.column - 1..].starts_with("\"30s\""), "{line}");
    assert_eq!(finding.path, "Deployment/shop containers[web]");
    assert_eq!(finding.severity, Severity::Error);
    assert_eq!(finding.said, "LAMEDUCK_GRACE_PERIOD is 30s, terminationGracePeriodSeconds is 60");
}

/// The sums are lameduck's own.
#[test]
fn what_does_not_fit_is_said_with_the_sum() {
    let text = fs::read_to_string(source("tests/rules/settings-refused.yaml")).unwrap();
    let report = linted(&[text.split_once(FINE).unwrap().0]);
    let said = &report.findings.iter().find(|finding| finding.rule.code == "settings-refused").unwrap().said;
    assert!(
        said.contains("delay 25s (LAMEDUCK_DELAY) + stop timeout 10s (LAMEDUCK_STOP_TIMEOUT) + margin 2s > grace period 30s"),
        "{said}"
    );
}

#[test]
fn a_headless_service_may_publish_what_is_not_ready() {
    let text = fs::read_to_string(source("tests/rules/publish-not-ready.yaml")).unwrap();
    let headless =
        text.split_once(FINE).unwrap().0.replace("publishNotReadyAddresses", "clusterIP: None\n  publishNotReadyAddresses");
    let severities: Vec<Severity> =
        linted(&[&headless]).findings.iter().filter(|f| f.rule.code == "publish-not-ready").map(|f| f.severity).collect();
    assert_eq!(severities, [Severity::Info]);
}

/// A reason ignores one rule, and is counted; a bare true ignores nothing.
#[test]
fn annotations_ignore_with_a_reason() {
    let text = fs::read_to_string(source("tests/rules/nothing-waits.yaml")).unwrap();
    let text = text.split_once(FINE).unwrap().0;
    // On the workload, and on its pods.
    for before in ["\n  name: shop", "\n      labels: "] {
        let at = text.find(before).expect(before) + 1;
        let indent = before.len() - 1 - before.trim_start().len();
        let ignored = |value: &str| {
            let annotation = format!("{:indent$}annotations: {{ignore.lameduck/nothing-waits: {value}}}\n", "");
            let report = linted(&[&format!("{}{annotation}{}", &text[..at], &text[at..])]);
            (codes(&report).contains("nothing-waits"), report.ignored)
        };
        assert_eq!(ignored("\"clients try again\""), (false, 1));
        for value in ["true", "\"true\"", "\"\"", "yes"] {
            assert_eq!(ignored(value), (true, 0), "{value}");
        }
    }
}

/// Where one rule has several cases, the severity is the case's.
#[test]
fn severities_by_case() {
    let pod = |spec: &str, container: &str| {
        format!("kind: Pod\nmetadata: {{name: a}}\nspec: {{{spec}containers: [{{name: web, image: x, {container}}}]}}\n")
    };
    let command = "command: [/lameduck/lameduck, --, serve]";
    let probe = |name: &str| format!("{command}, {name}: {{periodSeconds: 1, httpGet: {{port: 80}}}}");
    for (rule, severity, text) in [
        ("grace-mismatch", Severity::Error, pod("terminationGracePeriodSeconds: 60, ", command)),
        ("grace-mismatch", Severity::Error, pod("", "command: [/lameduck/lameduck, --grace-period, 20s, --, serve]")),
        (
            "grace-mismatch",
            Severity::Warning,
            pod("terminationGracePeriodSeconds: 60, ", "env: [{name: LAMEDUCK_DELAY, value: 5s}]"),
        ),
        ("stop-signal", Severity::Error, pod("os: {name: linux}, ", "lifecycle: {stopSignal: SIGKILL}")),
        ("stop-signal", Severity::Warning, pod("", "lifecycle: {stopSignal: SIGTERM}")),
        ("probe-grace", Severity::Error, pod("", "readinessProbe: {terminationGracePeriodSeconds: 9}")),
        ("probe-grace", Severity::Warning, pod("", "livenessProbe: {terminationGracePeriodSeconds: 1}")),
        ("probe-is-traffic", Severity::Warning, pod("", &probe("readinessProbe"))),
        ("probe-is-traffic", Severity::Info, pod("", &probe("livenessProbe"))),
        ("grace-too-short", Severity::Error, pod("", &format!("{command}, lifecycle: {{preStop: {{sleep: {{seconds: 5}}}}}}"))),
    ] {
        let report = linted(&[&text]);
        let found: Vec<Severity> =
            report.findings.iter().filter(|finding| finding.rule.code == rule).map(|finding| finding.severity).collect();
        assert_eq!(found, [severity], "{rule}: {text}");
    }
    // From a ConfigMap: nobody knows here.
    let unknown = pod(
        "terminationGracePeriodSeconds: 60, ",
        &format!("{command}, env: [{{name: LAMEDUCK_GRACE_PERIOD, valueFrom: {{configMapKeyRef: {{name: a, key: b}}}}}}]"),
    );
    assert!(!codes(&linted(&[&unknown])).contains("grace-mismatch"));
}

#[test]
fn no_rule_fires_on_the_examples() {
    for files in [
        &["examples"][..],
        &["-f", "examples/kubernetes"],
        &["-f", "examples/inject"],
        // Whole by themselves.
        &["-f", "examples/autoscaling"],
        &["-f", "examples/job"],
        &["-f", "examples/sidecar"],
        &["-f", "examples/two-containers"],
        &["-f", "examples/no-rebuild", "-f", "examples/kubernetes/service.yaml", "-f", "examples/kubernetes/disruption.yaml"],
        // As the manifest's own first lines say.
        &["-f", "examples/prestop", "-f", "examples/kubernetes/service.yaml", "-f", "examples/kubernetes/disruption.yaml"],
    ] {
        let arguments = [&["lint", "--fail-on", "info"], files].concat();
        let output = kubectl_lameduck(&arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success() && said.contains("workloads: 0 errors, 0 warnings, 0 infos"), "{arguments:?}:\n{said}");
        assert!(!said.starts_with("0 "), "nothing was looked at");
    }
}

/// docs/lint.md has every rule in the words of the table, and no other.
#[test]
fn the_documentation_is_the_table() {
    let text = fs::read_to_string(source("../docs/lint.md")).expect("docs/lint.md");
    let mut number = 0;
    for rule in lint::rules() {
        number += 1;
        let severity = format!("{:?}", rule.severity);
        let part =
            format!("### {}\n\n{severity}, when {}.\n\nWhy: {}.\n\nWhat to do: {}.\n", rule.code, rule.when, rule.why, rule.fix);
        assert!(text.contains(&part), "docs/lint.md lacks this:\n\n{part}");
    }
    assert_eq!(text.matches("\n### ").count(), number, "docs/lint.md has a rule that does not exist");
}

#[test]
fn codes_are_stable_names() {
    let codes: Vec<_> = lint::rules().map(|rule| rule.code).collect();
    assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    assert!(codes.iter().all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')));
    assert!(codes.len() >= 30, "{}", codes.len());
}

#[test]
fn exit_codes_by_severity() {
    let text = fs::read_to_string(source("tests/rules/nothing-waits.yaml")).unwrap();
    let file = std::env::temp_dir().join(format!("kubectl-lameduck-{}-exit.yaml", std::process::id()));
    fs::write(&file, text.split_once(FINE).unwrap().0).unwrap();
    let file = file.to_str().unwrap().to_owned();
    let code = |fail_on: &str| kubectl_lameduck(&["lint", "--fail-on", fail_on, &file]).status.code();
    assert_eq!(["info", "warning", "error", "never"].map(code), [Some(1), Some(1), Some(0), Some(0)]);
    assert_eq!(kubectl_lameduck(&["lint", &file]).status.code(), Some(1));
    let _ = fs::remove_file(file);
}

/// Read by somebody else's parser, with what GitHub asks for: a region with a line, a relative URI, a rule for each result, a fingerprint.
#[test]
fn json_and_sarif_say_the_same() {
    let trips: Vec<String> = ["nothing-waits", "grace-mismatch", "cpu-request"]
        .iter()
        .map(|code| {
            fs::read_to_string(source(&format!("tests/rules/{code}.yaml"))).unwrap().split_once(FINE).unwrap().0.to_owned()
        })
        .collect();
    let report = linted(&trips.iter().map(String::as_str).collect::<Vec<_>>());
    let json: serde_json::Value = serde_json::from_str(&report::written(&report, Format::Json)).unwrap();
    let sarif: serde_json::Value = serde_json::from_str(&report::written(&report, Format::Sarif)).unwrap();
    assert_eq!(sarif["version"], "2.1.0");
    let run = &sarif["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().unwrap();
    let results = run["results"].as_array().unwrap();
    let findings = json["findings"].as_array().unwrap();
    assert!(results.len() == findings.len() && results.len() >= 3);
    for (result, finding) in results.iter().zip(findings) {
        assert_eq!(result["ruleId"], finding["rule"]);
        assert_eq!(rules[result["ruleIndex"].as_u64().unwrap() as usize]["id"], result["ruleId"]);
        let place = &result["locations"][0]["physicalLocation"];
        assert_eq!((&place["region"]["startLine"], &place["region"]["startColumn"]), (&finding["line"], &finding["column"]));
        assert_eq!(place["artifactLocation"]["uri"], finding["file"]);
        assert!(["note", "warning", "error"].contains(&result["level"].as_str().unwrap()));
        assert!(result["partialFingerprints"]["lameduck/v1"].is_string());
    }
}
