//! lameduck put in and taken out again: of manifests as people write them, of generated ones in every style, of examples; held against the
//! published schemas, kustomize, and another YAML parser.

#[path = "inject/bad_input.rs"]
mod bad_input;
#[path = "inject/generated.rs"]
mod generated;
#[path = "inject/published.rs"]
mod published;

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use kubectl_lameduck::inject::entrypoint::{Entrypoint, Images};
use kubectl_lameduck::inject::{self, Edited, How, Options};
use kubectl_lameduck::lint;
use kubectl_lameduck::manifest::{self, Object, Source};
use kubectl_lameduck::report::{self, Format};
use kubectl_lameduck::wrap;

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn options(how: How) -> Options {
    Options {
        how,
        image: "registry.example.com/lameduck:0.1.0".to_owned(),
        containers: Vec::new(),
        entrypoint: None,
        grace: None,
    }
}

fn text(name: &str, text: &str) -> Source {
    Source { name: name.to_owned(), text: text.to_owned() }
}

/// What the images run that the manifests leave open.
fn images() -> Images {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    HashMap::from([(
        "docker.io/library/php:8.2-apache".to_owned(),
        Entrypoint { entrypoint: words(&["docker-php-entrypoint"]), cmd: words(&["apache2-foreground"]) },
    )])
}

fn injected(source: &Source, how: How) -> Result<Edited, String> {
    inject::inject(source, &options(how), &images())
}

