//! A rollout in a cluster: the same load as ever against a real Service, while the workload is restarted through the API. What is seen
//! becomes the same report as a rehearsal's on this machine.

mod cluster;
mod losses;
mod objects;
mod status;
mod story;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::time::Duration;

use fastrand::Rng;
use lameduck::core::start::url::Url;
use lameduck::core::time::Show;
use tokio::net::lookup_host;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, interval, sleep, sleep_until, timeout};

use crate::Refused;
use crate::cli::{Death, Rollout};
use crate::contender::typed;
use crate::load::client::{Outcome, Target, get};
use crate::load::{Drive, Load};
use crate::rehearsal::Progress;
use crate::report::{Column, Event, Loss, Millis, Pod, Report, Round, Settings, Verdict, What};
use crate::sandbox;
use crate::verdict::{Seen, judge};
use cluster::{Cluster, Eviction, Message};
use story::{News, PodSeen, Story};

/// Between two looks at lameducks that are going, and two lines of progress.
const LOOK: Duration = Duration::from_millis(250);
/// For the first lists of all watches.
const LIST_LIMIT: Duration = Duration::from_secs(30);
/// Pods, EndpointSlices, events, the workload.
const WATCHES: usize = 4;
/// After an eviction that a disruption budget forbade.
const EVICT_AGAIN: Duration = Duration::from_secs(2);
/// For the first good answer of the Service.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
const ANSWER_AGAIN: Duration = Duration::from_millis(200);
/// Notes of one kind that are worth a reader's time.
const MOST_NOTES: usize = 12;
/// 128+SIGINT
const INTERRUPTED: u8 = 130;

/// The report, and why the rollout did not come to its end by the deadline, if so.
pub fn rehearse(plan: &Rollout, words: &[OsString]) -> Result<(Report, Option<Refused>), Refused> {
    let internal = |error: std::io::Error| Refused::internal(format!("cannot make the event loop: {error}"));
    sandbox::more_descriptors().map_err(internal)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(internal)?;
    let name = name(plan);
    let played = runtime.block_on(play(plan, &name))?;
    Ok(report(plan, words, name, played))
}

/// What is played, as a column's title.
fn name(plan: &Rollout) -> String {
    let workload = &plan.workload;
    match &plan.death {
        Death::Restart => format!("restart of {workload}"),
        Death::DeletePod(pod) => format!("deletion of a pod ({pod}) of {workload}"),
        Death::DrainNode(node) => format!("eviction of {workload} from {node}"),
    }
}

/// How a wait ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Waited {
    Enough,
    TimeIsUp,
    Interrupted,
}

/// How the whole of it ended.
#[derive(Debug, Eq, PartialEq)]
enum End {
    Complete,
    Interrupted,
    /// What is still to happen.
    Deadline(String),
}

struct Played {
    round: Round,
    end: End,
    grace: Option<u64>,
}

