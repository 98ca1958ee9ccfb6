//! What was typed, and what it means: (Args, Env, Facts) → Plan. Every default, cross-check and usage error is here. Pure.

mod before;
mod describe;
mod outside;
mod services;
mod size;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::cli::{self, Args, Verb};
use crate::core::output::TERMINATION_LOG;
use crate::core::output::line::Format;
use crate::core::servers::{self, Server};
use crate::core::shutdown::rule::{StopOn, StopRule};
use crate::core::shutdown::{Drain, Timing};
use crate::core::signals::{Rewrite, Signal, SignalSet};
use crate::core::size::cgroup::{Cgroup, Figure};
use crate::core::spelling;
use crate::core::start::script;
use crate::core::time::{Show, parse_duration};
use crate::core::traffic::keepalive::KeepAlive;
use crate::core::traffic::network::Network;
use crate::core::traffic::question::Question;
use crate::core::traffic::verdict::Rules;
pub use before::{Before, Template, Values};
pub use outside::{Outside, Ready, WarmUp};
pub use services::{Before as BeforeCommand, Service};
pub use size::{CpuSource, Size};

/// The environment as it was at the start. A set but empty variable counts as unset.
#[derive(Clone, Debug, Default)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    pub fn new(variables: impl IntoIterator<Item = (String, OsString)>) -> Env {
        Env(variables.into_iter().collect())
    }

    /// A variable as a setting. None: it is unset, empty, or a variable of a Kubernetes Service.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.value(name).filter(|value| !value.is_empty() && !self.is_service_link(name, value))
    }

    /// A variable as it stands there, perhaps empty.
    pub fn value(&self, name: &str) -> Option<&OsStr> {
        self.0.get(name).map(OsString::as_os_str)
    }

    pub fn variables(&self) -> impl Iterator<Item = (&str, &OsStr)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_os_str()))
    }

    /// The names of all variables that are set.
    fn names(&self) -> impl Iterator<Item = &str> {
        let is_set = |(name, value): &(&String, &OsString)| !value.is_empty() && !self.is_service_link(name, value);
        self.0.iter().filter(is_set).map(|(name, _)| name.as_str())
    }

    /// Whether Kubernetes made this variable for a Service. It gives every pod variables of each Service in its namespace: for one named
    /// `lameduck` LAMEDUCK_SERVICE_HOST, LAMEDUCK_SERVICE_PORT, LAMEDUCK_PORT=tcp://10.0.0.1:80 and LAMEDUCK_PORT_80_TCP_ADDR; for
    /// `lameduck-x` LAMEDUCK_X_SERVICE_HOST and so on. These are no settings.
    fn is_service_link(&self, name: &str, value: &OsStr) -> bool {
        let is_of = |service: &str| self.0.contains_key(&format!("{service}_SERVICE_HOST"));
        if name == "LAMEDUCK_PORT" {
            return value.to_string_lossy().contains("://");
        }
        let service = ["_SERVICE_", "_PORT"].iter().find_map(|part| name.find(part).map(|end| &name[..end]));
        service.is_some_and(|service| service.starts_with("LAMEDUCK") && is_of(service))
    }
}

/// What is known of the machine; it is looked up before.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// stdin, stdout or stderr is a terminal.
    pub terminal: bool,
    /// The usual file for the termination message exists.
    pub termination_log: bool,
    /// lameduck is root without CAP_KILL, and can run the app as another user.
    pub cannot_signal_others: bool,
    /// Why connections of another process cannot be closed here, and what would permit it. None: they can, or it was not looked up.
    pub cannot_close: Option<String>,
    /// The files `cpu_request` and `memory_limit` in LAMEDUCK_PODINFO.
    pub podinfo_cpu: Option<Figure>,
    pub podinfo_memory: Option<Figure>,
    pub cgroup: Cgroup,
    /// The main command, where it is a shell's script, as text, where somebody has looked.
    pub script: Option<String>,
    /// The number of CPUs that this process may run on.
    pub cpus: Option<usize>,
    /// The machine's memory in bytes.
    pub memory: Option<u64>,
}

/// Where a setting came from.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Source {
    Default(&'static str),
    /// It is known of the server that the command's words name.
    Known(&'static Server),
    Option(String),
    Variable(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Source::Default("") => f.write_str("default"),
            Source::Default(why) => write!(f, "default: {why}"),
            Source::Known(server) => write!(f, "auto: {}; {}", server.name, server.why),
            Source::Option(name) | Source::Variable(name) => f.write_str(name),
        }
    }
}

