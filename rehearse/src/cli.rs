//! What was typed, and what it means: one field per option, its doc is its help.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use hyper::http::uri::PathAndQuery;
use lameduck::core::signals::Signal;
use lameduck::core::start::url::Url;
use lameduck::core::time::parse_duration;

use crate::Refused;
use crate::contender::Contender;
use crate::endpoints::Propagation;
use crate::legacy;

/// Rehearse how a server stops: puts COMMAND under load, stops it as a kubelet would, once for each contender, and shows what its
/// clients would lose. Without COMMAND or --image, an embedded server plays the part.
#[derive(Debug, Default, Parser)]
#[command(
    name = "lameduck-rehearse",
    override_usage = "lameduck-rehearse [OPTIONS] [--url URL -- COMMAND [ARG]...]\n       \
                      lameduck-rehearse [OPTIONS] --url URL --image IMAGE [-- ARG...]\n       \
                      lameduck-rehearse [OPTIONS] --url URL --rollout NAMESPACE/KIND/NAME",
    disable_help_flag = true,
    disable_version_flag = true,
    after_help = "Exit codes: 0 the last contender lost nothing (or not more than --max-lost); 1 it lost more; 2 nothing could be \
                  judged; 64 usage; 69 the server never became ready, the rollout was not complete by --deadline, or something needed is not there; 70 \
                  internal; 130 interrupted before the load, or twice.\n\n\
                  Examples:\n  \
                  lameduck-rehearse\n  \
                  lameduck-rehearse --url http://127.0.0.1:8080/ -- gunicorn --bind 127.0.0.1:8080 app:app\n  \
                  lameduck-rehearse --url http://127.0.0.1/ --image nginx --against none,sleep:15,lameduck\n  \
                  lameduck-rehearse --rounds 20 --chaos --html report.html\n  \
                  lameduck-rehearse --rollout shop/deployment/web --url http://web.shop.svc/"
)]
pub struct Args {
    /// What clients ask for. The server listens on this machine, mostly on 127.0.0.1; with --rollout it is anywhere
    #[arg(long, value_name = "URL", help_heading = "The server")]
    pub url: Option<String>,

    /// Run this image's container, with podman or docker, with COMMAND in place of the image's own
    #[arg(long, value_name = "IMAGE", help_heading = "The server")]
    pub image: Option<String>,

    /// podman or docker [default: the first that is there]
    #[arg(long, value_name = "PROGRAM", help_heading = "The server")]
    pub engine: Option<OsString>,