async fn play(plan: &Rollout, name: &str) -> Result<Played, Refused> {
    let began = Instant::now();
    let deadline = began + plan.deadline;
    let cluster = Cluster::connect(&plan.workload).await?;
    let found = cluster.find(&plan.death).await?;
    let (to, from) = unbounded_channel();
    let mut watches = cluster.watch(&found, &to);
    let mut eyes = Eyes::new(name, from, to)?;
    eyes.story.hear(0, News::Desired(found.desired));
    eyes.first_lists().await?;
    victims(&eyes.story, &plan.death).map_err(|why| cannot(plan, &why))?;
    let target = target(plan).await?;

    let mut rng = Rng::with_seed(plan.seed);
    let load_for = plan.load_for.mul_f64(0.5 + rng.f64());
    let drive = Drive {
        rate: plan.rate,
        clients: plan.clients,
        connections: plan.connections,
        pinned: plan.pinned,
        timeout: plan.timeout,
    };
    let mut load = Load::start(target, &drive, rng.fork(), rng.fork());
    let load_began = load.began();
    let mut waited = eyes.wait(&load, "under load", load_began + load_for, |_| false).await;

    let mut zero = Instant::now();
    let mut going = BTreeSet::new();
    if waited != Waited::Interrupted {
        let victims = victims(&eyes.story, &plan.death).map_err(|why| cannot(plan, &why))?;
        going = victims.iter().map(|pod| pod.uid.clone()).collect();
        zero = Instant::now();
        eyes.note(zero, What::Restarted, name.to_owned());
        waited = match &plan.death {
            Death::Restart => cluster.restart().await.map(|()| Waited::Enough)?,
            Death::DeletePod(_) => {
                for pod in &victims {
                    cluster.delete(pod).await?;
                }
                Waited::Enough
            }
            Death::DrainNode(_) => eyes.evict(&cluster, victims, &load, deadline).await?,
        };
    }
    if waited == Waited::Enough {
        waited = eyes.wait(&load, "stopping", deadline, |story| story.missing(&going).is_empty()).await;
    }
    let end = match waited {
        Waited::Enough => {
            let now = Instant::now();
            eyes.note(now, What::Complete, String::new());
            // Some nodes learn late that a pod has gone.
            match eyes.wait(&load, "complete", now + plan.load_for, |_| false).await {
                Waited::Interrupted => End::Interrupted,
                Waited::Enough | Waited::TimeIsUp => End::Complete,
            }
        }
        Waited::Interrupted => End::Interrupted,
        Waited::TimeIsUp => End::Deadline(eyes.story.missing(&going).join("; ")),
    };
    watches.abort_all();

    load.deleted(Instant::now(), &vec![Duration::ZERO; plan.clients], &vec![Duration::ZERO; plan.pinned]);
    let (records, kept) = tokio::select! {
        finished = load.finish() => finished,
        () = eyes.interrupts.wait() => {
            let message = "interrupted again: no report; what was begun in the cluster goes on by itself".to_owned();
            return Err(Refused { code: INTERRUPTED, message });
        }
    };
    let zero_ms = eyes.at(zero);
    let load_began_ms = (eyes.at(load_began) - zero_ms) as f64;
    let at = |moment: Duration| (load_began_ms + moment.as_secs_f64() * 1e3).round() as Millis;
    let last = eyes.at(Instant::now());
    let pods = eyes.story.pods(&going, zero_ms, last);
    let losses = losses::losses(&records, at, &pods);
    let mut events = eyes.events(zero_ms);
    events.push(Event { at_ms: eyes.at(load_began) - zero_ms, what: What::LoadBegan, detail: String::new() });
    let mut notes = notes(&pods, &events);
    notes.extend(eyes.broken());
    if end == End::Interrupted {
        notes.push("interrupted: the load was stopped; what was begun in the cluster goes on by itself".to_owned());
    }
    let zero = Some("anything was done to the workload".to_owned());
    let mut round = judge(Seen { seed: plan.seed, load_began_ms, records, kept, events, zero, notes, ..Seen::default() });
    // It is not one server that lives and dies.
    round.phases.clear();
    round.notes.extend(sentences(&losses));
    (round.pods, round.losses) = (pods, losses);
    eyes.line.done(name, &round);
    Ok(Played { round, end, grace: eyes.story.grace_seconds() })
}

fn cannot(plan: &Rollout, why: &str) -> Refused {
    Refused::unavailable(format!("cannot rehearse {}: {why}", plan.workload))
}