/// A setting as `lameduck plan` shows it.
#[derive(Clone, Debug)]
pub struct Setting {
    pub name: &'static str,
    pub value: String,
    pub source: Source,
}

#[derive(Clone, Debug)]
pub struct Plan {
    /// The main command first, then its companions in the order in which they are started. Never empty.
    pub services: Vec<Service>,
    /// Commands that run to their end before the services start.
    pub before_commands: Vec<BeforeCommand>,
    /// Commands that run at the stop signal.
    pub on_stop: Vec<Vec<OsString>>,
    /// The variables that are added to the environment of those commands.
    pub helper_env: Vec<(String, String)>,
    pub timing: Timing,
    /// Where the grace period came from.
    pub grace_from: Source,
    pub rules: Rules,
    pub ports: Vec<u16>,
    pub keep_alive: KeepAlive,
    /// Why kept-alive connections cannot be closed here, and what would permit it. None: they can, or it was not looked up.
    pub cannot_close: Option<String>,
    /// `--in-flight`.
    pub in_flight: Option<Question>,
    /// For `lameduck drain`. `strict`: say by the exit code whether it drained. `stop`: send PID 1 its stop signal.
    pub strict: bool,
    pub stop: bool,
    pub rule: StopRule,
    pub group: bool,
    pub success: Vec<u8>,
    pub size: Size,
    pub before: Before,
    pub outside: Outside,
    pub termination_log: Option<PathBuf>,
    pub log_level: tracing::Level,
    pub log_format: Format,
    pub settings: Vec<Setting>,
    pub warnings: Vec<String>,
}

impl Plan {
    /// The main command.
    pub fn main(&self) -> &Service {
        &self.services[0]
    }

    /// Whether there are companions.
    pub fn has_companions(&self) -> bool {
        self.services.len() > 1
    }
}

/// Why there is no plan: one line for a person, without lameduck's name before it.
#[derive(Debug, Eq, PartialEq)]
pub enum Refused {
    Usage(String),
    BadFile(String),
}

type Result<T> = std::result::Result<T, Refused>;

/// A value as it was written, and where.
struct Given {
    text: String,
    source: Source,
}

impl Given {
    fn cannot(&self, what: &str, why: &str) -> Refused {
        Refused::Usage(format!("cannot read {what} {:?} from {}: {why}", self.text, self.source))
    }
}

/// Variables of lameduck that are no option.
const VARIABLES: &[&str] = &[size::CPU_MILLIS, size::MEMORY_LIMIT, "LAMEDUCK_PODINFO", "LAMEDUCK_WORKERS"];

pub fn variable(option: &str) -> String {
    format!("LAMEDUCK_{}", option.to_ascii_uppercase().replace('-', "_"))
}

struct Reader<'a> {
    env: &'a Env,
    settings: Vec<Setting>,
}

impl Reader<'_> {
    /// The option if it was typed, otherwise its variable. None: neither is set.
    fn given(&self, option: &str, typed: Option<&str>) -> Result<Option<Given>> {
        if let Some(text) = typed {
            return Ok(Some(Given { text: text.to_owned(), source: Source::Option(format!("--{option}")) }));
        }
        let name = variable(option);
        let Some(value) = self.env.get(&name) else { return Ok(None) };
        let text = value.to_str().ok_or_else(|| Refused::Usage(format!("cannot read {name}: not UTF-8; write plain text")))?;
        Ok(Some(Given { text: text.to_owned(), source: Source::Variable(name) }))
    }

    fn show(&mut self, name: &'static str, value: impl ToString, source: Source) {
        self.settings.push(Setting { name, value: value.to_string(), source });
    }

    fn duration(&self, name: &'static str, typed: &Option<String>) -> Result<Option<(Duration, Source)>> {
        let Some(given) = self.given(name, typed.as_deref())? else { return Ok(None) };
        let length = parse_duration(&given.text).map_err(|why| given.cannot(&name.replace('-', " "), why))?;
        Ok(Some((length, given.source)))
    }

    fn list<T>(
        &mut self,
        name: &'static str,
        typed: &[String],
        what: &str,
        read: impl Fn(&str) -> std::result::Result<T, &'static str>,
    ) -> Result<Vec<T>> {
        let joined = if typed.is_empty() { None } else { Some(typed.join(",")) };
        let Some(given) = self.given(name, joined.as_deref())? else { return Ok(Vec::new()) };
        let each = |text: &str| {
            let given = Given { text: text.to_owned(), source: given.source.clone() };
            read(text).map_err(|why| given.cannot(what, why))
        };
        let values = given.text.split(',').map(|text| each(text.trim())).collect::<Result<Vec<T>>>()?;
        self.show(name, given.text.clone(), given.source.clone());
        Ok(values)
    }

    fn number<T: FromStr>(&mut self, name: &'static str, typed: &Option<String>) -> Result<Option<T>> {
        let Some(given) = self.given(name, typed.as_deref())? else { return Ok(None) };
        let number = given.text.parse().map_err(|_| given.cannot(&name.replace('-', " "), "not a whole number in range"))?;
        self.show(name, given.text.clone(), given.source.clone());
        Ok(Some(number))
    }
}

