//! What the API server said of a workload's pods → how far they are, and their lives as bars. Pure: moments come from outside, in
//! milliseconds from the beginning of the load.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use crate::report::{Ended, Endpoint, EndpointState, Event, Millis, Pod, PodPhase, PodPhaseName, Status, What};

/// A pod, as the API server shows it at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PodSeen {
    pub uid: String,
    pub name: String,
    pub ip: Option<IpAddr>,
    pub node: Option<String>,
    pub ready: bool,
    /// It has a deletion timestamp.
    pub terminating: bool,
    /// All of its containers have ended, and none is started again.
    pub finished: bool,
    pub grace_seconds: Option<u64>,
    /// Why it does not become ready, in a few words.
    pub trouble: Option<String>,
    /// Its containers that have ended.
    pub ended: Vec<Ended>,
    /// Where its lameduck answers.
    pub admin_port: Option<u16>,
}

/// What one EndpointSlice says of a pod.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSeen {
    pub uid: String,
    pub state: EndpointState,
}

/// What a Kubernetes Event says of a pod, or of what makes the pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EventSeen {
    /// None: of the workload itself, or of its ReplicaSet.
    pub pod_uid: Option<String>,
    pub name: String,
    pub reason: String,
    pub message: String,
    pub warning: bool,
}

/// One piece of news.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// How many pods the workload is to have.
    Desired(usize),
    Pod(PodSeen),
    /// By its uid.
    PodGone(String),
    /// All that there are: the watch began, or began anew after it had lost its place.
    Pods(Vec<PodSeen>),
    /// By the slice's name.
    Slice(String, Vec<EndpointSeen>),
    SliceGone(String),
    Slices(Vec<(String, Vec<EndpointSeen>)>),
    Event(EventSeen),
    /// By the pod's uid.
    Status {
        uid: String,
        phase: String,
        in_flight: u64,
    },
}

#[derive(Debug, Default)]
struct Life {
    seen: PodSeen,
    phases: Vec<(Millis, PodPhaseName)>,
    endpoints: Vec<Endpoint>,
    gone: Option<Millis>,
    status: Vec<Status>,
}

impl Life {
    fn see(&mut self, at: Millis, mut seen: PodSeen) {
        // A list from a server that lags behind.
        if self.gone.is_some() {
            return;
        }
        let was_ready = self.phases.iter().any(|(_, phase)| *phase == PodPhaseName::Ready);
        let phase = match () {
            () if seen.terminating => PodPhaseName::Terminating,
            () if seen.ready => PodPhaseName::Ready,
            () if was_ready => PodPhaseName::NotReady,
            () => PodPhaseName::Starting,
        };
        if self.phases.last().map(|(_, last)| *last) != Some(phase) {
            self.phases.push((at, phase));
        }
        // A pod that is going loses its address at last; it is wanted later.
        seen.ip = seen.ip.or(self.seen.ip);
        self.seen = seen;
    }

    fn endpoint(&mut self, at: Millis, state: EndpointState) {
        let last = self.endpoints.last().map_or(EndpointState::Absent, |last| last.state);
        if last != state {
            self.endpoints.push(Endpoint { at_ms: at, state });
        }
    }

    fn serves(&self) -> bool {
        self.gone.is_none() && self.seen.ready && !self.seen.terminating
    }

    /// Nobody waits for it any more.
    fn is_over(&self) -> bool {
        self.gone.is_some() || (self.seen.finished && !self.seen.terminating)
    }
}

/// All that was seen so far.
#[derive(Debug, Default)]
pub struct Story {
    desired: usize,
    /// In the order of their appearance.
    order: Vec<String>,
    pods: BTreeMap<String, Life>,
    slices: BTreeMap<String, Vec<EndpointSeen>>,
    events: Vec<(Millis, EventSeen)>,
}

