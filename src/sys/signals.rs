//! Signals as they come, from a signalfd: they are blocked since main began, so none is lost or coalesced with another's number,
//! real-time ones arrive with their numbers, and no handler runs.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::checked;
use crate::core::signals::{Signal, SignalSet};

/// Read at once: what a storm of dying orphans leaves is one CHLD, real-time signals queue.
const BATCH: usize = 16;

#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<OwnedFd>,
    pid: u32,
}

impl Signals {
    /// Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Signals> {
        let all = u64::MAX;
        // SAFETY: the mask is the kernel's eight bytes; -1 asks for a new descriptor.
        let fd = checked(unsafe {
            libc::syscall(libc::SYS_signalfd4, -1, &raw const all, size_of::<u64>(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
        })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: the descriptor is owned by the AsyncFd and closed after it is deregistered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)?;
        Ok(Signals { fd, pid: std::process::id() })
    }

    /// Waits for signals and adds those that came, CHLD among them. Cancel-safe.
    pub async fn next(&self) -> Vec<Signal> {
        loop {
            // The registration lives as long as the runtime: an error here would end nothing but the waiting.
            let Ok(mut ready) = self.fd.readable().await else { std::future::pending().await };
            // SAFETY: all zeroes are a value of this plain struct.
            let mut infos: [libc::signalfd_siginfo; BATCH] = unsafe { std::mem::zeroed() };
            // SAFETY: the buffer is plain memory of the size that is passed.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut infos).cast(), size_of_val(&infos)) };
            let count = usize::try_from(read).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
            if count < BATCH {
                // All there was: what comes later makes it readable again.
                ready.clear_ready();
            }
            let signals: Vec<Signal> = infos[..count].iter().filter_map(|info| self.meant_for_the_app(info)).collect();
            if !signals.is_empty() {
                return signals;
            }
        }
    }

    /// A broken log pipe raises SIGPIPE, a full quota XFSZ: ours, by our own pid, and handled where it happened.
    fn meant_for_the_app(&self, info: &libc::signalfd_siginfo) -> Option<Signal> {
        let own = info.ssi_pid == self.pid && info.ssi_signo != libc::SIGCHLD as u32;
        if own { None } else { Signal::from_number(info.ssi_signo as i32) }
    }
}

/// What waits to be delivered.
pub fn pending() -> SignalSet {
    let mut set = 0u64;
    // SAFETY: the set is the kernel's eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size_of::<u64>()) };
    SignalSet(set)
}
