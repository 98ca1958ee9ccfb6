//! Probes: traffic that is none, and what is asked of whom.

use std::time::Duration;

use lameduck::core::shutdown::Drain;
use lameduck::core::time::Show;

use super::{Check, Hit, Place, Rule, Scene, Severity};
use crate::manifest::Workload;
use crate::yaml::Value;

pub const RULES: &[Rule] = &[
    Rule {
        code: "probe-is-traffic",
        severity: Severity::Warning,
        when: "an HTTP or gRPC probe asks the app's own port as often as the quiet period, or more often (a note for liveness probes, which \
               kubelets since 1.21 end with the pod's deletion)",
        why: "each probe is a new connection with a request, as any client's: the wait for nothing new never ends before the time is up",
        fix: "point the probe at lameduck's admin port, probe less often, or name its source with --ignore-peer",
        check: Check::Container(probe_is_traffic),
    },
    Rule {
        code: "liveness-on-readyz",
        severity: Severity::Warning,
        when: "a liveness probe asks /readyz without a startup probe, or gives up within 30 s (periodSeconds × failureThreshold)",
        why: "/readyz is 503 until the app is warmed up, and while it is only slow: it would be restarted then",
        fix: "add a startup probe, and let liveness wait a minute; or ask /livez",
        check: Check::Container(liveness_on_readyz),
    },
    Rule {
        code: "no-readiness",
        severity: Severity::Warning,
        when: "a Service selects the pods, and no container has a readiness probe",
        why: "requests come before the app listens, on every rollout",
        fix: "add a readiness probe; kubectl lameduck inject does, on lameduck's admin port",
        check: Check::Workload(no_readiness),
    },
    Rule {
        code: "same-probes",
        severity: Severity::Info,
        when: "liveness and readiness probes ask the same, and liveness waits no longer (periodSeconds × failureThreshold)",
        why: "a pod that is slow for a moment is restarted instead of being spared",
        fix: "let liveness wait much longer, or leave it out",
        check: Check::Container(same_probes),
    },
    Rule {
        code: "readiness-fails-on-stop",
        severity: Severity::Warning,
        when: "LAMEDUCK_READYZ_ON_STOP is fail, or a preStop hook touches or removes the file that the readiness probe looks for",
        why: "a deleted pod leaves the ready endpoints by itself. When all pods of a Service are terminating, kube-proxy falls back to those that \
              are still ready: with one replica every request is lost instead",
        fix: "leave LAMEDUCK_READYZ_ON_STOP out; the default in Kubernetes is to pass",
        check: Check::Container(readiness_fails_on_stop),
    },
];

const PROBES: [&str; 2] = ["readinessProbe", "livenessProbe"];

/// The port that an HTTP or gRPC probe asks, as it is written.
fn asked<'a>(probe: Value<'a>) -> Option<&'a str> {
    let by = probe.get("httpGet").or(probe.get("grpc"))?;
    by.word("port")
}

fn probe_is_traffic(place: &Place<'_>) -> Vec<Hit> {
    let Some(foreseen) = place.decided() else { return Vec::new() };
    let words = place.wrap.as_ref().map(|wrap| wrap.words.clone()).unwrap_or_default();
    let ignores =
        place.container.variable("LAMEDUCK_IGNORE_PEER").is_some() || words.iter().any(|word| word.starts_with("--ignore-peer"));
    if ignores || foreseen.timing.drain == Drain::Off {
        return Vec::new();
    }
    let quiet = foreseen.timing.quiet;
    let look = |name: &str| {
        let probe = place.container.value.get(name)?;
        let port = asked(probe)?;
        let own = place.container.port(port);
        if own.is_some() && own == foreseen.admin.map(i64::from) {
            return None;
        }
        let period = Duration::from_secs(u64::try_from(probe.integer("periodSeconds").unwrap_or(10)).ok()?);
        let said = format!("{name} asks port {port} each {}, the quiet period is {}", Show(period), Show(quiet));
        // Kubelets since 1.21 end liveness probes with the deletion.
        let severity = if name == "livenessProbe" { Severity::Info } else { Severity::Warning };
        (period <= quiet).then(|| Hit::at(probe, said).of(severity))
    };
    PROBES.into_iter().filter_map(look).collect()
}

