//! What clusters do to a pod that is going, chosen by a seed.

use std::fmt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use fastrand::Rng;
use lameduck::core::time::Show;
use nix::sched::sched_setaffinity;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::sandbox;

/// Lengths of time are from the deletion, or from the start where nothing was deleted yet.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Chaos {
    /// A restarted kubelet begins anew.
    SecondSignal { after: Duration },
    /// An eviction or a node's end cuts the grace period.
    KilledEarly { after: Duration },
    /// The app dies in its last minute.
    Crash { after: Duration },
    /// The rollout is undone while the pod starts.
    StopDuringStart { after: Duration },
    /// Neighbours take the CPU.
    Starved,
    /// The app stands still: a frozen cgroup, a page fault that takes long.
    Paused { after: Duration, length: Duration },
}

impl Chaos {
    /// One of all, within the time in which clients still send.
    pub fn draw(rng: &mut Rng, clients_send_for: Duration) -> Chaos {
        let within = |rng: &mut Rng, most: Duration| most.mul_f64(rng.f64());
        match rng.u32(0..6) {
            0 => Chaos::SecondSignal { after: within(rng, clients_send_for) },
            1 => Chaos::KilledEarly { after: within(rng, clients_send_for) },
            2 => Chaos::Crash { after: within(rng, clients_send_for) },
            3 => Chaos::StopDuringStart { after: within(rng, Duration::from_millis(200)) },
            4 => Chaos::Starved,
            _ => Chaos::Paused {
                after: within(rng, clients_send_for),
                length: Duration::from_millis(500) + within(rng, Duration::from_millis(1000)),
            },
        }
    }

    /// Whether it takes the app away, whoever is PID 1: nobody could answer then.
    pub fn takes_the_app(self) -> bool {
        matches!(self, Chaos::KilledEarly { .. } | Chaos::Crash { .. })
    }

    /// Whether its round can be judged: clients come, and the app is left to answer them.
    pub fn can_be_judged(self) -> bool {
        !self.takes_the_app() && !matches!(self, Chaos::StopDuringStart { .. })
    }
}

impl fmt::Display for Chaos {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Chaos::SecondSignal { after } => write!(f, "a second stop signal after {}", Show(after)),
            Chaos::KilledEarly { after } => write!(f, "KILL after {}", Show(after)),
            Chaos::Crash { after } => write!(f, "the app crashes after {}", Show(after)),
            Chaos::StopDuringStart { after } => write!(f, "stopped {} after the start", Show(after)),
            Chaos::Starved => write!(f, "neighbours take the CPU"),
            Chaos::Paused { after, length } => write!(f, "the app stands still for {} after {}", Show(length), Show(after)),
        }
    }
}

/// The CPU that a starved contender shares with its neighbours; the clients have the others, if there are any.
pub const CPU: usize = 0;
const NEIGHBOURS: usize = 4;

/// Processes that burn the CPU from `go` on.
#[derive(Debug)]
pub struct Neighbours(Vec<Child>);

impl Neighbours {
    pub fn ready() -> std::io::Result<Neighbours> {
        let neighbour = || {
            use std::os::unix::process::CommandExt;
            Command::new("/proc/self/exe").arg0(BURN).stdin(Stdio::piped()).spawn()
        };
        (0..NEIGHBOURS).map(|_| neighbour()).collect::<Result<_, _>>().map(Neighbours)
    }

    pub fn go(&mut self) {
        for neighbour in &mut self.0 {
            use std::io::Write;
            // One that has died burns nothing.
            let _ = neighbour.stdin.as_mut().map(|stdin| stdin.write_all(b"\n"));
        }
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        for neighbour in &mut self.0 {
            let _ = neighbour.kill();
            let _ = neighbour.wait();
        }
    }
}

/// The name by which our binary knows that it is a neighbour.
pub const BURN: &str = "lameduck-rehearse-neighbour";

/// A neighbour: waits for a line, then takes what it gets.
pub fn burn() -> ExitCode {
    let begun = sandbox::die_with_parent(std::io::stdin())
        .and_then(|()| sandbox::only(CPU))
        .and_then(|cpus| sched_setaffinity(Pid::from_raw(0), &cpus).map_err(std::io::Error::from))
        .and_then(|()| std::io::stdin().read_line(&mut String::new()));
    if !matches!(begun, Ok(1..)) {
        return ExitCode::FAILURE;
    }
    loop {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_choice_and_all_choices_come() {
        let draw = |seed| Chaos::draw(&mut Rng::with_seed(seed), Duration::from_secs(6));
        assert_eq!(draw(3), draw(3));
        let kinds: std::collections::HashSet<_> = (0..100).map(|seed| std::mem::discriminant(&draw(seed))).collect();
        assert_eq!(kinds.len(), 6);
        for seed in 0..1000 {
            if let Chaos::SecondSignal { after } | Chaos::KilledEarly { after } | Chaos::Crash { after } = draw(seed) {
                assert!(after <= Duration::from_secs(6));
            }
        }
    }
}
