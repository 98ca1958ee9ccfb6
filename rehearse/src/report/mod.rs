//! What a rehearsal has found, as data: the JSON is this, and the table, the timeline and the page are drawn from it alone.

pub mod html;
mod plot;
pub mod table;
pub mod timeline;

use serde::{Deserialize, Serialize};

/// Milliseconds since the pod was deleted, or the workload restarted; before that they are negative.
pub type Millis = i64;

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Report {
    /// Of lameduck.
    pub version: String,
    /// What was run, as a person would type it.
    pub command: String,
    pub settings: Settings,
    /// In the order that was asked for: the last one is judged.
    pub contenders: Vec<Column>,
    pub verdict: Verdict,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Settings {
    pub url: String,
    pub seed: u64,
    pub rounds: u32,
    pub chaos: bool,
    /// Requests a second, of all kinds.
    pub rate: f64,
    pub clients: usize,
    /// Keep-alive connections that all clients keep together.
    pub connections: usize,
    /// Clients that keep one connection each, and never learn.
    pub pinned: usize,
    /// The first client knows of the removal not before the one, the last one not after the other.
    /// None in a cluster: there they learn as they learn.
    pub propagate_ms: Option<[u64; 2]>,
    pub grace_period_ms: u64,
    /// None in a cluster: it is the image's.
    pub stop_signal: Option<String>,
    pub timeout_ms: u64,
    pub max_lost: u64,
    /// NAMESPACE/KIND/NAME, of a rehearsal in a cluster.
    pub rollout: Option<String>,
}

/// One contender, in all its rounds.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Column {
    /// `none`, `tini`, `sleep:15s`, `lameduck --delay 3s`
    pub name: String,
    pub rounds: Vec<Round>,
    /// The round that lost most, as an index.
    pub worst: usize,
}

/// One life and death.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Round {
    /// `--seed` with this number and no `--rounds` plays this round again.
    pub seed: u64,
    /// What went wrong on purpose.
    pub chaos: Option<String>,
    /// What went wrong takes the app away whoever is PID 1: losses are shown, not judged.
    pub excused: bool,
    pub tally: Tally,
    /// Of the lost ones, those that ended before the pod was deleted.
    pub lost_before_stop: u64,
    pub stop: Stop,
    pub client: Client,
    /// In the order of their time.
    pub events: Vec<Event>,
    /// The server's, one after the other.
    pub phases: Vec<Phase>,
    /// Each time that their number changed.
    pub kept: Vec<Kept>,
    /// A bin each 100 ms in which a request ended.
    pub bins: Vec<Bin>,
    /// In a cluster: the workload's, in the order of their appearance.
    pub pods: Vec<Pod>,
    /// In a cluster: the lost requests beside the pods that were going.
    pub losses: Vec<Loss>,
    /// What the reader must know to read the figures right.
    pub notes: Vec<String>,
}

