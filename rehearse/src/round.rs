//! One contender's life and death, in a process of its own, the stage: start → ready → load → stop → verdict. The rehearsal hears of
//! it by lines of JSON.

use std::io::{BufRead, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;
use lameduck::core::signals::Signal;
use lameduck::core::time::Show;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use crate::Refused;
use crate::cast::Program;
use crate::chaos::{CPU, Chaos, Neighbours};
use crate::contender::Contender;
use crate::diary::Diary;
use crate::endpoints::Propagation;
use crate::image::Container;
use crate::kubelet::{self, Orders};
use crate::load::client::{Outcome, Target, get};
use crate::load::{Drive, Load};
use crate::pod::{How, Pod, app};
use crate::report::{Event, Round, What};
use crate::sandbox;
use crate::verdict::{Seen, judge};

/// Between two looks whether it is ready.
const LOOK: Duration = Duration::from_millis(20);
/// An error answer that does not change so long will not change.
const STUBBORN: Duration = Duration::from_secs(3);
/// SIGSTOP
const STOP: i32 = 19;
const PROGRESS: Duration = Duration::from_millis(200);

/// All that a stage must know.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Scene {
    pub contender: Contender,
    /// PID 1, or the engine that makes it.
    pub program: Program,
    pub container: Option<Container>,
    /// Where the server may be: an address of each family for a name that is both.
    pub addresses: Vec<SocketAddr>,
    pub authority: String,
    pub url: String,
    pub path_asked: String,
    pub slow: Option<String>,
    pub upload: Option<String>,
    pub stream: Option<String>,
    pub rate: f64,
    pub clients: usize,
    pub connections: usize,
    pub pinned: usize,
    pub timeout: Duration,
    /// Under load before the deletion.
    pub load_for: Duration,
    pub first_learns: Duration,
    pub last_learns: Duration,
    pub grace: Duration,
    pub stop_signal: i32,
    pub start_timeout: Duration,
    pub probe_period: Duration,
    pub own_network: bool,
    pub own_processes: bool,
    pub verbose: bool,
    pub seed: u64,
    pub chaos: Option<Chaos>,
}

/// What a stage says, a line each.
#[derive(Debug, Deserialize, Serialize)]
pub enum Word {
    Progress { doing: String, answered: u64, lost: u64 },
    Refused { code: u8, message: String },
    Ended(Box<Round>),
}

/// The stage: its scene comes on standard input, which stays open for as long as the rehearsal lives.
pub fn main() -> ExitCode {
    let played = sandbox::die_with_parent(std::io::stdin())
        .map_err(|error| Refused::internal(format!("cannot begin a stage: {error}")))
        .and_then(|()| play_alone());
    say(&match played {
        Ok(round) => Word::Ended(Box::new(round)),
        Err(Refused { code, message }) => Word::Refused { code, message },
    });
    ExitCode::SUCCESS
}

/// Where nobody listens any more, the kernel is about to end us.
fn say(word: &Word) {
    let mut line = serde_json::to_string(word).unwrap_or_default();
    line.push('\n');
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

fn play_alone() -> Result<Round, Refused> {
    let internal = |what: &str, error: std::io::Error| Refused::internal(format!("cannot {what}: {error}"));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| internal("read the scene", error))?;
    let scene: Scene = serde_json::from_str(&line).map_err(|error| internal("read the scene", error.into()))?;
    // Our terminal's signals are the rehearsal's to answer.
    let _ = nix::unistd::setsid();
    sandbox::enter(scene.own_network, scene.own_processes)?;
    // Namespaces may have undone it.
    sandbox::die_with_parent(std::io::stdin()).map_err(|error| internal("begin a stage", error))?;
    if scene.own_processes {
        sandbox::go_on_as_pid_1().map_err(|error| internal("make a stage", error))?;
    }
    let neighbours = match scene.chaos {
        Some(Chaos::Starved) => Some(Neighbours::ready().map_err(|error| internal("start the neighbours", error))?),
        _ => None,
    };
    if scene.own_processes {
        sandbox::next_is_pid_1().map_err(|error| internal("make a stage", error))?;
    }
    let descriptors = sandbox::more_descriptors().map_err(|error| internal("raise the limit of open files", error))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| internal("make the event loop", error))?;
    runtime.block_on(play(scene, descriptors, neighbours))
}

