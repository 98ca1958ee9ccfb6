//! `--before`: commands that run to their end, one after the other, before any service starts.

use std::ffi::OsString;

use tracing::info;

use super::Stopped;
use crate::clock::Clock;
use crate::core::shutdown::Ended;
use crate::core::signals::Signal;
use crate::core::time::Show;
use crate::endpoints::{self, Endpoints};
use crate::fatal::Fatal;
use crate::output::events;
use crate::plan::Plan;
use crate::services::{Role, Services};
use crate::sys::child;
use crate::sys::signals::Signals;

/// Waits for the end of a command that runs as `pid`. There is no limit but the one of a stop signal: the command is sent the signal that
/// came, and SIGKILL when the grace period is nearly over. Some: it was stopped.
pub async fn wait(
    plan: &Plan,
    (command, pid): (&[OsString], i32),
    signals: &Signals,
    clock: Clock,
    mut endpoints: Option<&mut Endpoints>,
) -> Result<Option<Stopped>, Fatal> {
    // A place of its own: no service runs yet.
    let mut children = Services::new(plan);
    children.helper_started(Role::Before, pid);
    let began = clock.now();
    let command = events::text(command);
    info!(event = "before", command, pid);
    let mut stopped: Option<Signal> = None;
    let mut kill_at = None;
    loop {
        tokio::select! {
            biased;
            batch = signals.next() => for signal in batch.iter() {
                let is_stop = plan.rule.before_start([signal].into_iter().collect(), plan.main().server).is_some();
                match signal {
                    Signal::CHLD => {}
                    _ if is_stop || signal == Signal::INT => {
                        stopped = stopped.or(Some(signal));
                        kill_at = kill_at.or(Some(clock.now() + plan.timing.until_kill()));
                        let _ = child::send(pid, signal);
                    }
                    _ if signal.is_forwarded() => _ = child::send(pid, signal),
                    _ => {}
                }
            },
            () = clock.until(kill_at) => {
                kill_at = None;
                let _ = child::send(-pid, Signal::KILL);
            }
            message = endpoints::next(endpoints.as_deref_mut()) => super::answer(plan, clock, endpoints.as_deref_mut(), message),
        }
        let mut end = None;
        children.reap(|_, ended, role| end = end.or(role.map(|_| ended)));
        match (end, stopped) {
            (None, _) => {}
            (Some(_), Some(signal)) => return Ok(Some(Stopped { signal, code: 128 + signal.number() as u8 })),
            (Some(Ended::Code(0)), None) => {
                info!(event = "before", command, after = %Show(clock.now().since(began)), message = "ended");
                return Ok(None);
            }
            (Some(ended), None) => {
                let code = match ended {
                    Ended::Code(code) => code,
                    Ended::Signal(signal) => 128 + signal.number() as u8,
                };
                return Err(Fatal {
                    code,
                    message: format!("cannot start: {command:?} (--before) {ended}; nothing was started"),
                });
            }
        }
    }
}