/// The pods that are to go.
fn victims(story: &Story, death: &Death) -> Result<Vec<PodSeen>, String> {
    let ready = story.serving();
    if ready.len() < story.desired() {
        return Err(format!(
            "{} of {} pods are ready; wait until it is whole, see kubectl get pods",
            ready.len(),
            story.desired()
        ));
    }
    let victims: Vec<PodSeen> = match death {
        Death::Restart => story.present().into_iter().cloned().collect(),
        Death::DeletePod(name) if name == "any" => ready.into_iter().take(1).cloned().collect(),
        Death::DeletePod(name) => ready.into_iter().filter(|pod| pod.name == *name).cloned().collect(),
        Death::DrainNode(node) => ready.into_iter().filter(|pod| pod.node.as_deref() == Some(node)).cloned().collect(),
    };
    match death {
        _ if !victims.is_empty() => Ok(victims),
        Death::DeletePod(name) => Err(format!("none of its ready pods is {name}; see kubectl get pods, or say any")),
        Death::DrainNode(node) => Err(format!("none of its ready pods is on {node}; see kubectl get pods -o wide")),
        Death::Restart => Err("it has no pods".to_owned()),
    }
}

/// Where clients ask. It answers well before anything is done.
async fn target(plan: &Rollout) -> Result<Target, Refused> {
    let Url { host, port, authority, path } = &plan.url;
    let url = format!("http://{authority}{path}");
    let cannot = |why: String| Refused::unavailable(format!("cannot get an answer from {url}: {why}"));
    let addresses: Vec<SocketAddr> = match lookup_host((host.as_str(), *port)).await {
        Ok(addresses) => addresses.collect(),
        Err(error) => return Err(cannot(format!("{error}; is that name known here? Inside a cluster it is web.shop.svc"))),
    };
    let deadline = Instant::now() + ANSWER_LIMIT;
    loop {
        let mut last = "the name has no address; see --url";
        for &address in &addresses {
            let target = Target {
                address,
                authority: authority.clone(),
                path: path.clone(),
                slow: plan.slow.clone(),
                upload: plan.upload.clone(),
                stream: plan.stream.clone(),
            };
            last = match timeout(plan.timeout, get(&target, 0)).await {
                Ok(Ok(_)) => return Ok(target),
                Ok(Err(Outcome::Refused)) => "nobody listens there; see --url, and the Service's ports",
                Ok(Err(Outcome::Failed)) => "it answers with an error; name a URL that it answers with a status below 400",
                Ok(Err(_)) => "it closes connections without a whole answer; see --url",
                Err(_) => "it accepts, and does not answer; see --url",
            };
        }
        if Instant::now() > deadline {
            return Err(cannot(last.to_owned()));
        }
        sleep(ANSWER_AGAIN).await;
    }
}

/// Ctrl-C, and TERM as a Job gets it.
struct Interrupts {
    int: Signal,
    term: Signal,
}

impl Interrupts {
    fn new() -> std::io::Result<Interrupts> {
        Ok(Interrupts { int: signal(SignalKind::interrupt())?, term: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.int.recv() => {}
            _ = self.term.recv() => {}
        }
    }
}

/// All that watches while the load runs.
struct Eyes<'a> {
    name: &'a str,
    began: Instant,
    story: Story,
    events: Vec<Event>,
    from: UnboundedReceiver<Message>,
    to: UnboundedSender<Message>,
    listed: usize,
    /// Watches that broke: how often, and why the last time.
    broken: BTreeMap<&'static str, (usize, String)>,
    interrupts: Interrupts,
    each: Interval,
    asking: JoinSet<()>,
    line: Progress,
}

