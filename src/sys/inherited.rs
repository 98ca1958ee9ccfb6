//! What the program that started lameduck left behind, so that the app gets exactly that: signal mask, ignored signals, descriptors,
//! environment.

use std::ffi::{CStr, CString};
use std::fs;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::core::signals::{Signal, SignalSet};

/// Runs before Rust's start-up code. Until signals are blocked, the kernel discards those for which a PID 1 has no handler: so they are
/// blocked first. Rust's start-up code ignores SIGPIPE and opens /dev/null where 0, 1 or 2 is closed; musl unblocks the signals that it
/// keeps for itself when Rust sets its handlers. So all of these are read before.
#[used]
#[unsafe(link_section = ".init_array.00000")]
static BEFORE_MAIN: extern "C" fn() = before_main;
static FOUND: AtomicU32 = AtomicU32::new(0);
static MASK: AtomicU64 = AtomicU64::new(0);
const PIPE_IGNORED: u32 = 1 << 3;

/// All signals but faults, which must hit the process that caused them.
fn all_but_faults() -> SignalSet {
    let faults: SignalSet = (1..=31).filter_map(Signal::from_number).filter(|signal| signal.is_fault()).collect();
    SignalSet(!faults.0)
}

extern "C" fn before_main() {
    // SAFETY: only looks.
    let is_init = unsafe { libc::getpid() } == 1;
    // Blocking no signal changes nothing, and returns the mask.
    let blocked = if is_init { all_but_faults() } else { SignalSet::default() };
    MASK.store(set_mask(libc::SIG_BLOCK, blocked).0, Ordering::Relaxed);
    let mut found = 0;
    for fd in 0..=2 {
        // SAFETY: fcntl with F_GETFD only looks.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } == -1 {
            found |= 1 << fd;
            fill();
        }
    }
    if is_ignored(libc::SIGPIPE) {
        found |= PIPE_IGNORED;
    }
    FOUND.store(found, Ordering::Relaxed);
}

/// Fills 0, 1 and 2. Without /dev/null Rust's start-up code would abort: then one end of a pipe takes the lowest free number. It reads as
/// empty and cannot be written to.
fn fill() {
    let mut ends = [0; 2];
    // SAFETY: two descriptors are written to memory of ours, and the second is closed again before anybody knows of it.
    unsafe {
        if libc::access(c"/dev/null".as_ptr(), libc::R_OK | libc::W_OK) == -1 && libc::pipe(ends.as_mut_ptr()) == 0 {
            libc::close(ends[1]);
        }
    }
}

fn is_ignored(signal: i32) -> bool {
    // SAFETY: a null new action only reads the old one into memory of its type.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// What the app is to get as lameduck got it.
#[derive(Debug)]
pub struct Inherited {
    /// The signals that were blocked, 32 to 34 included.
    pub mask: SignalSet,
    pub pipe_ignored: bool,
    pub child_ignored: bool,
    /// Which of 0, 1 and 2 were closed.
    pub closed: Vec<RawFd>,
    /// Open descriptors beyond 2.
    pub descriptors: Vec<RawFd>,
    /// `NAME=value`, byte for byte.
    pub environment: Vec<CString>,
}

/// Gives back the mask that this process was started with: for another program that is linked with this library, and may be a PID 1 as
/// well.
pub fn restore_mask() {
    set_mask(libc::SIG_SETMASK, SignalSet(MASK.load(Ordering::Relaxed)));
}

/// Takes what `before_main` found, and everything else that the app is to inherit. Meanwhile musl has unblocked the signals that it keeps
/// for itself: they are blocked again.
pub fn take() -> Inherited {
    set_mask(libc::SIG_BLOCK, all_but_faults());
    let found = FOUND.load(Ordering::Relaxed);
    let child_ignored = is_ignored(libc::SIGCHLD);
    if child_ignored {
        // With SIGCHLD ignored the kernel would reap by itself.
        set_disposition(libc::SIGCHLD, libc::SIG_DFL);
    }
    Inherited {
        mask: SignalSet(MASK.load(Ordering::Relaxed)),
        pipe_ignored: found & PIPE_IGNORED != 0,
        child_ignored,
        closed: (0..=2).filter(|fd| found & (1 << fd) != 0).collect(),
        descriptors: open_descriptors(),
        environment: environment(),
    }
}

impl Inherited {
    /// Closes the descriptors that the main command has inherited from lameduck: from now on only the main command has them.
    pub fn let_go(&self) {
        for fd in &self.descriptors {
            // SAFETY: these were open when we began and belong to the app; nothing here uses them.
            unsafe { libc::close(*fd) };
        }
    }

    /// For `lameduck drain`: lets INT and TERM end this process, as they end any command. The others stay blocked: a PID 1 that signals its
    /// process group (httpd, on a restart) signals this process too, and signals for its workers must not end it.
    pub fn let_end(&self) {
        let ends: SignalSet = [Signal::INT, Signal::TERM].into_iter().collect();
        set_mask(libc::SIG_UNBLOCK, SignalSet(ends.0 & !self.mask.0));
    }
}

/// Changes the signal mask by the raw system call, because the C library leaves out signals 32 to 34. Returns the mask before.
pub(super) fn set_mask(how: i32, mask: SignalSet) -> SignalSet {
    let mut before = 0u64;
    // SAFETY: both sets are the kernel's eight bytes, and outlive the call.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, &raw const mask.0, &raw mut before, size_of::<u64>()) };
    SignalSet(before)
}

pub(super) fn set_disposition(signal: i32, handler: libc::sighandler_t) {
    // SAFETY: no handler of ours is installed, only SIG_DFL or SIG_IGN.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &action, std::ptr::null_mut());
    }
}

fn open_descriptors() -> Vec<RawFd> {
    let is_open = |fd: &RawFd| {
        // SAFETY: fcntl with F_GETFD only looks.
        unsafe { libc::fcntl(*fd, libc::F_GETFD) != -1 }
    };
    match fs::read_dir("/proc/self/fd") {
        Ok(names) => {
            let fds: Vec<RawFd> = names.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
            // The descriptor of the directory itself is in the list, and closed by now.
            fds.into_iter().filter(|fd| *fd > 2).filter(is_open).collect()
        }
        Err(_) => (3..1024).filter(is_open).collect(),
    }
}

fn environment() -> Vec<CString> {
    unsafe extern "C" {
        static environ: *const *const libc::c_char;
    }
    let mut variables = Vec::new();
    // SAFETY: environ is a null-terminated array of C strings, and no other thread runs that could change it.
    unsafe {
        let mut next = environ;
        while !next.is_null() && !(*next).is_null() {
            variables.push(CStr::from_ptr(*next).to_owned());
            next = next.add(1);
        }
    }
    variables
}
