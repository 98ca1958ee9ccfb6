//! What is asked of the API server, and what it says by itself.

use std::fmt;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use k8s_openapi::api::core::v1;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::jiff::Timestamp;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions, WatchEvent,
    WatchParams,
};
use kube::core::Selector;
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use super::objects;
use super::story::{News, PodSeen};
use crate::Refused;
use crate::cli::{Death, Kind, Workload};

/// For one answer of the API server.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// After a watch that broke, before the next try.
const AGAIN: Duration = Duration::from_millis(500);
/// So long does one watch last, if all goes well.
const WATCH_SECONDS: u32 = 240;
const SILENT: &str = "the API server does not answer";
/// "Gone": the place in the watch's history is not kept any more.
const GONE: u16 = 410;
const NOT_FOUND: u16 = 404;
const FORBIDDEN: u16 = 403;
/// "Too many requests": a disruption budget forbids the eviction for now.
const TOO_MANY: u16 = 429;
/// What `kubectl rollout restart` sets.
const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

impl Kind {
    fn resource(self) -> ApiResource {
        match self {
            Kind::Deployment => ApiResource::erase::<Deployment>(&()),
            Kind::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Kind::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
        }
    }
}

/// A right that is needed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Right {
    verb: &'static str,
    group: &'static str,
    resource: &'static str,
    subresource: &'static str,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Right { verb, group, resource, subresource } = self;
        write!(f, "{verb} {resource}")?;
        if !subresource.is_empty() {
            write!(f, "/{subresource}")?;
        }
        if group.is_empty() { Ok(()) } else { write!(f, ".{group}") }
    }
}

/// All that a rehearsal asks for, and no more.
fn rights(kind: Kind, death: &Death) -> Vec<Right> {
    let right = |group, resource, verb| Right { verb, group, resource, subresource: "" };
    let workloads = match kind {
        Kind::Deployment => "deployments",
        Kind::StatefulSet => "statefulsets",
        Kind::DaemonSet => "daemonsets",
    };
    let mut rights = vec![right("apps", workloads, "get")];
    for (group, resource) in [("apps", workloads), ("", "pods"), ("discovery.k8s.io", "endpointslices"), ("", "events")] {
        rights.extend(["list", "watch"].map(|verb| right(group, resource, verb)));
    }
    rights.push(match death {
        Death::Restart => right("apps", workloads, "patch"),
        Death::DeletePod(_) => right("", "pods", "delete"),
        Death::DrainNode(_) => Right { subresource: "eviction", ..right("", "pods", "create") },
    });
    rights
}

/// A workload as it stands before anything is done to it.
#[derive(Debug)]
pub struct Found {
    pub desired: usize,
    selector: Selector,
}

pub struct Cluster {
    client: Client,
    workload: Workload,
}

/// What became of one request to evict a pod.
#[derive(Debug, Eq, PartialEq)]
pub enum Eviction {
    Done,
    /// A disruption budget forbids it for now: its words.
    NotNow(String),
}

