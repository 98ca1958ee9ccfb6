//! Whether the app is ready, asked when somebody asks; and the requests that warm it up before.

use std::sync::mpsc::Sender;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::admin::{Message, Reply};
use crate::core::shutdown::{Ended, Phase};
use crate::core::time::{Show, Uptime};
use crate::core::traffic::verdict::Rules;
use crate::core::url::Url;
use crate::http::{self, Own};
use crate::plan::{Plan, Ready, WarmUp};
use crate::traffic::{Family, Traffic, Watch};

/// One check.
const CHECK: Duration = Duration::from_secs(3);
/// One warm-up request: JIT servers are slow at first.
const WARM_UP: Duration = Duration::from_secs(30);
/// Until the app listens it is tried again so often.
const PAUSE: Duration = Duration::from_millis(100);
const MOST_BYTES: usize = 64 << 20;

/// What is told to the loop.
#[derive(Debug)]
pub enum Told {
    Checked(Result<(), Unready>),
    /// `exec:` has had its time; which of them.
    Late(u64),
    /// A warm-up request was answered, or failed.
    Warm(Result<(), String>),
}

/// Why it is not ready.
#[derive(Debug)]
pub struct Unready {
    why: String,
    /// An app that merely starts says nothing like it: the check may be the fault.
    odd: bool,
}

/// A command for the loop to run: it reaps.
#[derive(Clone, Debug)]
pub struct Probe {
    pub words: Vec<String>,
}

pub struct Readiness {
    ready: Ready,
    pass_on_stop: bool,
    rules: Rules,
    ports: Vec<u16>,
    sender: UnboundedSender<Message>,
    own: Sender<Own>,
    /// Who waits for the present check.
    waiting: Vec<oneshot::Sender<Reply>>,
    /// The `exec:` that runs, counted.
    probe: Option<i32>,
    probes: u64,
    warm_up: Option<WarmUp>,
    warming: Option<AbortHandle>,
    warm: u32,
    failed: u32,
    /// What was said last, so that it is said once.
    said: Option<Result<(), String>>,
    odd_said: bool,
}

impl Readiness {
    pub fn new(plan: &Plan, sender: UnboundedSender<Message>, own: Sender<Own>) -> Readiness {
        Readiness {
            ready: plan.outside.ready.clone(),
            pass_on_stop: plan.outside.pass_on_stop,
            rules: plan.rules.clone(),
            ports: plan.ports.clone(),
            sender,
            own,
            waiting: Vec::new(),
            probe: None,
            probes: 0,
            warm_up: plan.outside.warm_up.clone(),
            warming: None,
            warm: 0,
            failed: 0,
            said: None,
            odd_said: false,
        }
    }

    /// The app has been started.
    pub fn started(&mut self) {
        if let Some(warm_up) = &self.warm_up {
            if warm_up.url.addresses().is_none_or(|list| !list.iter().all(|address| address.ip().is_loopback())) {
                info!(event = "warm-up", message = %format_args!("warming up {}, which is not on this host", warm_up.url.authority));
            }
            let task = tokio::spawn(warm(warm_up.clone(), self.sender.clone(), self.own.clone()));
            self.warming = Some(task.abort_handle());
        }
    }

    /// The shutdown has begun: nothing is warmed up any more.
    pub fn stopped(&mut self) {
        if let Some(task) = self.warming.take() {
            task.abort();
            self.warm_up = None;
        }
    }

    /// Answers, or begins to find out. Returns a command to run.
    pub fn ask(&mut self, reply: oneshot::Sender<Reply>, phase: Phase, started: bool) -> Option<Probe> {
        let passes = self.pass_on_stop && matches!(phase, Phase::LameDuck | Phase::Draining);
        let no = match phase {
            Phase::Serving if !started => Some("starting".to_owned()),
            Phase::Serving => self.warming_up(),
            _ if passes => None,
            _ => Some(phase.name().to_owned()),
        };
        if let Some(reason) = no {
            let _ = reply.send(Reply::text(503, &reason));
            return None;
        }
        self.waiting.push(reply);
        if self.waiting.len() > 1 {
            // Concurrent questions share one answer.
            return None;
        }
        let sender = self.sender.clone();
        match &self.ready {
            Ready::Listens => {
                let (rules, ports) = (self.rules.clone(), self.ports.clone());
                let failing = sender.clone();
                let started = std::thread::Builder::new().spawn(move || {
                    let listens = Traffic::is_listening(Watch::plain(rules, &ports, Family::Descendants));
                    let why = "the app does not listen".to_owned();
                    let _ = sender.send(checked(if listens { Ok(()) } else { Err(Unready { why, odd: false }) }));
                });
                if let Err(error) = started {
                    let _ = failing.send(checked(Err(odd(format!("cannot look: {error}")))));
                }
                None
            }
            Ready::Answers(target) => {
                let (target, own) = (target.clone(), self.own.clone());
                tokio::spawn(async move {
                    let result = tokio::time::timeout(CHECK, http::reach(&target, Some(&own))).await;
                    let result = result.map(|reached| reached.map_err(|un| Unready { why: un.why, odd: un.answers }));
                    let _ = sender.send(checked(result.unwrap_or_else(|_| Err(late()))));
                });
                None
            }
            Ready::Says(words) => Some(Probe { words: words.clone() }),
        }
    }

