//! The kernel's modules that show sockets. Where one is not loaded, the first request makes the kernel load it by the node's modprobe, and the
//! system call returns when modprobe has ended, however long that takes. So the first request is made in a thread of its own.

use std::io;
use std::path::Path;
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::core::time::Show;

/// How long lameduck waits for a module. Loading takes a tenth of a second (docs/traffic.md).
const LIMIT: Duration = Duration::from_secs(2);
/// The stack of the thread, in bytes: enough for a few calls.
const STACK: usize = 64 << 10;

pub static TCP: Module = Module::new("tcp_diag", &[libc::AF_INET, libc::AF_INET6]);
pub static UNIX: Module = Module::new("unix_diag", &[libc::AF_UNIX]);

#[derive(Debug)]
pub struct Module {
    name: &'static str,
    /// The families of sockets that it shows.
    families: &'static [i32],
    step: Mutex<Step>,
    loaded: Condvar,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Begin,
    /// The thread has been loading it since then.
    Loading(Instant),
    /// It is there, or the kernel has no such module: the next request says which.
    Known,
}

impl Module {
    const fn new(name: &'static str, families: &'static [i32]) -> Module {
        Module { name, families, step: Mutex::new(Step::Begin), loaded: Condvar::new() }
    }

    /// Has the kernel load the module if it is not there, and waits for it. The error TimedOut: it is still being loaded, and a request would
    /// wait for it.
    /// `ask`: makes a request for this family of sockets.
    pub fn load(&'static self, ask: fn(i32)) -> io::Result<()> {
        let file = Path::new("/sys/module").join(self.name);
        self.known_by(|| file.exists(), move || self.families.iter().copied().for_each(ask))
    }

    /// `is_there`: the module is there for certain. `ask`: returns when the kernel has loaded it or has not found it.
    fn known_by(&'static self, is_there: impl FnOnce() -> bool, ask: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let mut step = self.step.lock().unwrap_or_else(PoisonError::into_inner);
        if let Step::Begin = *step {
            let ask = move || {
                ask();
                *self.step.lock().unwrap_or_else(PoisonError::into_inner) = Step::Known;
                self.loaded.notify_all();
            };
            // Without a thread the next request may wait: better than to see nothing.
            let is_known = is_there() || thread::Builder::new().stack_size(STACK).spawn(ask).is_err();
            *step = if is_known { Step::Known } else { Step::Loading(now()) };
        }
        let Step::Loading(since) = *step else { return Ok(()) };
        let left = (since + LIMIT).saturating_duration_since(now());
        let loads = |step: &mut Step| matches!(step, Step::Loading(_));
        let (step, _) = self.loaded.wait_timeout_while(step, left, loads).unwrap_or_else(PoisonError::into_inner);
        match *step {
            Step::Loading(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} was not loaded within {}", self.name, Show(LIMIT))))
            }
            Step::Begin | Step::Known => Ok(()),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "what is waited for here is no event of the loop")]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn who_loads_forever_is_waited_for_once() {
        static HANGS: Module = Module::new("hangs", &[]);
        let (end, ended) = channel::<()>();
        let began = now();
        let late = HANGS.known_by(|| false, move || _ = ended.recv()).unwrap_err();
        assert_eq!((late.kind(), began.elapsed() >= LIMIT), (io::ErrorKind::TimedOut, true));
        let again = now();
        assert!(HANGS.known_by(|| false, || unreachable!("asked twice")).is_err());
        assert!(again.elapsed() < LIMIT);
        // The modprobe ends at last.
        drop(end);
        while HANGS.known_by(|| false, || unreachable!("asked twice")).is_err() {
            thread::yield_now();
        }
    }

    #[test]
    fn who_is_there_or_is_loaded_at_once_is_known() {
        static IS_THERE: Module = Module::new("is there", &[]);
        static LOADS: Module = Module::new("loads", &[]);
        assert!(IS_THERE.known_by(|| true, || unreachable!("no need")).is_ok());
        assert!(LOADS.known_by(|| false, || {}).is_ok());
    }
}
