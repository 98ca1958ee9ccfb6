//! The app's process: born with exactly what we inherited, signalled, reaped. The one reaper is `reap`.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2, tcgetpgrp};

use super::inherited::{Inherited, set_disposition, set_mask};
use super::{checked, proc};
use crate::core::shutdown::Ended;
use crate::core::signals::Signal;

/// Where execvp looks when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// An exec that says nothing for so long (a hung file system) is left to end as it will.
const EXEC_PATIENCE_MS: i32 = 10_000;

#[derive(Debug)]
pub enum SpawnError {
    /// The command could not be executed, and why.
    Exec(io::Error),
    /// No process could be made.
    Fork(io::Error),
}

/// Starts `argv` in a process group of its own and gives it the terminal if we have it. Its signal mask, ignored signals and
/// descriptors are those we inherited. Must be called with signals blocked, before anything else may reap.
pub fn spawn(argv: &[CString], environment: &[CString], path: Option<&OsStr>, inherited: &Inherited) -> Result<i32, SpawnError> {
    let image = Image::new(argv, environment, path);
    let terminal = terminal();
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::Fork(errno.into()))?;

    // SAFETY: there is one thread, and the child only makes system calls and writes to memory that is its own.
    match unsafe { libc::fork() } {
        -1 => Err(SpawnError::Fork(io::Error::last_os_error())),
        0 => {
            let errno = become_app(image, terminal, inherited);
            let text = errno.to_ne_bytes();
            // SAFETY: four bytes that outlive the call; _exit runs nothing of ours.
            unsafe {
                libc::write(write.as_raw_fd(), text.as_ptr().cast(), text.len());
                libc::_exit(i32::from(exec_code(errno)))
            }
        }
        pid => {
            drop(write);
            // In parent and child: whoever comes second finds it done, and a signal to the group never comes too early.
            let _ = nix::unistd::setpgid(Pid::from_raw(pid), Pid::from_raw(pid));
            for fd in &inherited.descriptors {
                // SAFETY: these were open when we began and belong to the app; nothing here uses them.
                unsafe { libc::close(*fd) };
            }
            // Pins no mount.
            let _ = nix::unistd::chdir("/");
            match exec_error(&read) {
                None => Ok(pid),
                Some(errno) => {
                    // SAFETY: waits for the child that has just said that it exits.
                    unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
                    Err(SpawnError::Exec(io::Error::from_raw_os_error(errno)))
                }
            }
        }
    }
}

/// What a shell exits with when it cannot execute.
pub fn exec_code(errno: i32) -> u8 {
    if matches!(errno, libc::ENOENT | libc::ENOTDIR) { 127 } else { 126 }
}

/// Everything execve needs, made before the fork: no memory is allocated after it.
struct Image {
    candidates: Vec<CString>,
    argv: Vec<*const libc::c_char>,
    /// For a script without a shebang: /bin/sh, a place for its path, its arguments.
    shell_argv: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
    /// Where LISTEN_PID stands, if it names us and so must name the child.
    listen_pid: Option<(usize, Vec<u8>)>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

impl Image {
    fn new(argv: &[CString], environment: &[CString], path: Option<&OsStr>) -> Image {
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let program = argv.first().map_or(&b""[..], |program| program.to_bytes());
        let ours = [LISTEN_PID, std::process::id().to_string().as_bytes()].concat();
        let listen_pid = environment.iter().position(|variable| variable.to_bytes() == ours);
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(pointers(argv.get(1..).unwrap_or_default()));
        Image {
            candidates: candidates(program, path),
            argv: pointers(argv),
            shell_argv,
            environment: pointers(environment),
            // Room for any pid.
            listen_pid: listen_pid.map(|index| (index, [LISTEN_PID, &[0; 12]].concat())),
        }
    }