    /// Hand this to the engine's `run`, such as --env=NAME=value (repeatable)
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, help_heading = "The server")]
    pub run_option: Vec<OsString>,

    /// A static lameduck for the container [default: ourselves]
    #[arg(long, value_name = "FILE", help_heading = "The server")]
    pub lameduck: Option<PathBuf>,

    /// `own`: a network of its own, in which every port is free. `host`: ours, for a server that needs its database
    #[arg(long, value_name = "own|host", default_value = "own", help_heading = "The server")]
    pub network: String,

    /// Give up when it is not ready by then
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = "The server")]
    pub start_timeout: String,

    /// Show what it writes
    #[arg(long, help_heading = "The server")]
    pub verbose: bool,

    /// Restart this workload of a cluster as `kubectl rollout restart` does, and ask --url meanwhile: a Service, an ingress. KIND is
    /// deployment, statefulset or daemonset. The cluster is that of the kubeconfig, or the one that we run in
    #[arg(
        long,
        value_name = "NAMESPACE/KIND/NAME",
        help_heading = "The cluster",
        conflicts_with_all = ["command", "image", "engine", "run_option", "lameduck", "network", "start_timeout", "verbose", "against",
            "propagate", "grace_period", "stop_signal", "probe_period", "rounds", "chaos"]
    )]
    pub rollout: Option<String>,

    /// With --rollout: delete this pod instead, or any one
    #[arg(long, value_name = "POD|any", help_heading = "The cluster", conflicts_with = "drain_node")]
    pub delete_pod: Option<String>,

    /// With --rollout: evict the workload's pods from this node instead, as its disruption budget allows. Other workloads stay, and the
    /// node stays schedulable
    #[arg(long, value_name = "NODE", help_heading = "The cluster")]
    pub drain_node: Option<String>,

    /// With --rollout: give up when it is not complete by then [default: 10m]
    #[arg(long, value_name = "DURATION", help_heading = "The cluster")]
    pub deadline: Option<String>,

    /// Who is PID 1: none, tini, dumb-init, sleep:15 (none, with a preStop sleep), lameduck, "lameduck --delay 3s". Repeatable, or
    /// a list with commas; the last one is judged [default: none,sleep:5,lameduck; embedded server: none,sleep:2,lameduck --delay 2s]
    #[arg(long, value_name = "CONTENDER", help_heading = "The contenders")]
    pub against: Vec<String>,

    /// Requests a second, come what may
    #[arg(long, value_name = "NUMBER", default_value = "100", help_heading = "The clients")]
    pub rate: String,

    /// Clients, each with its own address and its own news of endpoints
    #[arg(long, value_name = "COUNT", default_value = "8", help_heading = "The clients")]
    pub clients: String,

    /// Keep-alive connections that they keep, all together
    #[arg(long, value_name = "COUNT", default_value = "16", help_heading = "The clients")]
    pub connections: String,

    /// Clients besides, each of which keeps one connection, asks through it about four times a second (for --url, and as often it POSTs to
    /// --upload-url if given) and never learns; its new connections go to another pod, at its own time within --propagate [default: 8;
    /// embedded server: 20]
    #[arg(long, value_name = "COUNT", help_heading = "The clients")]
    pub pinned: Option<String>,

    /// When clients learn that the pod is going, after its deletion: each at its own time within this [default: 2s..6s; embedded
    /// server: 1s..4s]
    #[arg(long, value_name = "FIRST..LAST", help_heading = "The clients")]
    pub propagate: Option<String>,

    /// What takes its time: 4 in 100 requests [default: they ask for --url, and read slowly]
    #[arg(long, value_name = "URL", help_heading = "The clients")]
    pub slow_url: Option<String>,

    /// Where to POST a body that trickles: 3 in 100 requests [default: none]
    #[arg(long, value_name = "URL", help_heading = "The clients")]
    pub upload_url: Option<String>,

    /// What answers bit by bit: 3 in 100 requests [default: none]
    #[arg(long, value_name = "URL", help_heading = "The clients")]
    pub stream_url: Option<String>,

    /// How long a client waits for its whole answer
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "The clients")]
    pub timeout: String,

    /// Time under load before the pod is deleted, on average: the moment is random, from half of it to one and a half. With --rollout as
    /// long again after its end [default: 3s; embedded server: 1500ms]
    #[arg(long, value_name = "DURATION", help_heading = "The kubelet")]
    pub load_for: Option<String>,

    /// terminationGracePeriodSeconds
    #[arg(long, value_name = "DURATION", default_value = "30s", help_heading = "The kubelet")]
    pub grace_period: String,

    /// The image's STOPSIGNAL [default: TERM, or what the image says]
    #[arg(long, value_name = "SIGNAL", help_heading = "The kubelet")]
    pub stop_signal: Option<String>,

    /// The period of liveness and readiness probes, which ask for --url
    #[arg(long, value_name = "DURATION", default_value = "10s", help_heading = "The kubelet")]
    pub probe_period: String,

    /// Play so many rounds, each with random moments of its own
    #[arg(long, value_name = "COUNT", default_value = "1", help_heading = "The rounds")]
    pub rounds: String,

    /// In each round, one of the things that clusters do: a second stop signal, an early KILL, a crash, a stop during the start,
    /// neighbours that take the CPU, an app that stands still
    #[arg(long, help_heading = "The rounds")]
    pub chaos: bool,

    /// Make the same random choices as the round that had this seed
    #[arg(long, value_name = "NUMBER", help_heading = "The rounds")]
    pub seed: Option<String>,

    /// Exit with 1 if the last contender lost more than this in a round
    #[arg(long, value_name = "COUNT", default_value = "0", help_heading = "The report")]
    pub max_lost: String,

    /// Write the report here, for machines
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub json: Option<PathBuf>,

    /// Write the report here, as a page
    #[arg(long, value_name = "FILE", help_heading = "The report")]
    pub html: Option<PathBuf>,

    /// Print this help
    #[arg(long, short, help_heading = "The report")]
    pub help: bool,

    /// Print the version
    #[arg(long, short = 'V', help_heading = "The report")]
    pub version: bool,

    /// The server and its arguments
    #[arg(trailing_var_arg = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

