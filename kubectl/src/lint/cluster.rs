//! What stands around the pods: Services, budgets, autoscalers, the order in which pods are replaced.

use super::time::balancers;
use super::{Check, Hit, Rule, Scene, Severity};
use crate::manifest::{Container, Object, Workload};
use crate::wrap;
use crate::yaml::Value;

pub const RULES: &[Rule] = &[
    Rule {
        code: "max-unavailable",
        severity: Severity::Warning,
        when: "a rollout may stop all pods before a new one is ready: Recreate, maxUnavailable of all replicas, a StatefulSet of one pod",
        why: "for that time nobody answers",
        fix: "maxUnavailable: 0 and maxSurge: 1; for a StatefulSet two replicas",
        check: Check::Workload(max_unavailable),
    },
    Rule {
        code: "single-replica",
        severity: Severity::Warning,
        when: "a Service sends to a Deployment of one replica",
        why: "a node that is drained, or fails, takes the only pod: nobody answers until another one is ready",
        fix: "two replicas or more",
        check: Check::Workload(single_replica),
    },
    Rule {
        code: "pdb-missing",
        severity: Severity::Warning,
        when: "no PodDisruptionBudget in the input selects a workload of two replicas or more that a Service sends to",
        why: "a drain of nodes may evict all pods at once",
        fix: "add a PodDisruptionBudget with maxUnavailable: 1",
        check: Check::Workload(pdb_missing),
    },
    Rule {
        code: "pdb-blocks",
        severity: Severity::Warning,
        when: "a PodDisruptionBudget allows no eviction",
        why: "a drain of the node waits for it without end; then somebody forces it, without any grace period",
        fix: "maxUnavailable: 1, and two replicas or more",
        check: Check::Object(pdb_blocks),
    },
    Rule {
        code: "hpa-without-request",
        severity: Severity::Warning,
        when: "an autoscaler goes by CPU utilisation, and a container has no CPU request",
        why: "utilisation is a share of the request: without one in every container the autoscaler does nothing",
        fix: "set resources.requests.cpu in every container",
        check: Check::Workload(hpa_without_request),
    },
    Rule {
        code: "hpa-replicas",
        severity: Severity::Warning,
        when: "spec.replicas stands in a workload that an autoscaler in the input scales",
        why: "each apply first scales to that number: pods are stopped in great number, and started again",
        fix: "leave spec.replicas out",
        check: Check::Workload(hpa_replicas),
    },
    Rule {
        code: "publish-not-ready",
        severity: Severity::Error,
        when: "a Service with publishNotReadyAddresses sends to pods (a note where it is headless: peers often need it)",
        why: "its endpoints stay ready while the pod terminates: new connections come until the end",
        fix: "leave it out; give peers a headless Service of their own",
        check: Check::Object(publish_not_ready),
    },
    Rule {
        code: "etp-local",
        severity: Severity::Warning,
        when: "externalTrafficPolicy or internalTrafficPolicy is Local, and /readyz fails on stop",
        why: "the last pod on a node gets requests until the balancer has noticed: kube-proxy falls back to it only while it is still ready",
        fix: "leave LAMEDUCK_READYZ_ON_STOP out, and give --delay as long as the balancer's health check needs",
        check: Check::Object(etp_local),
    },
    Rule {
        code: "traffic-distribution",
        severity: Severity::Info,
        when: "a Service prefers endpoints of the same zone or node",
        why: "where a zone has one pod, its end moves the whole zone's traffic at once",
        fix: "two pods in each zone (topologySpreadConstraints)",
        check: Check::Object(traffic_distribution),
    },
    Rule {
        code: "min-ready",
        severity: Severity::Info,
        when: "minReadySeconds is 0, and a load balancer sends to the pods directly",
        why: "old pods go as soon as new ones say that they are ready, before the balancer has them as healthy",
        fix: "minReadySeconds: 15 or more, or the balancer's readiness gates",
        check: Check::Workload(min_ready),
    },
    Rule {
        code: "selector-matches-none",
        severity: Severity::Info,
        when: "a Service or a PodDisruptionBudget selects no workload of the input",
        why: "a label may be misspelt; then it does nothing",
        fix: "compare its selector with the pod template's labels",
        check: Check::Object(selector_matches_none),
    },
];

