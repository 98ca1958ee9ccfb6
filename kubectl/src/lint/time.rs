//! The budget: what does not fit into it, and who cuts it short.

use std::time::Duration;

use lameduck::core::time::{Show, parse_duration};

use super::{Check, Hit, Place, Rule, Scene, Severity};
use crate::manifest::{Container, Object, Workload, base_name};
use crate::wrap::{GRACE_PERIOD, Role};

pub const RULES: &[Rule] = &[
    Rule {
        code: "settings-refused",
        severity: Severity::Error,
        when: "lameduck would refuse its settings: delay + stop timeout + margin is more than the grace period, or a value cannot be read",
        why: "the container would exit with 64 at its start",
        fix: "shorten --delay or --stop-timeout, or raise terminationGracePeriodSeconds and LAMEDUCK_GRACE_PERIOD",
        check: Check::Container(settings_refused),
    },
    Rule {
        code: "grace-mismatch",
        severity: Severity::Error,
        when: "LAMEDUCK_GRACE_PERIOD or --grace-period is not terminationGracePeriodSeconds (a warning where the image may say it)",
        why: "lameduck cannot look the pod's grace period up: it is killed before its time is up, or gives the app less time than there is",
        fix: "set LAMEDUCK_GRACE_PERIOD to terminationGracePeriodSeconds",
        check: Check::Container(grace_mismatch),
    },
    Rule {
        code: "grace-too-short",
        severity: Severity::Error,
        when: "the preStop hook's known wait, and lameduck's own budget behind it, is more than terminationGracePeriodSeconds",
        why: "the hook's time counts inside the grace period: SIGKILL comes while requests are still answered",
        fix: "raise terminationGracePeriodSeconds, or leave the sleep out",
        check: Check::Container(grace_too_short),
    },
    Rule {
        code: "grace-zero",
        severity: Severity::Error,
        when: "terminationGracePeriodSeconds is below 5",
        why: "SIGKILL comes at once, or before anything could be drained",
        fix: "give it 30 or more",
        check: Check::Workload(grace_zero),
    },
    Rule {
        code: "grace-long",
        severity: Severity::Info,
        when: "terminationGracePeriodSeconds is above 120",
        why: "a node that is taken back gives 30 to 120 s, and graceful node shutdown does nothing until the kubelet has \
              shutdownGracePeriod: there the rest is cut off",
        fix: "make sure that requests end within 120 s, or that such pods are not on spot nodes",
        check: Check::Workload(grace_long),
    },
    Rule {
        code: "probe-grace",
        severity: Severity::Warning,
        when: "a probe's own terminationGracePeriodSeconds is longer than the pod's, below 5 s, or stands on a readiness probe",
        why: "after this probe failed it is the whole budget instead of the pod's; the API server refuses it on readiness probes",
        fix: "give liveness and startup probes 5 s up to the pod's grace period, or leave it out",
        check: Check::Container(probe_grace),
    },
    Rule {
        code: "prestop-double-wait",
        severity: Severity::Warning,
        when: "a preStop hook sleeps, and lameduck is the container's command",
        why: "both waits are paid, one after the other, on every stop",
        fix: "remove the hook: lameduck's --delay is this wait",
        check: Check::Container(prestop_double_wait),
    },
    Rule {
        code: "mesh-cuts-drain",
        severity: Severity::Warning,
        when: "the pod has an Istio, Linkerd or Consul proxy that stops before the wait for traffic may end",
        why: "the proxy gets its stop signal at the same moment: when it goes, every connection goes, whatever is still in flight",
        fix: "Istio: native sidecars, or terminationDrainDuration in proxy.istio.io/config; Linkerd: native sidecars, or \
              config.alpha.linkerd.io/proxy-wait-before-exit-seconds; Consul: its shutdown grace period. At least the time named here",
        check: Check::Workload(mesh_cuts_drain),
    },
    Rule {
        code: "lb-delay",
        severity: Severity::Warning,
        when: "a load balancer sends to the pods directly (ALB or NLB with IP targets, GKE's NEG), and the delay is shorter than it needs",
        why: "such a balancer goes on sending new connections for 30 s (ALB, NEG) to 120 s (NLB) after the pod is deleted",
        fix: "raise --delay (LAMEDUCK_DELAY) to that, and the grace period with it",
        check: Check::Workload(lb_delay),
    },
];

fn settings_refused(place: &Place<'_>) -> Vec<Hit> {
    match &place.foreseen {
        Some(Err(line)) => vec![place.hit(format!("lameduck: {line}"))],
        _ => Vec::new(),
    }
}