/// Reads the words after our own name.
pub fn parse(words: &[OsString]) -> Result<Args, Refused> {
    let argv = [OsString::from("lameduck-rehearse")].into_iter().chain(words.iter().cloned());
    Args::try_parse_from(argv).map_err(|error| {
        let first = error.to_string();
        let first = first.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Refused::usage(format!("cannot read the command line: {first}; see lameduck-rehearse --help"))
    })
}

/// All that can be typed: for man pages and shell completions.
pub fn reference() -> clap::Command {
    Args::command().version(env!("CARGO_PKG_VERSION"))
}

pub fn help() -> String {
    Args::command().render_long_help().to_string()
}

/// What runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Server {
    Embedded,
    Command(Vec<OsString>),
    Image { image: String, command: Vec<OsString> },
}

/// What it all means.
#[derive(Clone, Debug)]
pub struct Plan {
    pub server: Server,
    pub url: Url,
    pub addresses: Vec<SocketAddr>,
    pub slow: Option<String>,
    pub upload: Option<String>,
    pub stream: Option<String>,
    pub contenders: Vec<Contender>,
    pub own_network: bool,
    pub rate: f64,
    pub clients: usize,
    pub connections: usize,
    pub pinned: usize,
    pub propagation: Propagation,
    pub timeout: Duration,
    pub load_for: Duration,
    pub grace: Duration,
    pub stop_signal: Option<Signal>,
    pub start_timeout: Duration,
    pub probe_period: Duration,
    pub rounds: u32,
    pub chaos: bool,
    pub seed: u64,
    /// One round whose seed was typed: played as it was.
    pub replay: bool,
    pub max_lost: u64,
}

/// What is meant where nothing is typed, as `--help` says: for the user's server, and for the embedded one, of which everything is known.
const AGAINST: [&str; 2] = ["none,sleep:5,lameduck", "none,sleep:2,lameduck --delay 2s"];
const PINNED: [&str; 2] = ["8", "20"];
const PROPAGATE: [&str; 2] = ["2s..6s", "1s..4s"];
const LOAD_FOR: [&str; 2] = ["3s", "1500ms"];
const DEADLINE: &str = "10m";
/// What may be typed.
const RATE: RangeInclusive<f64> = 0.1..=50_000.0;
const CLIENTS: RangeInclusive<usize> = 1..=1000;
const CONNECTIONS: RangeInclusive<usize> = 0..=10_000;