impl Story {
    pub fn hear(&mut self, at: Millis, news: News) {
        match news {
            News::Desired(count) => self.desired = count,
            News::Pod(seen) => self.see(at, seen),
            News::PodGone(uid) => self.gone(at, &uid),
            News::Pods(all) => {
                let there: BTreeSet<String> = all.iter().map(|seen| seen.uid.clone()).collect();
                all.into_iter().for_each(|seen| self.see(at, seen));
                for uid in self.pods.keys().filter(|uid| !there.contains(*uid)).cloned().collect::<Vec<_>>() {
                    self.gone(at, &uid);
                }
            }
            News::Slice(name, endpoints) => drop(self.slices.insert(name, endpoints)),
            News::SliceGone(name) => drop(self.slices.remove(&name)),
            News::Slices(all) => self.slices = all.into_iter().collect(),
            News::Event(seen) => self.events.push((at, seen)),
            News::Status { uid, phase, in_flight } => {
                if let Some(life) = self.pods.get_mut(&uid) {
                    let status = Status { at_ms: at, phase, in_flight };
                    let same = |last: &Status| (&last.phase, last.in_flight) == (&status.phase, status.in_flight);
                    if !life.status.last().is_some_and(same) {
                        life.status.push(status);
                    }
                }
            }
        }
        // News of a slice may come before news of its pod.
        for (uid, life) in &mut self.pods {
            let states = self.slices.values().flatten().filter(|endpoint| endpoint.uid == *uid).map(|endpoint| endpoint.state);
            life.endpoint(at, states.min().unwrap_or(EndpointState::Absent));
        }
    }

    fn see(&mut self, at: Millis, seen: PodSeen) {
        if !self.pods.contains_key(&seen.uid) {
            self.order.push(seen.uid.clone());
        }
        self.pods.entry(seen.uid.clone()).or_default().see(at, seen);
    }

    fn gone(&mut self, at: Millis, uid: &str) {
        if let Some(life) = self.pods.get_mut(uid) {
            life.gone.get_or_insert(at);
        }
    }

    fn lives(&self) -> impl Iterator<Item = &Life> {
        self.order.iter().filter_map(|uid| self.pods.get(uid))
    }

    pub fn desired(&self) -> usize {
        self.desired
    }

    /// The pods that are there and have not finished.
    pub fn present(&self) -> Vec<&PodSeen> {
        self.lives().filter(|life| !life.is_over()).map(|life| &life.seen).collect()
    }

    /// The pods that serve.
    pub fn serving(&self) -> Vec<&PodSeen> {
        self.lives().filter(|life| life.serves()).map(|life| &life.seen).collect()
    }

    pub fn is_gone(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(Life::is_over)
    }

    /// The longest grace period of all, in seconds.
    pub fn grace_seconds(&self) -> Option<u64> {
        self.lives().filter_map(|life| life.seen.grace_seconds).max()
    }

    /// Pods that are going and have a lameduck that can be asked: uid and address.
    pub fn to_ask(&self) -> Vec<(String, SocketAddr)> {
        let going = self.lives().filter(|life| life.gone.is_none() && life.seen.terminating);
        going.filter_map(|Life { seen, .. }| Some((seen.uid.clone(), SocketAddr::new(seen.ip?, seen.admin_port?)))).collect()
    }

    /// What is still to happen, a few words each: `victims`, by uid, are to go, and as many pods as the workload wants are to be ready beside
    /// them. Nothing: it is done.
    pub fn missing(&self, victims: &BTreeSet<String>) -> Vec<String> {
        let mut missing = Vec::new();
        for (uid, life) in self.pods.iter().filter(|(uid, life)| victims.contains(*uid) && !life.is_over()) {
            let how = if life.seen.terminating { "is still terminating" } else { "was not deleted" };
            let slow = life.status.last().map(|status| format!(" ({}, {} in flight)", status.phase, status.in_flight));
            missing.push(format!("{} {how}{}", self.pods[uid].seen.name, slow.unwrap_or_default()));
        }
        let others = || self.pods.iter().filter(|(uid, _)| !victims.contains(*uid)).map(|(_, life)| life);
        let ready = others().filter(|life| life.serves()).count();
        if ready < self.desired {
            missing.push(format!("{ready} of {} pods that are to stay are ready", self.desired));
            let waiting = others().filter(|life| !life.serves() && !life.is_over() && !life.seen.terminating);
            missing.extend(waiting.map(|Life { seen, .. }| {
                let trouble = seen.trouble.as_deref().unwrap_or("not ready");
                format!("{}: {trouble}", seen.name)
            }));
        }
        missing
    }

    /// Each pod's life until `end`, in the order of their appearance; `victims` were there before. Moments count from `zero`.
    pub fn pods(&self, victims: &BTreeSet<String>, zero: Millis, end: Millis) -> Vec<Pod> {
        let pod = |uid: &String| {
            let life = self.pods.get(uid)?;
            let last = life.gone.unwrap_or(end);
            let ends = life.phases.iter().skip(1).map(|(at, _)| *at).chain([last]);
            let phases = life.phases.iter().zip(ends);
            Some(Pod {
                name: life.seen.name.clone(),
                ip: life.seen.ip.map(|ip| ip.to_string()),
                node: life.seen.node.clone(),
                old: victims.contains(uid),
                phases: phases.map(|(&(from, name), to)| PodPhase { name, from_ms: from - zero, to_ms: to - zero }).collect(),
                endpoints: life
                    .endpoints
                    .iter()
                    .map(|&Endpoint { at_ms, state }| Endpoint { at_ms: at_ms - zero, state })
                    .collect(),
                gone_ms: life.gone.map(|gone| gone - zero),
                ended: life.seen.ended.clone(),
                status: life.status.iter().map(|status| Status { at_ms: status.at_ms - zero, ..status.clone() }).collect(),
            })
        };
        self.order.iter().filter_map(pod).collect()
    }