    pub fn is_warm(&self) -> bool {
        self.warming_up().is_none()
    }

    fn warming_up(&self) -> Option<String> {
        let all = self.warm_up.as_ref()?.requests;
        (self.warm < all).then(|| format!("warming up {}/{all}", self.warm))
    }

    /// The command runs, or could not be started.
    pub fn probing(&mut self, pid: std::io::Result<i32>) {
        match pid {
            Ok(pid) => {
                self.probe = Some(pid);
                self.probes += 1;
                let (sender, number) = (self.sender.clone(), self.probes);
                tokio::spawn(async move {
                    tokio::time::sleep(CHECK).await;
                    let _ = sender.send(Message::Told(Told::Late(number)));
                });
            }
            Err(error) => self.verdict(Err(odd(format!("cannot run it: {error}")))),
        }
    }

    /// A process has been reaped: if it is the command, it says whether the app is ready.
    pub fn reaped(&mut self, pid: i32, ended: Ended) {
        if self.probe != Some(pid) {
            return;
        }
        self.probe = None;
        self.verdict(match ended {
            Ended::Code(0) => Ok(()),
            // As of a command that cannot be run, or is not there.
            Ended::Code(code) => Err(Unready { why: format!("it exits with {code}"), odd: matches!(code, 126 | 127) }),
            Ended::Signal(signal) => Err(odd(format!("it died of {signal}"))),
        });
    }

    pub fn told(&mut self, now: Uptime, told: Told) {
        match told {
            Told::Checked(result) => self.verdict(result),
            Told::Late(number) => {
                if number == self.probes
                    && let Some(pid) = self.probe
                {
                    // Its end comes to the reaper, and is nobody's answer any more.
                    let _ = crate::sys::child::send(-pid, crate::core::signals::Signal::KILL);
                    self.verdict(Err(late()));
                }
            }
            Told::Warm(result) => self.warmed(now, result),
        }
    }

    fn warmed(&mut self, now: Uptime, result: Result<(), String>) {
        let Some(warm_up) = &self.warm_up else { return };
        self.warm += 1;
        if let Err(why) = result {
            self.failed += 1;
            if self.failed == 1 {
                warn!(event = "warning", message = %format_args!("a warm-up request failed: {why}"));
            }
        }
        if self.warm == warm_up.requests {
            info!(event = "warm-up", requests = self.warm, failed = self.failed, after = %Show(now.0));
        }
    }

    /// The answer for all that wait. A change is said, once.
    fn verdict(&mut self, result: Result<(), Unready>) {
        let result = match (result, &self.said) {
            (Err(Unready { why, odd }), None) => {
                if odd && !std::mem::replace(&mut self.odd_said, true) {
                    warn!(event = "warning", message = %format_args!("the app is not ready yet: {why}"));
                }
                Err(format!("starting: {why}"))
            }
            (result, _) => result.map_err(|unready| unready.why),
        };
        for reply in std::mem::take(&mut self.waiting) {
            let _ = reply.send(match &result {
                Ok(()) => Reply::text(200, "ready"),
                Err(why) => Reply::text(503, why),
            });
        }
        let changed = match (&self.said, &result) {
            (Some(before), now) => before.is_ok() != now.is_ok(),
            // Until it is ready for the first time it is starting, and that is no news.
            (None, now) => now.is_ok(),
        };
        if changed {
            match &result {
                Ok(()) => info!(event = "ready"),
                Err(why) => warn!(event = "warning", message = %format_args!("the app is not ready any more: {why}")),
            }
            self.said = Some(result);
        }
    }
}

fn checked(result: Result<(), Unready>) -> Message {
    Message::Told(Told::Checked(result))
}

fn odd(why: String) -> Unready {
    Unready { why, odd: true }
}

fn late() -> Unready {
    odd(format!("no answer within {}", Show(CHECK)))
}

/// One request after the other, from when the app accepts connections.
async fn warm(warm_up: WarmUp, sender: UnboundedSender<Message>, own: Sender<Own>) {
    let WarmUp { url, requests } = warm_up;
    while http::connect(&url.host, url.port, Some(&own)).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    for _ in 0..requests {
        let result = tokio::time::timeout(WARM_UP, get(&url, &own)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if sender.send(Message::Told(Told::Warm(result))).is_err() {
            return;
        }
    }
}

/// The whole answer, as a client would take it.
async fn get(url: &Url, own: &Sender<Own>) -> Result<(), String> {
    let stream = http::connect(&url.host, url.port, Some(own)).await?;
    let answer = http::get(&stream, url).await?;
    let status = answer.status;
    answer.body(MOST_BYTES, |_| Ok(())).await?;
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("it answers {status}")) }
}