/// `random` is the seed if none was typed.
pub fn plan(args: &Args, random: u64) -> Result<Plan, Refused> {
    let usage = Refused::usage;
    let of_a_cluster = [("--delete-pod", &args.delete_pod), ("--drain-node", &args.drain_node), ("--deadline", &args.deadline)];
    if let Some((option, _)) = of_a_cluster.iter().find(|(_, given)| given.is_some()) {
        return Err(usage(format!("cannot use {option} alone: of which workload? Add --rollout NAMESPACE/KIND/NAME")));
    }
    let server = match (&args.image, &args.command[..]) {
        (Some(image), command) => Server::Image { image: image.clone(), command: command.to_vec() },
        (None, []) => Server::Embedded,
        (None, command) => Server::Command(command.to_vec()),
    };
    let embedded = server == Server::Embedded;
    let own = usize::from(embedded);
    if embedded && args.url.is_some() {
        return Err(usage(
            "cannot rehearse --url alone: nothing to start; add -- COMMAND or --image, or leave --url out".to_owned(),
        ));
    }
    if !embedded && args.url.is_none() {
        return Err(usage(
            "cannot rehearse a server without --url: what should clients ask for? Try --url http://127.0.0.1:8080/".to_owned(),
        ));
    }
    let here = format!("http://127.0.0.1:{}", legacy::PORT);
    let url = url("--url", args.url.as_deref().unwrap_or(&here))?;
    let addresses = url.addresses().filter(|addresses| addresses.iter().all(|address| address.ip().is_loopback()));
    let addresses = addresses.ok_or_else(|| {
        usage(format!(
            "cannot rehearse {}: the server is started here, and asked at 127.0.0.1, [::1] or localhost",
            url.authority
        ))
    })?;
    let path = |option: &str, given: &Option<String>, own: &str| {
        Ok(path(option, given.as_deref(), &url)?.or_else(|| embedded.then(|| own.to_owned())))
    };
    let contenders = args.against.iter().map(|text| Contender::parse_list(text)).collect::<Result<Vec<_>, _>>().map_err(usage)?;
    let mut contenders = contenders.concat();
    if contenders.is_empty() {
        contenders = Contender::parse_list(AGAINST[own]).map_err(usage)?;
    }
    let rounds = number("--rounds", &args.rounds, 1..=10_000)?;
    let plan = Plan {
        slow: path("--slow-url", &args.slow_url, "/slow")?,
        upload: path("--upload-url", &args.upload_url, "/upload")?,
        stream: path("--stream-url", &args.stream_url, "/stream")?,
        server,
        addresses,
        contenders,
        own_network: match args.network.as_str() {
            "own" => true,
            "host" => false,
            other => return Err(usage(format!("cannot read --network {other}: it is own or host"))),
        },
        rate: number("--rate", &args.rate, RATE)?,
        clients: number("--clients", &args.clients, CLIENTS)?,
        connections: number("--connections", &args.connections, CONNECTIONS)?,
        pinned: number("--pinned", args.pinned.as_deref().unwrap_or(PINNED[own]), CONNECTIONS)?,
        propagation: Propagation::parse(args.propagate.as_deref().unwrap_or(PROPAGATE[own])).map_err(usage)?,
        timeout: duration("--timeout", &args.timeout)?,
        load_for: duration("--load-for", args.load_for.as_deref().unwrap_or(LOAD_FOR[own]))?,
        grace: duration("--grace-period", &args.grace_period)?,
        stop_signal: args.stop_signal.as_deref().map(signal).transpose()?,
        start_timeout: duration("--start-timeout", &args.start_timeout)?,
        probe_period: duration("--probe-period", &args.probe_period)?,
        rounds,
        chaos: args.chaos,
        replay: args.seed.is_some() && rounds == 1,
        seed: args.seed.as_deref().map_or(Ok(random), |text| number("--seed", text, 0..=u64::MAX))?,
        max_lost: number("--max-lost", &args.max_lost, 0..=u64::MAX)?,
        url,
    };
    if plan.probe_period < Duration::from_millis(100) {
        return Err(usage(format!("cannot use --probe-period {}: a kubelet's is 1s or more", args.probe_period)));
    }
    Ok(plan)
}

/// A kind of workload that can be restarted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
}

impl Kind {
    /// As kubectl takes it.
    fn parse(text: &str) -> Option<Kind> {
        Some(match text.to_ascii_lowercase().as_str() {
            "deployment" | "deployments" | "deploy" => Kind::Deployment,
            "statefulset" | "statefulsets" | "sts" => Kind::StatefulSet,
            "daemonset" | "daemonsets" | "ds" => Kind::DaemonSet,
            _ => return None,
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Deployment => "deployment",
            Kind::StatefulSet => "statefulset",
            Kind::DaemonSet => "daemonset",
        })
    }
}

/// Which workload of a cluster.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Workload {
    pub namespace: String,
    pub kind: Kind,
    pub name: String,
}

impl Workload {
    fn parse(text: &str) -> Result<Workload, Refused> {
        let cannot = |why: &str| Refused::usage(format!("cannot read --rollout {text}: {why}; try shop/deployment/web"));
        let parts: Vec<&str> = text.split('/').collect();
        let [namespace, kind, name] = parts[..] else { return Err(cannot("it is not NAMESPACE/KIND/NAME")) };
        let kind = Kind::parse(kind).ok_or_else(|| cannot("KIND is deployment, statefulset or daemonset"))?;
        let is_name =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
        if !is_name(namespace) || !is_name(name) {
            return Err(cannot("a name has letters, digits, - and ."));
        }
        Ok(Workload { namespace: namespace.to_owned(), kind, name: name.to_owned() })
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.namespace, self.kind, self.name)
    }
}

