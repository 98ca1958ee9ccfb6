//! Signals as they come. They are blocked since main began, so none is lost, real-time signals keep their numbers, and no handler runs.
//! They are read from a signalfd in the event loop, and by one plain system call while there is nothing else to wait for.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::checked;
use crate::core::signals::{Signal, SignalSet};

/// How many signals are read at once. Many dying orphans leave one CHLD; real-time signals queue.
const BATCH: usize = 16;

#[derive(Debug)]
pub struct Signals {
    fd: AsyncFd<OwnedFd>,
    pid: u32,
}

impl Signals {
    /// Opens the signalfd. Must be called inside a tokio runtime.
    pub fn open() -> io::Result<Signals> {
        let all = u64::MAX;
        // SAFETY: the mask is the kernel's eight bytes; -1 asks for a new descriptor.
        let fd = checked(unsafe {
            libc::syscall(libc::SYS_signalfd4, -1, &raw const all, size_of::<u64>(), libc::SFD_NONBLOCK | libc::SFD_CLOEXEC)
                as i64
        })?;
        // SAFETY: the descriptor is new and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: the descriptor is owned by the AsyncFd and closed after it is deregistered.
        let fd = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(|error| error.into_parts().1)?;
        Ok(Signals { fd, pid: std::process::id() })
    }

    /// Waits for signals; CHLD is among them. Cancel-safe.
    pub async fn next(&self) -> Batch {
        loop {
            // The registration lives as long as the runtime, so this does not fail; if it did, only this wait would never end.
            let Ok(mut ready) = self.fd.readable().await else { std::future::pending().await };
            // SAFETY: all zeroes are a value of this plain struct.
            let mut infos: [libc::signalfd_siginfo; BATCH] = unsafe { std::mem::zeroed() };
            // SAFETY: the buffer is plain memory of the size that is passed.
            let read = unsafe { libc::read(self.fd.as_raw_fd(), (&raw mut infos).cast(), size_of_val(&infos)) };
            let count = usize::try_from(read).unwrap_or(0) / size_of::<libc::signalfd_siginfo>();
            if count < BATCH {
                // That was all: the next signal makes it readable again.
                ready.clear_ready();
            }
            let mut batch = Batch([None; BATCH]);
            for (place, info) in batch.0.iter_mut().zip(&infos[..count]) {
                *place = self.meant_for_us(info.ssi_signo, info.ssi_pid);
            }
            if count > 0 {
                return batch;
            }
        }
    }

    /// Waits for one signal and for nothing else, which costs less than the event loop. None: this is not possible here.
    pub fn wait(&self) -> Option<Batch> {
        let all = u64::MAX;
        loop {
            // SAFETY: all zeroes are a value of this plain struct.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            let no_limit = std::ptr::null::<libc::timespec>();
            // SAFETY: the mask is the kernel's eight bytes; both outlive the call.
            let number =
                unsafe { libc::syscall(libc::SYS_rt_sigtimedwait, &raw const all, &raw mut info, no_limit, size_of::<u64>()) };
            if number > 0 {
                // SAFETY: si_pid is read for signals that have one or where it is zero or harmless: it is compared, no more.
                let sender = unsafe { info.si_pid() } as u32;
                let mut batch = Batch([None; BATCH]);
                batch.0[0] = self.meant_for_us(number as u32, sender);
                return Some(batch);
            }
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
    }

    /// The signal, unless lameduck itself caused it: a broken log pipe raises PIPE, a full quota XFSZ. Those have our own pid, and are
    /// handled where they happen.
    fn meant_for_us(&self, number: u32, sender: u32) -> Option<Signal> {
        let own = sender == self.pid && matches!(number as i32, libc::SIGPIPE | libc::SIGXFSZ);
        if own { None } else { Signal::from_number(number as i32) }
    }
}

/// Signals in the order in which they came. They are on the stack: when many orphans die at once, the allocator would be half of the cost.
#[derive(Debug)]
pub struct Batch([Option<Signal>; BATCH]);

impl Batch {
    pub fn iter(&self) -> impl Iterator<Item = Signal> {
        self.0.iter().flatten().copied()
    }

    /// Whether there may be more.
    pub fn is_full(&self) -> bool {
        self.0.iter().all(Option::is_some)
    }
}

/// The signals that wait to be delivered.
pub fn pending() -> SignalSet {
    let mut set = 0u64;
    // SAFETY: the set is the kernel's eight bytes.
    unsafe { libc::syscall(libc::SYS_rt_sigpending, &raw mut set, size_of::<u64>()) };
    SignalSet(set)
}
