//! The API's objects → what the story takes. Pure.

use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointSlice};
use kube::ResourceExt;
use kube::api::DynamicObject;
use lameduck::core::start::url::listen_addresses;

use super::story::{EndpointSeen, EventSeen, PodSeen};
use crate::cli::{Kind, Workload};
use crate::report::{Ended, EndpointState};

/// How many pods a workload is to have.
pub fn desired(workload: &DynamicObject) -> usize {
    let count = workload.data.pointer("/status/desiredNumberScheduled").or_else(|| workload.data.pointer("/spec/replicas"));
    // The API server's own default.
    count.map_or(1, |count| count.as_u64().unwrap_or(0) as usize)
}

pub fn pod(pod: &v1::Pod) -> PodSeen {
    let status = pod.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let containers = || status.container_statuses.iter().flatten();
    let ended = containers().filter_map(|container| {
        let end = container.state.as_ref()?.terminated.as_ref()?;
        Some(Ended {
            container: container.name.clone(),
            code: end.exit_code,
            reason: end.reason.clone(),
            message: end.message.as_ref().map(|message| message.trim().to_owned()),
        })
    });
    PodSeen {
        uid: pod.uid().unwrap_or_default(),
        name: pod.name_any(),
        ip: status.pod_ip.as_ref().and_then(|ip| ip.parse().ok()),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        ready,
        terminating: pod.metadata.deletion_timestamp.is_some(),
        finished: matches!(status.phase.as_deref(), Some("Failed" | "Succeeded")),
        grace_seconds: pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds?.try_into().ok()),
        trouble: trouble(&status),
        ended: ended.collect(),
        admin_port: pod.spec.as_ref().and_then(admin_port),
    }
}

fn trouble(status: &v1::PodStatus) -> Option<String> {
    let all = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let waiting = all.filter_map(|container| {
        let reason = container.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
        Some((container, reason)).filter(|(_, reason)| reason != "PodInitializing")
    });
    let mut waiting = waiting.map(|(container, reason)| format!("{}: {reason}", container.name));
    let unscheduled = || {
        let mut conditions = status.conditions.iter().flatten();
        let condition = conditions.find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")?;
        condition.message.clone().or_else(|| condition.reason.clone())
    };
    waiting.next().or_else(unscheduled)
}

/// Where a lameduck of this pod answers: `--admin` or LAMEDUCK_ADMIN, as the manifest has them; else a port of the name `admin`.
fn admin_port(spec: &v1::PodSpec) -> Option<u16> {
    let typed = |container: &v1::Container| {
        let words = || container.command.iter().chain(&container.args).flatten();
        let next = words().zip(words().skip(1)).find(|(word, _)| *word == "--admin").map(|(_, value)| value.as_str());
        let joined = words().find_map(|word| word.strip_prefix("--admin="));
        let variable = container.env.iter().flatten().find(|variable| variable.name == "LAMEDUCK_ADMIN");
        let text = next.or(joined).or_else(|| variable?.value.as_deref())?;
        listen_addresses(text).ok()?.first().filter(|address| !address.ip().is_loopback()).map(|address| address.port())
    };
    let named = |container: &v1::Container| {
        let port = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some("admin"))?;
        u16::try_from(port.container_port).ok()
    };
    spec.containers.iter().find_map(typed).or_else(|| spec.containers.iter().find_map(named))
}

/// Its name, and its endpoints that are pods.
pub fn slice(slice: &EndpointSlice) -> (String, Vec<EndpointSeen>) {
    let endpoints = slice.endpoints.iter().flatten().filter_map(|endpoint| {
        let uid = endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?.uid.clone()?;
        Some(EndpointSeen { uid, state: state(endpoint.conditions.as_ref()) })
    });
    (slice.name_any(), endpoints.collect())
}

/// Absent conditions mean ready.
fn state(conditions: Option<&EndpointConditions>) -> EndpointState {
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    match (ready, serving) {
        (true, _) => EndpointState::Ready,
        (false, true) => EndpointState::Serving,
        (false, false) => EndpointState::NotServing,
    }
}