/// In seconds, until a probe gives up.
fn patience(probe: Value<'_>) -> i64 {
    probe.integer("periodSeconds").unwrap_or(10).saturating_mul(probe.integer("failureThreshold").unwrap_or(3))
}

fn liveness_on_readyz(place: &Place<'_>) -> Vec<Hit> {
    let path = place.container.value.at(&["livenessProbe", "httpGet", "path"]);
    let path =
        path.filter(|path| place.wrap.is_some() && path.text().is_some_and(|path| path.split('?').next() == Some("/readyz")));
    let starts = place.container.value.get("startupProbe").is_some_and(|probe| !probe.is_null());
    let patient = place.container.value.get("livenessProbe").is_some_and(|probe| patience(probe) > 30);
    let why = if !starts { "without a startup probe" } else { "and gives up within 30 s" };
    path.filter(|_| !(starts && patient))
        .map(|path| Hit::at(path, format!("livenessProbe asks /readyz {why}")))
        .into_iter()
        .collect()
}

fn no_readiness<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let services = scene.services(workload);
    let has = |probe: &str| {
        workload.containers().iter().any(|container| container.value.get(probe).is_some_and(|probe| !probe.is_null()))
    };
    match services.first() {
        Some(service) if !workload.is_job() && !has("readinessProbe") => {
            vec![Hit::at(
                workload.object.value,
                format!("Service/{} sends requests to it, and it has no readiness probe", service.name),
            )]
        }
        _ => Vec::new(),
    }
}

fn same_probes(place: &Place<'_>) -> Vec<Hit> {
    let what = |name: &str| {
        let probe = place.container.value.get(name)?;
        let http = probe
            .get("httpGet")
            .map(|http| format!("GET {} {}", http.word("port").unwrap_or_default(), http.word("path").unwrap_or("/")));
        let tcp = probe.get("tcpSocket").map(|tcp| format!("TCP {}", tcp.word("port").unwrap_or_default()));
        let exec = probe.get("exec").map(|exec| exec.words("command").join(" "));
        http.or(tcp).or(exec)
    };
    let (readiness, liveness) = (place.container.value.get("readinessProbe"), place.container.value.get("livenessProbe"));
    let liveness = liveness.filter(|liveness| readiness.is_some_and(|readiness| patience(*liveness) <= patience(readiness)));
    let same = what("readinessProbe").zip(what("livenessProbe")).filter(|(ready, live)| ready == live);
    liveness.zip(same).map(|(probe, (what, _))| Hit::at(probe, format!("both probes ask {what}"))).into_iter().collect()
}

fn readiness_fails_on_stop(place: &Place<'_>) -> Vec<Hit> {
    let name = "LAMEDUCK_READYZ_ON_STOP";
    if place.decided().is_some_and(|foreseen| foreseen.admin.is_some() && !foreseen.pass_on_stop) {
        let entry = place.container.variable(name);
        return vec![
            entry.map_or_else(|| place.hit("--readyz-on-stop is fail"), |entry| Hit::at(entry, format!("{name} is fail"))),
        ];
    }
    let command = |path: &[&str]| place.container.value.at(path).map(|exec| exec.words("command").join(" ")).unwrap_or_default();
    let hook = command(&["lifecycle", "preStop", "exec"]);
    let probe = command(&["readinessProbe", "exec"]);
    let words: Vec<&str> = hook.split([' ', ';', '&', '\n']).filter(|word| !word.is_empty()).collect();
    let touches = words.iter().any(|word| matches!(crate::manifest::base_name(word), "touch" | "rm"));
    let file = words
        .iter()
        .find(|word| touches && word.starts_with('/') && word.len() > 1 && probe.split(' ').any(|other| other == **word));
    let value = place.container.value.at(&["lifecycle", "preStop"]);
    value
        .zip(file)
        .map(|(value, file)| Hit::at(value, format!("preStop changes {file}, for which the readiness probe looks")))
        .into_iter()
        .collect()
}