/// The manifests of this test, and the examples.
fn manifests() -> Vec<Source> {
    let mut all = Vec::new();
    for directory in [
        "tests/manifests",
        "../examples/autoscaling",
        "../examples/inject",
        "../examples/job",
        "../examples/kubernetes",
        "../examples/no-rebuild",
        "../examples/prestop",
        "../examples/sidecar",
        "../examples/two-containers",
    ] {
        for entry in fs::read_dir(source(directory)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|suffix| suffix == "yaml" || suffix == "json") {
                all.push(text(&path.display().to_string(), &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(all.len() > 8);
    all
}

fn kubectl_lameduck(arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-lameduck"));
    // No podman, docker or skopeo: what images run is what the test says.
    command.args(arguments).env("PATH", "/nowhere").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

/// Every container that serves has lameduck then, by whatever way.
#[test]
fn inject_then_lint_is_clean() {
    let mut done = 0;
    for how in How::ALL {
        for source in manifests() {
            let edited = injected(&source, how).unwrap_or_else(|line| panic!("{line}"));
            done += edited.text.matches("lameduck/injected").count();
            let parsed = [manifest::parse(text(&source.name, &edited.text)).unwrap()];
            let report = lint::lint(&parsed);
            // Each file by itself: what stands around its pods is in others.
            let around = ["pdb-missing", "selector-matches-none"];
            let findings: Vec<_> = report.findings.iter().filter(|finding| !around.contains(&finding.rule.code)).collect();
            assert!(findings.is_empty(), "{how:?}:\n{}\n{}", report::written(&report, Format::Text), edited.text);
            for workload in parsed[0].objects().into_iter().filter_map(Object::workload) {
                let serving = workload.containers().into_iter().filter(|container| lint::serves(container) && !workload.is_job());
                assert!(serving.into_iter().all(|container| wrap::of(&container).is_some()), "{how:?} {}", source.name);
            }
        }
    }
    assert!(done > 15, "{done}");
}

#[test]
fn uninject_gives_the_very_bytes_back_and_twice_is_once() {
    for how in How::ALL {
        for source in manifests() {
            let once = injected(&source, how).unwrap().text;
            let back = inject::uninject(&text(&source.name, &once)).unwrap().text;
            assert_eq!(back, source.text, "{how:?} {}", source.name);
            assert_eq!(injected(&text(&source.name, &once), how).unwrap().text, once, "{how:?} {}", source.name);
            // Another way takes the first one's place.
            let other = injected(&text(&source.name, &once), How::PreStop).unwrap().text;
            assert_eq!(other, injected(&source, How::PreStop).unwrap().text, "{how:?} {}", source.name);
        }
    }
}

/// What is changed elsewhere in the meantime stays.
#[test]
fn uninject_keeps_what_was_changed_since() {
    for how in How::ALL {
        for source in manifests().into_iter().filter(|source| source.text.contains("registry.example.com/shop:1")) {
            let change =
                |text: &str| text.replace("registry.example.com/shop:1", "registry.example.com/team/shop:22-with-a-longer-tag");
            let changed = change(&injected(&source, how).unwrap().text);
            let back = inject::uninject(&text(&source.name, &changed)).unwrap().text;
            assert_eq!(back, change(&source.text), "{how:?} {}", source.name);
        }
    }
}

/// The same was put into two containers, and a long text before them is gone since: each is found for itself.
#[test]
fn uninject_finds_its_way_when_a_long_text_was_removed() {
    let note = format!("          note: {}\n", "x".repeat(400));
    let container =
        |name: &str| format!("        - name: {name}\n          image: shop\n          ports: [{{containerPort: 80}}]\n");
    let bare = format!(
        "kind: Deployment\nmetadata:\n  name: two\nspec:\n  template:\n    metadata:\n      annotations:\n        a: b\n{note}    spec:\n      containers:\n{}{}",
        container("a"),
        container("b"),
    )
    .replace("          note", "        note");
    let note = note.trim_start();
    let done = injected(&text("x", &bare), How::PreStop).unwrap().text;
    let cut = |text: &str| text.replace(&format!("        {note}"), "");
    assert_ne!(cut(&done), done);
    assert_eq!(inject::uninject(&text("x", &cut(&done))).unwrap().text, cut(&bare));
}

#[test]
fn what_is_put_in() {
    let source = text("stock", &fs::read_to_string(source("tests/manifests/stock.yaml")).unwrap());
    let container = |text: &str, see: &dyn Fn(manifest::Workload<'_>, manifest::Container<'_>)| {
        let parsed = manifest::parse(self::text("x", text)).unwrap();
        let workload = parsed.objects().into_iter().find_map(Object::workload).unwrap();
        see(workload, workload.containers()[0]);
    };
    let wrapped = injected(&source, How::Init).unwrap().text;
    container(&wrapped, &|workload, container| {
        assert_eq!(container.command(), ["/lameduck/lameduck", "--", "docker-php-entrypoint"]);
        assert_eq!(container.args(), ["apache2-foreground"], "`command` takes the place of the image's CMD too");
        let variable = |name: &str| container.variable(name).and_then(|entry| entry.word("value")).map(str::to_owned);
        assert_eq!(variable("LAMEDUCK_GRACE_PERIOD").as_deref(), Some("45s"));
        assert_eq!(variable("LAMEDUCK_READY").as_deref(), Some("http://127.0.0.1:80/health"), "what the probe asked");
        let millis = container.variable("LAMEDUCK_CPU_REQUEST_MILLIS").unwrap();
        assert_eq!(millis.at(&["valueFrom", "resourceFieldRef", "divisor"]).unwrap().text(), Some("1m"));
        let probe = container.value.at(&["readinessProbe", "httpGet"]).unwrap();
        assert_eq!((probe.word("path"), probe.word("port")), (Some("/readyz"), Some("9102")));
        let liveness = container.value.at(&["livenessProbe", "httpGet"]).unwrap();
        assert_eq!((liveness.word("path"), liveness.word("port")), (Some("/alive"), Some("http")), "it is not ours to move");
        assert!(container.value.get("lifecycle").is_none(), "the sleep is left out");
        let init = workload.init_containers();
        assert_eq!(init[0].command(), ["/lameduck", "install", "/install"]);
        assert_eq!(wrap::podinfo_items(&workload, &container).len(), 2);
        let foreseen = wrap::foresee(&workload, &container, &wrap::of(&container).unwrap()).unwrap();
        assert_eq!((foreseen.workers, foreseen.server.unwrap().name), (Some(2), "httpd"));
    });
    container(&injected(&source, How::ImageVolume).unwrap().text, &|workload, container| {
        assert_eq!(container.command()[0], "/lameduck/lameduck");
        let volume = &workload.spec.list("volumes")[0];
        assert_eq!(volume.at(&["image", "reference"]).unwrap().text(), Some("registry.example.com/lameduck:0.1.0"));
        assert!(workload.init_containers().is_empty());
    });
    container(&injected(&source, How::PreStop).unwrap().text, &|_, container| {
        assert!(container.command().is_empty(), "ENTRYPOINT stays");
        let hook = container.value.at(&["lifecycle", "preStop", "exec"]).unwrap();
        assert_eq!(hook.words("command"), ["/lameduck/lameduck", "drain", "--grace-period", "45s"]);
    });
    let options = Options { grace: Some(90), entrypoint: Some(vec!["nginx".to_owned()]), ..options(How::Init) };
    container(&inject::inject(&source, &options, &Images::new()).unwrap().text, &|workload, container| {
        assert_eq!(workload.grace().0, 90);
        assert_eq!(container.command(), ["/lameduck/lameduck", "--", "nginx"]);
    });
}

/// Settings say that lameduck is in the image, unless the very container is chosen: then they stay, and the rest is put in.
#[test]
fn settings_that_are_there_stay() {
    let bare = "kind: Pod\nmetadata:\n  name: a\nspec:\n  containers:\n    - name: web\n      image: shop\n      command: [serve]\n      env:\n        \
                - {name: LAMEDUCK_DELAY, value: 9s}\n      ports: [{containerPort: 80}]\n";
    let edited = injected(&text("x", bare), How::Init).unwrap();
    assert_eq!(
        (edited.text.as_str(), edited.notes.as_slice()),
        (bare, &["Pod/a: lameduck is in it already; left as it is".to_owned()][..])
    );
    let chosen = Options { containers: vec!["web".to_owned()], ..options(How::Init) };
    let edited = inject::inject(&text("x", bare), &chosen, &Images::new()).unwrap();
    assert!(
        edited.text.contains("LAMEDUCK_DELAY, value: 9s") && edited.text.contains("\"/lameduck/lameduck\", \"--\", serve"),
        "{}",
        edited.text
    );
    assert_eq!(inject::uninject(&text("x", &edited.text)).unwrap().text, bare);
}

#[test]
fn some_pods_are_left() {
    let bare = "kind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: web, image: shop, command: [serve], ports: [{containerPort: 80}]}]}\n";
    for (change, said) in [
        ("spec: {hostNetwork: true, ", "hostNetwork"),
        ("spec: {os: {name: windows}, ", "Windows"),
        ("spec: {initContainers: [], ", ""),
    ] {
        let edited = injected(&text("x", &bare.replace("spec: {", change)), How::Init).unwrap();
        assert_eq!(edited.notes.is_empty(), said.is_empty());
        assert_eq!(edited.text.contains("lameduck/injected"), said.is_empty());
        assert!(edited.notes.iter().all(|note| note.contains(said) && note.ends_with("; left as it is")), "{:?}", edited.notes);
    }
}

/// In files, as people use it: all or nothing.
#[test]
fn files_are_written_in_place() {
    let directory = std::env::temp_dir().join(format!("kubectl-lameduck-{}-write", std::process::id()));
    fs::create_dir_all(directory.join("sub")).unwrap();
    let bare = fs::read_to_string(source("tests/manifests/workloads.yaml")).unwrap();
    for name in ["a.yaml", "sub/b.yml"] {
        fs::write(directory.join(name), &bare).unwrap();
    }
    fs::write(directory.join("none.txt"), "{{").unwrap();
    let here = directory.to_str().unwrap();
    let run = |verb: &[&str]| {
        let output = kubectl_lameduck(&[verb, &["--write", here]].concat(), "");
        assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
        ["a.yaml", "sub/b.yml"].map(|name| fs::read_to_string(directory.join(name)).unwrap())
    };
    let [a, b] = run(&["inject", "--image", "x", "--entrypoint", "serve"]);
    assert!(a == b && a != bare && a.contains("lameduck/injected"));
    assert_eq!(run(&["uninject"]), [bare.clone(), bare]);
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 3, "drafts are left");
    fs::remove_dir_all(directory).unwrap();
}

/// What kubectl does not know either is left as it is, byte for byte.
#[test]
fn what_has_no_pods_is_left() {
    for text in ["", "# nothing\n", "---\n---\n", "apiVersion: v1\nkind: ConfigMap\ndata: {on: yes, a: 0755}\n", "[1, 2]\n"] {
        for arguments in [&["inject", "--image", "x", "-"][..], &["uninject", "-"]] {
            let output = kubectl_lameduck(arguments, text);
            assert!(output.status.success(), "{text:?}: {output:?}");
            assert_eq!(String::from_utf8_lossy(&output.stdout), text);
        }
    }
}