/// None: it is neither about a pod nor about this workload.
pub fn event(event: &v1::Event, workload: &Workload) -> Option<EventSeen> {
    let object = &event.involved_object;
    let (kind, name) = (object.kind.as_deref()?, object.name.clone()?);
    let pod_uid = match kind {
        "Pod" => Some(object.uid.clone()?),
        _ if makes_pods(workload, kind, &name) => None,
        _ => return None,
    };
    let message = event.message.as_deref().unwrap_or_default().trim().replace('\n', " ");
    Some(EventSeen {
        message: if pod_uid.is_none() { of_any_pod(&message, &name) } else { message },
        pod_uid,
        name,
        reason: event.reason.clone().unwrap_or_default(),
        warning: event.type_.as_deref() == Some("Warning"),
    })
}

/// The workload itself, or a ReplicaSet of a Deployment: the Deployment's name and a hash. It says why there is no new pod.
fn makes_pods(workload: &Workload, kind: &str, name: &str) -> bool {
    let is_hash = |rest: &str| rest.strip_prefix('-').is_some_and(|hash| !hash.is_empty() && !hash.contains('-'));
    match (workload.kind, kind) {
        (Kind::Deployment, "ReplicaSet") => name.strip_prefix(&workload.name).is_some_and(is_hash),
        _ => kind.eq_ignore_ascii_case(&workload.kind.to_string()) && name == workload.name,
    }
}

/// The message for every pod that could not be made, each of which has a name of its own: `"web-5d9f-x7k2p"` becomes `"web-5d9f-*"`.
fn of_any_pod(message: &str, maker: &str) -> String {
    let message = message.strip_prefix("(combined from similar events): ").unwrap_or(message);
    let begin = format!("\"{maker}-");
    let mut parts = message.split(begin.as_str());
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (_, rest) = part.split_once('"').unwrap_or(("", part));
        text += &format!("{begin}*\"{rest}");
    }
    text
}

/// What /status said: the phase, and how many requests are in flight.
pub fn status(body: &[u8]) -> Option<(String, u64)> {
    let document: serde_json::Value = serde_json::from_slice(body).ok()?;
    let phase = document.get("phase")?.as_str()?.to_owned();
    Some((phase, document.pointer("/traffic/in_flight")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_many_pods_is_one() {
        let text = |pod: &str| format!("Error creating: pods \"web-5d9f-{pod}\" is forbidden: exceeded quota: \"web\"");
        for message in [text("x7k2p"), text("aaaaa"), format!("(combined from similar events): {}", text("zzzzz"))] {
            assert_eq!(of_any_pod(&message, "web-5d9f"), text("*"));
        }
        assert_eq!(of_any_pod("", "web"), "");
        assert_eq!(of_any_pod("no \"name\" of \"web-", "web"), "no \"name\" of \"web-*\"");
    }

    #[test]
    fn what_makes_the_pods_is_known_by_its_name() {
        let workload = |kind| Workload { namespace: "shop".to_owned(), kind, name: "web".to_owned() };
        let deployment = workload(Kind::Deployment);
        for (kind, name, ours) in [
            ("Deployment", "web", true),
            ("Deployment", "web-api", false),
            ("ReplicaSet", "web-5d9f8b7c6d", true),
            ("ReplicaSet", "web-api-5d9f8b7c6d", false),
            ("ReplicaSet", "web-", false),
            ("ReplicaSet", "web", false),
            ("ReplicaSet", "website", false),
            ("StatefulSet", "web", false),
            ("HorizontalPodAutoscaler", "web", false),
        ] {
            assert_eq!(makes_pods(&deployment, kind, name), ours, "{kind} {name}");
        }
        assert!(makes_pods(&workload(Kind::StatefulSet), "StatefulSet", "web"));
        assert!(!makes_pods(&workload(Kind::StatefulSet), "ReplicaSet", "web-5d9f8b7c6d"));
    }
}