async fn play(scene: Scene, descriptors: sandbox::Descriptors, mut neighbours: Option<Neighbours>) -> Result<Round, Refused> {
    let diary = Diary::default();
    let mut rng = Rng::with_seed(scene.seed);
    let propagation = Propagation { first: scene.first_learns, last: scene.last_learns };
    let learnt = propagation.draw(scene.clients, &mut rng);
    let arrivals = rng.fork();
    let removed = propagation.draw(scene.pinned, &mut rng);
    let pinned = rng.fork();
    for address in &scene.addresses {
        if tokio::net::TcpStream::connect(address).await.is_ok() {
            return Err(Refused::unavailable(format!(
                "cannot start the server on {address}: somebody listens there already; stop that, or choose another port"
            )));
        }
    }

    let how = How {
        descriptors,
        own_processes: scene.own_processes,
        cpu: neighbours.is_some().then_some(CPU),
        grace: Show(scene.grace).to_string(),
        verbose: scene.verbose,
    };
    say(&Word::Progress { doing: "starting".to_owned(), answered: 0, lost: 0 });
    let mut pod = Pod::start(&scene.program, scene.container.clone(), &how, &diary).map_err(|error| {
        let name = scene.program.name.to_string_lossy();
        Refused::unavailable(format!(
            "cannot start {name}: {error}; {}",
            if error.raw_os_error() == Some(1) {
                "namespaces may be refused here: run it as root"
            } else {
                "see whether it is there and may be run"
            }
        ))
    })?;

    let mut orders = Orders {
        grace: scene.grace,
        pre_stop: scene.contender.pre_stop(),
        stop_signal: Signal::from_number(scene.stop_signal).unwrap_or(Signal::TERM),
        app: None,
        kill_after: match scene.chaos {
            Some(Chaos::KilledEarly { after }) => Some(after),
            _ => None,
        },
    };
    if let Some(Chaos::StopDuringStart { after }) = scene.chaos {
        return Ok(stop_during_start(&scene, pod, orders, after, &diary).await);
    }

    let target = ready(&scene, &mut pod).await?;
    diary.note(What::Ready, "");
    // Looked up now: an engine takes its time to say.
    let pid = pod.pid();
    orders.app = pid.and_then(|pid| app(pid, scene.contender.entrypoint().is_some()));
    let drive = Drive {
        rate: scene.rate,
        clients: scene.clients,
        connections: scene.connections,
        pinned: scene.pinned,
        timeout: scene.timeout,
    };
    let mut load = Load::start(target.clone(), &drive, arrivals, pinned);
    diary.note_at(load.began(), What::LoadBegan, "");
    let deleted = Arc::new(AtomicBool::new(false));
    let prober = tokio::spawn(kubelet::probe(target, scene.probe_period, deleted.clone(), diary.clone()));

    let mut ended = timeout(scene.load_for, progress("under load", &load, pod.wait())).await.ok();
    if let Some(code) = ended {
        diary.note(What::Exited, code.to_string());
    }
    sleep_until(load.began() + scene.load_for).await;

    let t0 = diary.note(What::Deleted, "");
    deleted.store(true, Ordering::Relaxed);
    load.deleted(t0, &learnt, &removed);
    let news = || learnt.iter().chain(&removed);
    for (at, what) in [(news().min(), What::FirstLearnt), (news().max(), What::LastLearnt)] {
        diary.note_at(t0 + at.copied().unwrap_or_default(), what, "");
    }
    if let Some(neighbours) = &mut neighbours {
        neighbours.go();
    }
    let havoc = tokio::spawn(havoc(scene.chaos, pid, orders, diary.clone()));
    if ended.is_none() {
        ended = Some(progress("stopping", &load, kubelet::stop(&mut pod, orders, &diary)).await);
    }
    prober.abort();
    havoc.abort();
    drop(neighbours);
    let (answered, lost) = load.so_far();
    let gone = if ended == Some(0) { "gone" } else { "gone, with an error" };
    say(&Word::Progress { doing: gone.to_owned(), answered, lost });
    let (records, kept) = load.finish().await;

    let began = signed_ms(load.began(), t0);
    Ok(judge(Seen {
        seed: scene.seed,
        chaos: scene.chaos.map(|chaos| chaos.to_string()),
        excused: scene.chaos.is_some_and(Chaos::takes_the_app),
        load_began_ms: began,
        records,
        kept,
        events: events(&diary, t0),
        lameduck: scene.contender.is_lameduck(),
        zero: None,
        notes: Vec::new(),
    }))
}

fn signed_ms(at: Instant, zero: Instant) -> f64 {
    at.saturating_duration_since(zero).as_secs_f64() * 1e3 - zero.saturating_duration_since(at).as_secs_f64() * 1e3
}

fn events(diary: &Diary, t0: Instant) -> Vec<Event> {
    let entries = diary.entries().into_iter();
    entries.map(|entry| Event { at_ms: signed_ms(entry.at, t0).round() as i64, what: entry.what, detail: entry.detail }).collect()
}

