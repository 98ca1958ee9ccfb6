//! The whole rehearsal: every contender in every round, one after the other. Side by side they would take each other's CPU, and a
//! server that is slow because its rival runs is no finding.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::chaos::Chaos;
use crate::cli::{self, Plan, Server};
use crate::contender::Contender;
use crate::report::{self, Column, Report, Round, Settings, Verdict};
use crate::round::{Scene, Word};
use crate::{EMBEDDED, Refused, STAGE};

pub fn rehearse(words: &[OsString]) -> Result<ExitCode, Refused> {
    let args = cli::parse(words)?;
    if args.help {
        print!("{}", cli::help());
        return Ok(ExitCode::SUCCESS);
    }
    if args.version {
        println!("lameduck-rehearse {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    // Short enough to be typed again.
    let plan = cli::plan(&args, fastrand::u64(1..1_000_000))?;
    let cast = cast(&plan)?;
    let mut columns: Vec<Column> =
        plan.contenders.iter().map(|contender| Column { name: contender.name(), rounds: Vec::new(), worst: 0 }).collect();
    let mut line = Progress::new();
    for number in 0..plan.rounds {
        let choices = choices(&plan, number);
        for (column, (contender, program)) in columns.iter_mut().zip(plan.contenders.iter().zip(&cast)) {
            let scene = scene(&plan, &choices, contender, program, args.verbose);
            let label = if plan.rounds > 1 { format!("round {} {}", number + 1, column.name) } else { column.name.clone() };
            let round = play(&scene, |doing, answered, lost| line.show(&label, doing, answered, lost))?;
            line.done(&label, &round);
            column.rounds.push(round);
        }
    }
    line.clear();
    for column in &mut columns {
        column.worst = worst(&column.rounds);
    }
    let report = report(&plan, words, columns);
    print!("{}", report::table::draw(&report));
    print!("{}", report::timeline::draw(&report));
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(&report).map_err(|error| Refused::internal(format!("cannot write JSON: {error}")))?;
        write(path, &(text + "\n"))?;
    }
    Ok(if report.verdict.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn write(path: &Path, text: &str) -> Result<(), Refused> {
    fs::write(path, text).map_err(|error| {
        Refused::unavailable(format!("cannot write {}: {error}; name a file that can be written", path.display()))
    })
}

/// PID 1's program, its name and its words.
struct Part {
    path: OsString,
    name: OsString,
    arguments: Vec<OsString>,
}

/// Every contender's program, or why there is none: before anything is started.
fn cast(plan: &Plan) -> Result<Vec<Part>, Refused> {
    let ourselves = std::env::current_exe().map_err(|error| Refused::internal(format!("cannot find ourselves: {error}")))?;
    let command = match &plan.server {
        Server::Embedded => vec![ourselves.clone().into_os_string(), EMBEDDED.into()],
        Server::Command(command) => command.clone(),
        Server::Image { .. } => return Err(Refused::usage("cannot rehearse --image yet".to_owned())),
    };
    let (app, words) = command.split_first().ok_or_else(|| Refused::usage("cannot run nothing".to_owned()))?;
    let app_path = find(app, "give COMMAND as it would be typed in a shell")?;
    plan.contenders
        .iter()
        .map(|contender| match contender.entrypoint() {
            None => Ok(Part { path: app_path.clone().into(), name: app.clone(), arguments: words.to_vec() }),
            Some((name, options)) => {
                let path = match contender {
                    Contender::Lameduck(_) => PathBuf::from("/proc/self/exe"),
                    _ => find(&name.into(), "install it (apt install it), or leave it out of --against")?,
                };
                Ok(Part { path: path.into(), name: name.into(), arguments: [&options[..], &command[..]].concat() })
            }
        })
        .collect()
}

/// As execvp does.
fn find(program: &OsString, what_to_do: &str) -> Result<PathBuf, Refused> {
    let runs = |path: &Path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
    let path = Path::new(program);
    let found = if path.components().count() > 1 || program.to_string_lossy().contains('/') {
        Some(path.to_owned()).filter(|path| runs(path))
    } else {
        let directories = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&directories).map(|directory| directory.join(path)).find(|path| runs(path))
    };
    found.ok_or_else(|| {
        Refused::unavailable(format!("cannot find {}: no such program here; {what_to_do}", program.to_string_lossy()))
    })
}

/// What chance decides in a round, the same for every contender.
struct Choices {
    seed: u64,
    load_for: Duration,
    chaos: Option<Chaos>,
}

/// The first round's seed is the rehearsal's, so that `--seed` plays any round again.
fn choices(plan: &Plan, number: u32) -> Choices {
    let seed = match number {
        0 => plan.seed,
        _ => Rng::with_seed(plan.seed.wrapping_add(u64::from(number))).u64(1..1_000_000_000),
    };
    let mut rng = Rng::with_seed(seed);
    let moment = plan.load_for.mul_f64(0.5 + rng.f64());
    Choices { seed, load_for: moment, chaos: plan.chaos.then(|| Chaos::draw(&mut rng, plan.propagation.last)) }
}

fn scene(plan: &Plan, choices: &Choices, contender: &Contender, part: &Part, verbose: bool) -> Scene {
    Scene {
        contender: contender.clone(),
        path: part.path.clone(),
        name: part.name.clone(),
        arguments: part.arguments.clone(),
        container: None,
        addresses: plan.addresses.clone(),
        authority: plan.url.authority.clone(),
        url: format!("http://{}{}", plan.url.authority, plan.url.path),
        path_asked: plan.url.path.clone(),
        slow: plan.slow.clone(),
        upload: plan.upload.clone(),
        stream: plan.stream.clone(),
        rate: plan.rate,
        clients: plan.clients,
        connections: plan.connections,
        timeout: plan.timeout,
        load_for: choices.load_for,
        first_learns: plan.propagation.first,
        last_learns: plan.propagation.last,
        grace: plan.grace,
        stop_signal: plan.stop_signal.map_or(15, |signal| signal.number()),
        start_timeout: plan.start_timeout,
        probe_period: plan.probe_period,
        own_network: plan.own_network,
        own_processes: true,
        verbose,
        seed: choices.seed,
        chaos: choices.chaos,
    }
}

/// Has a stage play it, and listens.
fn play(scene: &Scene, mut progress: impl FnMut(&str, u64, u64)) -> Result<Round, Refused> {
    let internal = |error: std::io::Error| Refused::internal(format!("cannot play a round: {error}"));
    let mut stage =
        Command::new("/proc/self/exe").arg0(STAGE).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(internal)?;
    // Open until the stage has ended: by it the stage knows that we live.
    let mut wire = stage.stdin.take();
    if let Some(wire) = &mut wire {
        let mut line = serde_json::to_string(scene).map_err(|error| internal(error.into()))?;
        line.push('\n');
        wire.write_all(line.as_bytes()).map_err(internal)?;
    }
    let mut end = Err(Refused::internal("cannot play a round: its stage is gone".to_owned()));
    let lines = stage.stdout.take().into_iter().flat_map(|stdout| BufReader::new(stdout).lines());
    for line in lines.map_while(Result::ok) {
        match serde_json::from_str(&line) {
            Ok(Word::Progress { doing, answered, lost }) => progress(&doing, answered, lost),
            Ok(Word::Ended(round)) => end = Ok(*round),
            Ok(Word::Refused { code, message }) => end = Err(Refused { code, message }),
            Err(error) => end = Err(internal(error.into())),
        }
    }
    stage.wait().map_err(internal)?;
    end
}

/// The index of the round that lost most; of those that are judged, if there are any.
fn worst(rounds: &[Round]) -> usize {
    let indices = 0..rounds.len();
    indices.max_by_key(|&index| (!rounds[index].excused, rounds[index].tally.lost.total(), usize::MAX - index)).unwrap_or(0)
}

fn report(plan: &Plan, words: &[OsString], columns: Vec<Column>) -> Report {
    let verdict = columns.last().and_then(|column| column.rounds.get(column.worst).map(|round| (column, round)));
    let verdict = verdict.map_or(Verdict { contender: String::new(), lost: 0, passed: false, seed: 0 }, |(column, round)| {
        let lost = if round.excused { 0 } else { round.tally.lost.total() };
        Verdict { contender: column.name.clone(), lost, passed: lost <= plan.max_lost, seed: round.seed }
    });
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: typed(words),
        settings: Settings {
            url: format!("http://{}{}", plan.url.authority, plan.url.path),
            seed: plan.seed,
            rounds: plan.rounds,
            chaos: plan.chaos,
            rate: plan.rate,
            clients: plan.clients,
            connections: plan.connections,
            propagate_ms: [plan.propagation.first, plan.propagation.last].map(|at| at.as_millis() as u64),
            grace_period_ms: plan.grace.as_millis() as u64,
            stop_signal: plan.stop_signal.map_or("TERM".to_owned(), |signal| signal.to_string()),
            timeout_ms: plan.timeout.as_millis() as u64,
            max_lost: plan.max_lost,
        },
        contenders: columns,
        verdict,
    }
}

fn typed(words: &[OsString]) -> String {
    let quoted = words.iter().map(|word| {
        let word = word.to_string_lossy();
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { word.into_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    ["lameduck-rehearse".to_owned()].into_iter().chain(quoted).collect::<Vec<_>>().join(" ")
}

/// A line that is written over, on a terminal; elsewhere, one line for each contender that is done.
struct Progress {
    terminal: bool,
    began: Instant,
}

impl Progress {
    fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), began: Instant::now() }
    }

    fn show(&mut self, label: &str, doing: &str, answered: u64, lost: u64) {
        if self.terminal {
            let seconds = self.began.elapsed().as_secs_f64();
            eprint!("\r\x1b[K{seconds:5.1} s  {label}: {doing}, {answered} answered, {lost} lost");
        }
    }

    fn done(&mut self, label: &str, round: &Round) {
        self.clear();
        let chaos = round.chaos.as_ref().map_or(String::new(), |chaos| format!(" ({chaos})"));
        eprintln!("{label}: {} answered, {} lost{chaos}", round.tally.answered, round.tally.lost.total());
    }

    fn clear(&mut self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}
