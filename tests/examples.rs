//! The examples say what they mean: they parse, their periods agree, and every setting they name exists.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEPLOYMENT: &str = "examples/kubernetes/deployment.yaml";
const PRESTOP: &str = "examples/prestop/deployment.yaml";
const SELECTOR: &str = "app.kubernetes.io/name";

#[test]
fn kubernetes_stop_time_and_grace_period_agree() {
    let deployment = yaml(DEPLOYMENT);
    let container = "spec.template.spec.containers.0";
    let said = variables(&deployment, &format!("{container}.env"));
    let said = said.iter().find(|(name, _)| name == "LAMEDUCK_GRACE_PERIOD").expect("LAMEDUCK_GRACE_PERIOD");
    assert_eq!(seconds(&said.1), seconds(value(&deployment, "spec.template.spec.terminationGracePeriodSeconds")));
}

#[test]
fn compose_stop_time_and_grace_period_agree() {
    let compose = yaml("examples/compose.yaml");
    let said = value(&compose, "services.shop.environment.LAMEDUCK_GRACE_PERIOD");
    assert_eq!(seconds(said), seconds(value(&compose, "services.shop.stop_grace_period")));
}

#[test]
fn the_cpu_request_arrives_in_millicores() {
    let deployment = yaml(DEPLOYMENT);
    let env = "spec.template.spec.containers.0.env";
    let name = deployment.iter().find(|(_, value)| value == "LAMEDUCK_CPU_REQUEST_MILLIS").expect("the variable").0.clone();
    assert!(name.starts_with(env), "{name}");
    let reference = name.replace(".name", ".valueFrom.resourceFieldRef");
    assert_eq!(value(&deployment, &format!("{reference}.resource")), "requests.cpu");
    assert_eq!(value(&deployment, &format!("{reference}.divisor")), "1m");
}

#[test]
fn the_deployments_are_unprivileged() {
    for (name, containers) in [(DEPLOYMENT, &["containers.0"][..]), (PRESTOP, &["containers.0", "initContainers.0"])] {
        let deployment = yaml(name);
        assert_eq!(value(&deployment, "spec.template.spec.securityContext.runAsNonRoot"), "True");
        for container in containers {
            for (path, expected) in
                [("readOnlyRootFilesystem", "True"), ("allowPrivilegeEscalation", "False"), ("capabilities.drop.0", "ALL")]
            {
                let path = format!("spec.template.spec.{container}.securityContext.{path}");
                assert_eq!(value(&deployment, &path), expected, "{name}: {path}");
            }
        }
    }
}

/// The hook is told the pod's own time, and leaves some of it to the app.
#[test]
fn the_hook_s_grace_period_is_the_pod_s() {
    let deployment = yaml(PRESTOP);
    let command = hook(&deployment);
    let (_, flags) = command.split_first().expect("a command");
    assert_eq!(flags[0], "drain");
    let said = flags.iter().position(|flag| flag == "--grace-period").expect("--grace-period");
    let period = seconds(value(&deployment, "spec.template.spec.terminationGracePeriodSeconds"));
    assert_eq!(seconds(&flags[said + 1]), period);
    let restart = value(&deployment, "spec.template.spec.containers.0.livenessProbe.terminationGracePeriodSeconds");
    assert!(seconds(restart) < period, "a hung app would hold up its restart");
    // `plan` takes the options that lameduck proper has too.
    let shared = flags[1..].iter().filter(|flag| !["--stop", "--strict"].contains(&flag.as_str())).cloned();
    let output = lameduck(&[], &["plan".to_owned()].into_iter().chain(shared).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("warnings"), "{said}");
    assert!(said.lines().any(|line| line.trim_start().starts_with("grace-period ") && line.contains(" 1m ")), "{said}");
}

