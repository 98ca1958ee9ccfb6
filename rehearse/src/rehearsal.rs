//! The whole rehearsal: every contender in every round, one after the other. Side by side they would take each other's CPU, and a
//! server that is slow because its rival runs is no finding.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cast::Cast;
use crate::chaos::Chaos;
use crate::cli::{self, Args, Plan};
use crate::contender::typed;
use crate::report::{self, Column, End, Report, Round, Settings, Verdict};
use crate::rollout;
use crate::round::{Scene, Word};
use crate::{Refused, STAGE};

/// Our exit code when no round could be judged.
const NOTHING_JUDGED: u8 = 2;
/// So often is a round drawn again that could not be judged.
const DRAWN_AGAIN: u32 = 50;

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
    let random = fastrand::u64(1..1_000_000);
    if let Some(plan) = cli::rollout(&args, random)? {
        try_to_write(&args)?;
        let (report, incomplete) = rollout::rehearse(&plan, words)?;
        let code = publish(&report, &args)?;
        return incomplete.map_or(Ok(code), Err);
    }
    let plan = cli::plan(&args, random)?;
    try_to_write(&args)?;
    let cast = Cast::of(&plan, &args)?;
    let mut columns: Vec<Column> =
        plan.contenders.iter().map(|contender| Column { name: contender.name(), rounds: Vec::new(), worst: 0 }).collect();
    let mut line = Progress::new();
    for (number, choices) in (0..).zip(choices(&plan)) {
        for (contender, column) in columns.iter_mut().enumerate() {
            let scene = scene(&plan, &cast, contender, number, &choices, args.verbose);
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
    publish(&report(&plan, &cast, words, columns), &args)
}

/// Now, rather than after minutes.
fn try_to_write(args: &Args) -> Result<(), Refused> {
    for path in args.json.iter().chain(&args.html) {
        fs::OpenOptions::new().create(true).append(true).open(path).map_err(|error| cannot_write(path, &error))?;
    }
    Ok(())
}

/// Prints and writes it; the exit code that it means.
fn publish(report: &Report, args: &Args) -> Result<ExitCode, Refused> {
    print!("{}", report::table::draw(report));
    print!("{}", report::timeline::draw(report));
    if let Some(path) = &args.json {
        let text =
            serde_json::to_string_pretty(report).map_err(|error| Refused::internal(format!("cannot write JSON: {error}")))?;
        write(path, &(text + "\n"))?;
    }
    if let Some(path) = &args.html {
        write(path, &report::html::draw(report))?;
    }
    Ok(match report.verdict.end() {
        End::Passed => ExitCode::SUCCESS,
        End::Failed => ExitCode::FAILURE,
        End::NothingJudged => ExitCode::from(NOTHING_JUDGED),
    })
}

fn write(path: &Path, text: &str) -> Result<(), Refused> {
    fs::write(path, text).map_err(|error| cannot_write(path, &error))
}

fn cannot_write(path: &Path, error: &std::io::Error) -> Refused {
    Refused::unavailable(format!("cannot write {}: {error}; name a file that can be written", path.display()))
}

/// What chance decides in a round, the same for every contender.
#[derive(Debug, PartialEq)]
struct Choices {
    seed: u64,
    load_for: Duration,
    chaos: Option<Chaos>,
}

/// Those of all rounds. If none of them could be judged, the last one is drawn again, unless somebody wants just this round once more.
fn choices(plan: &Plan) -> Vec<Choices> {
    let can_be_judged = |choices: &Choices| choices.chaos.is_none_or(Chaos::can_be_judged);
    let mut all: Vec<Choices> = (0..plan.rounds).map(|number| draw(plan, number)).collect();
    let again = plan.rounds..plan.rounds + if plan.replay { 0 } else { DRAWN_AGAIN };
    for number in again {
        if all.iter().any(can_be_judged) {
            break;
        }
        all.pop();
        all.push(draw(plan, number));
    }
    all
}

/// The first round's seed is the rehearsal's, so that `--seed` plays any round again.
fn draw(plan: &Plan, number: u32) -> Choices {
    let seed = match number {
        0 => plan.seed,
        _ => Rng::with_seed(plan.seed.wrapping_add(u64::from(number))).u64(1..1_000_000_000),
    };
    let mut rng = Rng::with_seed(seed);
    let moment = plan.load_for.mul_f64(0.5 + rng.f64());
    Choices { seed, load_for: moment, chaos: plan.chaos.then(|| Chaos::draw(&mut rng, plan.propagation.last)) }
}

fn scene(plan: &Plan, cast: &Cast, contender: usize, number: u32, choices: &Choices, verbose: bool) -> Scene {
    let (program, container) = cast.program(contender, number);
    Scene {
        contender: plan.contenders[contender].clone(),
        program,
        own_processes: container.is_none(),
        container,
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
        pinned: plan.pinned,
        timeout: plan.timeout,
        load_for: choices.load_for,
        first_learns: plan.propagation.first,
        last_learns: plan.propagation.last,
        grace: plan.grace,
        stop_signal: cast.stop_signal.number(),
        start_timeout: plan.start_timeout,
        probe_period: plan.probe_period,
        own_network: cast.own_network,
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
    indices.max_by_key(|&index| (rounds[index].is_judged(), rounds[index].tally.lost.total(), usize::MAX - index)).unwrap_or(0)
}

/// The last contender's.
fn verdict(columns: &[Column], max_lost: u64) -> Verdict {
    let Some((column, worst)) = columns.last().and_then(|column| column.rounds.get(column.worst).map(|round| (column, round)))
    else {
        return Verdict::default();
    };
    let judged = column.rounds.iter().filter(|round| round.is_judged()).count() as u32;
    let lost = if judged == 0 { 0 } else { worst.tally.lost.total() };
    Verdict { contender: column.name.clone(), judged, lost, passed: judged > 0 && lost <= max_lost, seed: worst.seed }
}

fn report(plan: &Plan, cast: &Cast, words: &[OsString], columns: Vec<Column>) -> Report {
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: typed(["lameduck-rehearse".into()].iter().chain(words).map(|word| word.to_string_lossy())),
        settings: Settings {
            url: format!("http://{}{}", plan.url.authority, plan.url.path),
            seed: plan.seed,
            rounds: plan.rounds,
            chaos: plan.chaos,
            rate: plan.rate,
            clients: plan.clients,
            connections: plan.connections,
            pinned: plan.pinned,
            propagate_ms: Some([plan.propagation.first, plan.propagation.last].map(|at| at.as_millis() as u64)),
            grace_period_ms: plan.grace.as_millis() as u64,
            stop_signal: Some(cast.stop_signal.to_string()),
            timeout_ms: plan.timeout.as_millis() as u64,
            max_lost: plan.max_lost,
            rollout: None,
        },
        verdict: verdict(&columns, plan.max_lost),
        contenders: columns,
    }
}

/// A line that is written over, on a terminal; elsewhere, one line for each contender that is done.
pub struct Progress {
    terminal: bool,
    began: Instant,
}

impl Progress {
    pub fn new() -> Progress {
        Progress { terminal: std::io::stderr().is_terminal(), began: Instant::now() }
    }

    pub fn show(&mut self, label: &str, doing: &str, answered: u64, lost: u64) {
        if self.terminal {
            let seconds = self.began.elapsed().as_secs_f64();
            eprint!("\r\x1b[K{seconds:5.1} s  {label}: {doing}, {answered} answered, {lost} lost");
        }
    }

    pub fn done(&mut self, label: &str, round: &Round) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Client, Lost, Tally};

    fn plan(words: &[&str]) -> Plan {
        let words: Vec<OsString> = words.iter().map(OsString::from).collect();
        cli::plan(&cli::parse(&words).unwrap(), 42).unwrap()
    }

    #[test]
    fn chaos_always_leaves_a_round_to_judge_and_each_can_be_played_again() {
        for seed in 0..500 {
            for rounds in 1..4 {
                let plan = Plan { seed, ..plan(&["--chaos", "--rounds", &rounds.to_string()]) };
                let all = choices(&plan);
                assert_eq!(all.len(), rounds);
                assert!(all.iter().any(|round| round.chaos.is_some_and(Chaos::can_be_judged)), "{all:?}");
                for round in all {
                    let again = self::plan(&["--chaos", "--seed", &round.seed.to_string()]);
                    assert_eq!(choices(&again), [round]);
                }
            }
        }
    }

    #[test]
    fn chance_may_still_take_the_app_where_another_round_is_judged() {
        let all = choices(&plan(&["--chaos", "--rounds", "100", "--seed", "1"]));
        let judged = all.iter().filter(|round| round.chaos.is_some_and(Chaos::can_be_judged)).count();
        assert!((25..75).contains(&judged), "{judged}");
    }

    #[test]
    fn nothing_judged_is_never_passed() {
        let round = |excused, sent, refused| Round {
            excused,
            client: Client { sent, ..Client::default() },
            tally: Tally { lost: Lost { refused, ..Lost::default() }, ..Tally::default() },
            ..Round::default()
        };
        let end = |rounds: Vec<Round>| {
            let worst = worst(&rounds);
            let verdict = verdict(&[Column { name: "none".to_owned(), rounds, worst }], 0);
            assert_eq!(verdict.passed, verdict.end() == End::Passed);
            (verdict.end(), verdict.judged, verdict.lost)
        };
        assert_eq!(end(vec![round(true, 100, 0)]), (End::NothingJudged, 0, 0));
        // Stopped before any client came.
        assert_eq!(end(vec![round(true, 100, 7), round(false, 0, 0)]), (End::NothingJudged, 0, 0));
        assert_eq!(end(vec![round(true, 100, 7), round(false, 100, 0)]), (End::Passed, 1, 0));
        assert_eq!(end(vec![round(false, 100, 0), round(false, 100, 2), round(true, 100, 7)]), (End::Failed, 2, 2));
        assert_eq!(Verdict::default().end(), End::NothingJudged);
    }
}