impl Cluster {
    /// By the kubeconfig, or by the account of the pod that we run in.
    pub async fn connect(workload: &Workload) -> Result<Cluster, Refused> {
        let mut config = Config::infer().await.map_err(|error| {
            Refused::unavailable(format!(
                "cannot find a cluster: {}; set KUBECONFIG, or run in a pod with a service account",
                one_line(std::error::Error::source(&error).unwrap_or(&error))
            ))
        })?;
        // A refused eviction is an answer that we want to see.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(|error| {
            Refused::unavailable(format!("cannot use the kubeconfig: {}; see kubectl config view", one_line(&error)))
        })?;
        Ok(Cluster { client, workload: workload.clone() })
    }

    /// Refuses what could not be rehearsed: rights that are missing, a workload that does not restart.
    pub async fn find(&self, death: &Death) -> Result<Found, Refused> {
        let Workload { namespace, kind, name } = &self.workload;
        let workload = self.answer("read", self.workloads().get(name)).await?;
        self.review(*kind, death).await?;
        let cannot = |why: &str| Refused::unavailable(format!("cannot rehearse {}: {why}", self.workload));
        let data = |pointer: &str| workload.data.pointer(pointer).cloned().unwrap_or_default();
        if *death == Death::Restart && data("/spec/paused") == true {
            return Err(cannot(&format!("it is paused; kubectl rollout resume {kind}/{name} -n {namespace}")));
        }
        let strategy = data("/spec/updateStrategy/type");
        if *death == Death::Restart && strategy == "OnDelete" {
            return Err(cannot("its update strategy is OnDelete: a restart ends no pod; try --delete-pod any"));
        }
        let desired = objects::desired(&workload);
        if desired == 0 {
            return Err(cannot("it wants no pods; scale it up first"));
        }
        let selector: Option<LabelSelector> = serde_json::from_value(data("/spec/selector")).ok();
        let selector = selector.and_then(|selector| Selector::try_from(selector).ok());
        let selector = selector.filter(|selector| !selector.selects_all()).ok_or_else(|| cannot("it has no selector"))?;
        Ok(Found { desired, selector })
    }

    async fn review(&self, kind: Kind, death: &Death) -> Result<(), Refused> {
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let mut missing = Vec::new();
        for right in rights(kind, death) {
            let attributes = ResourceAttributes {
                namespace: Some(self.workload.namespace.clone()),
                verb: Some(right.verb.to_owned()),
                group: Some(right.group.to_owned()),
                resource: Some(right.resource.to_owned()),
                subresource: Some(right.subresource.to_owned()).filter(|text| !text.is_empty()),
                // A role may grant these for the one workload alone.
                name: matches!(right.verb, "get" | "patch").then(|| self.workload.name.clone()),
                ..ResourceAttributes::default()
            };
            let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
            let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
            match timeout(ANSWER_LIMIT, reviews.create(&PostParams::default(), &review)).await {
                Ok(Ok(review)) if review.status.as_ref().is_some_and(|status| !status.allowed) => missing.push(right.to_string()),
                Ok(Ok(_)) => {}
                // Who may not even ask finds out by doing.
                Ok(Err(error)) if code(&error) == Some(FORBIDDEN) => return Ok(()),
                answer => drop(self.answered("review the rights for", answer)?),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Refused::unavailable(format!(
            "cannot rehearse {}: this account may not {} in namespace {}; grant that, as examples/kubernetes-rehearsal does",
            self.workload,
            missing.join(", "),
            self.workload.namespace
        )))
    }

    /// As `kubectl rollout restart` does. Nothing else is ever changed.
    pub async fn restart(&self) -> Result<(), Refused> {
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let patch = serde_json::json!({"spec": {"template": {"metadata": {"annotations": {RESTARTED_AT: now}}}}});
        let params = PatchParams { field_manager: Some("lameduck-rehearse".to_owned()), ..PatchParams::default() };
        let workloads = self.workloads();
        self.answer("restart", workloads.patch(&self.workload.name, &params, &Patch::Merge(&patch))).await.map(drop)
    }

    /// This pod, and not another one of the same name.
    pub async fn delete(&self, pod: &PodSeen) -> Result<(), Refused> {
        let just_it = Preconditions { uid: Some(pod.uid.clone()), ..Preconditions::default() };
        let params = DeleteParams { preconditions: Some(just_it), ..DeleteParams::default() };
        let pods = self.pods();
        self.answer("delete a pod of", pods.delete(&pod.name, &params)).await.map(drop)
    }

    pub async fn evict(&self, pod: &PodSeen) -> Result<Eviction, Refused> {
        let pods = self.pods();
        match timeout(ANSWER_LIMIT, pods.evict(&pod.name, &EvictParams::default())).await {
            Ok(Err(kube::Error::Api(status))) if status.code == TOO_MANY => Ok(Eviction::NotNow(one_line(&status.message))),
            // It went by itself.
            Ok(Err(error)) if code(&error) == Some(NOT_FOUND) => Ok(Eviction::Done),
            answer => self.answered("evict a pod of", answer).map(|_| Eviction::Done),
        }
    }

    /// Watches all that a rollout is made of. A watch that broke begins anew with a list of all that there is.
    pub fn watch(&self, found: &Found, news: &UnboundedSender<Message>) -> JoinSet<()> {
        let mut watches = JoinSet::new();
        let namespace = &self.workload.namespace;
        let all_of_them = ListParams::default();
        let labelled = ListParams::default().labels_from(&found.selector);
        let named = ListParams::default().fields(&format!("metadata.name={}", self.workload.name));
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let events: Api<v1::Event> = Api::namespaced(self.client.clone(), namespace);
        let to = || news.clone();

        let one = |pod: &v1::Pod| Some(News::Pod(objects::pod(pod)));
        let gone = |pod: &v1::Pod| Some(News::PodGone(objects::pod(pod).uid));
        let all = |pods: &[v1::Pod]| Some(News::Pods(pods.iter().map(objects::pod).collect()));
        watches.spawn(follow(self.pods(), labelled, "pods", to(), Sayings { one, gone, all }));

        let one = |slice: &EndpointSlice| Some(objects::slice(slice)).map(|(name, endpoints)| News::Slice(name, endpoints));
        let gone = |slice: &EndpointSlice| Some(News::SliceGone(slice.name_any()));
        let all = |slices: &[EndpointSlice]| Some(News::Slices(slices.iter().map(objects::slice).collect()));
        watches.spawn(follow(slices, all_of_them.clone(), "endpointslices", to(), Sayings { one, gone, all }));

        let workload = self.workload.clone();
        let one = move |event: &v1::Event| objects::event(event, &workload).map(News::Event);
        // What was said before we came is of no interest, nor that it is forgotten.
        watches.spawn(follow(
            events,
            all_of_them,
            "events",
            to(),
            Sayings { one, gone: |_: &v1::Event| None, all: |_: &[v1::Event]| None },
        ));

        // If somebody deletes the workload, its pods are missing: that is no end of a rollout.
        let one = |workload: &DynamicObject| Some(News::Desired(objects::desired(workload)));
        let all = |workloads: &[DynamicObject]| workloads.first().map(|workload| News::Desired(objects::desired(workload)));
        watches.spawn(follow(
            self.workloads(),
            named,
            "the workload",
            to(),
            Sayings { one, gone: |_: &DynamicObject| None, all },
        ));
        watches
    }

    fn pods(&self) -> Api<v1::Pod> {
        Api::namespaced(self.client.clone(), &self.workload.namespace)
    }

    fn workloads(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.workload.namespace, &self.workload.kind.resource())
    }

    async fn answer<T>(&self, verb: &str, asked: impl Future<Output = kube::Result<T>>) -> Result<T, Refused> {
        self.answered(verb, timeout(ANSWER_LIMIT, asked).await)
    }

    fn answered<T>(&self, verb: &str, answer: Result<kube::Result<T>, tokio::time::error::Elapsed>) -> Result<T, Refused> {
        let why = match answer {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(kube::Error::Api(status))) => match status.code {
                NOT_FOUND => format!("{}; see kubectl get {} -n {}", status.message, self.workload.kind, self.workload.namespace),
                FORBIDDEN => format!("{}; grant that, as examples/kubernetes-rehearsal does", status.message),
                _ => format!("the API server says: {}", status.message),
            },
            Ok(Err(error)) => format!("{}; see whether kubectl reaches the cluster", cause(&error)),
            Err(_) => format!("the API server did not answer in {} s; see whether kubectl reaches it", ANSWER_LIMIT.as_secs()),
        };
        Err(Refused::unavailable(format!("cannot {verb} {}: {}", self.workload, one_line(&why))))
    }
}