    /// As execvp(3) of glibc, which musl's differs from: the next directory where one has it not, /bin/sh for what has no format.
    fn exec(&mut self) -> i32 {
        let mut denied = false;
        let mut last = libc::ENOENT;
        for candidate in &self.candidates {
            // SAFETY: null-terminated arrays of C strings that live until the exec.
            last = unsafe {
                libc::execve(candidate.as_ptr(), self.argv.as_ptr(), self.environment.as_ptr());
                let mut errno = Errno::last_raw();
                if errno == libc::ENOEXEC {
                    self.shell_argv[1] = candidate.as_ptr();
                    libc::execve(self.shell_argv[0], self.shell_argv.as_ptr(), self.environment.as_ptr());
                    errno = Errno::last_raw();
                }
                errno
            };
            match last {
                libc::EACCES => denied = true,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                _ => return last,
            }
        }
        if denied { libc::EACCES } else { last }
    }
}

fn candidates(program: &[u8], path: Option<&OsStr>) -> Vec<CString> {
    if program.is_empty() {
        return Vec::new();
    }
    if program.contains(&b'/') {
        return CString::new(program).into_iter().collect();
    }
    let path = path.unwrap_or(OsStr::new(DEFAULT_PATH)).as_bytes();
    path.split(|byte| *byte == b':')
        .filter_map(|directory| {
            let directory = if directory.is_empty() { b"." } else { directory };
            CString::new([directory, b"/", program].concat()).ok()
        })
        .collect()
}

/// In the child. Returns only if nothing could be executed.
fn become_app(mut image: Image, terminal: Option<RawFd>, inherited: &Inherited) -> i32 {
    // SAFETY: plain system calls on our own process.
    unsafe {
        libc::setpgid(0, 0);
        if let Some(fd) = terminal {
            // TTOU is blocked: from the background this neither stops us nor fails.
            libc::tcsetpgrp(fd, libc::getpid());
        }
        if let Some((index, variable)) = &mut image.listen_pid {
            write_decimal(&mut variable[LISTEN_PID.len()..], libc::getpid());
            image.environment[*index] = variable.as_ptr().cast();
        }
        for fd in &inherited.closed {
            libc::close(*fd);
        }
    }
    if !inherited.pipe_ignored {
        set_disposition(libc::SIGPIPE, libc::SIG_DFL);
    }
    if inherited.child_ignored {
        set_disposition(libc::SIGCHLD, libc::SIG_IGN);
    }
    // The mask last: what comes before the exec waits for it.
    set_mask(libc::SIG_SETMASK, inherited.mask);
    image.exec()
}

fn write_decimal(place: &mut [u8], number: i32) {
    let mut digits = [0u8; 12];
    let (mut rest, mut count) = (number, 0);
    while rest > 0 && count < digits.len() - 1 {
        digits[count] = b'0' + (rest % 10) as u8;
        rest /= 10;
        count += 1;
    }
    for (to, from) in place.iter_mut().zip(digits[..count].iter().rev().chain([&0])) {
        *to = *from;
    }
}

/// The terminal whose foreground we are, if any: only that is ours to hand on.
fn terminal() -> Option<RawFd> {
    (0..=2).find(|fd| {
        // SAFETY: 0 to 2 are open: Rust's start-up code saw to it.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
        tcgetpgrp(fd).is_ok_and(|foreground| foreground == nix::unistd::getpgrp())
    })
}

fn exec_error(read: &OwnedFd) -> Option<i32> {
    let mut poll = libc::pollfd { fd: read.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let mut errno = [0u8; 4];
    // SAFETY: one pollfd and four bytes, which outlive the calls.
    let read = unsafe {
        if libc::poll(&mut poll, 1, EXEC_PATIENCE_MS) != 1 {
            return None;
        }
        libc::read(read.as_raw_fd(), errno.as_mut_ptr().cast(), errno.len())
    };
    (read == 4).then(|| i32::from_ne_bytes(errno))
}

/// What a round of reaping found.
#[derive(Debug)]
pub struct Reaped {
    pub main: Option<Ended>,
    /// No child is left at all.
    pub none_left: bool,
}

/// Reaps all that is dead. libc's waitpid: nix's loses whoever died of a real-time signal.
pub fn reap(main: i32) -> Reaped {
    let mut ended = None;
    loop {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Reaped { main: ended, none_left: true },
            0 => return Reaped { main: ended, none_left: false },
            pid if pid == main => {
                ended = if libc::WIFSIGNALED(status) {
                    Signal::from_number(libc::WTERMSIG(status)).map(Ended::Signal)
                } else {
                    Some(Ended::Code(libc::WEXITSTATUS(status) as u8))
                }
            }
            _ => {}
        }
    }
}

/// To one process, or with a negative number to a group.
pub fn send(pid: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: kill has no memory to harm.
    checked(unsafe { libc::kill(pid, signal.number()) }.into()).map(drop)
}

/// To every process but us that is ours: all of the pid namespace if we are its PID 1, else our descendants.
pub fn send_all(signal: Signal) -> io::Result<()> {
    if std::process::id() == 1 {
        return send(-1, signal);
    }
    let mut result = Ok(());
    for process in proc::descendants(&proc::processes(), std::process::id() as i32) {
        result = send(process.pid, signal).or(result);
    }
    result
}

/// Orphans come to us even where we are not PID 1.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Root without CAP_KILL, but able to start processes of other users: their signals would be refused.
pub fn cannot_signal_others() -> bool {
    const CAP_KILL: u32 = 5;
    const CAP_SETUID: u32 = 7;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    // Effective, permitted, inheritable; twice 32 bits.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: version 3 of capget fills two of these triples.
    let asked = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    let has = |capability: u32| sets[0][0] & (1 << capability) != 0;
    asked == 0 && nix::unistd::geteuid().is_root() && !has(CAP_KILL) && has(CAP_SETUID)
}

/// The arguments as the kernel takes them.
pub fn c_string(word: &OsStr) -> Option<CString> {
    CString::new(word.as_bytes()).ok()
}

/// `NAME=value` as the kernel takes it.
pub fn variable(name: &str, value: &str) -> Option<CString> {
    CString::new(format!("{name}={value}")).ok()
}

/// The value of a variable in a raw environment.
pub fn value<'a>(environment: &'a [CString], name: &str) -> Option<&'a OsStr> {
    let value = |variable: &'a CStr| variable.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    environment.iter().find_map(|variable| value(variable)).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_program_is_looked_for() {
        let look = |program: &str, path: Option<&str>| -> Vec<String> {
            candidates(program.as_bytes(), path.map(OsStr::new)).into_iter().map(|c| c.into_string().unwrap()).collect()
        };
        assert_eq!(look("./x", Some("/a")), ["./x"]);
        assert_eq!(look("x", Some("/a::/b")), ["/a/x", "./x", "/b/x"]);
        assert_eq!(look("x", None), ["/usr/local/bin/x", "/bin/x", "/usr/bin/x"]);
        assert!(look("", Some("/a")).is_empty());
    }

    #[test]
    fn decimals() {
        let mut place = [9u8; 12];
        write_decimal(&mut place, 4_194_304);
        assert_eq!(&place[..8], b"4194304\0");
    }
}
