//! The examples say what they mean: they parse, their periods agree, and every setting they name exists.
#[path = "support/serving.rs"]
mod serving;
#[path = "support/mod.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DEPLOYMENT: &str = "examples/kubernetes/deployment.yaml";
const NO_REBUILD: &str = "examples/no-rebuild/deployment.yaml";
const PRESTOP: &str = "examples/prestop/deployment.yaml";
/// Those in which lameduck is PID 1.
const AS_PID1: [&str; 2] = [DEPLOYMENT, NO_REBUILD];
const CONTAINERS: [(&str, &str); 5] = [
    (DEPLOYMENT, "containers.0"),
    (NO_REBUILD, "containers.0"),
    (NO_REBUILD, "initContainers.0"),
    (PRESTOP, "containers.0"),
    (PRESTOP, "initContainers.0"),
];
const SELECTOR: &str = "app.kubernetes.io/name";
const TWO_CONTAINERS: &str = "examples/two-containers/blog.yaml";
const SIDECAR: &str = "examples/sidecar/orders.yaml";
const JOB: &str = "examples/job/export.yaml";
const AUTOSCALING: &str = "examples/autoscaling/cart.yaml";
/// Whole pods, each in one file with all that is around it.
const WHOLE: [(&str, &str); 4] =
    [(TWO_CONTAINERS, "Deployment"), (SIDECAR, "Deployment"), (JOB, "Job"), (AUTOSCALING, "Deployment")];