pub fn plan(verb: Verb, args: &Args, env: &Env, facts: &Facts) -> Result<Plan> {
    for (name, typed) in [("strict", args.drain.strict), ("stop", args.drain.stop)] {
        if typed && verb != Verb::Drain {
            return Err(Refused::Usage(format!("cannot use --{name}: it belongs to lameduck drain; write drain before it")));
        }
    }
    let without_command = match verb {
        Verb::Drain => Some("drain a command: lameduck drain waits for what runs already"),
        Verb::Health | Verb::Status => Some("ask a command: lameduck health and lameduck status ask the lameduck that runs"),
        Verb::Exec | Verb::Install | Verb::Plan | Verb::Run => None,
    };
    if let Some(what) = without_command.filter(|_| !args.app.command.is_empty()) {
        return Err(Refused::Usage(format!("cannot {what}; leave the command out")));
    }
    if matches!(verb, Verb::Drain | Verb::Exec) {
        let options = [("with", !args.services.with.is_empty()), ("on-stop", !args.services.on_stop.is_empty())];
        let before = ("before", verb == Verb::Drain && !args.services.before.is_empty());
        if let Some((name, _)) = options.into_iter().chain([before]).find(|(_, typed)| *typed) {
            return Err(Refused::Usage(format!(
                "cannot use --{name} here: it needs a lameduck that stays; leave out the word {} before the options",
                if verb == Verb::Exec { "exec" } else { "drain" }
            )));
        }
    }
    let mut reader = Reader { env, settings: Vec::new() };
    let mut warnings = unknown_variables(env);
    let in_kubernetes = env.get("KUBERNETES_SERVICE_HOST").is_some();
    let words: Vec<String> = args.app.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let server = servers::recognise(&words);

    let (timing, grace_from) = timing(&mut reader, args, in_kubernetes)?;
    let rules = rules(&mut reader, args, timing.idle_after)?;
    let ports = reader.list("port", &args.traffic.port, "port", |text| match text.parse::<u16>() {
        Ok(port) if port > 0 && text.bytes().all(|b| b.is_ascii_digit()) => Ok(port),
        _ => Err("not a port (try 8080)"),
    })?;

    let keep_alive = match reader.given("keep-alive", args.shutdown.keep_alive.as_deref())? {
        Some(given) => {
            let keep_alive = match given.text.as_str() {
                "auto" => KeepAlive::Auto,
                "close" => KeepAlive::Close,
                "wait" => KeepAlive::Wait,
                _ => return Err(given.cannot("keep-alive", "not auto, close or wait")),
            };
            reader.show("keep-alive", &given.text, given.source);
            keep_alive
        }
        None => {
            reader.show("keep-alive", "auto", Source::Default(""));
            KeepAlive::Auto
        }
    };
    let in_flight = match reader.given("in-flight", args.traffic.in_flight.as_deref())? {
        Some(given) => {
            let question = Question::parse(&given.text).map_err(|why| given.cannot("in flight", why))?;
            reader.show("in-flight", &given.text, given.source);
            Some(question)
        }
        None => None,
    };

    let stop_signal = match reader.given("stop-signal", args.signals.stop_signal.as_deref())? {
        Some(given) if given.text != "auto" => {
            let signal = Signal::parse(&given.text).map_err(|why| given.cannot("stop signal", why))?;
            if !signal.is_forwarded() {
                return Err(given.cannot("stop signal", "it cannot be handled by the app; TERM is the default"));
            }
            reader.show("stop-signal", signal, given.source);
            Some(signal)
        }
        _ => {
            match server {
                Some(server) => reader.show("stop-signal", joined(server.stop), Source::Known(server)),
                None => reader.show("stop-signal", "TERM", Source::Default("auto: not known yet; what then runs decides")),
            }
            None
        }
    };
    let rule = stop_rule(&mut reader, args, server, stop_signal, facts.terminal)?;
    let group = flag(&mut reader, "group", args.signals.group)?;
    let success =
        reader.list("success-code", &args.signals.success_code, "exit code", |text| text.parse().map_err(|_| "not 0 to 255"))?;

    let size = size::size(&mut reader, args, facts, &mut warnings)?;
    let mut services = services::services(&mut reader, args, server, &words, &size)?;
    let before_commands = services::before(&mut reader, args)?;
    let on_stop = services::on_stop(&mut reader, args)?;

    let (before, command) = before::before(&mut reader, args, &size, &services[0].child_env)?;
    services[0].command = command;

    let outside = outside::outside(&mut reader, args, verb, in_kubernetes)?;

    let termination_log = match reader.given("termination-log", args.reporting.termination_log.as_deref())? {
        Some(given) => {
            reader.show("termination-log", &given.text, given.source);
            Some(PathBuf::from(given.text))
        }
        None if facts.termination_log => Some(TERMINATION_LOG.into()),
        None => None,
    };
    let log_level = log_level(&mut reader, args, verb)?;
    let log_format = match reader.given("log-format", args.reporting.log_format.as_deref())? {
        Some(given) => {
            let format = Format::parse(&given.text);
            let format = format.ok_or_else(|| given.cannot("log format", "not text, json, logfmt or ltsv"))?;
            reader.show("log-format", &given.text, given.source);
            format
        }
        None => Format::Text,
    };
    let script = script::inline(&words).or(facts.script.as_deref());
    warnings.extend(script.and_then(script::hint).filter(|_| services.len() == 1 && verb != Verb::Drain));
    // The app of a hook runs already; `lameduck drain` reports whom it could not signal.
    if facts.cannot_signal_others && verb != Verb::Drain {
        warnings.push(
            "cannot signal an app that changes its user: CAP_KILL is missing; add the capability KILL, or run lameduck as the app's user".to_owned(),
        );
    }
    Ok(Plan {
        helper_env: size.gain(env, None, &[], false),
        services,
        before_commands,
        on_stop,
        timing,
        grace_from,
        rules,
        ports,
        keep_alive,
        cannot_close: facts.cannot_close.clone(),
        in_flight,
        strict: verb == Verb::Drain && flag(&mut reader, "strict", args.drain.strict)?,
        stop: verb == Verb::Drain && flag(&mut reader, "stop", args.drain.stop)?,
        rule,
        group,
        success,
        size,
        before,
        outside,
        termination_log,
        log_level,
        log_format,
        settings: reader.settings,
        warnings,
    })
}