    /// What Kubernetes' Events said of these pods, and of their workload.
    pub fn events(&self, zero: Millis) -> Vec<Event> {
        let is_ours = |event: &EventSeen| event.pod_uid.as_ref().is_none_or(|uid| self.pods.contains_key(uid));
        let ours = self.events.iter().filter(|(_, event)| is_ours(event));
        ours.map(|(at, event)| {
            let what = if event.warning { What::Warning } else { What::News };
            Event { at_ms: at - zero, what, detail: format!("{}: {}: {}", event.name, event.reason, event.message) }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: bool, terminating: bool) -> PodSeen {
        PodSeen { uid: format!("uid-{name}"), name: name.to_owned(), ready, terminating, ..PodSeen::default() }
    }

    fn endpoint(name: &str, state: EndpointState) -> EndpointSeen {
        EndpointSeen { uid: format!("uid-{name}"), state }
    }

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| format!("uid-{name}")).collect()
    }

    /// Two pods, of which one is replaced so far.
    fn half() -> Story {
        let mut story = Story::default();
        story.hear(0, News::Desired(2));
        story.hear(0, News::Pods(vec![pod("a", true, false), pod("b", true, false)]));
        story.hear(
            10,
            News::Slice("s".to_owned(), vec![endpoint("a", EndpointState::Ready), endpoint("b", EndpointState::Ready)]),
        );
        story.hear(100, News::Pod(pod("c", false, false)));
        story.hear(200, News::Pod(pod("c", true, false)));
        story.hear(300, News::Pod(pod("a", true, true)));
        story.hear(
            320,
            News::Slice("s".to_owned(), vec![endpoint("a", EndpointState::Serving), endpoint("b", EndpointState::Ready)]),
        );
        story.hear(500, News::PodGone("uid-a".to_owned()));
        story.hear(510, News::Slice("s".to_owned(), vec![endpoint("b", EndpointState::Ready)]));
        story
    }

    #[test]
    fn a_rollout_is_over_when_the_old_are_gone_and_as_many_new_are_ready() {
        let victims = set(&["a", "b"]);
        let mut story = half();
        assert_eq!(story.missing(&victims), ["b was not deleted", "1 of 2 pods that are to stay are ready"]);
        let waiting = PodSeen { trouble: Some("web: ImagePullBackOff".to_owned()), ..pod("d", false, false) };
        story.hear(600, News::Pod(waiting));
        assert_eq!(story.missing(&victims)[2], "d: web: ImagePullBackOff");
        story.hear(700, News::Pod(pod("d", true, false)));
        story.hear(700, News::Pod(pod("b", true, true)));
        assert_eq!(story.missing(&victims), ["b is still terminating"]);
        story.hear(710, News::Status { uid: "uid-b".to_owned(), phase: "draining".to_owned(), in_flight: 3 });
        assert_eq!(story.missing(&victims), ["b is still terminating (draining, 3 in flight)"]);
        story.hear(800, News::PodGone("uid-b".to_owned()));
        assert!(story.missing(&victims).is_empty());
        // Of three that are wanted, one is missing.
        story.hear(900, News::Desired(3));
        assert_eq!(story.missing(&victims), ["2 of 3 pods that are to stay are ready"]);
    }

    #[test]
    fn a_life_is_bars_from_the_deletion_on() {
        let pods = half().pods(&set(&["a", "b"]), 300, 1000);
        let bars = |index: usize| -> Vec<_> {
            let phases = pods[index].phases.iter();
            phases.map(|phase| (phase.name, phase.from_ms, phase.to_ms)).collect()
        };
        assert_eq!(bars(0), [(PodPhaseName::Ready, -300, 0), (PodPhaseName::Terminating, 0, 200)]);
        assert_eq!(bars(1), [(PodPhaseName::Ready, -300, 700)]);
        assert_eq!(bars(2), [(PodPhaseName::Starting, -200, -100), (PodPhaseName::Ready, -100, 700)]);
        assert_eq!((pods[0].gone_ms, pods[1].gone_ms), (Some(200), None));
        assert_eq!((pods[0].old, pods[2].old), (true, false));
        let endpoints: Vec<_> = pods[0].endpoints.iter().map(|endpoint| (endpoint.at_ms, endpoint.state)).collect();
        assert_eq!(endpoints, [(-290, EndpointState::Ready), (20, EndpointState::Serving), (210, EndpointState::Absent)]);
    }

