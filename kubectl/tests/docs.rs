//! What is written of the options agrees with what can be typed.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn options(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    let is_option =
        |word: &&str| word.len() > 3 && word.starts_with("--") && word[2..].starts_with(|c: char| c.is_ascii_lowercase());
    words.filter(is_option).map(str::to_owned).collect()
}

#[test]
fn every_option_that_is_written_of_exists() {
    let ours = options(&kubectl_lameduck::cli::help());
    assert!(ours.len() >= 9, "{ours:?}");
    // Of lameduck itself, and of cargo.
    let others = ["--delay", "--stop-timeout", "--ignore-peer", "--port", "--stop-on", "--with", "--help", "--release"];
    for name in ["docs/kubectl.md", "docs/lint.md", "examples/inject/kustomization.yaml", "examples/inject/policy.yaml"] {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)).expect(name);
        let unknown: Vec<_> =
            options(&text).into_iter().filter(|option| !ours.contains(option) && !others.contains(&option.as_str())).collect();
        assert!(unknown.is_empty(), "{name} names options that do not exist: {unknown:?}");
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubectl.md")).unwrap();
    let unwritten: Vec<_> = ours
        .iter()
        .filter(|option| !text.contains(option.as_str()) && !["--help", "--version", "--filename"].contains(&option.as_str()))
        .collect();
    assert!(unwritten.is_empty(), "docs/kubectl.md lacks {unwritten:?}");
}

/// What docs/kubectl.md prints is what is printed.
#[test]
fn the_plan_that_is_shown() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kubectl.md")).unwrap();
    let manifest = "kind: Deployment\nmetadata: {name: shop}\nspec: {template: {spec: {terminationGracePeriodSeconds: 60, containers: [{name: web, command: \
                    [gunicorn], ports: [{containerPort: 80}], resources: {requests: {cpu: 1500m}}}]}}}\n";
    let source = kubectl_lameduck::manifest::Source { name: "shop.yaml".to_owned(), text: manifest.to_owned() };
    let plan = kubectl_lameduck::plan::plan(&[kubectl_lameduck::manifest::parse(source).unwrap()]);
    let shown = text.split_once("$ kubectl lameduck plan shop.yaml\n").unwrap().1.split("```").next().unwrap();
    for line in shown.lines().filter(|line| *line != "…") {
        assert!(plan.lines().any(|other| other == line), "{line:?} is not in\n{plan}");
    }
    let lint = text.split_once("$ kubectl lameduck lint manifests/\n").unwrap().1.split("```").next().unwrap();
    let rule = kubectl_lameduck::lint::rules().find(|rule| lint.contains(rule.code)).unwrap();
    assert!(lint.contains(&format!("    why: {}\n    fix: {}\n", rule.why, rule.fix)), "{lint}");
}

/// The annotations of docs/mesh.md leave the drain whole; a proxy without them, or with a shorter time, cuts it.
#[test]
fn the_mesh_settings_are_enough() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/mesh.md")).unwrap();
    let blocks: Vec<&str> = text.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert!(blocks.len() >= 5);
    let cut = |annotations: &str| {
        let annotations: String = annotations.lines().map(|line| format!("      {line}\n")).collect();
        let text = format!(
            "kind: Deployment\nmetadata: {{name: shop}}\nspec:\n  template:\n    metadata:\n{annotations}    spec:\n      \
             terminationGracePeriodSeconds: 60\n      containers:\n      - {{name: web, command: [lameduck, --grace-period, 60s, --, nginx]}}\n"
        );
        let source = kubectl_lameduck::manifest::Source { name: "shop.yaml".to_owned(), text };
        let report = kubectl_lameduck::lint::lint(&[kubectl_lameduck::manifest::parse(source).unwrap()]);
        report.findings.iter().any(|finding| finding.rule.code == "mesh-cuts-drain")
    };
    for block in blocks {
        assert!(!cut(block), "{block}");
        let marked = block.replace("annotations:\n", "annotations:\n  sidecar.istio.io/inject: \"true\"\n");
        let asks = if block.contains("istio") { &marked } else { block };
        assert!(!cut(asks), "{asks}");
        let spoilt = asks.replace("Sidecar: \"true\"", "Sidecar: \"false\"").replace("sidecar: \"true\"", "sidecar: \"false\"");
        let spoilt = spoilt.replace("55", "5").replace("10s", "2s");
        assert_ne!(spoilt, *asks);
        assert!(cut(&spoilt), "{spoilt}");
    }
}