/// From the image that the Dockerfile builds, by the init container and the volume, to where the hook runs it.
#[test]
fn the_hook_s_binary_gets_there() {
    let deployment = yaml(PRESTOP);
    let dockerfile = fs::read_to_string(source("examples/prestop/Dockerfile")).expect("a Dockerfile");
    let instructions: Vec<&str> = dockerfile.lines().filter(|line| !line.starts_with('#')).collect();
    let [from, copy] = instructions[..] else { panic!("two lines: {instructions:?}") };
    assert!(from.starts_with("FROM docker.io/library/busybox:"), "it has a cp");
    let image = value(&deployment, "spec.template.spec.initContainers.0.image");
    assert!(dockerfile.contains(&format!("docker build -t {image} examples/prestop")));
    let cp = below(&deployment, "spec.template.spec.initContainers.0.command");
    let [cp, from, to] = &cp[..] else { panic!("cp, from, to: {cp:?}") };
    assert_eq!((cp.as_str(), copy), ("cp", format!("COPY lameduck {from}").as_str()));
    let mounted = |container: &str| {
        let mount = format!("spec.template.spec.{container}.volumeMounts.0");
        assert_eq!(value(&deployment, &format!("{mount}.name")), value(&deployment, "spec.template.spec.volumes.0.name"));
        value(&deployment, &format!("{mount}.mountPath")).to_owned()
    };
    assert_eq!(Path::new(to).parent(), Some(Path::new(&mounted("initContainers.0"))));
    let inside = Path::new(to).file_name().expect("a name");
    assert_eq!(Path::new(&hook(&deployment)[0]), Path::new(&mounted("containers.0")).join(inside));
}

/// The service and the budget of examples/kubernetes are for both.
#[test]
fn the_hook_s_deployment_takes_the_other_s_place() {
    let (ours, theirs) = (yaml(PRESTOP), yaml(DEPLOYMENT));
    for path in [
        "metadata.name".to_owned(),
        format!("spec.selector.matchLabels.{SELECTOR}"),
        format!("spec.template.metadata.labels.{SELECTOR}"),
        "spec.template.spec.containers.0.name".to_owned(),
        "spec.template.spec.containers.0.ports.0.name".to_owned(),
    ] {
        assert_eq!(value(&ours, &path), value(&theirs, &path), "{path}");
    }
}

/// What docs/prestop.md shows is the manifest's.
#[test]
fn the_documents_show_the_manifest() {
    let text = fs::read_to_string(source("docs/prestop.md")).expect("docs/prestop.md");
    let deployment = yaml(PRESTOP);
    let quoted = |words: Vec<String>| format!("[\"{}\"]", words.join("\", \""));
    for part in [
        quoted(hook(&deployment)),
        quoted(below(&deployment, "spec.template.spec.initContainers.0.command")),
        value(&deployment, "spec.template.spec.containers.0.image").to_owned(),
        value(&deployment, "spec.template.spec.initContainers.0.image").to_owned(),
    ] {
        assert!(text.contains(&part), "docs/prestop.md lacks {part}");
    }
    let dockerfile = fs::read_to_string(source("examples/prestop/Dockerfile")).expect("a Dockerfile");
    assert!(dockerfile.lines().filter(|line| !line.starts_with('#')).all(|line| text.contains(line)));
}

fn hook(deployment: &[(String, String)]) -> Vec<String> {
    below(deployment, "spec.template.spec.containers.0.lifecycle.preStop.exec.command")
}

#[test]
fn the_kustomization_names_every_manifest_and_they_fit_together() {
    let directory = source("examples/kubernetes");
    let mut there: Vec<String> = fs::read_dir(directory)
        .expect("examples/kubernetes")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .filter(|name| name != "kustomization.yaml")
        .collect();
    there.sort();
    let kustomization = yaml("examples/kubernetes/kustomization.yaml");
    let mut named = below(&kustomization, "resources");
    named.sort();
    assert_eq!(named, there);
    let deployment = yaml(DEPLOYMENT);
    assert_eq!(value(&kustomization, "images.0.name"), value(&deployment, "spec.template.spec.containers.0.image"));
    let label = value(&deployment, &format!("spec.template.metadata.labels.{SELECTOR}"));
    assert_eq!(value(&deployment, &format!("spec.selector.matchLabels.{SELECTOR}")), label);
    assert_eq!(value(&yaml("examples/kubernetes/service.yaml"), &format!("spec.selector.{SELECTOR}")), label);
    assert_eq!(value(&yaml("examples/kubernetes/disruption.yaml"), &format!("spec.selector.matchLabels.{SELECTOR}")), label);
}