impl Round {
    /// Clients came, and nothing took the app away from them.
    pub fn is_judged(&self) -> bool {
        !self.excused && self.client.sent > 0
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Tally {
    /// A whole answer, with a status below 400.
    pub answered: u64,
    pub lost: Lost,
    /// Idempotent requests that a reused connection had failed, sent once more: answered or lost as the second try was.
    pub retried: u64,
    /// Of these, those that another pod answered: neither answered nor lost.
    pub elsewhere: u64,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Lost {
    /// No connection.
    pub refused: u64,
    /// The connection ended before the first byte of the answer.
    pub reset: u64,
    /// The connection ended inside the answer.
    pub cut: u64,
    /// A whole answer, but an error: a status of 400 or above, or not HTTP.
    pub failed: u64,
    pub timed_out: u64,
}

impl Lost {
    pub fn total(&self) -> u64 {
        self.refused + self.reset + self.cut + self.failed + self.timed_out
    }

    /// The kinds by name, in the order of the table.
    pub fn kinds(&self) -> [(&'static str, u64); 5] {
        [
            ("refused", self.refused),
            ("reset", self.reset),
            ("cut", self.cut),
            ("failed", self.failed),
            ("timed out", self.timed_out),
        ]
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Stop {
    /// From the deletion to the end of PID 1; none if it ended by itself before.
    pub took_ms: Option<Millis>,
    /// 128+n if signal n killed it.
    pub code: Option<i32>,
    /// The grace period ran out.
    pub killed: bool,
    /// The app took no notice of its stop signal, and was killed by the kubelet or by lameduck.
    pub ignored: bool,
    /// When the app was sent its stop signal, by the kubelet or by lameduck.
    pub stop_signal_ms: Option<Millis>,
    /// From here on nothing was in flight and no client would send any more.
    pub quiet_ms: Option<Millis>,
    /// From `quiet` to `stop_signal`, if it was that way round: time that served nobody.
    pub wasted_ms: Option<u64>,
    /// From `stop_signal` to `quiet`, if it was that way round: the app got its stop signal while clients still needed it. None if it ignored that.
    pub early_ms: Option<u64>,
}

/// Whether the figures are the server's or the client's own.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Client {
    pub sent: u64,
    /// Requests that failed for want of the client's own descriptors or ports: they are neither answered nor lost.
    pub unsent: u64,
    /// How much later than scheduled requests were sent.
    pub late_p99_ms: f64,
    pub late_max_ms: f64,
    pub kept_up: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Event {
    pub at_ms: Millis,
    pub what: What,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// PID 1 was started.
    Started,
    Ready,
    /// The first request was scheduled.
    LoadBegan,
    /// The pod was deleted: its endpoint begins to go, and so does the grace period.
    Deleted,
    PreStop,
    PreStopEnded,
    /// The kubelet sent PID 1 the stop signal.
    StopSignal,
    /// lameduck: nothing new came, what is in flight is waited for.
    Draining,
    /// lameduck sent the app its stop signal.
    AppStopSignal,
    /// The kernel does not hand the stop signal to the app: why.
    Ignored,
    /// The first client that knows of the removal.
    FirstLearnt,
    LastLearnt,
    /// The last request ended, answered or lost.
    LastEnded,
    /// A readiness probe whose answer differs from that before.
    ProbeReady,
    ProbeNotReady,
    Chaos,
    /// The grace period was over.
    Killed,
    /// lameduck killed what was left of the app.
    AppKilled,
    /// PID 1 ended.
    Exited,
    /// The workload was restarted, or the first pod deleted or evicted.
    Restarted,
    /// A disruption budget forbade an eviction for now: which, and its words.
    EvictionRefused,
    /// The old pods are gone, and as many are ready as there are to be.
    Complete,
    /// A Kubernetes Event of the type Normal.
    News,
    /// A Kubernetes Event of the type Warning.
    Warning,
}

/// A pod of a workload in a cluster.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Pod {
    pub name: String,
    pub ip: Option<String>,
    pub node: Option<String>,
    /// It is one of those that were to go.
    pub old: bool,
    /// One after the other, until it was gone.
    pub phases: Vec<PodPhase>,
    /// Each time that the EndpointSlices said something else of it.
    pub endpoints: Vec<Endpoint>,
    /// When its object was gone.
    pub gone_ms: Option<Millis>,
    /// Its containers that were seen to end.
    pub ended: Vec<Ended>,
    /// What its lameduck said at /status while it was going, each time that it changed.
    pub status: Vec<Status>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PodPhase {
    pub name: PodPhaseName,
    pub from_ms: Millis,
    pub to_ms: Millis,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PodPhaseName {
    /// Not ready yet.
    Starting,
    Ready,
    /// Not ready any more.
    NotReady,
    /// Deleted, and still there.
    Terminating,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct Endpoint {
    pub at_ms: Millis,
    pub state: EndpointState,
}

/// The best of what the EndpointSlices say of a pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EndpointState {
    /// It is to get new connections.
    Ready,
    /// It is going and would serve: only where nobody else is ready.
    Serving,
    NotServing,
    /// In no slice.
    Absent,
}

/// How a container ended.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Ended {
    pub container: String,
    /// 128+n if signal n killed it.
    pub code: i32,
    /// The kubelet's word, such as OOMKilled.
    pub reason: Option<String>,
    /// Its termination message.
    pub message: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    pub at_ms: Millis,
    pub phase: String,
    pub in_flight: u64,
}

/// Lost requests that ended close to each other, while the same pods were going.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Loss {
    pub from_ms: Millis,
    pub to_ms: Millis,
    pub lost: Lost,
    /// Pods that were terminating at some moment of these requests.
    pub terminating: Vec<String>,
    /// Pods that had gone in the 5 s before.
    pub just_gone: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Phase {
    pub name: PhaseName,
    pub from_ms: Millis,
    pub to_ms: Millis,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    Serving,
    PreStop,
    LameDuck,
    Stopping,
    /// Ended, while clients still send.
    Gone,
}

/// From this moment on pinned clients had so many connections open to this pod.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Kept {
    pub at_ms: Millis,
    pub connections: u64,
}

/// How long a bin is.
pub const BIN_MS: Millis = 100;

/// The requests that ended in these 100 ms.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Bin {
    pub at_ms: Millis,
    pub answered: u64,
    pub lost: Lost,
    /// Of quick requests (no slow ones, uploads and streams) that were answered, from the scheduled time on; none were: absent.
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub max_ms: Option<f64>,
}

#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Verdict {
    /// Who is judged: the last contender.
    pub contender: String,
    /// How many of its rounds.
    pub judged: u32,
    /// By that one, in the worst round that is judged.
    pub lost: u64,
    /// Something was judged, and it lost no more than is allowed.
    pub passed: bool,
    /// The seed of that round.
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Passed,
    Failed,
    NothingJudged,
}

impl Verdict {
    pub fn end(&self) -> End {
        match (self.judged, self.passed) {
            (0, _) => End::NothingJudged,
            (_, true) => End::Passed,
            (_, false) => End::Failed,
        }
    }
}