/// Divides the one budget: lame duck + drain ≤ grace − stop timeout − margin. Explicit values must fit, defaults shrink. Returns where the
/// grace period came from, too.
fn timing(reader: &mut Reader<'_>, args: &Args, in_kubernetes: bool) -> Result<(Timing, Source)> {
    const SHORTEST: Duration = Duration::from_secs(1);
    let grace_given = reader.duration("grace-period", &args.shutdown.grace_period)?;
    let delay_given = reader.duration("delay", &args.shutdown.delay)?;
    let stop_given = reader.duration("stop-timeout", &args.shutdown.stop_timeout)?;
    let (grace, grace_source) = grace_given.unwrap_or(match in_kubernetes {
        true => (Duration::from_secs(30), Source::Default("Kubernetes' own")),
        false => (Duration::from_secs(10), Source::Default("Docker, podman and Compose kill after 10s")),
    });
    if grace < SHORTEST {
        return Err(Refused::Usage(format!(
            "cannot use grace period {} from {grace_source}: shorter than 1s; nothing could be drained",
            Show(grace)
        )));
    }
    let margin = Timing::margin(grace);
    let room = grace.saturating_sub(margin);
    let asked = |given: &Option<(Duration, Source)>| given.as_ref().map_or(Duration::ZERO, |(length, _)| *length);
    if asked(&delay_given) + asked(&stop_given) + margin > grace {
        let mut sum = String::new();
        for (name, given) in [("delay", &delay_given), ("stop timeout", &stop_given)] {
            if let Some((length, source)) = given {
                let _ = write!(sum, "{name} {} ({source}) + ", Show(*length));
            }
        }
        return Err(Refused::Usage(format!(
            "cannot fit the shutdown into its budget: {sum}margin {} > grace period {} ({grace_source}); shorten the one or lengthen the other",
            Show(margin),
            Show(grace),
        )));
    }
    let (stop_timeout, stop_source) = stop_given.unwrap_or_else(|| {
        let usual = (grace / 3).min(Duration::from_secs(10));
        let left = room.saturating_sub(asked(&delay_given));
        (
            usual.min(left),
            Source::Default(if usual > left { "what the delay leaves" } else { "a third of the grace period, at most 10s" }),
        )
    });
    let wait = room.saturating_sub(stop_timeout);
    let is_given = delay_given.is_some();
    let (delay, delay_source) = delay_given.unwrap_or_else(|| {
        let usual = Duration::from_secs(5);
        if usual > wait / 2 {
            (wait / 2, Source::Default("half of what the grace period leaves"))
        } else {
            (usual, Source::Default(""))
        }
    });
    let (quiet, quiet_source) =
        reader.duration("quiet-period", &args.shutdown.quiet_period)?.unwrap_or((Duration::from_secs(1), Source::Default("")));
    let (idle_after, idle_source) =
        reader.duration("idle-after", &args.traffic.idle_after)?.unwrap_or((Duration::from_secs(1), Source::Default("")));
    let drain_given = reader.given("drain", args.shutdown.drain.as_deref())?;
    let (drain, drain_source) = match drain_given {
        None => (Drain::Requests, Source::Default("")),
        Some(given) => {
            let drain = match given.text.as_str() {
                "requests" => Drain::Requests,
                "connections" => Drain::Connections,
                "off" => Drain::Off,
                _ => return Err(given.cannot("drain", "not requests, connections or off")),
            };
            (drain, given.source)
        }
    };
    reader.show("grace-period", Show(grace), grace_source.clone());
    reader.show("delay", Show(delay), delay_source);
    reader.show("quiet-period", Show(quiet), quiet_source);
    reader.show("stop-timeout", Show(stop_timeout), stop_source);
    reader.show("margin", Show(margin), Source::Default("a tenth of the grace period, 500ms to 2s"));
    reader.show("drain", drain_name(drain), drain_source);
    reader.show("idle-after", Show(idle_after), idle_source);
    Ok((Timing { grace, delay, delay_given: is_given, quiet, stop_timeout, idle_after, drain }, grace_source))
}

