//! What is handed out, held against what others publish: the schemas of Kubernetes' versions (kubernetes-validate), kustomize (kubectl), and
//! PyYAML, which reads YAML 1.1 as kubectl does.

use super::*;

/// In a virtual environment that tests/run makes.
fn validate() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let program = target.join("schemas/bin/kubernetes-validate");
    assert!(program.exists(), "no {}: tests/run makes it", program.display());
    program
}

/// A directory of the test's own, with files in it.
fn directory(name: &str, files: &[(String, String)]) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kubectl-{}-{name}", std::process::id()));
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    for (name, text) in files {
        fs::write(directory.join(name), text).unwrap();
    }
    directory
}

#[track_caller]
pub fn valid(version: &str, name: &str, files: &[(String, String)]) {
    let directory = directory(&format!("{name}-{version}"), files);
    let paths: Vec<PathBuf> = files.iter().map(|(name, _)| directory.join(name)).collect();
    let output = Command::new(validate()).args(["--strict", "--no-warn", "-k", version]).args(&paths).output().unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{version}:\n{said}");
    fs::remove_dir_all(directory).unwrap();
}

/// One file for each manifest, as inject has it. kubernetes-validate does not open a List: its items are documents here.
fn outputs(how: How) -> Vec<(String, String)> {
    let mut files = Vec::new();
    for source in
        manifests().into_iter().filter(|source| !source.name.contains("kustomization") && !source.name.contains("policy"))
    {
        let parsed = manifest::parse(injected(&source, how).map(|edited| text("x.yaml", &edited.text)).unwrap()).unwrap();
        let number = files.len();
        if parsed.source.text.contains("kind: List") {
            files.push((format!("{number}.yaml"), items(&parsed.source.text)));
        } else {
            files.push((format!("{number}.yaml"), parsed.source.text));
        }
    }
    files
}

/// A List's items by PyYAML, one document each.
fn items(text: &str) -> String {
    let program = "import sys, yaml\nfor d in yaml.safe_load_all(sys.stdin):\n  print('---\\n'.join(yaml.safe_dump(i) for i in d['items']))";
    python(program, text)
}

pub fn python(program: &str, input: &str) -> String {
    use std::io::Write;
    use std::process::Stdio;
    let mut command = Command::new("/usr/bin/python3");
    let mut child = command
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3: tests/run installs it");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "PyYAML cannot read it:\n{input}");
    String::from_utf8(output.stdout).unwrap()
}

/// The harness sees what is wrong: a field that does not exist.
#[test]
#[should_panic(expected = "1.33")]
fn a_wrong_field_is_seen() {
    let (name, text) = outputs(How::Init).into_iter().find(|(_, text)| text.contains("readOnly: true")).unwrap();
    valid("1.33", "wrong", &[(name, text.replace("readOnly: true", "readonly: true"))]);
}

#[test]
fn valid_against_the_schemas_of_kubernetes_1_28_to_1_37() {
    for (how, versions) in [
        (How::Init, ["1.28", "1.33", "1.37"]),
        (How::PreStop, ["1.28", "1.33", "1.37"]),
        // Older ones have no image volumes.
        (How::ImageVolume, ["1.33", "1.35", "1.37"]),
    ] {
        let files = outputs(how);
        for version in versions {
            valid(version, how.name(), &files);
        }
    }
}

fn kustomize(directory: &Path) -> Output {
    Command::new("kubectl")
        .arg("kustomize")
        .arg(directory)
        .output()
        .expect("kubectl: tests/run installs Debian's kubernetes-client")
}

/// kubectl's own reader takes what is handed out, and lint finds nothing in what it prints.
#[test]
fn kustomize_takes_it() {
    for how in How::ALL {
        let mut files: Vec<(String, String)> =
            outputs(how).into_iter().filter(|(_, text)| !text.contains("name: shop\n")).collect();
        let resources: String = files.iter().map(|(name, _)| format!("  - {name}\n")).collect();
        files.push(("kustomization.yaml".to_owned(), format!("resources:\n{resources}")));
        let directory = directory(&format!("kustomize-{}", how.name()), &files);
        let output = kustomize(&directory);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let built = String::from_utf8(output.stdout).unwrap();
        assert!(built.matches("lameduck/injected").count() >= 6, "{built}");
        let output = kubectl_lameduck(&["lint", "--fail-on", "info", "-"], &built);
        // A file of the manifests has no PodDisruptionBudget around it.
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        fs::remove_dir_all(directory).unwrap();
    }
}