#[test]
fn kubernetes_stop_time_and_grace_period_agree() {
    for name in AS_PID1 {
        let deployment = yaml(name);
        let said = variables(&deployment, "spec.template.spec.containers.0.env");
        let said = said.iter().find(|(name, _)| name == "LAMEDUCK_GRACE_PERIOD").expect("LAMEDUCK_GRACE_PERIOD");
        assert_eq!(seconds(&said.1), seconds(value(&deployment, "spec.template.spec.terminationGracePeriodSeconds")), "{name}");
    }
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

/// One source is enough: the volume is documented, and in no example.
#[test]
fn the_cpu_request_has_one_source() {
    for name in AS_PID1 {
        assert!(!yaml(name).iter().any(|(path, _)| path.contains(".downwardAPI.")), "{name} has a downwardAPI volume too");
    }
}

/// The files of the volume in docs/prepare.md are those that lameduck reads, and say what the container has.
#[test]
fn the_podinfo_volume_is_read() {
    let (documented, deployment) = (shown("docs/prepare.md"), yaml(DEPLOYMENT));
    let container = "spec.template.spec.containers.0";
    let volume = number(&documented, "volumes", "podinfo");
    let mount = number(&documented, "containers.0.volumeMounts", "podinfo");
    // Where it is looked for unless LAMEDUCK_PODINFO says otherwise.
    assert_eq!(value(&documented, &format!("{mount}.mountPath")), "/etc/podinfo");
    let directory = std::env::temp_dir().join(format!("lameduck-test-{}-podinfo", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    for item in 0..2 {
        let item = format!("{volume}.downwardAPI.items.{item}");
        let reference = format!("{item}.resourceFieldRef");
        assert_eq!(value(&documented, &format!("{reference}.containerName")), value(&documented, "containers.0.name"));
        // As the kubelet writes it.
        let resource = value(&documented, &format!("{reference}.resource"));
        let quantity = value(&deployment, &format!("{container}.resources.{resource}"));
        let text = match resource {
            "requests.cpu" => {
                assert_eq!(value(&documented, &format!("{reference}.divisor")), "1m");
                quantity.trim_end_matches('m').to_owned()
            }
            _ => (quantity.trim_end_matches("Mi").parse::<u64>().expect("MiB") << 20).to_string(),
        };
        fs::write(directory.join(value(&documented, &format!("{item}.path"))), text).unwrap();
    }
    let settings = [("LAMEDUCK_PODINFO".to_owned(), directory.to_str().unwrap().to_owned())];
    let arguments = ["plan", "--worker-memory", "100Mi", "apache2-foreground"].map(str::to_owned);
    let output = lameduck(&settings, &arguments);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let _ = fs::remove_dir_all(&directory);
    for (what, means) in [("cpu ", "1500m"), ("memory ", "536870912")] {
        let taken = said.lines().find(|line| line.starts_with(&format!("> {what}"))).expect(&said);
        assert!(taken.contains("-podinfo/") && taken.contains(means), "{said}");
    }
}

/// As the kubelet asks, with the settings of the example, an app on its port: each probe is answered by lameduck as it should be.
#[test]
fn the_probes_are_answered() {
    for name in AS_PID1 {
        let Probed { mut settings, app, admin, probes } = probed(name);
        settings.push(("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned()));
        support::in_own_network(move || {
            let mut init = start(&settings, &app);
            init.app_line("listens");
            let ask = |path: &str| get(&format!("127.0.0.1:{admin}"), path);
            assert_eq!(probes.each_ref().map(|path| ask(path)), [200, 200, 200]);
            init.signal(15);
            init.line("lame-duck");
            // The deletion takes the pod out of the endpoints, not the probe.
            assert_eq!(probes.each_ref().map(|path| ask(path)), [200, 200, 200]);
        });
    }
}

/// An app that is stopped in its tracks still accepts, by its kernel: the liveness probes of the examples notice, a tcpSocket probe and
/// /livez do not.
#[test]
fn a_hang_is_noticed() {
    for name in AS_PID1 {
        let Probed { settings, app, admin, probes: [startup, _, liveness] } = probed(name);
        assert_eq!(startup, liveness, "{name}: liveness is asked only after the same question was answered once");
        support::in_own_network(move || {
            let mut init = start(&settings, &app);
            init.app_line("listens");
            let ask = |path: &str| get(&format!("127.0.0.1:{admin}"), path);
            assert_eq!(ask(&liveness), 200);
            let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).expect("its children");
            support::signal_to(children.trim().parse().expect("one child"), 19);
            // A verdict of a moment ago is told once more.
            support::eventually("the probe fails", || (ask(&liveness) == 503).then_some(()));
            drop(TcpStream::connect(format!("127.0.0.1:{app}")).expect("a tcpSocket probe passes"));
            assert_eq!(ask("/livez"), 200);
        });
    }
    // Beside a hook nobody answers for the app: it is asked itself.
    let hooked = yaml(PRESTOP);
    assert_eq!(value(&hooked, "spec.template.spec.containers.0.livenessProbe.httpGet.port"), "http");
}

/// What the kubelet asks of an example.
struct Probed {
    settings: Vec<(String, String)>,
    /// Ports of the app and of --admin.
    app: String,
    admin: String,
    /// Paths of startup, readiness and liveness.
    probes: [String; 3],
}

fn probed(name: &str) -> Probed {
    let deployment = yaml(name);
    let container = "spec.template.spec.containers.0";
    let port = |name: &str| {
        let ports = number(&deployment, &format!("{container}.ports"), name);
        value(&deployment, &format!("{ports}.containerPort")).to_owned()
    };
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"].map(|probe| {
        assert_eq!(value(&deployment, &format!("{container}.{probe}.httpGet.port")), "admin", "{name}");
        // Longer than the question may take.
        let timeout = value(&deployment, &format!("{container}.{probe}.timeoutSeconds"));
        assert!(seconds(timeout) > 3, "{name}: {probe}: {timeout}");
        value(&deployment, &format!("{container}.{probe}.httpGet.path")).to_owned()
    });
    // A restart comes later than the pod's leaving its endpoints, which is after three failures unless it is said.
    let patience = |probe: &str, failures: &str| {
        seconds(value(&deployment, &format!("{container}.{probe}.periodSeconds"))) * failures.parse::<u32>().expect("a number")
    };
    let failures = value(&deployment, &format!("{container}.livenessProbe.failureThreshold"));
    assert!(patience("livenessProbe", failures) > patience("readinessProbe", "3"), "{name}");
    let settings = variables(&deployment, &format!("{container}.env"));
    let settings = settings.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Probed { settings, app: port("http"), admin: port("admin"), probes }
}

/// The compose file's healthcheck, run as Docker would: beside PID 1, with the container's environment.
#[test]
fn the_healthcheck_is_an_exit_code() {
    let compose = yaml("examples/compose.yaml");
    let check = below(&compose, "services.shop.healthcheck.test");
    assert_eq!(check[..2], ["CMD", "/usr/local/bin/lameduck"]);
    let settings: Vec<(String, String)> = compose
        .iter()
        .filter_map(|(path, value)| Some((path.strip_prefix("services.shop.environment.")?.to_owned(), value.clone())))
        .collect();
    support::in_own_network(move || {
        let healthy = || lameduck(&settings, &check[2..]).status.code();
        assert_eq!(healthy(), Some(1), "nothing runs yet");
        let mut init = start(&settings, "8080");
        init.app_line("listens");
        assert_eq!(healthy(), Some(0));
        init.signal(15);
        init.line("lame-duck");
        assert_eq!(healthy(), Some(1));
    });
}

/// lameduck as PID 1 with the settings of an example, around a server on `port` that says `listens`.
fn start(settings: &[(String, String)], port: &str) -> support::Pid1 {
    const APP: &str = "
import http.server, sys
server = http.server.ThreadingHTTPServer(('', int(sys.argv[1])), http.server.SimpleHTTPRequestHandler)
print('listens', flush=True)
server.serve_forever()";
    support::Pid1::spawn(&[support::LAMEDUCK, "--", support::PYTHON, "-c", APP, port], |command| {
        command.envs(settings.iter().cloned()).current_dir(source("examples"));
    })
}

fn get(address: &str, path: &str) -> u16 {
    let mut stream = TcpStream::connect(address).expect(address);
    stream.set_read_timeout(Some(support::PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.34\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("{answer}"))
}

/// Where no termination message was written, the kubelet shows the end of the log.
#[test]
fn a_start_that_fails_says_why() {
    for (name, container) in CONTAINERS {
        let policy = format!("spec.template.spec.{container}.terminationMessagePolicy");
        assert_eq!(value(&yaml(name), &policy), "FallbackToLogsOnError", "{name}: {policy}");
    }
}

#[test]
fn the_deployments_are_unprivileged() {
    for (name, container) in CONTAINERS {
        let deployment = yaml(name);
        assert_eq!(value(&deployment, "spec.template.spec.securityContext.runAsNonRoot"), "True");
        for (path, expected) in
            [("readOnlyRootFilesystem", "True"), ("allowPrivilegeEscalation", "False"), ("capabilities.drop.0", "ALL")]
        {
            let path = format!("spec.template.spec.{container}.securityContext.{path}");
            assert_eq!(value(&deployment, &path), expected, "{name}: {path}");
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

/// From the image that the Dockerfile builds, by the init container and the volume, to where it is run.
#[test]
fn the_binary_gets_there() {
    let dockerfile = fs::read_to_string(source("examples/prestop/Dockerfile")).expect("a Dockerfile");
    let instructions: Vec<&str> = dockerfile.lines().filter(|line| !line.starts_with('#')).collect();
    let [base, copy] = instructions[..] else { panic!("two lines: {instructions:?}") };
    assert!(base.starts_with("FROM docker.io/library/busybox:"), "it has a cp");
    for name in [NO_REBUILD, PRESTOP] {
        let deployment = yaml(name);
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
        let run = if name == PRESTOP { hook(&deployment) } else { command(&deployment) };
        assert_eq!(Path::new(&run[0]), Path::new(&mounted("containers.0")).join(inside), "{name}");
    }
}

/// The service, the budget and the monitor are for all.
#[test]
fn the_deployments_take_each_other_s_place() {
    let theirs = yaml(DEPLOYMENT);
    for ours in [NO_REBUILD, PRESTOP] {
        for path in [
            "metadata.name".to_owned(),
            format!("spec.selector.matchLabels.{SELECTOR}"),
            format!("spec.template.metadata.labels.{SELECTOR}"),
            "spec.template.spec.containers.0.name".to_owned(),
            "spec.template.spec.containers.0.ports.0.name".to_owned(),
        ] {
            assert_eq!(value(&yaml(ours), &path), value(&theirs, &path), "{ours}: {path}");
        }
    }
}

/// The monitor finds the pods where lameduck answers, by a port that they name.
#[test]
fn the_monitor_finds_the_pods() {
    let monitor = yaml("examples/podmonitor.yaml");
    assert_eq!(value(&monitor, "apiVersion"), "monitoring.coreos.com/v1");
    let endpoint = |key: &str| value(&monitor, &format!("spec.podMetricsEndpoints.0.{key}")).to_owned();
    assert_eq!(endpoint("path"), "/metrics");
    // A stop takes at least the default delay.
    assert!(seconds(&endpoint("interval")) <= 5);
    assert!(seconds(&endpoint("scrapeTimeout")) <= seconds(&endpoint("interval")), "Prometheus refuses it");
    for name in AS_PID1 {
        let deployment = yaml(name);
        let label = value(&deployment, &format!("spec.template.metadata.labels.{SELECTOR}"));
        assert_eq!(value(&monitor, &format!("spec.selector.matchLabels.{SELECTOR}")), label, "{name}");
        number(&deployment, "spec.template.spec.containers.0.ports", &endpoint("port"));
    }
}

/// What a scrape saw of a stop still raises its alert when the process, and its series, are gone.
#[test]
fn the_alerts_outlive_the_process() {
    const SERIES: [(&str, &str); 4] = [
        ("lameduck_shutdown_last_accept_seconds", "0x17 1 4.5 4.5 stale"),
        ("lameduck_phase{phase='killing'}", "0x17 0 0 1 stale"),
        ("lameduck_traffic_source{source='proc_net'}", "0x17 1 1 1 stale"),
        ("lameduck_phase{phase='serving'}", "1x17 0 0 0 stale"),
    ];
    let rules = yaml("examples/prometheus.rules.yaml");
    let tests = ["LameduckDelayTooShort", "LameduckKills", "LameduckBlind"].map(|alert| {
        let row = rules.iter().find(|(path, value)| path.ends_with(".alert") && value == alert).expect(alert);
        let expression = value(&rules, &row.0.replace(".alert", ".expr"));
        // Scraped each 5 s, it ended at 105 s.
        format!(
            "      - {{ expr: {:?}, eval_time: 2m, exp_samples: [ {{ labels: '{{}}', value: 1 }} ] }}\n",
            format!("count({expression})")
        )
    });
    let series = SERIES.map(|(series, values)| format!("      - {{ series: {series:?}, values: {values:?} }}\n")).concat();
    let directory = std::env::temp_dir().join(format!("lameduck-test-{}-alerts", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let text = format!("tests:\n  - interval: 5s\n    input_series:\n{series}    promql_expr_test:\n{}", tests.concat());
    fs::write(directory.join("alerts.yaml"), &text).unwrap();
    let output = Command::new("promtool").args(["test", "rules"]).arg(directory.join("alerts.yaml")).output();
    let output = output.expect("promtool, from prometheus (tests/run installs it)");
    let _ = fs::remove_dir_all(&directory);
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{said}\n{text}");
}

/// `command:` drops the image's CMD: the manifest says it again, and lameduck finds the server behind the image's entrypoint.
#[test]
fn nothing_of_the_image_s_command_is_lost() {
    let deployment = yaml(NO_REBUILD);
    let words = command(&deployment);
    let (image, entrypoint) = (value(&deployment, "spec.template.spec.containers.0.image"), &words[1..]);
    assert!(image.starts_with("docker.io/nginxinc/nginx-unprivileged:"), "look up the ENTRYPOINT and CMD of {image}");
    assert_eq!(entrypoint, ["--", "/docker-entrypoint.sh"]);
    let cmd = below(&deployment, "spec.template.spec.containers.0.args");
    assert_eq!(cmd, ["nginx", "-g", "daemon off;"]);
    let settings = variables(&deployment, "spec.template.spec.containers.0.env");
    let output = lameduck(&settings, &[&["plan".to_owned()], entrypoint, &cmd[..]].concat());
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success() && !said.contains("warnings"), "{said}");
    let row = |key: &str| said.lines().find(|line| line.trim_start().starts_with(key)).expect(key);
    assert!(row("server ").contains(" nginx ") && row("stop-signal ").contains(" QUIT "), "{said}");
    assert_eq!(row("grace-period ").split_whitespace().nth(1), Some("1m"), "{said}");
    // Without ENTRYPOINT and CMD there is nothing to run, which is said.
    let output = lameduck(&settings, &["--".to_owned()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(64) && said.contains("CMD") && said.contains("`args:`"), "{said}");
}

/// What the documents show is the manifests'.
#[test]
fn the_documents_show_the_manifests() {
    let quoted = |words: Vec<String>| format!("[\"{}\"]", words.join("\", \""));
    let (no_rebuild, prestop) = (yaml(NO_REBUILD), yaml(PRESTOP));
    let args = below(&no_rebuild, "spec.template.spec.containers.0.args");
    let images = |deployment: &[(String, String)]| {
        ["containers", "initContainers"].map(|list| value(deployment, &format!("spec.template.spec.{list}.0.image")).to_owned())
    };
    let copies = |deployment: &[(String, String)]| quoted(below(deployment, "spec.template.spec.initContainers.0.command"));
    let started = [quoted(command(&no_rebuild)), quoted(args)];
    let dockerfile = fs::read_to_string(source("examples/prestop/Dockerfile")).expect("a Dockerfile");
    let built = dockerfile.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n");
    for (document, parts) in [
        ("README.md", started.to_vec()),
        ("docs/install.md", [&started[..], &[copies(&no_rebuild)], &images(&no_rebuild), &[built]].concat()),
        ("docs/prestop.md", [&[quoted(hook(&prestop)), copies(&prestop)][..], &images(&prestop)].concat()),
    ] {
        let text = fs::read_to_string(source(document)).expect(document);
        for part in parts {
            assert!(text.contains(&part), "{document} lacks {part}");
        }
    }
}

fn command(deployment: &[(String, String)]) -> Vec<String> {
    below(deployment, "spec.template.spec.containers.0.command")
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
    let image = dockerfile.lines().find(|line| line.starts_with("ENV LAMEDUCK_")).expect("settings in ENV");
    let image: Vec<(String, String)> = image
        .split(' ')
        .filter_map(|word| word.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    // No setting that a deployment could not override.
    assert_eq!(command[..2], ["/usr/local/bin/lameduck", "--"]);
    for (what, own) in [("Dockerfile.example", vec![]), ("compose", compose), ("kubernetes", kubernetes)] {
        // The container's variables win over the image's.
        let settings: Vec<(String, String)> = image.iter().cloned().chain(own).collect();
        let output = lameduck(&settings, &[&["plan".to_owned()], &command[1..]].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{what}: {settings:?}: {}\n{said}", output.status);
        assert!(!said.contains("warnings"), "{what}: {settings:?}:\n{said}");
        let grace = settings.iter().rev().find(|(name, _)| name == "LAMEDUCK_GRACE_PERIOD").expect("a grace period");
        let grace = if grace.1 == "60s" { "1m" } else { &grace.1 };
        let row = said.lines().find(|line| line.trim_start().starts_with("grace-period ")).expect("a row on the grace period");
        assert_eq!(row.split_whitespace().nth(1), Some(grace), "{what}:\n{said}");
        // 1500m at 8 to the CPU.
        assert!(what != "kubernetes" || said.contains("LAMEDUCK_WORKERS=12"), "{what}:\n{said}");
    }
}

/// Of the containers with lameduck in each whole pod: its budget is the pod's, it takes every setting, and the app's words are known.
#[test]
fn the_whole_pods_are_consistent() {
    for (name, kind) in WHOLE {
        let rows = object(name, kind);
        let pod = "spec.template.spec";
        let grace = seconds(value(&rows, &format!("{pod}.terminationGracePeriodSeconds")));
        assert_eq!(value(&rows, &format!("{pod}.securityContext.runAsNonRoot")), "True", "{name}");
        let mut with_lameduck = 0;
        for container in containers(&rows, pod) {
            let context = format!("{name}: {container}");
            let of = |path: &str| value(&rows, &format!("{container}.{path}"));
            assert_eq!(of("securityContext.readOnlyRootFilesystem"), "True", "{context}");
            assert_eq!(of("securityContext.allowPrivilegeEscalation"), "False", "{context}");
            assert_eq!(of("securityContext.capabilities.drop.0"), "ALL", "{context}");
            let settings = settings(&rows, &container);
            let Some((_, said)) = settings.iter().find(|(name, _)| name == "LAMEDUCK_GRACE_PERIOD") else { continue };
            with_lameduck += 1;
            assert_eq!(seconds(said), grace, "{context}");
            assert_eq!(of("terminationMessagePolicy"), "FallbackToLogsOnError", "{context}");
            let words = ["command", "args"].map(|list| below(&rows, &format!("{container}.{list}"))).concat();
            let words = words.into_iter().skip_while(|word| word.ends_with("/lameduck") || word == "--");
            let output = lameduck(&settings, &["plan".to_owned(), "--".to_owned()].into_iter().chain(words).collect::<Vec<_>>());
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            assert!(output.status.success() && !said.contains("warnings"), "{context}:\n{said}");
        }
        assert_eq!(with_lameduck, if name == TWO_CONTAINERS { 2 } else { 1 }, "{name}");
        if kind == "Job" {
            continue;
        }
        let label = value(&rows, &format!("spec.template.metadata.labels.{SELECTOR}")).to_owned();
        assert_eq!(value(&rows, &format!("spec.selector.matchLabels.{SELECTOR}")), label, "{name}");
        assert_eq!(value(&object(name, "Service"), &format!("spec.selector.{SELECTOR}")), label, "{name}");
        let budget = object(name, "PodDisruptionBudget");
        assert_eq!(value(&budget, &format!("spec.selector.matchLabels.{SELECTOR}")), label, "{name}");
    }
}

/// What `lameduck install` puts there is what the containers run.
#[test]
fn the_installed_binary_is_the_one_that_runs() {
    let rows = object(TWO_CONTAINERS, "Deployment");
    let pod = "spec.template.spec";
    let install = below(&rows, &format!("{pod}.initContainers.0.command"));
    let [program, verb, directory] = &install[..] else { panic!("{install:?}") };
    assert_eq!((program.as_str(), verb.as_str()), ("/lameduck", "install"));
    assert_eq!(value(&rows, &format!("{pod}.initContainers.0.volumeMounts.0.mountPath")), directory);
    for container in ["containers.0", "containers.1"] {
        let mount = number(&rows, &format!("{pod}.{container}.volumeMounts"), "lameduck");
        let command = below(&rows, &format!("{pod}.{container}.command"));
        assert_eq!(Path::new(&command[0]).parent(), Some(Path::new(value(&rows, &format!("{mount}.mountPath")))));
    }
}

/// An init container that runs on: it starts first, and is stopped last. Of the Job's own containers none is without an end.
#[test]
fn the_sidecars_are_native() {
    for (name, kind) in [(SIDECAR, "Deployment"), (JOB, "Job")] {
        let rows = object(name, kind);
        let sidecar = "spec.template.spec.initContainers.0";
        assert_eq!(value(&rows, &format!("{sidecar}.restartPolicy")), "Always", "{name}");
        // Without it the app would start at the same time.
        value(&rows, &format!("{sidecar}.startupProbe.httpGet.port"));
        assert!(!containers(&rows, "spec.template.spec").contains(&"spec.template.spec.containers.1".to_owned()), "{name}");
    }
    assert_eq!(value(&object(JOB, "Job"), "spec.template.spec.restartPolicy"), "Never");
}

/// The autoscaler asks for the figure that the adapter makes, of the pods that are there.
#[test]
fn the_autoscaler_s_figure_is_the_adapter_s() {
    let (scaler, pods) = (object(AUTOSCALING, "HorizontalPodAutoscaler"), object(AUTOSCALING, "Deployment"));
    for key in ["kind", "name"] {
        let there = value(&pods, if key == "kind" { "kind" } else { "metadata.name" });
        assert_eq!(value(&scaler, &format!("spec.scaleTargetRef.{key}")), there);
    }
    let asked = value(&scaler, "spec.metrics.0.pods.metric.name");
    assert_eq!(value(&yaml("examples/prometheus-adapter.yaml"), "rules.custom.0.name.as"), asked);
    assert!(!pods.iter().any(|(path, _)| path == "spec.replicas"), "each apply would set them back");
}

/// The pod of two containers, by real servers in one network: both get TERM at once, php-fpm would be done long before nginx, and serves
/// until nginx has ended.
#[test]
fn php_fpm_serves_until_nginx_has_ended() {
    let (rows, config) = (object(TWO_CONTAINERS, "Deployment"), object(TWO_CONTAINERS, "ConfigMap"));
    support::in_own_network(move || {
        let state = serving::State::new();
        let index = state.file("index.php", value(&config, "data.index.php"));
        let site = value(&config, "data.default.conf");
        assert!(site.contains("/app/index.php"), "{site}");
        let site = state.file("default.conf", &site.replace("/app/index.php", &index));
        let around = "daemon off; error_log stderr warn; pid @/nginx.pid; events {} http { access_log off; client_body_temp_path @/b; \
                      proxy_temp_path @/p; fastcgi_temp_path @/f; uwsgi_temp_path @/u; scgi_temp_path @/s; include SITE; }";
        let directory = index.trim_end_matches("/index.php");
        let nginx_conf = state.file("nginx.conf", &around.replace('@', directory).replace("SITE", &site));
        state.file("php-fpm.conf.tmpl", value(&config, "data.php-fpm.conf.tmpl"));
        let (nginx, fpm) = (serving::program("nginx", "nginx-light"), serving::matching("/usr/sbin", "php-fpm", "", "php-fpm"));
        // The manifest's settings, its paths moved; who runs this is root.
        let here = |text: &str| text.replace("/tmp/", &format!("{directory}/")).replace("/config/", &format!("{directory}/"));
        let run = |container: &str, words: &[&str], delay: &str| {
            let settings = settings(&rows, &format!("spec.template.spec.{container}"));
            assert!(settings.len() > 2, "{settings:?}");
            support::Pid1::spawn(&[&[support::LAMEDUCK, "--delay", delay, "--"], words].concat(), |command| {
                command.env("KUBERNETES_SERVICE_HOST", "10.96.0.1");
                command.envs(settings.iter().map(|(name, value)| (name, here(value))));
            })
        };
        let args: Vec<String> = below(&rows, "spec.template.spec.containers.1.args").iter().map(|word| here(word)).collect();
        assert_eq!(args[0], "php-fpm");
        let args = [&[fpm.as_str()], &args[1..].iter().map(String::as_str).collect::<Vec<_>>()[..], &["-R"]].concat();
        let mut php = run("containers.1", &args, "1s");
        let mut web = run("containers.0", &[&nginx, "-c", &nginx_conf], "8s");
        support::listening(9102);
        support::eventually("through nginx to PHP", || (get("127.0.0.1:9102", "/readyz") == 200).then_some(()));
        assert_eq!(get("127.0.0.1:9103", "/readyz"), 200);
        php.signal(15);
        web.signal(15);
        // php-fpm's delay and quiet period are over, and nothing is in flight there.
        php.line(" draining ");
        assert_eq!(get("127.0.0.1:8080", "/"), 200);
        assert_eq!((web.exit(), php.exit()), (0, 0), "{:#?}\n{:#?}", web.seen, php.seen);
        let at = |pod: &support::Pid1, event: &str| {
            let line =
                pod.seen.iter().find(|line| line.contains(event)).unwrap_or_else(|| panic!("no {event} in {:#?}", pod.seen));
            line.split(' ').next().expect("a time").to_owned()
        };
        assert!(at(&php, " stopping ") > at(&web, " exit "), "{:#?}\n{:#?}", web.seen, php.seen);
    });
}

/// How a platform stops the app of its example, as it is written there.
struct Stop {
    example: &'static str,
    /// The first signal.
    signal: String,
    /// Until SIGKILL, in seconds.
    budget: u32,
    settings: Vec<(String, String)>,
}

/// By the parsers of Python, where it has one for the format; the others are read by their lines.
fn stops() -> Vec<Stop> {
    let rows = |name: &str, reader: &str| {
        let program = format!("import json, sys\n{reader}\njson.dump(document, sys.stdout)");
        let output = Command::new(support::PYTHON).args(["-c", &program]).arg(source(name)).output().expect("python3");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        parsed(name, &String::from_utf8(output.stdout).expect("UTF-8"), "")
    };
    let below = |rows: &[(String, String)], path: &str| -> Vec<(String, String)> {
        let named = |row: &(String, String)| Some((row.0.strip_prefix(path)?.to_owned(), row.1.clone()));
        rows.iter().filter_map(named).collect()
    };
    let (ecs, fly, hcl, unit) = (
        "examples/platforms/ecs-task.json",
        "examples/platforms/fly.toml",
        "examples/platforms/shop.nomad.hcl",
        "examples/platforms/shop.service",
    );
    let task = rows(ecs, "document = json.load(open(sys.argv[1]))");
    let toml = rows(fly, "import tomllib\ndocument = tomllib.load(open(sys.argv[1], 'rb'))");
    // NAME = "value" and Name=value.
    let lines = |name: &str| -> Vec<(String, String)> {
        let text = fs::read_to_string(source(name)).expect(name);
        let lines = text.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(|line| line.split_once('='));
        lines.map(|(name, value)| (name.trim().to_owned(), value.trim().trim_matches('"').to_owned())).collect()
    };
    let (job, service) = (lines(hcl), lines(unit));
    assert_eq!(value(&service, "KillMode"), "mixed");
    let environment = service.iter().filter(|row| row.0 == "Environment").map(|row| row.1.split_once('=').expect("NAME=value"));
    vec![
        Stop {
            example: ecs,
            signal: "SIGTERM".to_owned(),
            budget: seconds(value(&task, "containerDefinitions.0.stopTimeout")),
            settings: variables(&task, "containerDefinitions.0.environment"),
        },
        Stop {
            example: fly,
            signal: value(&toml, "kill_signal").to_owned(),
            budget: seconds(value(&toml, "kill_timeout")),
            settings: below(&toml, "env."),
        },
        Stop {
            example: hcl,
            signal: value(&job, "kill_signal").to_owned(),
            budget: seconds(value(&job, "kill_timeout")),
            settings: job.iter().filter(|row| row.0.starts_with("LAMEDUCK_")).cloned().collect(),
        },
        Stop {
            example: unit,
            signal: "SIGTERM".to_owned(),
            budget: seconds(value(&service, "TimeoutStopSec")),
            settings: environment.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        },
    ]
}

#[test]
fn the_platforms_time_and_the_grace_period_agree() {
    for Stop { example, budget, settings, .. } in stops() {
        assert_eq!(seconds(value(&settings, "LAMEDUCK_GRACE_PERIOD")), budget, "{example}");
        let output = lameduck(&settings, &["plan", "--", "gunicorn"].map(str::to_owned));
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && !said.contains("warnings"), "{example}:\n{said}");
    }
}

/// What docs/platforms.md shows for balancers is taken.
#[test]
fn the_delay_behind_a_balancer_fits() {
    let rows = shown("docs/platforms.md");
    let settings = variables(&rows, "spec.containers.0.env");
    let (grace, delay) = (value(&settings, "LAMEDUCK_GRACE_PERIOD"), value(&settings, "LAMEDUCK_DELAY"));
    assert_eq!(seconds(grace), seconds(value(&rows, "spec.terminationGracePeriodSeconds")));
    assert!((30..=60).contains(&seconds(delay)), "{delay}");
    let output = lameduck(&settings, &["plan", "--", "nginx"].map(str::to_owned));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Every row of the table has a grace period that its delay fits into.
    let page = fs::read_to_string(source("docs/platforms.md")).expect("docs/platforms.md");
    let (_, table) = page.split_once("| balancer |").expect("the table");
    let rows: Vec<Vec<&str>> =
        table.split("\n\n").next().unwrap().lines().skip(2).map(|row| row.split(" | ").collect()).collect();
    assert_eq!(rows.len(), 4);
    for row in rows {
        let (grace, delay) = (row[3].trim_end_matches(" |"), row[2].split(' ').next_back().unwrap());
        let arguments = ["plan", "--grace-period", grace, "--delay", delay, "--stop-timeout", "10s", "--", "nginx"];
        let output = lameduck(&[], &arguments.map(str::to_owned));
        assert!(output.status.success(), "{row:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

/// The platform's own first signal begins the drain; and INT, where that is what comes if nothing is said.
#[test]
fn the_platforms_first_signal_begins_the_drain() {
    for Stop { example, signal, settings, .. } in stops() {
        assert_eq!(signal, "SIGTERM", "{example}");
        let by_default = if example.contains("fly") || example.contains("nomad") { 2 } else { 15 };
        for signal in [15, by_default] {
            let settings = settings.clone();
            support::in_own_network(move || {
                let mut init = start(&settings, "8080");
                init.app_line("listens");
                init.signal(signal);
                init.line(" lame-duck ");
            });
        }
    }
}

/// The paths of a pod's containers, init containers first.
fn containers(rows: &[(String, String)], pod: &str) -> Vec<String> {
    let named = |path: &String| rows.iter().any(|row| row.0 == format!("{path}.name"));
    ["initContainers", "containers"]
        .into_iter()
        .flat_map(|list| (0..).map(move |number| format!("{pod}.{list}.{number}")).take_while(named))
        .collect()
}

/// The variables of a container, with the CPU request as the kubelet writes it.
fn settings(rows: &[(String, String)], container: &str) -> Vec<(String, String)> {
    let mut all = variables(rows, &format!("{container}.env"));
    if let Some(millis) = all.iter_mut().find(|(name, _)| name == "LAMEDUCK_CPU_REQUEST_MILLIS") {
        let request = value(rows, &format!("{container}.resources.requests.cpu"));
        millis.1 = request.strip_suffix('m').map_or_else(|| format!("{request}000"), str::to_owned);
    }
    all
}

fn lameduck(settings: &[(String, String)], arguments: &[String]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lameduck"));
    command.env_clear().env("PATH", "/usr/bin:/bin").envs(settings.iter().cloned()).args(arguments);
    command.output().expect("lameduck")
}

/// A document as rows of path and scalar.
fn yaml(name: &str) -> Vec<(String, String)> {
    parsed(name, &fs::read_to_string(source(name)).expect(name), "")
}

/// The object of a kind among a file's documents.
fn object(name: &str, kind: &str) -> Vec<(String, String)> {
    parsed(name, &fs::read_to_string(source(name)).expect(name), kind)
}

/// The first YAML that a page shows.
fn shown(name: &str) -> Vec<(String, String)> {
    let page = fs::read_to_string(source(name)).expect(name);
    let (_, behind) = page.split_once("```yaml\n").unwrap_or_else(|| panic!("no YAML in {name}"));
    parsed(name, behind.split("```").next().unwrap(), "")
}

/// Read by somebody else's parser: the document of a kind, or the only one.
fn parsed(name: &str, text: &str, kind: &str) -> Vec<(String, String)> {
    const FLATTEN: &str = "
import sys, yaml
def walk(path, node):
    if isinstance(node, (dict, list)):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            walk(path + [str(key)], value)
    else:
        print('.'.join(path) + '\\t' + str(node).replace('\\n', '\\r'))
text, kind = sys.argv[1:]
documents = [one for one in yaml.safe_load_all(text) if not kind or one['kind'] == kind]
assert len(documents) == 1, f'{len(documents)} documents of kind {kind}'
walk([], documents[0])
";
    let output = Command::new("/usr/bin/python3").args(["-c", FLATTEN, text, kind]).output();
    let output = output.expect("no /usr/bin/python3: install Debian's python3-yaml (tests/run does)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} does not parse, or Debian's python3-yaml is not there:\n{said}");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let rows = text.split_terminator('\n').map(|line| line.split_once('\t').expect("a row"));
    rows.map(|(path, value)| (path.into(), value.replace('\r', "\n"))).collect()
}

fn value<'a>(rows: &'a [(String, String)], path: &str) -> &'a str {
    &rows.iter().find(|row| row.0 == path).unwrap_or_else(|| panic!("no {path} in {rows:#?}")).1
}

/// The path of the entry of a list that has this name.
fn number(rows: &[(String, String)], list: &str, name: &str) -> String {
    let row = rows.iter().find(|row| row.0.starts_with(&format!("{list}.")) && row.0.ends_with(".name") && row.1 == name);
    row.unwrap_or_else(|| panic!("no {name} in {list}")).0.trim_end_matches(".name").to_owned()
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