fn joined(signals: &[Signal]) -> String {
    signals.iter().map(ToString::to_string).collect::<Vec<_>>().join(", then ")
}

fn drain_name(drain: Drain) -> &'static str {
    match drain {
        Drain::Requests => "requests",
        Drain::Connections => "connections",
        Drain::Off => "off",
    }
}

fn rules(reader: &mut Reader<'_>, args: &Args, idle_after: Duration) -> Result<Rules> {
    let max_silence = reader.duration("max-silence", &args.traffic.max_silence)?;
    match &max_silence {
        Some((length, source)) => reader.show("max-silence", Show(*length), source.clone()),
        None => reader.show("max-silence", "none", Source::Default("10s for half-closed connections")),
    }
    let ignored = reader.list("ignore-peer", &args.traffic.ignore_peer, "peer", Network::parse)?;
    Ok(Rules { idle_after, max_silence: max_silence.map(|(length, _)| length), ignored })
}

fn stop_rule(
    reader: &mut Reader<'_>,
    args: &Args,
    server: Option<&'static Server>,
    stop_signal: Option<Signal>,
    terminal: bool,
) -> Result<StopRule> {
    let mut rule = StopRule { stop_on: StopOn::Auto, stop_signal, rewrites: Vec::new(), terminal };
    let typed = if args.signals.stop_on.is_empty() { None } else { Some(args.signals.stop_on.join(",")) };
    match reader.given("stop-on", typed.as_deref())?.filter(|given| given.text != "auto") {
        None => reader.show("stop-on", rule.known(server), Source::Default("auto")),
        Some(given) => {
            let mut set = SignalSet::default();
            for text in given.text.split(',') {
                let one = Given { text: text.trim().to_owned(), source: given.source.clone() };
                let signal = Signal::parse(&one.text).map_err(|why| one.cannot("stop-on signal", why))?;
                if !signal.is_forwarded() {
                    return Err(one.cannot("stop-on signal", "it cannot be caught or is never forwarded"));
                }
                set.insert(signal);
            }
            reader.show("stop-on", set, given.source);
            rule.stop_on = StopOn::Given(set);
        }
    }
    let stopping = rule.known(server);
    let rewrites = reader.list("rewrite", &args.signals.rewrite, "rewrite", Rewrite::parse)?;
    for (index, rewrite) in rewrites.iter().enumerate() {
        if stopping.contains(rewrite.from) {
            return Err(Refused::Usage(format!(
                "cannot rewrite {0}: it begins the shutdown and is not forwarded; use --stop-signal to choose what the app is sent",
                rewrite.from
            )));
        }
        if rewrites[..index].iter().any(|before| before.from == rewrite.from && before.to != rewrite.to) {
            return Err(Refused::Usage(format!("cannot rewrite {} twice: the two contradict; give one", rewrite.from)));
        }
    }
    rule.rewrites = rewrites;
    Ok(rule)
}

