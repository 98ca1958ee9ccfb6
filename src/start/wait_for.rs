//! `--wait-for`: the app is started only when what it needs is there. All targets at once, for a bounded time, and a stop signal ends it.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::info;

use crate::clock::Clock;
use crate::core::signals::{Signal, SignalSet};
use crate::core::start::url::Target;
use crate::core::time::Show;
use crate::endpoints::{self, Endpoints};
use crate::fatal::{Fatal, exit};
use crate::http;
use crate::output::events;
use crate::plan::Plan;
use crate::run::Already;
use crate::services::{Role, Services};
use crate::sys::signals::Signals;

/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Between two attempts: at first, doubled each time, at most.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What is still missing is said so often.
const SAY_EVERY: Duration = Duration::from_secs(10);

enum Progress {
    Ready(usize),
    NotYet(usize, String),
}

/// How the wait ended.
pub enum Waited {
    Ready,
    /// A signal came that ends the start.
    Signal(Signal),
    /// Companions have ended, and not only expendable ones.
    Ended(Vec<Already>),
}

/// Waits for `targets`, and meanwhile for the ends of companions that run already.
pub async fn wait_for(
    plan: &Plan,
    targets: &[(String, Target)],
    services: &mut Services<'_>,
    signals: &Signals,
    clock: Clock,
    mut endpoints: Option<&mut Endpoints>,
) -> Result<Waited, Fatal> {
    let (sender, mut progress) = unbounded_channel();
    for (index, (_, target)) in targets.iter().enumerate() {
        tokio::spawn(attempts(index, target.clone(), sender.clone()));
    }
    let began = clock.now();
    let deadline = began + plan.before.wait_timeout;
    let mut say_at = began + SAY_EVERY;
    let mut missing: Vec<(usize, String)> = (0..targets.len()).map(|index| (index, "no answer yet".to_owned())).collect();
    let names = |missing: &[(usize, String)]| {
        missing.iter().map(|(index, why)| format!("{} ({why})", targets[*index].0)).collect::<Vec<_>>().join(", ")
    };
    let all = targets.iter().map(|(text, _)| text.as_str()).collect::<Vec<_>>().join(" ");
    info!(event = "waiting", targets = all, timeout = %Show(plan.before.wait_timeout));
    while !missing.is_empty() {
        tokio::select! {
            biased;
            batch = signals.next() => {
                let came: SignalSet = batch.iter().collect();
                // Nobody is there yet whom a Ctrl-C could be meant for but us.
                let stop = plan.rule.before_start(came, plan.main().server);
                if let Some(signal) = stop.or(came.iter().find(|signal| *signal == Signal::INT)) {
                    return Ok(Waited::Signal(signal));
                }
                let ended = reap(services);
                let ends_the_start = |already: &Already| match already {
                    Already::Ended(service, _) => plan.services.get(service.0).is_some_and(|service| !service.expendable),
                    Already::Signal(_) => false,
                };
                if ended.iter().any(ends_the_start) {
                    return Ok(Waited::Ended(ended));
                }
                for already in ended {
                    if let Already::Ended(service, ended) = already {
                        events::companion_ended(plan, service, ended, true);
                    }
                }
            }
            Some(progress) = progress.recv() => match progress {
                Progress::Ready(index) => {
                    missing.retain(|(other, _)| *other != index);
                    let ready = targets.len() - missing.len();
                    let after = clock.now().since(began);
                    info!(event = "waiting", ready = targets[index].0, after = %Show(after), message = %format_args!("{ready} of {}", targets.len()));
                }
                Progress::NotYet(index, why) => {
                    missing.iter_mut().filter(|(other, _)| *other == index).for_each(|(_, last)| last.clone_from(&why));
                }
            },
            message = endpoints::next(endpoints.as_deref_mut()) => super::answer(plan, clock, endpoints.as_deref_mut(), message),
            () = clock.until(Some(deadline)) => {
                let started = if plan.has_companions() { "the main command was not started" } else { "nothing was started" };
                return Err(Fatal {
                    code: exit::UNAVAILABLE,
                    message: format!(
                        "cannot start: {} did not come within {}; {started}; see --wait-for and --wait-timeout",
                        names(&missing),
                        Show(plan.before.wait_timeout)
                    ),
                });
            }
            () = clock.until(Some(say_at)) => {
                say_at = say_at + SAY_EVERY;
                info!(event = "waiting", missing = names(&missing), after = %Show(clock.now().since(began)));
            }
        }
    }
    Ok(Waited::Ready)
}

/// The companions that have ended.
fn reap(services: &mut Services<'_>) -> Vec<Already> {
    let mut ended = Vec::new();
    services.reap(|_, how, role| match role {
        Some(Role::Service(service)) => ended.push(Already::Ended(service, how)),
        Some(Role::Before | Role::OnStop(_) | Role::Probe) | None => {}
    });
    ended
}

async fn attempts(index: usize, target: Target, sender: UnboundedSender<Progress>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let why = match tokio::time::timeout(ATTEMPT, http::reach(&target, None)).await {
            Ok(Ok(())) => {
                let _ = sender.send(Progress::Ready(index));
                return;
            }
            Ok(Err(unreached)) => unreached.why,
            Err(_) => format!("no answer within {}", Show(ATTEMPT)),
        };
        let _ = sender.send(Progress::NotYet(index, why));
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