fn seconds(seconds: i64) -> Duration {
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

fn grace_mismatch(place: &Place<'_>) -> Vec<Hit> {
    let (Some(wrap), Some(foreseen)) = (&place.wrap, place.decided()) else { return Vec::new() };
    let (pod, _) = place.workload.grace();
    let taken = foreseen.timing.grace;
    if taken == seconds(pod) {
        return Vec::new();
    }
    let typed = wrap.words.iter().any(|word| word.starts_with("--grace-period"));
    let variable = place.container.variable(GRACE_PERIOD);
    // From a ConfigMap or a field: not known here.
    if !typed && variable.is_some_and(|entry| entry.get("valueFrom").is_some()) {
        return Vec::new();
    }
    let taken = Show(taken);
    let pod = format!("terminationGracePeriodSeconds is {pod}");
    match variable.filter(|_| !typed) {
        Some(entry) => vec![Hit::at(entry.get("value").unwrap_or(entry), format!("{GRACE_PERIOD} is {taken}, {pod}"))],
        None if typed => vec![place.hit(format!("--grace-period is {taken}, {pod}"))],
        None if wrap.role == Role::Image => {
            vec![place.hit(format!("{GRACE_PERIOD} is not set, {pod}: without it {taken} is taken")).of(Severity::Warning)]
        }
        None => vec![place.hit(format!("{GRACE_PERIOD} is not set, so {taken} is taken; {pod}"))],
    }
}

/// How long a preStop hook waits, where that can be seen: the sleep action, or `sleep N` in a command.
pub fn hook_sleep(container: &Container<'_>) -> Option<Duration> {
    let hook = container.value.at(&["lifecycle", "preStop"])?;
    if let Some(seconds) = hook.get("sleep").and_then(|sleep| sleep.integer("seconds")) {
        return Some(Duration::from_secs(u64::try_from(seconds).ok()?));
    }
    let command = hook.get("exec")?.words("command");
    let words: Vec<&str> = command.iter().flat_map(|word| word.split([' ', ';', '\n', '&'])).collect();
    let at = words.iter().position(|word| base_name(word) == "sleep")?;
    parse_duration(words[at + 1..].iter().find(|word| !word.is_empty())?).ok()
}

fn grace_too_short(place: &Place<'_>) -> Vec<Hit> {
    let Some(sleep) = hook_sleep(&place.container).filter(|sleep| !sleep.is_zero()) else { return Vec::new() };
    let grace = seconds(place.workload.grace().0);
    let behind = match (&place.wrap, place.decided()) {
        (Some(wrap), Some(foreseen)) if wrap.role != Role::Hook => foreseen.timing.grace,
        _ => Duration::ZERO,
    };
    if behind.is_zero() && sleep >= grace {
        return vec![place.hit(format!("the preStop hook sleeps {}, the grace period is {}", Show(sleep), Show(grace)))];
    }
    if !behind.is_zero() && sleep + behind > grace {
        return vec![place.hit(format!(
            "the preStop hook's {} + lameduck's grace period {} > terminationGracePeriodSeconds {}",
            Show(sleep),
            Show(behind),
            grace.as_secs()
        ))];
    }
    Vec::new()
}

fn grace_zero<'a>(_: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    match workload.grace() {
        (seconds, Some(value)) if seconds < 5 => vec![Hit::at(value, format!("terminationGracePeriodSeconds is {seconds}"))],
        _ => Vec::new(),
    }
}

fn grace_long<'a>(_: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    match workload.grace() {
        (seconds, Some(value)) if seconds > 120 => vec![Hit::at(value, format!("terminationGracePeriodSeconds is {seconds}"))],
        _ => Vec::new(),
    }
}

fn probe_grace(place: &Place<'_>) -> Vec<Hit> {
    let (pod, _) = place.workload.grace();
    let look = |name: &str| {
        let value = place.container.value.at(&[name, "terminationGracePeriodSeconds"])?;
        let own: i64 = value.text()?.parse().ok()?;
        if name == "readinessProbe" {
            return Some(Hit::at(value, "terminationGracePeriodSeconds stands on a readiness probe").of(Severity::Error));
        }
        let odd = own < 5 || own > pod;
        odd.then(|| Hit::at(value, format!("{name} has terminationGracePeriodSeconds {own}, the pod has {pod}")))
    };
    ["livenessProbe", "startupProbe", "readinessProbe"].into_iter().filter_map(look).collect()
}

fn prestop_double_wait(place: &Place<'_>) -> Vec<Hit> {
    let wraps = place.wrap.as_ref().is_some_and(|wrap| wrap.role != Role::Hook);
    let sleep = hook_sleep(&place.container).filter(|sleep| wraps && !sleep.is_zero());
    let hook = place.container.value.at(&["lifecycle", "preStop"]);
    let said = |sleep: Duration| format!("preStop sleeps {}, then lameduck waits too", Show(sleep));
    sleep.zip(hook).map(|(sleep, hook)| Hit::at(hook, said(sleep))).into_iter().collect()
}

/// The longest that a container of the pod may serve on after its deletion, and how long at least.
fn waits<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Option<(Duration, Duration)> {
    let of = |place: &Place<'_>| match place.decided() {
        Some(foreseen) => Some((foreseen.timing.until_sent(), foreseen.timing.delay)),
        None => hook_sleep(&place.container).map(|sleep| (sleep, sleep)),
    };
    scene.places(workload).iter().filter(|place| !place.container.is_helper()).filter_map(of).max()
}

