//! Whether the app is ready, asked when somebody asks.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tracing::{info, warn};

use super::Now;
use super::server::Reply;
use crate::core::shutdown::{Ended, Phase};
use crate::core::signals::Signal;
use crate::core::time::{Show, Uptime};
use crate::core::traffic::verdict::Rules;
use crate::http::{self, Own};
use crate::plan::{Plan, Ready};
use crate::sys::child;
use crate::traffic::{Family, Traffic, Watch};

/// The longest time for one check.
const PATIENCE: Duration = Duration::from_secs(3);
/// Questions that come within this time after a check share its result.
const FRESH: Duration = Duration::from_millis(250);
/// How many checks by a thread may be given up and still run. While there are this many, no other one begins.
const MOST_LOST: usize = 2;

/// The result of a check, by its number.
#[derive(Debug)]
pub struct Checked {
    number: u64,
    /// None: its time was up.
    result: Option<Result<(), Unready>>,
}

/// Why it is not ready.
#[derive(Clone, Debug)]
struct Unready {
    why: String,
    /// An app that is merely starting gives no such answer: the check itself may be wrong.
    odd: bool,
}

/// A command that the loop is to run, because the loop reaps.
#[derive(Clone, Debug)]
pub struct Probe {
    pub words: Vec<String>,
}

pub struct Readiness {
    ready: Ready,
    pass_on_stop: bool,
    rules: Rules,
    ports: Vec<u16>,
    own: UnboundedSender<Own>,
    sender: UnboundedSender<Checked>,
    results: UnboundedReceiver<Checked>,
    /// Questions that wait for the present check.
    waiting: Vec<oneshot::Sender<Reply>>,
    /// The number of the present check.
    checking: Option<u64>,
    checks: u64,
    /// The timer that ends the present check.
    timer: Option<AbortHandle>,
    lost: usize,
    /// The process of the `exec:` command that runs.
    probe: Option<i32>,
    latest: Option<(Uptime, Result<(), String>)>,
    /// The result that was logged last, so that each change is logged once.
    said: Option<Result<(), String>>,
    odd_said: bool,
}

impl Readiness {
    pub fn new(plan: &Plan, own: UnboundedSender<Own>) -> Readiness {
        let (sender, results) = unbounded_channel();
        Readiness {
            ready: plan.outside.ready.clone(),
            pass_on_stop: plan.outside.pass_on_stop,
            rules: plan.rules.clone(),
            ports: plan.ports.clone(),
            own,
            sender,
            results,
            waiting: Vec::new(),
            checking: None,
            checks: 0,
            timer: None,
            lost: 0,
            probe: None,
            latest: None,
            said: None,
            odd_said: false,
        }
    }

    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Checked> {
        self.results.recv().await
    }

    /// Answers the question, or begins a check. `warming_up`: how far the warm-up is. Returns a command that the loop is to run.
    pub fn ask(&mut self, now: Now, reply: oneshot::Sender<Reply>, warming_up: Option<String>) -> Option<Probe> {
        let passes = self.pass_on_stop && matches!(now.phase, Phase::LameDuck | Phase::Draining);
        let no = match now.phase {
            // Nobody has deleted the pod: traffic comes for as long as this says ready.
            _ if now.ended.is_some() => now.ended.as_ref().map(|service| format!("{}: {service} has ended", now.phase.name())),
            Phase::Serving if now.main().is_none() => Some("starting".to_owned()),
            Phase::Serving => warming_up,
            _ if passes => None,
            _ => Some(now.phase.name().to_owned()),
        };
        if let Some(reason) = no {
            let _ = reply.send(Reply::text(503, &reason));
            return None;
        }
        if let Some((at, result)) = &self.latest
            && self.checking.is_none()
            && now.time.since(*at) < FRESH
        {
            let _ = reply.send(answer(result));
            return None;
        }
        self.waiting.push(reply);
        // Questions at the same time share one answer.
        if self.checking.is_some() { None } else { self.check(now.time) }
    }