/// Says from time to time how it goes, until `until` is there.
async fn progress<T>(doing: &str, load: &Load, until: impl Future<Output = T>) -> T {
    let mut until = std::pin::pin!(until);
    let mut each = interval(PROGRESS);
    loop {
        tokio::select! {
            done = &mut until => return done,
            _ = each.tick() => {
                let (answered, lost) = load.so_far();
                say(&Word::Progress { doing: doing.to_owned(), answered, lost });
            }
        }
    }
}

/// Waits for a good answer from one of the addresses.
async fn ready(scene: &Scene, pod: &mut Pod) -> Result<Target, Refused> {
    let deadline = Instant::now() + scene.start_timeout;
    let mut stubborn_since = None;
    let mut last = "nobody listens there".to_owned();
    loop {
        for &address in &scene.addresses {
            let target = Target {
                address,
                authority: scene.authority.clone(),
                path: scene.path_asked.clone(),
                slow: scene.slow.clone(),
                upload: scene.upload.clone(),
                stream: scene.stream.clone(),
            };
            match timeout(scene.timeout, get(&target, 0)).await {
                Ok(Ok(_)) => return Ok(target),
                Ok(Err(Outcome::Failed)) => {
                    last = "it answers with an error".to_owned();
                    let since = *stubborn_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > STUBBORN {
                        return Err(never_ready(scene, pod, &last, "name a URL that it answers with a status below 400"));
                    }
                }
                Ok(Err(Outcome::Refused)) => {}
                Ok(Err(_)) => last = "it closes connections without a whole answer".to_owned(),
                Err(_) => last = "it accepts, and does not answer".to_owned(),
            }
        }
        if let Ok(code) = timeout(LOOK, pod.wait()).await {
            // What it said last comes by another pipe.
            sleep(LOOK).await;
            let refused = never_ready(scene, pod, &format!("the server ended with code {code}"), "see what it said");
            return Err(if scene.contender.is_lameduck() && code == 64 { Refused { code: 64, ..refused } } else { refused });
        }
        if Instant::now() > deadline {
            let what = format!("not ready after {}: {last}", Show(scene.start_timeout));
            return Err(never_ready(scene, pod, &what, "see --url and --start-timeout"));
        }
    }
}

fn never_ready(scene: &Scene, pod: &Pod, why: &str, what_to_do: &str) -> Refused {
    let said = pod.last_lines();
    let name = scene.contender.name();
    Refused::unavailable(format!("cannot get an answer from {} ({name}): {why}; {what_to_do}{said}", scene.url))
}

async fn stop_during_start(scene: &Scene, mut pod: Pod, orders: Orders, after: Duration, diary: &Diary) -> Round {
    let begun = async {
        // Who has not been made yet cannot be stopped: an engine takes its time.
        while pod.pid().is_none() {
            sleep(LOOK).await;
        }
    };
    let _ = timeout(scene.start_timeout, begun).await;
    let t0 = match timeout(after, pod.wait()).await {
        Ok(code) => diary.note(What::Exited, code.to_string()),
        Err(_) => {
            let t0 = diary.note(What::Deleted, "");
            kubelet::stop(&mut pod, orders, diary).await;
            t0
        }
    };
    judge(Seen {
        seed: scene.seed,
        chaos: scene.chaos.map(|chaos| chaos.to_string()),
        events: events(diary, t0),
        lameduck: scene.contender.is_lameduck(),
        ..Seen::default()
    })
}

/// What is to be done to it besides, from the deletion on.
async fn havoc(chaos: Option<Chaos>, pid: Option<i32>, orders: Orders, diary: Diary) {
    let send = |pid: Option<i32>, signal, what: &str| {
        diary.note(What::Chaos, what);
        // Who is gone feels nothing.
        let _ = pid.map(|pid| lameduck::sys::child::send(pid, signal));
    };
    match chaos {
        Some(Chaos::SecondSignal { after }) => {
            // A restarted kubelet begins with the hook.
            sleep(orders.pre_stop.unwrap_or_default() + after).await;
            send(pid, orders.stop_signal, "a second stop signal");
        }
        Some(Chaos::Crash { after }) => {
            sleep(after).await;
            send(orders.app, Signal::KILL, "the app crashes");
        }
        Some(Chaos::Paused { after, length }) => {
            sleep(after).await;
            send(orders.app, Signal::from_number(STOP).unwrap_or(Signal::KILL), "the app stands still");
            sleep(length).await;
            send(orders.app, Signal::CONT, "it goes on");
        }
        Some(Chaos::Starved) => drop(diary.note(What::Chaos, "neighbours take the CPU")),
        Some(Chaos::KilledEarly { .. } | Chaos::StopDuringStart { .. }) | None => {}
    }
}