/// What watches say.
#[derive(Debug)]
pub enum Message {
    News(Instant, News),
    /// The first list of this kind has come.
    Listed,
    /// A watch of this kind broke, why.
    Broke(&'static str, String),
}

/// What is said of one object, of one that is gone, and of all.
struct Sayings<One, Gone, All> {
    one: One,
    gone: Gone,
    all: All,
}

/// Lists, watches from there on, and begins anew with a list when the watch has lost its place.
async fn follow<K>(
    api: Api<K>,
    which: ListParams,
    what: &'static str,
    to: UnboundedSender<Message>,
    say: Sayings<impl Fn(&K) -> Option<News>, impl Fn(&K) -> Option<News>, impl Fn(&[K]) -> Option<News>>,
) where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    // Nobody may listen any more: then we are about to be dropped.
    let tell = |news: Option<News>| {
        if let Some(news) = news {
            let _ = to.send(Message::News(Instant::now(), news));
        }
    };
    let broke = async |why: String| {
        let _ = to.send(Message::Broke(what, why));
        sleep(AGAIN).await;
    };
    loop {
        let list = match timeout(ANSWER_LIMIT, api.list(&which)).await {
            Ok(Ok(list)) => list,
            Ok(Err(error)) => {
                broke(cause(&error)).await;
                continue;
            }
            Err(_) => {
                broke(SILENT.to_owned()).await;
                continue;
            }
        };
        tell((say.all)(&list.items));
        let _ = to.send(Message::Listed);
        let mut place = list.metadata.resource_version.unwrap_or_default();
        loop {
            let each = |event: &WatchEvent<K>| match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => tell((say.one)(object)),
                WatchEvent::Deleted(object) => tell((say.gone)(object)),
                WatchEvent::Bookmark(_) | WatchEvent::Error(_) => {}
            };
            match watch(&api, &which, &mut place, each).await {
                // The server ends each watch after a while.
                Ok(()) => {}
                // The list that follows at once says all.
                Err(Ended::LostItsPlace) => break,
                Err(Ended::Broke(why)) => broke(why).await,
            }
        }
    }
}