/// A number or a percentage of `all`.
fn part_of(value: Option<Value<'_>>, all: i64, round_up: bool) -> Option<i64> {
    let text = value?.text()?;
    match text.strip_suffix('%') {
        Some(percent) => {
            let scaled = percent.parse::<i64>().ok()?.checked_mul(all)?;
            Some(if round_up { (scaled + 99).div_euclid(100) } else { scaled / 100 })
        }
        None => text.parse().ok(),
    }
}

/// The autoscaler of a workload.
fn autoscaler<'s, 'a>(scene: &'s Scene<'a>, workload: &Workload<'a>) -> Option<&'s Object<'a>> {
    scene.of_kind("HorizontalPodAutoscaler").find(|scaler| {
        let target = |key| scaler.value.at(&["spec", "scaleTargetRef", key]).and_then(|value| value.text());
        target("kind") == Some(workload.object.kind) && target("name") == Some(workload.object.name)
    })
}

/// As many pods as there are at least.
fn least<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Option<i64> {
    let written = workload.replicas()?;
    let scaled = autoscaler(scene, workload)
        .map(|scaler| scaler.value.get("spec").and_then(|spec| spec.integer("minReplicas")).unwrap_or(1));
    Some(scaled.unwrap_or(written))
}

fn max_unavailable<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let Some(replicas) = least(scene, workload).filter(|replicas| *replicas > 0) else { return Vec::new() };
    let serves = workload.containers().iter().any(super::process::serves);
    let spec = workload.object.value.get("spec");
    let hit = |value: Option<Value<'a>>, said: String| vec![Hit::at(value.unwrap_or(workload.object.value), said)];
    if !serves {
        return Vec::new();
    }
    match workload.object.kind {
        "Deployment" => {
            let kind = spec.and_then(|spec| spec.at(&["strategy", "type"]));
            if kind.is_some_and(|kind| kind.text() == Some("Recreate")) {
                return hit(kind, "strategy Recreate stops all pods first".to_owned());
            }
            let value = spec.and_then(|spec| spec.at(&["strategy", "rollingUpdate", "maxUnavailable"]));
            match part_of(value, replicas, false) {
                Some(gone) if gone >= replicas => hit(value, format!("maxUnavailable takes {gone} of {replicas}")),
                _ => Vec::new(),
            }
        }
        "StatefulSet" if replicas == 1 && !scene.services(workload).is_empty() => {
            hit(None, "a StatefulSet of one pod stops it before the next one starts".to_owned())
        }
        _ => Vec::new(),
    }
}

fn single_replica<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let one = workload.object.kind == "Deployment" && least(scene, workload) == Some(1);
    match scene.services(workload).first() {
        Some(service) if one => vec![Hit::at(workload.object.value, format!("Service/{} has one pod", service.name))],
        _ => Vec::new(),
    }
}

fn pdb_missing<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let several = least(scene, workload).is_some_and(|replicas| replicas > 1);
    let mut budgets = scene.of_kind("PodDisruptionBudget");
    let covered = budgets.any(|budget| {
        let selector = budget.value.at(&["spec", "selector"]);
        // An empty selector takes every pod; expressions are not evaluated, and count as taking it.
        let takes_all =
            selector.is_some_and(|selector| selector.entries().is_empty() || selector.get("matchExpressions").is_some());
        takes_all || workload.is_selected(*budget, selector.and_then(|selector| selector.get("matchLabels")))
    });
    match scene.services(workload).first() {
        Some(_) if several && !covered => {
            vec![Hit::at(workload.object.value, "no PodDisruptionBudget in the input selects its pods")]
        }
        _ => Vec::new(),
    }
}

fn pdb_blocks(scene: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    if object.kind != "PodDisruptionBudget" {
        return Vec::new();
    }
    let Some(spec) = object.value.get("spec") else { return Vec::new() };
    let (most, least_left) = (spec.get("maxUnavailable"), spec.get("minAvailable"));
    if let Some(value) = most.filter(|value| matches!(value.text(), Some("0" | "0%"))) {
        return vec![Hit::at(value, "maxUnavailable is 0")];
    }
    if let Some(value) = least_left.filter(|value| value.text() == Some("100%")) {
        return vec![Hit::at(value, "minAvailable is 100%")];
    }
    let selector = spec.at(&["selector", "matchLabels"]);
    let selected = scene.workloads.iter().filter(|workload| workload.is_selected(*object, selector));
    let blocked = selected.filter_map(|workload| {
        let replicas = least(scene, workload)?;
        let kept = part_of(least_left, replicas, true)?;
        (kept >= replicas).then(|| format!("minAvailable keeps {kept} of {} with {replicas} pods", workload.object.path()))
    });
    blocked.map(|said| Hit::at(least_left.unwrap_or(object.value), said)).collect()
}