/// How its pods come to their end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Death {
    Restart,
    /// This one, or `any`.
    DeletePod(String),
    /// Evicted from this node.
    DrainNode(String),
}

/// A rehearsal in a cluster.
#[derive(Clone, Debug)]
pub struct Rollout {
    pub workload: Workload,
    pub death: Death,
    pub url: Url,
    pub slow: Option<String>,
    pub upload: Option<String>,
    pub stream: Option<String>,
    pub rate: f64,
    pub clients: usize,
    pub connections: usize,
    pub pinned: usize,
    pub timeout: Duration,
    pub load_for: Duration,
    pub deadline: Duration,
    pub seed: u64,
    pub max_lost: u64,
}

/// None: no cluster is meant. `random` is the seed if none was typed.
pub fn rollout(args: &Args, random: u64) -> Result<Option<Rollout>, Refused> {
    let Some(workload) = &args.rollout else { return Ok(None) };
    let Some(url) = &args.url else {
        return Err(Refused::usage(
            "cannot rehearse a rollout without --url: what should clients ask for? Try --url http://web.shop.svc/".to_owned(),
        ));
    };
    let url = self::url("--url", url)?;
    Ok(Some(Rollout {
        workload: Workload::parse(workload)?,
        death: match (&args.delete_pod, &args.drain_node) {
            (Some(pod), _) => Death::DeletePod(pod.clone()),
            (_, Some(node)) => Death::DrainNode(node.clone()),
            (None, None) => Death::Restart,
        },
        slow: path("--slow-url", args.slow_url.as_deref(), &url)?,
        upload: path("--upload-url", args.upload_url.as_deref(), &url)?,
        stream: path("--stream-url", args.stream_url.as_deref(), &url)?,
        rate: number("--rate", &args.rate, RATE)?,
        clients: number("--clients", &args.clients, CLIENTS)?,
        connections: number("--connections", &args.connections, CONNECTIONS)?,
        pinned: number("--pinned", args.pinned.as_deref().unwrap_or(PINNED[0]), CONNECTIONS)?,
        timeout: duration("--timeout", &args.timeout)?,
        load_for: duration("--load-for", args.load_for.as_deref().unwrap_or(LOAD_FOR[0]))?,
        deadline: duration("--deadline", args.deadline.as_deref().unwrap_or(DEADLINE))?,
        seed: args.seed.as_deref().map_or(Ok(random), |text| number("--seed", text, 0..=u64::MAX))?,
        max_lost: number("--max-lost", &args.max_lost, 0..=u64::MAX)?,
        url,
    }))
}

/// The path of another URL of the same server, or a path alone.
fn path(option: &str, given: Option<&str>, url: &Url) -> Result<Option<String>, Refused> {
    let Some(text) = given else { return Ok(None) };
    if text.starts_with('/') {
        return Ok(Some(self::url(option, &format!("http://{}{text}", url.authority))?.path));
    }
    let other = self::url(option, text)?;
    if (&other.host, other.port) != (&url.host, url.port) {
        return Err(Refused::usage(format!("cannot use {option} {text}: it is another server than --url's; give a path")));
    }
    Ok(Some(other.path))
}

fn url(option: &str, text: &str) -> Result<Url, Refused> {
    let url = Url::parse(text);
    let url = url.map_err(|why| Refused::usage(format!("cannot read {option} {text}: {why}; try http://127.0.0.1:8080/")))?;
    match PathAndQuery::try_from(url.path.as_str()) {
        Ok(_) => Ok(url),
        Err(_) => Err(Refused::usage(format!("cannot read {option} {text}: some characters must be written as in %3C"))),
    }
}

fn duration(option: &str, text: &str) -> Result<Duration, Refused> {
    parse_duration(text).map_err(|why| Refused::usage(format!("cannot read {option} {text}: {why}")))
}