/// Why a watch ended before its time.
enum Ended {
    LostItsPlace,
    Broke(String),
}

/// One watch, from this place in the history on, which goes with it.
async fn watch<K>(api: &Api<K>, which: &ListParams, place: &mut String, mut each: impl FnMut(&WatchEvent<K>)) -> Result<(), Ended>
where
    K: Resource + Clone + fmt::Debug + DeserializeOwned,
{
    let ended = |error: &kube::Error| match code(error) {
        Some(GONE) => Ended::LostItsPlace,
        _ => Ended::Broke(cause(error)),
    };
    let params = WatchParams {
        label_selector: which.label_selector.clone(),
        field_selector: which.field_selector.clone(),
        timeout: Some(WATCH_SECONDS),
        bookmarks: true,
        send_initial_events: false,
    };
    let silent = |_| Ended::Broke(SILENT.to_owned());
    let stream = timeout(ANSWER_LIMIT, api.watch(&params, place)).await.map_err(silent)?.map_err(|error| ended(&error))?;
    let mut stream = pin!(stream);
    let limit = Duration::from_secs(WATCH_SECONDS.into()) + ANSWER_LIMIT;
    while let Some(event) = timeout(limit, stream.next()).await.map_err(silent)? {
        let event = event.map_err(|error| ended(&error))?;
        match &event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                object.resource_version().unwrap_or_default().clone_into(place);
            }
            WatchEvent::Bookmark(bookmark) => bookmark.metadata.resource_version.clone_into(place),
            WatchEvent::Error(status) if status.code == GONE => return Err(Ended::LostItsPlace),
            WatchEvent::Error(status) => return Err(Ended::Broke(one_line(&status.message))),
        }
        each(&event);
    }
    Ok(())
}

fn code(error: &kube::Error) -> Option<u16> {
    match error {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    }
}

/// The innermost cause: what the operating system, TLS or the API server said.
fn cause(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(deeper) = last.source() {
        last = deeper;
    }
    one_line(last)
}

fn one_line(text: &(impl fmt::Display + ?Sized)) -> String {
    text.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_the_least() {
        let last = |death| rights(Kind::StatefulSet, &death).last().map(Right::to_string).unwrap();
        assert_eq!(last(Death::Restart), "patch statefulsets.apps");
        assert_eq!(last(Death::DeletePod("any".to_owned())), "delete pods");
        assert_eq!(last(Death::DrainNode("n1".to_owned())), "create pods/eviction");
        assert_eq!(rights(Kind::Deployment, &Death::Restart).len(), 10);
    }
}