impl<'a> Eyes<'a> {
    fn new(name: &'a str, from: UnboundedReceiver<Message>, to: UnboundedSender<Message>) -> Result<Eyes<'a>, Refused> {
        let interrupts = Interrupts::new();
        Ok(Eyes {
            name,
            began: Instant::now(),
            story: Story::default(),
            events: Vec::new(),
            from,
            to,
            listed: 0,
            broken: BTreeMap::new(),
            interrupts: interrupts.map_err(|error| Refused::internal(format!("cannot wait for signals: {error}")))?,
            each: interval(LOOK),
            asking: JoinSet::new(),
            line: Progress::new(),
        })
    }

    fn at(&self, moment: Instant) -> Millis {
        let ms = |length: Duration| length.as_millis() as Millis;
        ms(moment.saturating_duration_since(self.began)) - ms(self.began.saturating_duration_since(moment))
    }

    fn note(&mut self, at: Instant, what: What, detail: String) {
        let at_ms = self.at(at);
        self.events.push(Event { at_ms, what, detail });
    }

    fn hear(&mut self, message: Option<Message>) {
        match message {
            Some(Message::News(at, news)) => self.story.hear(self.at(at), news),
            Some(Message::Listed) => self.listed += 1,
            Some(Message::Broke(what, why)) => {
                let (count, last) = self.broken.entry(what).or_default();
                *count += 1;
                *last = why;
            }
            None => {}
        }
    }

    async fn first_lists(&mut self) -> Result<(), Refused> {
        let deadline = Instant::now() + LIST_LIMIT;
        while self.listed < WATCHES {
            let message = tokio::select! {
                message = self.from.recv() => message,
                () = sleep_until(deadline) => None,
                () = self.interrupts.wait() => {
                    return Err(Refused { code: INTERRUPTED, message: "interrupted: nothing was done".to_owned() });
                }
            };
            if message.is_none() {
                let why = self.broken().into_iter().next().unwrap_or_else(|| "the API server is silent".to_owned());
                return Err(Refused::unavailable(format!("cannot watch the cluster: {why}; see kubectl get pods --watch")));
            }
            self.hear(message);
        }
        Ok(())
    }

    /// Until this moment, or what was seen is enough. Says from time to time how it goes.
    async fn wait(&mut self, load: &Load, doing: &str, until: Instant, enough: impl Fn(&Story) -> bool) -> Waited {
        loop {
            if enough(&self.story) {
                return Waited::Enough;
            }
            tokio::select! {
                () = self.interrupts.wait() => return Waited::Interrupted,
                () = sleep_until(until) => return Waited::TimeIsUp,
                message = self.from.recv() => self.hear(message),
                _ = self.each.tick() => {
                    let (answered, lost) = load.so_far();
                    self.line.show(self.name, doing, answered, lost);
                    self.look();
                }
            }
        }
    }

    /// Asks the lameducks that are going.
    fn look(&mut self) {
        while self.asking.try_join_next().is_some() {}
        for (uid, address) in self.story.to_ask() {
            let to = self.to.clone();
            self.asking.spawn(async move {
                if let Some((phase, in_flight)) = status::ask(address).await {
                    // We may have come to the end.
                    let _ = to.send(Message::News(Instant::now(), News::Status { uid, phase, in_flight }));
                }
            });
        }
    }

    /// Asks for the eviction of each, again and again where a disruption budget forbids it.
    async fn evict(
        &mut self,
        cluster: &Cluster,
        mut victims: Vec<PodSeen>,
        load: &Load,
        deadline: Instant,
    ) -> Result<Waited, Refused> {
        loop {
            let mut left = Vec::new();
            for pod in victims {
                if self.story.is_gone(&pod.uid) {
                    continue;
                }
                if let Eviction::NotNow(why) = cluster.evict(&pod).await? {
                    self.note(Instant::now(), What::EvictionRefused, format!("{}: {why}", pod.name));
                    left.push(pod);
                }
            }
            if left.is_empty() {
                return Ok(Waited::Enough);
            }
            victims = left;
            if Instant::now() >= deadline {
                return Ok(Waited::TimeIsUp);
            }
            let again = deadline.min(Instant::now() + EVICT_AGAIN);
            if self.wait(load, "evicting", again, |_| false).await == Waited::Interrupted {
                return Ok(Waited::Interrupted);
            }
        }
    }

    /// All of them, counted from `zero`.
    fn events(&self, zero: Millis) -> Vec<Event> {
        let own = self.events.iter().map(|event| Event { at_ms: event.at_ms - zero, ..event.clone() });
        own.chain(self.story.events(zero)).collect()
    }

    fn broken(&self) -> Vec<String> {
        let broken = self.broken.iter();
        broken
            .map(|(what, (count, why))| format!("the watch of {what} broke {count} times ({why}): some moments may be late"))
            .collect()
    }
}

/// What a reader must know of the pods.
fn notes(pods: &[Pod], events: &[Event]) -> Vec<String> {
    let badly = pods.iter().flat_map(|pod| pod.ended.iter().filter(|ended| ended.code != 0).map(move |ended| (pod, ended)));
    let badly = badly.map(|(pod, ended)| {
        let words = [&ended.reason, &ended.message].into_iter().flatten().cloned().collect::<Vec<_>>().join(": ");
        format!("{}: {} ended with code {} ({words})", pod.name, ended.container, ended.code)
    });
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        let what = match event.what {
            What::Warning => "",
            What::EvictionRefused => "eviction refused, tried again: ",
            _ => continue,
        };
        *told.entry(format!("{what}{}", event.detail)).or_default() += 1;
    }
    let told = told.into_iter().map(|(text, count)| if count > 1 { format!("{text} ({count} times)") } else { text });
    shortened(badly.chain(told).collect())
}