    /// Between a watch that broke and the list that follows, pods may go without a word.
    #[test]
    fn what_a_new_list_leaves_out_is_gone() {
        let mut story = half();
        story.hear(900, News::Pods(vec![pod("c", true, false), pod("d", true, false)]));
        assert!(story.is_gone("uid-b") && !story.is_gone("uid-c"));
        assert!(story.missing(&set(&["a", "b"])).is_empty());
        assert_eq!(story.pods(&set(&[]), 0, 1000)[1].gone_ms, Some(900));
        // It went at 500, as was seen then; a list from a server that lags behind does not bring it back.
        story.hear(950, News::Pods(vec![pod("a", true, true), pod("c", true, false), pod("d", true, false)]));
        let a = &story.pods(&set(&[]), 0, 1000)[0];
        assert_eq!((a.gone_ms, a.phases.len()), (Some(500), 2));
    }

    /// The same name, another pod: a StatefulSet.
    #[test]
    fn a_name_that_comes_again_is_another_pod() {
        let mut story = Story::default();
        story.hear(0, News::Desired(1));
        story.hear(0, News::Pods(vec![pod("shop-0", true, false)]));
        let again = PodSeen { uid: "another".to_owned(), ..pod("shop-0", false, false) };
        story.hear(100, News::PodGone("uid-shop-0".to_owned()));
        story.hear(100, News::Pod(again.clone()));
        assert_eq!(story.missing(&set(&["shop-0"])), ["0 of 1 pods that are to stay are ready", "shop-0: not ready"]);
        story.hear(200, News::Pod(PodSeen { ready: true, ..again }));
        assert!(story.missing(&set(&["shop-0"])).is_empty());
    }

    /// A ReplicaSet leaves pods behind that were evicted.
    #[test]
    fn a_pod_that_has_finished_is_not_waited_for() {
        let mut story = half();
        story.hear(
            700,
            News::Pods(vec![pod("c", true, false), pod("d", true, false), PodSeen { finished: true, ..pod("b", false, false) }]),
        );
        assert!(story.missing(&set(&["a", "b"])).is_empty());
        assert_eq!(story.present().len(), 2);
    }

    #[test]
    fn several_slices_of_a_pod_are_one_endpoint() {
        let mut story = half();
        story.hear(600, News::Slice("t".to_owned(), vec![endpoint("b", EndpointState::NotServing)]));
        story.hear(700, News::SliceGone("s".to_owned()));
        story.hear(800, News::Slices(vec![]));
        let states: Vec<_> = story.pods(&set(&[]), 0, 1000)[1].endpoints.iter().map(|endpoint| endpoint.state).collect();
        assert_eq!(states, [EndpointState::Ready, EndpointState::NotServing, EndpointState::Absent]);
    }

    #[test]
    fn events_of_others_are_left_out() {
        let mut story = half();
        let event = |name: &str| EventSeen {
            pod_uid: Some(format!("uid-{name}")),
            name: name.to_owned(),
            reason: "Unhealthy".to_owned(),
            message: "x".to_owned(),
            warning: true,
        };
        story.hear(700, News::Event(event("a")));
        story.hear(700, News::Event(event("z")));
        story.hear(800, News::Event(EventSeen { pod_uid: None, ..event("web-5d9f") }));
        let seen = |at_ms, detail: &str| Event { at_ms, what: What::Warning, detail: detail.to_owned() };
        assert_eq!(story.events(300), [seen(400, "a: Unhealthy: x"), seen(500, "web-5d9f: Unhealthy: x")]);
    }

    #[test]
    fn only_a_lameduck_that_is_going_is_asked() {
        let mut story = half();
        let with = |name: &str, terminating| PodSeen {
            ip: "10.0.0.7".parse().ok(),
            admin_port: Some(9102),
            ..pod(name, true, terminating)
        };
        story.hear(600, News::Pod(with("b", false)));
        assert!(story.to_ask().is_empty());
        story.hear(700, News::Pod(with("b", true)));
        assert_eq!(story.to_ask(), [("uid-b".to_owned(), "10.0.0.7:9102".parse().unwrap())]);
    }
}