fn signal(text: &str) -> Result<Signal, Refused> {
    Signal::parse(text).map_err(|why| Refused::usage(format!("cannot read --stop-signal {text}: {why}")))
}

fn number<T>(option: &str, text: &str, range: RangeInclusive<T>) -> Result<T, Refused>
where
    T: PartialOrd + fmt::Display + std::str::FromStr,
{
    text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
        Refused::usage(format!("cannot read {option} {text}: not a number from {} to {}", range.start(), range.end()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Plan, Refused> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        plan(&parse(&words)?, 42)
    }

    #[test]
    fn nothing_typed_is_the_embedded_three_way_show() {
        let plan = read(&[]).unwrap();
        assert_eq!(plan.server, Server::Embedded);
        assert_eq!(plan.contenders.iter().map(Contender::name).collect::<Vec<_>>(), ["none", "sleep:2s", "lameduck --delay 2s"]);
        assert_eq!((plan.upload.as_deref(), plan.seed, plan.own_network), (Some("/upload"), 42, true));
        // The sleep is too short for the last client.
        assert!(plan.propagation.last > plan.contenders[1].pre_stop().unwrap());
    }

    #[test]
    fn help_says_what_is_meant_where_nothing_is_typed() {
        let help = help().split_whitespace().collect::<Vec<_>>().join(" ");
        let options = [("--against", AGAINST), ("--pinned", PINNED), ("--propagate", PROPAGATE), ("--load-for", LOAD_FOR)];
        for (option, [yours, embedded]) in options {
            let (_, of_option) = help.split_once(&format!("{option} <")).unwrap();
            let default = of_option.split(['[', ']']).nth(1).unwrap();
            assert_eq!(default, format!("default: {yours}; embedded server: {embedded}"));
        }
        let (yours, embedded) = (read(&["--url", "http://127.0.0.1/", "--", "server"]).unwrap(), read(&[]).unwrap());
        let seconds = |plan: &Plan| {
            let times = [plan.propagation.first, plan.propagation.last, plan.load_for];
            (plan.contenders[1].pre_stop().unwrap().as_secs(), times.map(|time| time.as_secs_f64()))
        };
        assert_eq!((seconds(&yours), yours.pinned), ((5, [2.0, 6.0, 3.0]), 8));
        assert_eq!((seconds(&embedded), embedded.pinned), ((2, [1.0, 4.0, 1.5]), 20));
    }

    #[test]
    fn a_command_has_its_own_urls_and_flags() {
        let words = [
            "--url",
            "http://localhost:9000/x?y=1",
            "--slow-url",
            "/slow",
            "--seed=7",
            "--against",
            "tini,none",
            "--against",
            "lameduck --delay 3s",
            "--",
            "server",
            "--rate",
            "x",
        ];
        let plan = read(&words).unwrap();
        assert_eq!(plan.server, Server::Command(vec!["server".into(), "--rate".into(), "x".into()]));
        assert_eq!((plan.url.path.as_str(), plan.slow.as_deref(), plan.upload.as_deref()), ("/x?y=1", Some("/slow"), None));
        assert_eq!(plan.addresses.len(), 2);
        assert_eq!(plan.contenders.len(), 3);
        assert_eq!(plan.seed, 7);
    }

    #[test]
    fn what_makes_no_sense_is_usage_in_one_line() {
        let command = ["--", "server"];
        for (words, part) in [
            (&["--url", "http://127.0.0.1:1/"][..], "nothing to start"),
            (&command, "without --url"),
            (&["--url", "ftp://127.0.0.1/", "--", "x"], "cannot read --url"),
            (&["--url", "http://example.com/", "--", "x"], "the server is started here"),
            (&["--url", "http://10.0.0.1/", "--", "x"], "the server is started here"),
            (&["--url", "http://127.0.0.1/", "--slow-url", "http://127.0.0.1:2/", "--", "x"], "another server"),
            (&["--rate", "0"], "cannot read --rate 0: not a number from 0.1 to 50000"),
            (&["--rate", "NaN"], "cannot read --rate"),
            (&["--clients", "0"], "cannot read --clients"),
            (&["--pinned", "-1"], "cannot read"),
            (&["--pinned=many"], "cannot read --pinned many: not a number from 0 to 10000"),
            (&["--rounds", "-1"], "cannot read"),
            (&["--propagate", "6s..2s"], "cannot read --propagate"),
            (&["--stop-signal", "TERMS"], "cannot read --stop-signal"),
            (&["--against", "nobody"], "there is no such contender"),
            (&["--network", "none"], "it is own or host"),
            (&["--grace-period", "soon"], "cannot read --grace-period soon"),
            (&["--probe-period", "0"], "a kubelet's is 1s"),
            (&["--nonsense"], "--nonsense"),
            (&["--seed", "1", "--seed", "2"], "--seed"),
            (&["--delete-pod", "any"], "cannot use --delete-pod alone"),
            (&["--deadline", "1m"], "Add --rollout"),
        ] {
            let refused = read(words).unwrap_err();
            assert_eq!(refused.code, 64);
            assert!(refused.message.contains(part) && refused.message.starts_with("cannot "), "{}", refused.message);
            assert!(!refused.message.contains('\n'), "{}", refused.message);
        }
    }

    fn rollout_of(words: &[&str]) -> Result<Rollout, Refused> {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        rollout(&parse(&words)?, 42).map(|rollout| rollout.expect("a cluster is meant"))
    }

    #[test]
    fn a_rollout_is_of_a_workload_and_its_service() {
        let plan =
            rollout_of(&["--rollout", "shop/deploy/web", "--url", "http://web.shop.svc/x", "--slow-url", "/slow"]).unwrap();
        assert_eq!((plan.workload.to_string().as_str(), plan.death), ("shop/deployment/web", Death::Restart));
        assert_eq!((plan.url.path.as_str(), plan.slow.as_deref()), ("/x", Some("/slow")));
        assert_eq!((plan.deadline.as_secs(), plan.load_for.as_secs(), plan.pinned, plan.seed), (600, 3, 8, 42));
        let death = |words: &[&str]| {
            rollout_of(&[&["--rollout", "a/StatefulSets/b", "--url", "http://b/"], words].concat()).map(|plan| plan.death)
        };
        assert_eq!(death(&["--delete-pod", "b-0"]).unwrap(), Death::DeletePod("b-0".to_owned()));
        assert_eq!(death(&["--drain-node", "n1"]).unwrap(), Death::DrainNode("n1".to_owned()));
        assert!(death(&["--drain-node", "n1", "--delete-pod", "any"]).is_err());
        let words: Vec<OsString> = Vec::new();
        assert!(rollout(&parse(&words).unwrap(), 42).unwrap().is_none());
    }

    #[test]
    fn a_rollout_that_makes_no_sense_is_usage_in_one_line() {
        let here = ["--url", "http://web/"];
        for (words, part) in [
            (&["--rollout", "a/deployment/b"][..], "a rollout without --url"),
            (&[&["--rollout", "deployment/b"], &here[..]].concat(), "it is not NAMESPACE/KIND/NAME"),
            (&[&["--rollout", "a/pod/b"], &here[..]].concat(), "KIND is deployment, statefulset or daemonset"),
            (&[&["--rollout", "a/deployment/"], &here[..]].concat(), "a name has letters"),
            (&["--rollout", "a/deployment/b", "--url", "https://web/"], "not a plain http:// URL"),
            (&[&["--rollout", "a/deployment/b", "--deadline", "soon"], &here[..]].concat(), "cannot read --deadline soon"),
            (&[&["--rollout", "a/deployment/b", "--image", "x"], &here[..]].concat(), "cannot be used with"),
            (&[&["--rollout", "a/deployment/b", "--chaos"], &here[..]].concat(), "cannot be used with"),
            (&[&["--rollout", "a/deployment/b"], &here[..], &["--", "server"]].concat(), "cannot be used with"),
        ] {
            let refused = rollout_of(words).map(|plan| plan.workload).unwrap_err();
            assert!(refused.code == 64 && refused.message.contains(part), "{}", refused.message);
            assert!(refused.message.starts_with("cannot ") && !refused.message.contains('\n'), "{}", refused.message);
        }
    }
}