fn flag(reader: &mut Reader<'_>, name: &'static str, typed: bool) -> Result<bool> {
    if typed {
        reader.show(name, "on", Source::Option(format!("--{name}")));
        return Ok(true);
    }
    let Some(given) = reader.given(name, None)? else { return Ok(false) };
    let on = match given.text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => true,
        "0" | "false" | "no" | "off" => false,
        _ => return Err(given.cannot(name, "not true or false")),
    };
    reader.show(name, if on { "on" } else { "off" }, given.source);
    Ok(on)
}

fn log_level(reader: &mut Reader<'_>, args: &Args, verb: Verb) -> Result<tracing::Level> {
    let Some(given) = reader.given("log-level", args.reporting.log_level.as_deref())? else {
        // A hook prints its one line, and warnings.
        return Ok(if verb == Verb::Drain { tracing::Level::WARN } else { tracing::Level::INFO });
    };
    let level = match given.text.as_str() {
        "error" => tracing::Level::ERROR,
        "warn" => tracing::Level::WARN,
        "info" => tracing::Level::INFO,
        "debug" => tracing::Level::DEBUG,
        _ => return Err(given.cannot("log level", "not error, warn, info or debug")),
    };
    reader.show("log-level", &given.text, given.source);
    Ok(level)
}