/// The component does what inject does, by its convention.
#[test]
fn the_kustomize_component_puts_it_in() {
    let version = Command::new("kubectl").args(["version", "--client"]).output().expect("kubectl: tests/run installs it");
    let said = String::from_utf8_lossy(&version.stdout).into_owned();
    let minor =
        said.split(['.', '"', '+', ' ']).filter_map(|part| part.parse::<u32>().ok()).find(|number| *number > 1).expect(&said);
    let output = kustomize(&source("../examples/inject"));
    if minor < 21 {
        assert!(!output.status.success(), "kubectl 1.{minor} knows no components, says docs/kubectl.md");
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let built = String::from_utf8(output.stdout).unwrap();
    let parsed = [manifest::parse(text("built.yaml", &built)).unwrap()];
    let report = lint::lint(&parsed);
    assert!(report.findings.is_empty(), "{}", report::written(&report, Format::Text));
    let bare = fs::read_to_string(source("../examples/inject/shop.yaml")).unwrap();
    let ours = [manifest::parse(text("ours.yaml", &injected(&text("shop", &bare), How::Init).unwrap().text)).unwrap()];
    let seen = |parsed: &[manifest::Parsed]| {
        let workload = parsed[0].objects().into_iter().find_map(Object::workload).unwrap();
        let container = workload.containers()[0];
        let names = |list: Vec<kubectl_lameduck::yaml::Value<'_>>| {
            let mut names: Vec<String> = list.iter().filter_map(|item| item.word("name").map(str::to_owned)).collect();
            names.sort();
            names
        };
        let init = workload.init_containers()[0].value;
        (
            container.command(),
            names(container.value.list("env")),
            names(container.value.list("volumeMounts")),
            names(workload.spec.list("volumes")),
            init.words("command"),
            init.word("image").map(str::to_owned),
            init.at(&["securityContext", "runAsUser"]).and_then(|user| user.text()).map(str::to_owned),
            workload.grace().0,
        )
    };
    assert_eq!(seen(&parsed), seen(&ours));
    valid("1.33", "component", &[("built.yaml".to_owned(), built)]);
}

/// The policy cannot be run here. It says what inject would, and its hook is one that lameduck takes.
#[test]
fn the_policy_says_what_inject_would() {
    let policy = fs::read_to_string(source("../examples/inject/policy.yaml")).unwrap();
    let parsed = manifest::parse(text("policy.yaml", &policy)).unwrap();
    let rule = parsed.objects()[0].value.at(&["spec"]).unwrap().list("rules")[0];
    let spec = rule.at(&["mutate", "patchStrategicMerge", "spec"]).unwrap();
    let bare = fs::read_to_string(source("../examples/inject/shop.yaml")).unwrap();
    let ours = manifest::parse(text("ours.yaml", &injected(&text("shop", &bare), How::PreStop).unwrap().text)).unwrap();
    let workload = ours.objects().into_iter().find_map(Object::workload).unwrap();
    let init = |spec: &kubectl_lameduck::yaml::Value<'_>| {
        let init = spec.list("initContainers")[0];
        (
            init.words("command"),
            init.word("image").map(str::to_owned),
            init.list("volumeMounts")[0].word("mountPath").map(str::to_owned),
        )
    };
    assert_eq!(init(&spec), init(&workload.spec));
    let container = spec.list("containers")[0];
    let hook = container.at(&["+(lifecycle)", "preStop", "exec"]).unwrap().words("command");
    let real = workload.containers()[0].value.at(&["lifecycle", "preStop", "exec"]).unwrap().words("command");
    assert_eq!(hook[..3], real[..3]);
    assert!(hook[3].ends_with("}}s") && real[3] == "30s");
}