fn hpa_without_request<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let Some(spec) = autoscaler(scene, workload).and_then(|scaler| scaler.value.get("spec")) else { return Vec::new() };
    let by_cpu = |metric: &Value<'_>| {
        let resource = metric.get("resource");
        resource.is_some_and(|resource| {
            resource.word("name") == Some("cpu") && resource.at(&["target", "averageUtilization"]).is_some()
        })
    };
    let goes_by_cpu = spec.get("targetCPUUtilizationPercentage").is_some() || spec.list("metrics").iter().any(by_cpu);
    let lacks = |container: &Container<'a>| goes_by_cpu && wrap::resource(container, "requests", "cpu").is_none();
    let said = |container: Container<'a>| Hit::at(container.value, format!("containers[{}] has no CPU request", container.name));
    workload.containers().into_iter().filter(lacks).map(said).collect()
}

fn hpa_replicas<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let replicas = workload.object.value.at(&["spec", "replicas"]);
    match (autoscaler(scene, workload), replicas) {
        (Some(scaler), Some(value)) => {
            vec![Hit::at(value, format!("HorizontalPodAutoscaler/{} scales it, and replicas is written", scaler.name))]
        }
        _ => Vec::new(),
    }
}

fn publish_not_ready(scene: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    let Some(spec) = object.value.get("spec").filter(|_| object.kind == "Service") else { return Vec::new() };
    let value = spec.get("publishNotReadyAddresses").filter(|_| spec.is_true("publishNotReadyAddresses"));
    let Some(value) = value.filter(|_| !scene.selected_by(object).is_empty()) else { return Vec::new() };
    let hit = Hit::at(value, "publishNotReadyAddresses is true");
    vec![if spec.word("clusterIP") == Some("None") { hit.of(Severity::Info) } else { hit }]
}

fn etp_local(scene: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    let Some(spec) = object.value.get("spec").filter(|_| object.kind == "Service") else { return Vec::new() };
    let policy = ["externalTrafficPolicy", "internalTrafficPolicy"].into_iter();
    let Some((name, value)) =
        policy.filter_map(|name| Some((name, spec.get(name)?))).find(|(_, value)| value.text() == Some("Local"))
    else {
        return Vec::new();
    };
    let fails = |workload: &&&Workload<'_>| {
        let places = scene.places(workload);
        places.iter().filter_map(|place| place.decided()).any(|foreseen| foreseen.admin.is_some() && !foreseen.pass_on_stop)
    };
    let selected = scene.selected_by(object);
    let failing = selected.iter().filter(fails);
    failing
        .map(|workload| Hit::at(value, format!("{name} is Local, and {} fails its readiness on stop", workload.object.path())))
        .collect()
}

fn traffic_distribution(scene: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    if object.kind != "Service" || scene.selected_by(object).is_empty() {
        return Vec::new();
    }
    let written = object.value.at(&["spec", "trafficDistribution"]);
    let hinted = object.value.at(&["metadata", "annotations", "service.kubernetes.io/topology-mode"]);
    written
        .or(hinted)
        .map(|value| Hit::at(value, format!("requests go to {} first", value.text().unwrap_or_default())))
        .into_iter()
        .collect()
}

fn min_ready<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let seconds = workload.object.value.get("spec").and_then(|spec| spec.integer("minReadySeconds")).unwrap_or(0);
    if workload.object.kind != "Deployment" || seconds > 0 {
        return Vec::new();
    }
    let said = |(what, _): &(&str, _)| Hit::at(workload.object.value, format!("minReadySeconds is 0 behind {what}"));
    balancers(scene, workload).first().map(said).into_iter().collect()
}

fn selector_matches_none(scene: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    let selector = match object.kind {
        "Service" => object.value.at(&["spec", "selector"]),
        "PodDisruptionBudget" if object.value.at(&["spec", "selector", "matchExpressions"]).is_none() => {
            object.value.at(&["spec", "selector", "matchLabels"])
        }
        _ => None,
    };
    let Some(selector) = selector.filter(|selector| !selector.entries().is_empty() && !scene.workloads.is_empty()) else {
        return Vec::new();
    };
    if scene.workloads.iter().any(|workload| workload.is_selected(*object, Some(selector))) {
        return Vec::new();
    }
    vec![Hit::at(selector, "it selects no workload of the input")]
}
