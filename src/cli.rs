//! What was typed: one field per flag, its doc is its help. What it means is `plan`'s.

use std::ffi::OsString;

use clap::{Arg, Args as _, Command, FromArgMatches};

use crate::core::spelling;

const EXAMPLES: &str = "\
Commands:
  lameduck [OPTIONS] [--] COMMAND [ARG]...    supervise COMMAND
  lameduck drain [OPTIONS]                    the preStop command, where PID 1 is something else:
                                              wait until the traffic has drained, say so in one line
  lameduck exec [OPTIONS] [--] COMMAND...     prepare, then become COMMAND by execve
  lameduck plan [OPTIONS] [[--] COMMAND...]   say what would happen and why; start nothing
  lameduck health [--live]                    exit 0 if ready (or alive), else 1: HEALTHCHECK
  lameduck status                             what /status knows, drawn for a person
  lameduck install PATH                       copy this binary to a file or into a directory: for
                                              an init container whose image is FROM scratch
  lameduck help [drain|exec|...]              this, or what applies to one of them

Every option is also a variable: --grace-period is LAMEDUCK_GRACE_PERIOD. The option wins; an empty
variable counts as unset; what can be repeated is separated by commas there. Durations: 500ms, 5s,
1m30s, or a bare number of seconds.

Examples:
  lameduck -- apache2-foreground
      In a container: ENTRYPOINT [\"lameduck\", \"--\"], and the image's own command as CMD.
  lameduck --grace-period 60s --delay 15s -- gunicorn app:app
      terminationGracePeriodSeconds: 60, behind a load balancer that is slow to notice.
  lameduck --workers-per-cpu 2 --workers-extra 1 -- gunicorn app:app
      WEB_CONCURRENCY from LAMEDUCK_CPU_REQUEST_MILLIS (Downward API, requests.cpu, divisor: 1m).
  lameduck --template /etc/fpm.tmpl:/run/fpm.conf --worker-memory 64Mi -- php-fpm -Fy /run/fpm.conf
      pm.max_children = ${LAMEDUCK_WORKERS}, by CPU request and memory limit.
  lameduck --wait-for tcp://db:5432 --user www-data -- uwsgi app.ini
      Waits for the database, then drops root: no gosu, no wait-for-it.
  lameduck --ignore-peer 10.0.0.1 -- php-fpm
      HTTP probes from the node do not hold up the stop.
  lameduck --in-flight 'http://127.0.0.1:9253/metrics#phpfpm_active_processes-1' -- php-fpm
      The app says how much it is working on; -1 because it counts the question too.
  lameduck --admin :9102 --ready http://127.0.0.1:8080/health -- catalina.sh run
      readinessProbe and livenessProbe on port 9102, and a /metrics for a server that has none.
  lameduck --with 'php-fpm -F' --wait-for unix:///run/php/php-fpm.sock -- nginx -g 'daemon off;'
      Two services in one container: nginx is stopped first, php-fpm when nginx has ended.
  lameduck drain --grace-period 60s --stop
      lifecycle.preStop.exec in an image whose ENTRYPOINT can't change.
  lameduck plan -- nginx -g 'daemon off;'

Exit codes: the app's own; 128+n if signal n killed it, but 0 if n is a stop signal that was sent;
137 if it had to be killed; 3 drain --strict and not drained; 64 usage, 69 --wait-for in vain, 70
internal, 78 a bad file, 126 found but cannot run, 127 not found.";

const ABOUT: &str = "\
The init that lets a server die well: on the stop signal the app serves on until no new connections come and nothing is in flight; then it \
gets the stop signal it understands as graceful; then SIGKILL, always inside one budget";

#[derive(Debug, Default, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub shutdown: Shutdown,

    #[command(flatten)]
    pub signals: Signals,

    #[command(flatten)]
    pub traffic: Traffic,

    #[command(flatten)]
    pub drain: Drain,

    #[command(flatten)]
    pub workers: Workers,

    #[command(flatten)]
    pub services: Services,

    #[command(flatten)]
    pub before: Before,

    #[command(flatten)]
    pub outside: Outside,

    #[command(flatten)]
    pub health: Health,

    #[command(flatten)]
    pub reporting: Reporting,

    #[command(flatten)]
    pub app: App,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Shutdown")]
pub struct Shutdown {
    /// The whole budget, from the stop signal to the end: set it to terminationGracePeriodSeconds [default: 30s in
    /// Kubernetes; 10s elsewhere, as docker stop, podman stop and Compose give]
    #[arg(long, value_name = "DURATION")]
    pub grace_period: Option<String>,

    /// Serve on at least this long after the stop signal, while endpoints propagate [default: 5s, at most half of what the grace
    /// period leaves]
    #[arg(long, value_name = "DURATION")]
    pub delay: Option<String>,

    /// And until no new connection came for this long; one that ended having sent nothing (a TCP probe) is none [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub quiet_period: Option<String>,

    /// Kept free of the grace period for the app's own stop [default: a third of it, at most 10s]
    #[arg(long, value_name = "DURATION")]
    pub stop_timeout: Option<String>,

    /// What to wait for: requests in flight, all connections to close, or nothing but the delay [default: requests]
    #[arg(long, value_name = "requests|connections|off")]
    pub drain: Option<String>,

    /// Kept-alive connections that clients go on using once nothing new comes: close each between two requests, or wait until they are at
    /// rest; auto is what loses least for the server that runs, its own stop or closing [default: auto]
    #[arg(long, value_name = "auto|close|wait")]
    pub keep_alive: Option<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Signals")]
pub struct Signals {
    /// What the app is sent; auto looks at what is really running, else TERM [default: auto]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,

    /// Signals that begin the shutdown; auto is TERM and the app's own graceful signal (repeatable) [default: auto]
    #[arg(long, value_name = "SIGNAL", value_delimiter = ',')]
    pub stop_on: Vec<String>,

    /// Forward one signal as another, by name or number; FROM:0 drops it (repeatable)
    #[arg(long, value_name = "FROM:TO", value_delimiter = ',')]
    pub rewrite: Vec<String>,

    /// Signal the app's process group instead of its main process
    #[arg(long)]
    pub group: bool,

    /// An exit code of the app to report as 0 (repeatable)
    #[arg(long, value_name = "CODE", value_delimiter = ',')]
    pub success_code: Vec<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Traffic")]
pub struct Traffic {
    /// Only these local ports count (repeatable) [default: those the app listens on]
    #[arg(long, value_name = "PORT", value_delimiter = ',')]
    pub port: Vec<String>,

    /// Addresses or CIDRs whose traffic does not count: probes, monitoring (repeatable)
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    pub ignore_peer: Vec<String>,

    /// A connection quiet this long, with its last answer sent, is idle; raise it for servers that think in silence after their
    /// first byte [default: 1s]
    #[arg(long, value_name = "DURATION")]
    pub idle_after: Option<String>,

    /// An unanswered connection on which no byte moved this long no longer counts, nor one to which the server pushes while its client is
    /// silent this long; 5s for HTTP/2, WebSocket and other multiplexed listeners [default: the whole time for waiting; 10s once the
    /// client has closed its side]
    #[arg(long, value_name = "DURATION")]
    pub max_silence: Option<String>,

    /// Ask the app how much is in flight: the sum of a metric's samples in Prometheus text, as in http://127.0.0.1:9117/metrics#busy;
    /// append -1 where the answer counts the question. The sockets decide as long as it does not answer [default: none]
    #[arg(long, value_name = "URL#METRIC")]
    pub in_flight: Option<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Drain (lameduck drain only)")]
pub struct Drain {
    /// Exit with 3 when time was up before it drained, instead of 0
    #[arg(long)]
    pub strict: bool,

    /// Then send PID 1 its graceful stop signal, since the kubelet's may be another, and wait for its end
    #[arg(long)]
    pub stop: bool,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Workers")]
pub struct Workers {
    /// The CPU request as a Kubernetes quantity: 1500m, 1.5, 2 [default: LAMEDUCK_CPU_REQUEST_MILLIS, then the file cpu_request in
    /// LAMEDUCK_PODINFO (/etc/podinfo), then the cgroup]
    #[arg(long, value_name = "QUANTITY")]
    pub cpu_request: Option<String>,

    /// Workers for each CPU; count = clamp(round-half-up(cpu x this) + extra) [default: 1]
    #[arg(long, value_name = "NUMBER")]
    pub workers_per_cpu: Option<String>,

    /// Workers to add to that [default: 0]
    #[arg(long, value_name = "COUNT", allow_negative_numbers = true)]
    pub workers_extra: Option<String>,

    /// Never fewer workers than this [default: 1]
    #[arg(long, value_name = "COUNT")]
    pub workers_min: Option<String>,

    /// Never more workers than this [default: none]
    #[arg(long, value_name = "COUNT")]
    pub workers_max: Option<String>,

    /// Bytes of memory that a worker needs, such as 256Mi: no more workers than (memory limit - reserve) / this. The limit is
    /// LAMEDUCK_MEMORY_LIMIT, the file memory_limit in LAMEDUCK_PODINFO, or the cgroup's [default: none]
    #[arg(long, value_name = "QUANTITY")]
    pub worker_memory: Option<String>,

    /// Bytes of the memory limit that are not the workers' [default: 0]
    #[arg(long, value_name = "QUANTITY")]
    pub memory_reserve: Option<String>,

    /// Make the heap fit into what the reserve leaves of the memory limit: a percentage of it, or auto for what is usual. Sets GOMEMLIMIT,
    /// JAVA_TOOL_OPTIONS, NODE_OPTIONS, DOTNET_GCHeapHardLimitPercent or, for Ruby, MALLOC_ARENA_MAX; never over what is set already
    /// [default: off]
    #[arg(long, value_name = "auto|PERCENT")]
    pub heap: Option<String>,

    /// Where the count goes, besides LAMEDUCK_WORKERS (repeatable) [default: the known server's own variable]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub workers_env: Vec<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Several services")]
pub struct Services {
    /// Run a companion beside the command: started before it, in the order given, and stopped after it, the last one first. When a companion
    /// ends by itself, the container ends; a - right before its name ('-crond -f') makes its end a warning. Words and quotes as in a
    /// shell, nothing is expanded (repeatable)
    #[arg(long, value_name = "COMMAND", allow_hyphen_values = true)]
    pub with: Vec<String>,

    /// Run a command to its end before any service starts; if it fails, nothing is started, and its exit code is ours. What --wait-for
    /// names to the left of it comes first (repeatable)
    #[arg(long, value_name = "COMMAND")]
    pub before: Vec<String>,

    /// Run a command at the stop signal, while the app serves on. The app gets its stop signal when it has ended, or when the time for
    /// waiting is up (repeatable)
    #[arg(long, value_name = "COMMAND")]
    pub on_stop: Vec<String>,

    /// For each --before, how many values of --wait-for stand to the left of it.
    #[arg(skip)]
    pub waits_before: Vec<usize>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Before the start")]
pub struct Before {
    /// Render SRC to DST before the start: ${NAME} and ${NAME:-default} by the app's environment, LAMEDUCK_WORKERS,
    /// LAMEDUCK_CPU_MILLIS and LAMEDUCK_MEMORY_BYTES; $${ is a literal ${, $name is left alone. Of a directory every *.tmpl
    /// (repeatable)
    #[arg(long, value_name = "SRC:DST", value_delimiter = ',')]
    pub template: Vec<String>,

    /// ${NAME} in the command's words too, as in templates
    #[arg(long)]
    pub expand_args: bool,

    /// Start the command only when this accepts connections, or answers 2xx: tcp://host:port, unix:///path, http://host/path; companions
    /// run already (repeatable)
    #[arg(long, value_name = "URL", value_delimiter = ',')]
    pub wait_for: Vec<String>,

    /// Give up waiting after this long, and exit with 69 [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub wait_timeout: Option<String>,

    /// Run the app as this user, by name or number, with the supplementary groups of /etc/group or with GROUP alone, and HOME set
    /// to its home [default: ours]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,

    /// Run the app in this directory [default: ours]
    #[arg(long, value_name = "DIRECTORY")]
    pub chdir: Option<String>,

    /// The app's mask for new files, in octal [default: ours]
    #[arg(long, value_name = "MASK")]
    pub umask: Option<String>,

    /// The app's limit of open files [default: ours]
    #[arg(long, value_name = "COUNT")]
    pub nofile: Option<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Seen from outside")]
pub struct Outside {
    /// Serve /livez, /readyz, /metrics and /status here: :9102 or 127.0.0.1:9102. lameduck health and lameduck status ask here
    /// [default: off; they ask 127.0.0.1:9102]
    #[arg(long, value_name = "ADDRESS")]
    pub admin: Option<String>,

    /// How /readyz asks the app when it is asked: http://host/path (2xx), tcp://host:port, unix:///path or exec:command (exit 0)
    /// [default: the app listens]
    #[arg(long, value_name = "URL")]
    pub ready: Option<String>,

    /// Requests to answer before the first ready: URL*50 for fifty of them, one after the other
    #[arg(long, value_name = "URL[*N]")]
    pub warm_up: Option<String>,

    /// What /readyz says while lame duck: fail, or pass on what the app says; auto is pass in Kubernetes, where kube-proxy falls back to
    /// terminating endpoints that still serve, and fail elsewhere [default: auto]
    #[arg(long, value_name = "auto|fail|pass")]
    pub readyz_on_stop: Option<String>,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Health (lameduck health only)")]
pub struct Health {
    /// Whether it is alive instead of ready
    #[arg(long)]
    pub live: bool,
}

#[derive(Debug, Default, clap::Args)]
#[command(next_help_heading = "Reporting")]
pub struct Reporting {
    /// One line on how it ended is written here [default: /dev/termination-log if it exists]
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<String>,

    /// text, json, logfmt or ltsv, on stderr [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,

    /// error, warn, info or debug [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<String>,

    /// Print this help
    #[arg(long, short)]
    pub help: bool,

    /// Print the version
    #[arg(long, short = 'V')]
    pub version: bool,
}

#[derive(Debug, Default, clap::Args)]
pub struct App {
    /// The app and its arguments; options end at the first word that is not one
    #[arg(trailing_var_arg = true, value_name = "COMMAND", hide = true)]
    pub command: Vec<OsString>,
}

/// The first word, where it is a command of ours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verb {
    Drain,
    Exec,
    Health,
    Install,
    Plan,
    Run,
    Status,
}

/// A command of ours, and what its own help shows.
struct Listed {
    name: &'static str,
    verb: Verb,
    usage: &'static str,
    about: &'static str,
    /// The options under these headings apply to it,
    headings: &'static [&'static str],
    /// and these.
    options: &'static [&'static str],
}

const VERBS: [Listed; 6] = [
    Listed {
        name: "drain",
        verb: Verb::Drain,
        usage: "lameduck drain [OPTIONS]",
        about: "The preStop command, where PID 1 is something else: waits until the traffic has drained, says so in one line, and exits. \
                The app must be in the same container",
        headings: &["Shutdown", "Traffic", "Drain (lameduck drain only)"],
        options: &["stop-signal", "log-format", "log-level"],
    },
    Listed {
        name: "exec",
        verb: Verb::Exec,
        usage: "lameduck exec [OPTIONS] [--] COMMAND [ARG]...",
        about: "Prepares as lameduck itself does, then becomes COMMAND by execve: the same pid, and nothing of lameduck is left",
        headings: &["Workers", "Before the start"],
        options: &["termination-log", "log-format", "log-level"],
    },
    Listed {
        name: "health",
        verb: Verb::Health,
        usage: "lameduck health [--live] [--admin ADDRESS]",
        about: "Exits with 0 if the app is ready, or lameduck alive, else with 1 and a reason: for HEALTHCHECK",
        headings: &["Health (lameduck health only)"],
        options: &["admin"],
    },
    Listed {
        name: "install",
        verb: Verb::Install,
        usage: "lameduck install PATH",
        about: "Copies this binary to PATH, a file or a directory, executable for all: for an init container whose image is FROM scratch and \
                has no cp. It is written beside its place and renamed; what stands there is replaced",
        headings: &[],
        options: &[],
    },
    Listed {
        name: "plan",
        verb: Verb::Plan,
        usage: "lameduck plan [OPTIONS] [[--] COMMAND [ARG]...]",
        about: "Says what would happen, where each setting came from, and why; starts nothing. It takes every option",
        headings: &[
            "Shutdown",
            "Signals",
            "Traffic",
            "Workers",
            "Several services",
            "Before the start",
            "Seen from outside",
            "Reporting",
        ],
        options: &[],
    },
    Listed {
        name: "status",
        verb: Verb::Status,
        usage: "lameduck status [--admin ADDRESS]",
        about: "What a running lameduck's /status knows, drawn for a person",
        headings: &[],
        options: &["admin"],
    },
];

/// What the first word asks for. None: nothing at all.
pub fn verb(words: &[OsString]) -> Option<Verb> {
    let first = words.first()?;
    Some(VERBS.iter().find(|listed| first == listed.name).map_or(Verb::Run, |listed| listed.verb))
}

/// Reads the words after our own name. The error is one line, without our name before it.
pub fn parse(words: &[OsString]) -> Result<(Verb, Args), String> {
    match words.first().and_then(|first| first.to_str()) {
        Some("help") => {
            let verb = verb(&words[1..]).unwrap_or(Verb::Run);
            return Ok((verb, Args { reporting: Reporting { help: true, ..Reporting::default() }, ..Args::default() }));
        }
        Some("version") => {
            return Ok((Verb::Run, Args { reporting: Reporting { version: true, ..Reporting::default() }, ..Args::default() }));
        }
        _ => {}
    }
    let verb = verb(words).unwrap_or(Verb::Run);
    let words = if verb == Verb::Run { words } else { &words[1..] };
    let argv = [OsString::from("lameduck")].into_iter().chain(words.iter().cloned());
    let args = command().try_get_matches_from(argv).and_then(|matches| {
        let mut args = Args::from_arg_matches(&matches)?;
        let places = |option: &str| matches.indices_of(option).into_iter().flatten().collect::<Vec<_>>();
        let waits = places("wait_for");
        let left_of = |before: usize| waits.iter().filter(|wait| **wait < before).count();
        args.services.waits_before = places("before").into_iter().map(left_of).collect();
        Ok(args)
    });
    args.map(|args| (verb, args)).map_err(|error| one_line(&error))
}

/// All that can be typed. Group by group: in one function their arguments would need 110 kB of stack, which not every container has.
fn command() -> Command {
    let command = Command::new("lameduck")
        .about(ABOUT)
        .after_help(EXAMPLES)
        .override_usage("lameduck [OPTIONS] [--] COMMAND [ARG]...")
        .disable_help_flag(true)
        .disable_version_flag(true);
    let groups: [fn(Command) -> Command; 11] = [
        Shutdown::augment_args,
        Signals::augment_args,
        Traffic::augment_args,
        Drain::augment_args,
        Workers::augment_args,
        Services::augment_args,
        Before::augment_args,
        Outside::augment_args,
        Health::augment_args,
        Reporting::augment_args,
        App::augment_args,
    ];
    groups.into_iter().fold(command, |command, augment| std::hint::black_box(augment)(command))
}

/// What applies to one of our commands.
fn command_of(listed: &Listed) -> Command {
    let applies = |argument: &Arg| {
        let listed_heading = argument.get_help_heading().is_some_and(|heading| listed.headings.contains(&heading));
        listed_heading || argument.get_long().is_some_and(|long| listed.options.contains(&long) || long == "help")
    };
    command()
        .mut_args(|argument| if applies(&argument) { argument } else { argument.hide(true) })
        .about(listed.about)
        .override_usage(listed.usage)
        .after_help("All options, examples and exit codes: lameduck --help")
}

/// All that can be typed, with each command of ours below it: for man pages and shell completions. `parse` reads the first word by itself.
pub fn reference() -> Command {
    let commands = VERBS.iter().map(|listed| command_of(listed).name(listed.name));
    command().version(env!("CARGO_PKG_VERSION")).subcommands(commands)
}

/// The reference, or what applies to one of our commands. Wrapped here: clap's own wrapping would bring a crate that asks the terminal.
pub fn help(verb: Verb) -> String {
    const WIDTH: usize = 100;
    let listed = VERBS.iter().find(|listed| listed.verb == verb);
    let text = listed.map_or_else(command, command_of).render_long_help().to_string();
    let mut wrapped = String::with_capacity(text.len() + 64);
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        // The examples at the end are set by hand.
        if line.len() <= WIDTH || indent < 8 && indent > 0 {
            wrapped.push_str(line);
            wrapped.push('\n');
            continue;
        }
        let mut column = 0;
        for word in line.split_whitespace() {
            if column > 0 && column + 1 + word.len() > WIDTH {
                wrapped.push('\n');
                column = 0;
            }
            let lead = if column == 0 { indent } else { 1 };
            wrapped.extend(std::iter::repeat_n(' ', lead));
            wrapped.push_str(word);
            column += lead + word.len();
        }
        wrapped.push('\n');
    }
    wrapped
}

/// The names of all options, without dashes.
pub fn option_names() -> Vec<String> {
    let command = command();
    command.get_arguments().filter_map(|argument| argument.get_long()).map(str::to_owned).collect()
}

/// Options of tini and dumb-init, and what to do here.
const OTHERS: [(&str, &str); 10] = [
    ("-g", "tini's -g is --group"),
    ("-s", "tini's -s is not needed: where it is not PID 1, lameduck is a subreaper"),
    ("-e", "tini's -e is --success-code"),
    ("-v", "for more in the log there is --log-level debug; for the version, --version"),
    ("-p", "tini's -p is not needed: lameduck ends with the container"),
    ("-w", "tini's -w is not needed: --log-level debug names each process that is reaped"),
    ("-l", "tini's -l shows its licence; ours is MIT or Apache-2.0"),
    ("-c", "dumb-init's -c is not needed: without --group only the main process gets signals"),
    ("--single-child", "dumb-init's --single-child is not needed: without --group only the main process gets signals"),
    ("-r", "dumb-init's -r is --rewrite"),
];

fn one_line(error: &clap::Error) -> String {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => texts.first().cloned(),
        _ => None,
    };
    let option = text(ContextKind::InvalidArg).unwrap_or_default();
    let option = option.split_whitespace().next().unwrap_or_default().to_owned();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let known = option_names();
            let near = spelling::nearest(option.trim_start_matches('-'), known.iter().map(String::as_str));
            if let Some((_, hint)) = OTHERS.iter().find(|(other, _)| option == *other) {
                return format!("cannot read option {option}: there is none of that name; {hint}");
            }
            // Half of the letters wrong is another word.
            let near = near.filter(|(near, letters)| option.starts_with("--") && letters * 2 < near.len());
            let hint = near.map_or("see lameduck --help".to_owned(), |(near, _)| format!("did you mean --{near}?"));
            format!("cannot read option {option}: there is none of that name; {hint}")
        }
        ErrorKind::ArgumentConflict => format!("cannot read option {option}: it was given twice; give it once"),
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::NoEquals
            if text(ContextKind::InvalidValue).is_none_or(|v| v.is_empty()) =>
        {
            format!("cannot read option {option}: it needs a value; see lameduck --help")
        }
        _ => {
            let first = error.to_string();
            let first = first.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            format!("cannot read the command line: {first}; see lameduck --help")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &[&str]) -> Vec<OsString> {
        text.iter().map(Into::into).collect()
    }

    #[test]
    fn the_app_s_own_flags_are_never_eaten() {
        for line in [&["ls", "-l", "--delay", "x"][..], &["--", "ls", "-l", "--delay", "x"]] {
            let (verb, args) = parse(&words(line)).unwrap();
            assert_eq!((verb, args.shutdown.delay), (Verb::Run, None));
            assert_eq!(args.app.command, words(&["ls", "-l", "--delay", "x"]));
        }
        let (_, args) = parse(&words(&["--delay", "1s", "ls", "--", "--help", "-V"])).unwrap();
        assert_eq!(args.app.command, words(&["ls", "--", "--help", "-V"]));
        assert!(!args.reporting.help && !args.reporting.version);
        assert_eq!(parse(&words(&["plan", "--delay=2s", "x"])).unwrap().0, Verb::Plan);
        assert_eq!(parse(&words(&["--", "plan"])).unwrap().1.app.command, words(&["plan"]));
    }

    #[test]
    fn errors_are_one_line_that_names_the_option() {
        for (line, part) in [
            (&["--dely", "5s", "x"][..], "--dely: there is none of that name; did you mean --delay?"),
            (&["--delay"], "--delay: it needs a value"),
            (&["--delay", "1s", "--delay", "2s", "x"], "--delay: it was given twice"),
            (&["-x"], "-x: there is none"),
            (&["--group=yes", "x"], "--group"),
        ] {
            let error = parse(&words(line)).unwrap_err();
            assert!(error.starts_with("cannot ") && error.contains(part) && !error.contains('\n'), "{error}");
        }
    }
}