fn mesh_cuts_drain<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let Some((longest, delay)) = waits(scene, workload) else { return Vec::new() };
    let annotation = |name: &str| workload.pod_annotation(name);
    let has = |name: &str| workload.containers().iter().any(|container| container.name == name);
    let number = |name: &str| annotation(name).and_then(|text| text.parse().ok()).map(seconds);
    let mut hits = Vec::new();
    let mut cut = |mesh: &str, lasts: Duration, needed: Duration| {
        if lasts < needed {
            let said = format!("{mesh} stops after {}, and traffic is waited for up to {}", Show(lasts), Show(needed));
            hits.push(Hit::at(workload.template, said));
        }
    };
    let istio = annotation("sidecar.istio.io/inject") == Some("true")
        || annotation("proxy.istio.io/config").is_some() && annotation("sidecar.istio.io/inject") != Some("false")
        || has("istio-proxy");
    if istio && annotation("sidecar.istio.io/nativeSidecar") != Some("true") {
        let config = annotation("proxy.istio.io/config").unwrap_or_default();
        if setting(config, "EXIT_ON_ZERO_ACTIVE_CONNECTIONS").is_some_and(|value| value == "true") {
            let least = setting(config, "MINIMUM_DRAIN_DURATION").and_then(|text| parse_duration(&text).ok());
            cut("Istio's proxy, with no connection open,", least.unwrap_or(seconds(5)), delay);
        } else {
            let drain = setting(config, "terminationDrainDuration").and_then(|text| parse_duration(&text).ok());
            cut("Istio's proxy (not as a native sidecar)", drain.unwrap_or(seconds(5)), longest);
        }
    }
    let native = ["config.beta.linkerd.io/proxy-enable-native-sidecar", "config.alpha.linkerd.io/proxy-enable-native-sidecar"];
    let linkerd = matches!(annotation("linkerd.io/inject"), Some("enabled" | "ingress")) || has("linkerd-proxy");
    if linkerd && !native.iter().any(|name| annotation(name) == Some("true")) {
        let wait = number("config.alpha.linkerd.io/proxy-wait-before-exit-seconds").unwrap_or_default();
        cut("Linkerd's proxy (not as a native sidecar)", wait, longest);
    }
    if annotation("consul.hashicorp.com/connect-inject") == Some("true") {
        let grace = number("consul.hashicorp.com/sidecar-proxy-lifecycle-shutdown-grace-period-seconds");
        cut("Consul's proxy", grace.unwrap_or(seconds(30)), longest);
    }
    hits
}

/// A setting in a text that is YAML or JSON itself.
fn setting(config: &str, name: &str) -> Option<String> {
    let rest = &config[config.find(name)? + name.len()..];
    let rest = rest.trim_start_matches(['"', '\'']).trim_start().strip_prefix(':')?.trim_start().trim_start_matches(['"', '\'']);
    Some(rest.split(['"', '\'', ',', '}', '\n', ' ']).next().unwrap_or_default().to_owned())
}

/// The balancers that send to these pods directly, and how long they go on doing so.
pub fn balancers(scene: &Scene<'_>, workload: &Workload<'_>) -> Vec<(&'static str, Duration)> {
    let mut all = Vec::new();
    for service in scene.services(workload) {
        if service.annotation("service.beta.kubernetes.io/aws-load-balancer-nlb-target-type") == Some("ip") {
            all.push(("an NLB with IP targets", seconds(120)));
        }
        if service.annotation("cloud.google.com/neg").is_some() {
            all.push(("a NEG", seconds(30)));
        }
        let by_ip = |ingress: &Object<'_>| ingress.annotation("alb.ingress.kubernetes.io/target-type") == Some("ip");
        if scene.of_kind("Ingress").any(|ingress| by_ip(ingress) && backends(ingress).contains(&service.name)) {
            all.push(("an ALB with IP targets", seconds(30)));
        }
    }
    all
}

fn backends<'a>(ingress: &Object<'a>) -> Vec<&'a str> {
    let Some(spec) = ingress.value.get("spec") else { return Vec::new() };
    let rules = spec.list("rules").into_iter().filter_map(|rule| rule.get("http")).flat_map(|http| http.list("paths"));
    let paths = rules.filter_map(|path| path.at(&["backend", "service", "name"])?.text());
    paths.chain(spec.at(&["defaultBackend", "service", "name"]).and_then(|name| name.text())).collect()
}

fn lb_delay<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let Some((_, delay)) = waits(scene, workload) else { return Vec::new() };
    let short = balancers(scene, workload).into_iter().filter(|(_, needed)| delay < *needed);
    let said = |(what, needed)| format!("behind {what}, which needs {}, the delay is {}", Show(needed), Show(delay));
    short.map(|short| Hit::at(workload.object.value, said(short))).collect()
}