    fn check(&mut self, now: Uptime) -> Option<Probe> {
        self.checks += 1;
        self.checking = Some(self.checks);
        let (number, sender) = (self.checks, self.sender.clone());
        match &self.ready {
            Ready::Listens if self.lost >= MOST_LOST => self.verdict(now, Err(late())),
            Ready::Listens => {
                let (rules, ports) = (self.rules.clone(), self.ports.clone());
                let started = std::thread::Builder::new().spawn(move || {
                    let listens = Traffic::is_listening(Watch::plain(rules, &ports, Family::Descendants));
                    let why = "the app does not listen".to_owned();
                    let result = if listens { Ok(()) } else { Err(Unready { why, odd: false }) };
                    let _ = sender.send(Checked { number, result: Some(result) });
                });
                match started {
                    Ok(_) => self.limit_time(number),
                    Err(error) => self.verdict(now, Err(odd(format!("cannot look: {error}")))),
                }
            }
            Ready::Answers(target) => {
                let (target, own) = (target.clone(), self.own.clone());
                tokio::spawn(async move {
                    let result = tokio::time::timeout(PATIENCE, http::reach(&target, Some(&own))).await;
                    let result = result.map(|reached| reached.map_err(|un| Unready { why: un.why, odd: un.answers }));
                    let _ = sender.send(Checked { number, result: Some(result.unwrap_or_else(|_| Err(late()))) });
                });
            }
            Ready::Says(words) => return Some(Probe { words: words.clone() }),
        }
        None
    }

    fn limit_time(&mut self, number: u64) {
        let sender = self.sender.clone();
        let timer = tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            let _ = sender.send(Checked { number, result: None });
        });
        self.timer = Some(timer.abort_handle());
    }

    /// The command runs, or could not be started.
    pub fn probing(&mut self, now: Uptime, pid: std::io::Result<i32>) {
        match (pid, self.checking) {
            (Ok(pid), Some(number)) => {
                self.probe = Some(pid);
                self.limit_time(number);
            }
            (Ok(_), None) => {}
            (Err(error), _) => self.verdict(now, Err(odd(format!("cannot run it: {error}")))),
        }
    }

    /// A readiness command has ended. If it is the present one, its exit code is the result.
    pub fn probe_ended(&mut self, now: Uptime, pid: i32, ended: Ended) {
        if self.probe != Some(pid) {
            return;
        }
        self.probe = None;
        let result = match ended {
            Ended::Code(0) => Ok(()),
            // 126 and 127 mean that the command cannot be run, or does not exist.
            Ended::Code(code) => Err(Unready { why: format!("it exits with {code}"), odd: matches!(code, 126 | 127) }),
            Ended::Signal(signal) => Err(odd(format!("it died of {signal}"))),
        };
        self.verdict(now, result);
    }

    pub fn checked(&mut self, now: Uptime, Checked { number, result }: Checked) {
        let is_present = self.checking == Some(number);
        match result {
            Some(result) if is_present => self.verdict(now, result),
            // A check that was given up has come back.
            Some(_) => self.lost = self.lost.saturating_sub(1),
            None if is_present => {
                match self.probe.take() {
                    // Its end comes to the reaper, and answers no question any more.
                    Some(pid) => _ = child::send(-pid, Signal::KILL),
                    None => self.lost += 1,
                }
                self.verdict(now, Err(late()));
            }
            None => {}
        }
    }

    /// Answers all questions that wait. A change is logged once.
    fn verdict(&mut self, now: Uptime, result: Result<(), Unready>) {
        self.checking = None;
        if let Some(timer) = self.timer.take() {
            timer.abort();
        }
        let result = match (result, &self.said) {
            (Err(Unready { why, odd }), None) => {
                if odd && !std::mem::replace(&mut self.odd_said, true) {
                    warn!(event = "warning", message = %format_args!("the app is not ready yet: {why}"));
                }
                Err(format!("starting: {why}"))
            }
            (result, _) => result.map_err(|unready| unready.why),
        };
        self.latest = Some((now, result.clone()));
        let changed = match (&self.said, &result) {
            (Some(before), now) => before.is_ok() != now.is_ok(),
            // Until it is ready for the first time it is starting, which is not logged.
            (None, now) => now.is_ok(),
        };
        if changed {
            match &result {
                Ok(()) => info!(event = "ready"),
                Err(why) => warn!(event = "warning", message = %format_args!("the app is not ready any more: {why}")),
            }
            self.said = Some(result.clone());
        }
        // After the log: whoever has an answer finds its reason there.
        for reply in std::mem::take(&mut self.waiting) {
            let _ = reply.send(answer(&result));
        }
    }
}

fn answer(result: &Result<(), String>) -> Reply {
    match result {
        Ok(()) => Reply::text(200, "ready"),
        Err(why) => Reply::text(503, why),
    }
}

fn odd(why: String) -> Unready {
    Unready { why, odd: true }
}

fn late() -> Unready {
    odd(format!("no answer within {}", Show(PATIENCE)))
}