/// The losses in sentences.
fn sentences(losses: &[Loss]) -> Vec<String> {
    let all = losses.iter().map(|loss| {
        let kinds = loss.lost.kinds().into_iter().filter(|(_, count)| *count > 0);
        let kinds = kinds.map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ");
        let pods = match (&loss.terminating[..], &loss.just_gone[..]) {
            ([], []) => "no pod was terminating then".to_owned(),
            ([], gone) => format!("{} had just gone", gone.join(", ")),
            (going, []) => format!("then terminating: {}", going.join(", ")),
            (going, gone) => format!("then terminating: {}; just gone: {}", going.join(", "), gone.join(", ")),
        };
        let when = format!("from {:.1} s to {:.1} s", loss.from_ms as f64 / 1e3, loss.to_ms as f64 / 1e3);
        format!("lost {when}: {kinds}; {pods}")
    });
    let mut all = shortened(all.collect());
    if !all.is_empty() {
        all.push(
            "through a Service nobody sees which pod a request reached: a loss stands beside the pods that were going then"
                .to_owned(),
        );
    }
    all
}

fn shortened(mut notes: Vec<String>) -> Vec<String> {
    if notes.len() > MOST_NOTES {
        let more = notes.len() - MOST_NOTES;
        notes.truncate(MOST_NOTES);
        notes.push(format!("and {more} more of this kind: see --json"));
    }
    notes
}

fn report(plan: &Rollout, words: &[OsString], name: String, played: Played) -> (Report, Option<Refused>) {
    let Played { round, end, grace } = played;
    let lost = round.tally.lost.total();
    let failed = lost > plan.max_lost;
    // What was lost is lost; that nothing was is a finding only of the whole.
    let judged = round.client.sent > 0 && (failed || end == End::Complete);
    let incomplete = match end {
        End::Deadline(missing) => Some(Refused::unavailable(format!(
            "cannot see the {name} to its end: not complete after {}: {missing}; it goes on by itself, see kubectl rollout status and \
             --deadline",
            Show(plan.deadline)
        ))),
        End::Complete | End::Interrupted => None,
    };
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: typed(["lameduck-rehearse".into()].iter().chain(words).map(|word| word.to_string_lossy())),
        settings: Settings {
            url: format!("http://{}{}", plan.url.authority, plan.url.path),
            seed: plan.seed,
            rounds: 1,
            chaos: false,
            rate: plan.rate,
            clients: plan.clients,
            connections: plan.connections,
            pinned: plan.pinned,
            propagate_ms: None,
            grace_period_ms: grace.unwrap_or_default() * 1000,
            stop_signal: None,
            timeout_ms: plan.timeout.as_millis() as u64,
            max_lost: plan.max_lost,
            rollout: Some(plan.workload.to_string()),
        },
        verdict: Verdict {
            contender: name.clone(),
            judged: u32::from(judged),
            lost: if judged { lost } else { 0 },
            passed: judged && !failed,
            seed: plan.seed,
        },
        contenders: vec![Column { name, rounds: vec![round], worst: 0 }],
    };
    (report, incomplete)
}