fn unknown_variables(env: &Env) -> Vec<String> {
    // The list of options is only made if there is a name to look up.
    let ours: Vec<&str> = env.names().filter(|name| name.starts_with("LAMEDUCK_") && !VARIABLES.contains(name)).collect();
    if ours.is_empty() {
        return Vec::new();
    }
    let mut known: Vec<String> = cli::option_names().iter().map(|option| variable(option)).collect();
    known.extend(VARIABLES.iter().map(|name| (*name).to_owned()));
    ours.into_iter()
        .filter(|name| !known.iter().any(|known| known == name))
        .map(|name| {
            let near = spelling::nearest(name, known.iter().map(String::as_str)).map_or("", |(near, _)| near);
            format!("{name} is no setting and was ignored; did you mean {near}?")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn made(options: &[&str], variables: &[(&str, &str)]) -> Result<Plan> {
        with(options, variables, &Facts::default())
    }

    pub fn with(options: &[&str], variables: &[(&str, &str)], facts: &Facts) -> Result<Plan> {
        let words: Vec<OsString> = options.iter().map(OsString::from).collect();
        let (verb, args) = cli::parse(&words).unwrap();
        plan(verb, &args, &Env::new(variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value)))), facts)
    }

    pub fn refused(options: &[&str], variables: &[(&str, &str)]) -> String {
        let Refused::Usage(error) = made(options, variables).unwrap_err() else { panic!("a bad file") };
        assert!(error.starts_with("cannot ") && !error.contains('\n'), "{error}");
        error
    }

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn readiness_at_the_stop_by_default() {
        let kubernetes = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");
        let pass = |options: &[&str], variables: &[(&str, &str)]| {
            made(&[options, &["--admin", ":1", "x"]].concat(), variables).unwrap().outside.pass_on_stop
        };
        assert!(pass(&[], &[kubernetes]) && pass(&["--readyz-on-stop", "auto"], &[kubernetes]));
        assert!(!pass(&[], &[]) && !pass(&["--readyz-on-stop", "auto"], &[]));
        assert!(!pass(&["--readyz-on-stop", "fail"], &[kubernetes]) && pass(&["--readyz-on-stop", "pass"], &[]));
        assert!(!pass(&[], &[kubernetes, ("LAMEDUCK_READYZ_ON_STOP", "fail")]));
    }

    #[test]
    fn defaults_shrink_to_fit() {
        let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        let t = made(&["x"], &[]).unwrap().timing;
        assert_eq!((t.grace, t.until_kill()), (10 * S, 9 * S), "as docker stop");
        let t = made(&["x"], &kubernetes).unwrap().timing;
        assert_eq!((t.grace, t.delay, t.stop_timeout, t.until_sent(), t.until_kill()), (30 * S, 5 * S, 10 * S, 18 * S, 28 * S));
        let t = made(&["--grace-period", "5s", "x"], &[]).unwrap().timing;
        assert_eq!(Timing::margin(t.grace), S / 2);
        assert!(t.delay + t.stop_timeout + Timing::margin(t.grace) <= t.grace, "{t:?}");
        let t = made(&["--grace-period", "10s", "--delay", "8s", "x"], &[]).unwrap().timing;
        assert_eq!((t.delay, t.stop_timeout), (8 * S, S), "the default gives way");
        for grace in 1..=120 {
            let t = made(&["--grace-period", &grace.to_string(), "x"], &[]).unwrap().timing;
            assert!(t.delay <= t.until_sent() && t.until_sent() + t.stop_timeout <= t.until_kill(), "{t:?}");
        }
    }

    #[test]
    fn what_was_asked_for_and_does_not_fit_is_refused_with_the_arithmetic() {
        let kubernetes = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
        let error = refused(&["--delay", "15s", "--stop-timeout", "14s", "x"], &kubernetes);
        assert!(
            error.contains("delay 15s (--delay) + stop timeout 14s (--stop-timeout) + margin 2s > grace period 30s"),
            "{error}"
        );
        let error = refused(&["--grace-period", "20s", "x"], &[("LAMEDUCK_DELAY", "19s")]);
        assert!(error.contains("delay 19s (LAMEDUCK_DELAY) + margin 2s > grace period 20s (--grace-period)"), "{error}");
        refused(&["--grace-period", "0", "x"], &[]);
        made(&["--delay", "14s", "--stop-timeout", "14s", "x"], &kubernetes).unwrap();
        let error = refused(&["--delay", "9500ms", "x"], &[]);
        assert!(error.contains("grace period 10s (default: Docker, podman and Compose kill after 10s)"), "{error}");
    }

    #[test]
    fn options_over_variables_over_defaults() {
        let delay = |options: &[&str], variables: &[(&str, &str)]| made(options, variables).unwrap().timing.delay;
        assert_eq!(delay(&["--delay", "1s", "x"], &[("LAMEDUCK_DELAY", "2s")]), S);
        assert_eq!(delay(&["x"], &[("LAMEDUCK_DELAY", "2s")]), 2 * S);
        assert_eq!(delay(&["--grace-period", "30s", "x"], &[("LAMEDUCK_DELAY", "")]), 5 * S);
        let plan =
            made(&["x"], &[("LAMEDUCK_PORT", "80, 8080"), ("LAMEDUCK_GROUP", "true"), ("LAMEDUCK_SUCCESS_CODE", "3,4")]).unwrap();
        assert_eq!((plan.ports, plan.group, plan.success), (vec![80, 8080], true, vec![3, 4]));
    }

    #[test]
    fn bad_values_name_what_where_and_what_to_do() {
        for (options, variables, part) in [
            (
                &["x"][..],
                &[("LAMEDUCK_CPU_REQUEST", "0.5.0")][..],
                "cannot read CPU request \"0.5.0\" from LAMEDUCK_CPU_REQUEST: not a Kubernetes quantity (try 500m or 2)",
            ),
            (&["x"], &[("LAMEDUCK_CPU_REQUEST_MILLIS", "1.5")], "from LAMEDUCK_CPU_REQUEST_MILLIS"),
            (&["--delay", "5 s", "x"], &[], "cannot read delay \"5 s\" from --delay"),
            (&["--stop-signal", "TREM", "x"], &[], "--stop-signal"),
            (&["--stop-signal", "KILL", "x"], &[], "--stop-signal"),
            (&["--stop-on", "TERM,33", "x"], &[], "--stop-on"),
            (&["--port", "0", "x"], &[], "cannot read port \"0\" from --port"),
            (&["--port", "70000", "x"], &[], "--port"),
            (&["--ignore-peer", "10.0.0/8", "x"], &[], "cannot read peer \"10.0.0/8\" from --ignore-peer"),
            (&["--rewrite", "TERM:QUIT", "x"], &[], "--stop-signal"),
            (&["--rewrite", "QUIT:TERM", "nginx"], &[], "--stop-signal"),
            (&["--rewrite", "HUP:USR1,HUP:USR2", "x"], &[], "twice"),
            (&["--workers-min", "4", "--workers-max", "2", "x"], &[], "--workers-min 4 > --workers-max 2"),
            (&["--drain", "all", "x"], &[], "--drain"),
            (&["--in-flight", "https://1.2.3.4/#x", "x"], &[], "cannot read in flight \"https://1.2.3.4/#x\" from --in-flight"),
            (&["--strict", "x"], &[], "it belongs to lameduck drain"),
            (&["exec", "--with", "a", "x"], &[], "cannot use --with here: it needs a lameduck that stays"),
            (&["drain", "--before", "a"], &[], "cannot use --before here"),
            (&["drain", "x"], &[], "leave the command out"),
            (&["--success-code", "256", "x"], &[], "--success-code"),
            (&["--log-level", "loud", "x"], &[], "--log-level"),
            (&["--workers-env", "A-B", "x"], &[], "--workers-env"),
            (&["--heap", "all", "x"], &[], "cannot read heap \"all\" from --heap: neither auto nor a percentage"),
            (&["x"], &[("LAMEDUCK_HEAP", "101")], "cannot read heap \"101\" from LAMEDUCK_HEAP: neither auto nor a percentage"),
            (&["--worker-memory", "1x", "x"], &[], "cannot read worker memory \"1x\" from --worker-memory: not bytes"),
            (
                &["--memory-reserve", "2Gi", "x"],
                &[("LAMEDUCK_MEMORY_LIMIT", "1Gi")],
                "--memory-reserve 2147483648 > memory limit 1073741824",
            ),
            (&["x"], &[("LAMEDUCK_MEMORY_LIMIT", "lots")], "from LAMEDUCK_MEMORY_LIMIT"),
            (&["--template", "a", "x"], &[], "cannot read template \"a\" from --template: not SRC:DST"),
            (&["--wait-for", "db:5432", "x"], &[], "cannot read what to wait for \"db:5432\" from --wait-for"),
            (&["--wait-timeout", "x", "x"], &[], "--wait-timeout"),
            (&["--umask", "8", "x"], &[], "--umask"),
            (&["--umask", "01000", "x"], &[], "--umask"),
            (&["--nofile", "0", "x"], &[], "--nofile"),
            (&["--user", "", "x"], &[], "--user"),
            (&["--expand-args", "x", "${NONE}"], &[], "cannot expand word 2 of the command, \"${NONE}\": NONE is not set"),
            (&["x"], &[("LAMEDUCK_GROUP", "perhaps")], "LAMEDUCK_GROUP"),
        ] {
            let error = refused(options, variables);
            assert!(error.contains(part), "{error}");
        }
        made(&["--rewrite", "QUIT:TERM", "x"], &[]).unwrap();
    }

    #[test]
    fn an_unknown_variable_is_a_warning_that_suggests_the_nearest() {
        let warnings = made(&["x"], &[("LAMEDUCK_GRACE_PERIODS", "5s"), ("KUBERNETES_SERVICE_HOST", "x")]).unwrap().warnings;
        assert_eq!(warnings, ["LAMEDUCK_GRACE_PERIODS is no setting and was ignored; did you mean LAMEDUCK_GRACE_PERIOD?"]);
        let links = [
            ("LAMEDUCK_PORT", "tcp://10.96.0.1:80"),
            ("LAMEDUCK_SERVICE_HOST", "10.96.0.1"),
            ("LAMEDUCK_SERVICE_PORT_HTTP", "80"),
            ("LAMEDUCK_PORT_80_TCP", "tcp://10.96.0.1:80"),
            ("LAMEDUCK_PORT_80_TCP_PROTO", "tcp"),
            ("LAMEDUCK_ADMIN_SERVICE_HOST", "10.96.0.2"),
            ("LAMEDUCK_ADMIN_PORT", "udp://10.96.0.2:53"),
            ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ];
        let plan = made(&["x"], &links).unwrap();
        assert_eq!((plan.ports, plan.warnings), (vec![], vec![]), "a Service of our name");
        let named = made(&["x"], &[("LAMEDUCK_PORT", "80"), ("LAMEDUCK_SERVICE_HOST", "10.96.0.1")]).unwrap();
        assert_eq!(named.ports, [80], "a setting beside it");
        let typed = made(&["x"], &[("LAMEDUCK_PORTS", "80"), ("KUBERNETES_SERVICE_HOST", "x")]).unwrap().warnings;
        assert!(typed[0].contains("did you mean LAMEDUCK_PORT?"), "{typed:?}");
    }
}