/// `plan` with the settings of each example: it takes them, and has nothing to warn of.
#[test]
fn lameduck_takes_every_setting_of_the_examples() {
    let compose = yaml("examples/compose.yaml");
    let compose: Vec<(String, String)> = compose
        .iter()
        .filter_map(|(path, value)| Some((path.strip_prefix("services.shop.environment.")?.to_owned(), value.clone())))
        .collect();
    let deployment = yaml(DEPLOYMENT);
    let mut kubernetes = variables(&deployment, "spec.template.spec.containers.0.env");
    let millis = kubernetes.iter_mut().find(|(name, _)| name == "LAMEDUCK_CPU_REQUEST_MILLIS").expect("the variable");
    millis.1 = value(&deployment, "spec.template.spec.containers.0.resources.requests.cpu").trim_end_matches('m').to_owned();
    let dockerfile = fs::read_to_string(source("Dockerfile.example")).expect("Dockerfile.example");
    let words = |key: &str| -> Vec<String> {
        let line = dockerfile.lines().find_map(|line| line.strip_prefix(key)).expect(key);
        line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
    };
    let command = [words("ENTRYPOINT "), words("CMD ")].concat();
    let image = dockerfile.lines().find_map(|line| line.strip_prefix("ENV LAMEDUCK_")?.split_once('='));
    let image = image.map(|(name, value)| (format!("LAMEDUCK_{name}"), value.to_owned())).expect("a setting in ENV");
    assert_eq!(command[0], "/usr/local/bin/lameduck");
    for (what, settings) in [("Dockerfile.example", vec![image]), ("compose", compose), ("kubernetes", kubernetes)] {
        assert!(!settings.is_empty(), "{what} sets nothing");
        let output = lameduck(&settings, &[&["plan".to_owned()], &command[1..]].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{what}: {settings:?}: {}\n{said}", output.status);
        assert!(!said.contains("warnings"), "{what}: {settings:?}:\n{said}");
        let grace = settings.iter().find(|(name, _)| name == "LAMEDUCK_GRACE_PERIOD").expect("a grace period");
        let grace = if grace.1 == "60s" { "1m" } else { &grace.1 };
        let row = said.lines().find(|line| line.trim_start().starts_with("grace-period ")).expect("a row on the grace period");
        assert_eq!(row.split_whitespace().nth(1), Some(grace), "{what}:\n{said}");
        // 1500m at 8 to the CPU.
        assert!(what != "kubernetes" || said.contains("LAMEDUCK_WORKERS=12"), "{what}:\n{said}");
    }
}

fn lameduck(settings: &[(String, String)], arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lameduck"));
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(settings.iter().cloned()).args(arguments);
    command.output().expect("lameduck")
}

/// A document as rows of path and scalar, read by somebody else's parser.
fn yaml(name: &str) -> Vec<(String, String)> {
    const FLATTEN: &str = "
import sys, yaml
def walk(path, node):
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            walk(path + [str(key)], value)
    else:
        print('.'.join(path) + '\\t' + str(node))
walk([], yaml.safe_load(open(sys.argv[1])))
";
    let output = Command::new("/usr/bin/python3").args(["-c", FLATTEN]).arg(source(name)).output();
    let output = output.expect("no /usr/bin/python3: install Debian's python3-yaml (tests/run does)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not parse, or Debian's python3-yaml is not there:\n{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| line.split_once('\t').expect("a row")).map(|(path, value)| (path.into(), value.into())).collect()
}

fn value<'a>(rows: &'a [(String, String)], path: &str) -> &'a str {
    &rows.iter().find(|row| row.0 == path).unwrap_or_else(|| panic!("no {path} in {rows:#?}")).1
}

/// The scalars of a list.
fn below(rows: &[(String, String)], path: &str) -> Vec<String> {
    let prefix = format!("{path}.");
    rows.iter().filter(|row| row.0.starts_with(&prefix)).map(|row| row.1.clone()).collect()
}

/// The variables of a container, with no value where the kubelet fills it in.
fn variables(rows: &[(String, String)], path: &str) -> Vec<(String, String)> {
    let names = (0..).map_while(|number| {
        let name = format!("{path}.{number}.name");
        rows.iter().find(|row| row.0 == name).map(|row| (number, row.1.clone()))
    });
    names
        .map(|(number, name)| {
            let key = format!("{path}.{number}.value");
            let value = rows.iter().find(|row| row.0 == key).map(|row| row.1.clone());
            (name, value.unwrap_or_default())
        })
        .collect()
}

fn seconds(text: &str) -> u32 {
    text.trim_end_matches('s').parse().unwrap_or_else(|_| panic!("{text:?} is not in seconds"))
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}
