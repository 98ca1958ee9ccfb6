//! lameduck's own processes: started with what lameduck inherited, signalled, reaped. `reap` is the only place that reaps.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Pid, pipe2, tcgetpgrp};

use super::inherited::{Inherited, set_disposition, set_mask};
use super::{checked, proc, signals};
use crate::core::shutdown::Ended;
use crate::core::signals::Signal;
use crate::core::start::identity::Identity;

/// Where execvp looks if there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/bin:/usr/bin";
/// For how many ms an exec that does not answer (a hung file system) is waited for. After that it goes on by itself.
const EXEC_PATIENCE_MS: i32 = 10_000;
/// How often, in ms, this wait looks whether a signal has come.
const EXEC_GLANCE_MS: i32 = 50;

/// What a new process does to itself before its exec.
#[derive(Debug, Default)]
pub struct Setup {
    pub identity: Option<Identity>,
    pub directory: Option<CString>,
    pub umask: Option<u32>,
    pub nofile: Option<u64>,
}

/// The step of a new process that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub enum Step {
    OpenFiles,
    User,
    Directory,
    Exec,
}

#[derive(Debug)]
pub enum SpawnError {
    /// A step failed, the exec or one before it, and why.
    Step(Step, io::Error),
    /// No process could be started.
    Fork(io::Error),
}

/// A step that failed, as it is written to the pipe: the step, then errno.
struct Failed {
    step: Step,
    errno: i32,
}

impl Failed {
    const LENGTH: usize = 5;

    fn last(step: Step) -> Failed {
        Failed { step, errno: Errno::last_raw() }
    }

    fn to_bytes(&self) -> [u8; Failed::LENGTH] {
        let [a, b, c, d] = self.errno.to_ne_bytes();
        [self.step as u8, a, b, c, d]
    }

    fn from_bytes([step, a, b, c, d]: [u8; Failed::LENGTH]) -> Failed {
        let steps = [Step::OpenFiles, Step::User, Step::Directory];
        let step = steps.into_iter().find(|known| *known as u8 == step).unwrap_or(Step::Exec);
        Failed { step, errno: i32::from_ne_bytes([a, b, c, d]) }
    }

    fn error(&self) -> SpawnError {
        SpawnError::Step(self.step, io::Error::from_raw_os_error(self.errno))
    }
}

/// Which descriptors a new process gets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Streams {
    /// All that lameduck inherited, and the terminal.
    All,
    /// Standard output and error; /dev/null as its input.
    Outputs,
    /// /dev/null as its input and its outputs.
    Nothing,
}

/// The command and what it gets: argv, environment, and what lameduck inherited.
#[derive(Clone, Copy)]
pub struct Command<'a> {
    pub argv: &'a [CString],
    pub environment: &'a [CString],
    pub setup: &'a Setup,
    pub inherited: &'a Inherited,
    pub streams: Streams,
    /// The directory in which it starts. None: lameduck's own.
    pub from: Option<&'a CStr>,
}

/// Becomes the command in place of lameduck. Returns only if that fails.
pub fn replace(command: &Command<'_>) -> SpawnError {
    become_app(&mut Image::new(command), command).error()
}

/// Starts the command in a process group of its own. Its signal mask and ignored signals are those that lameduck inherited, and its
/// descriptors are as `streams` says. Must be called with signals blocked, while nothing else may reap. Returns its pid, or the step that
/// failed.
///
/// What it borrows must live as long as lameduck: until its exec the new process works in lameduck's memory (a copy of the page tables
/// would cost more than everything else here), and the exec may hang.
pub fn spawn(command: Command<'static>) -> Result<i32, SpawnError> {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).map_err(|errno| SpawnError::Fork(errno.into()))?;
    let mut birth =
        Box::new(Birth { image: Image::new(&command), command, terminal: terminal(command.streams), report: write.as_raw_fd() });
    let mut stack: Vec<MaybeUninit<u8>> = Vec::with_capacity(STACK);
    // A process that becomes another user needs a memory of its own: a process of that user might trace it.
    let shared = if command.setup.identity.is_none() { libc::CLONE_VM } else { 0 };
    let argument = (&raw mut *birth).cast();
    // SAFETY: the stack's end is that of one allocation, which clone aligns; `be_born` gets a Birth that nobody else touches; both are given
    // up below only where the child has left our memory. errno is shared as well: until then we make no call whose failure anybody reads.
    let clone =
        |flags: i32| unsafe { libc::clone(be_born, stack.as_mut_ptr().add(STACK).cast(), flags | libc::SIGCHLD, argument) };
    // Where memory cannot be shared (an emulator), it is copied.
    let pid = [shared, 0].into_iter().map(clone).find(|pid| *pid != -1);
    let pid = pid.ok_or_else(|| SpawnError::Fork(io::Error::last_os_error()))?;
    drop(write);
    // Done in parent and child: the second one finds it done, and a signal to the group never comes too early.
    let _ = nix::unistd::setpgid(Pid::from_raw(pid), Pid::from_raw(pid));
    match wait_for_exec(&read) {
        Exec::Done => Ok(pid),
        Exec::Hangs => {
            std::mem::forget((birth, stack, read));
            Ok(pid)
        }
        Exec::Failed(failed) => {
            // SAFETY: waits for the child that has just said that it exits.
            unsafe { libc::waitpid(pid, ptr::null_mut(), 0) };
            take_terminal_back(pid);
            Err(failed.error())
        }
    }
}

/// The stack of a new process until its exec, in bytes.
const STACK: usize = 32 << 10;

/// What a new process needs until its exec.
struct Birth {
    command: Command<'static>,
    image: Image,
    terminal: Option<RawFd>,
    /// Where it writes what failed. Its exec closes it.
    report: RawFd,
}

extern "C" fn be_born(birth: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `spawn` passes a Birth of its own, which it leaves alone until we have said how it went.
    let birth = unsafe { &mut *birth.cast::<Birth>() };
    lead_a_group(birth.terminal, &mut birth.image);
    let failed = become_app(&mut birth.image, &birth.command);
    let text = failed.to_bytes();
    // SAFETY: five bytes that outlive the call; _exit runs nothing of ours.
    unsafe {
        libc::write(birth.report, text.as_ptr().cast(), text.len());
        libc::_exit(i32::from(exec_code(failed.errno)))
    }
}

/// Leaves the working directory, so that it keeps no mount busy, and returns its path: later commands start there. None: it has no path.
pub fn leave_directory() -> Option<CString> {
    let directory = nix::unistd::getcwd().ok().and_then(|path| CString::new(path.into_os_string().into_encoded_bytes()).ok());
    let _ = nix::unistd::chdir("/");
    directory
}

/// Starts a command of which only the end matters, in a process group of its own, while services run. It does not wait for the exec.
/// Returns its pid.
pub fn spawn_helper(command: &Command<'_>) -> io::Result<i32> {
    let mut image = Image::new(command);
    // SAFETY: the child only makes system calls and writes to memory that is its own, whatever our other threads hold.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            lead_a_group(None, &mut image);
            let failed = become_app(&mut image, command);
            // SAFETY: _exit runs nothing of ours.
            unsafe { libc::_exit(i32::from(exec_code(failed.errno))) }
        }
        pid => Ok(pid),
    }
}

/// Where a program of that name is, as an exec in `directory` would find it. The error is what the exec would fail with.
pub fn find(program: &OsStr, path: Option<&OsStr>, directory: Option<&CStr>) -> io::Result<PathBuf> {
    let mut error = io::Error::from_raw_os_error(libc::ENOENT);
    let directory = Path::new(OsStr::from_bytes(directory.unwrap_or_default().to_bytes()));
    for candidate in candidates(program.as_bytes(), path) {
        let place = directory.join(OsStr::from_bytes(candidate.to_bytes()));
        match std::fs::metadata(&place) {
            Ok(found) if found.is_file() => return Ok(place),
            Ok(_) => error = io::Error::from_raw_os_error(libc::EACCES),
            // Another user may be able to see it.
            Err(hidden) if hidden.raw_os_error() == Some(libc::EACCES) => return Ok(place),
            Err(_) => {}
        }
    }
    Err(error)
}

/// The exit code of a shell that cannot execute: 127 if the program does not exist, otherwise 126.
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
    /// The place of LISTEN_PID, if it names lameduck and so must name the child.
    listen_pid: Option<(usize, Vec<u8>)>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";

impl Image {
    fn new(command: &Command<'_>) -> Image {
        let Command { argv, environment, .. } = *command;
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let program = argv.first().map_or(&b""[..], |program| program.to_bytes());
        let ours = [LISTEN_PID, std::process::id().to_string().as_bytes()].concat();
        let listen_pid = environment.iter().position(|variable| variable.to_bytes() == ours);
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(pointers(argv.get(1..).unwrap_or_default()));
        Image {
            candidates: candidates(program, value(environment, "PATH")),
            argv: pointers(argv),
            shell_argv,
            environment: pointers(environment),
            // Has room for any pid.
            listen_pid: listen_pid.map(|index| (index, [LISTEN_PID, &[0; 12]].concat())),
        }
    }

    /// Executes as execvp(3) of glibc does, which differs from musl's: the next directory is tried if a program is not in one, and /bin/sh
    /// runs what has no known format. Returns the errno of a failure.
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

/// In the child: makes a process group, takes the terminal, and writes LISTEN_PID.
fn lead_a_group(terminal: Option<RawFd>, image: &mut Image) {
    // SAFETY: plain system calls on our own process.
    unsafe {
        libc::setpgid(0, 0);
        if let Some(fd) = terminal {
            // TTOU is blocked: a call from the background neither stops this process nor fails.
            libc::tcsetpgrp(fd, libc::getpid());
        }
        if let Some((index, variable)) = &mut image.listen_pid {
            write_decimal(&mut variable[LISTEN_PID.len()..], libc::getpid());
            image.environment[*index] = variable.as_ptr().cast();
        }
    }
}

/// Sets the process up and executes. Returns only if something failed. It allocates and frees no memory: in the child other threads' locks
/// may be held for ever.
fn become_app(image: &mut Image, command: &Command<'_>) -> Failed {
    let Command { inherited, setup, from, streams, .. } = command;
    match streams {
        Streams::All => {}
        Streams::Outputs => become_null(inherited, 0),
        Streams::Nothing => become_null(inherited, 2),
    }
    if let Err(failed) = set_up(setup, *from) {
        return failed;
    }
    for fd in &inherited.closed {
        // SAFETY: the caller left these closed; what stands there now is /dev/null, by Rust's start-up code.
        unsafe { libc::close(*fd) };
    }
    if !inherited.pipe_ignored {
        set_disposition(libc::SIGPIPE, libc::SIG_DFL);
    }
    if inherited.child_ignored {
        set_disposition(libc::SIGCHLD, libc::SIG_IGN);
    }
    // The mask last: signals that come before the exec wait for it.
    set_mask(libc::SIG_SETMASK, inherited.mask);
    Failed { step: Step::Exec, errno: image.exec() }
}

/// Makes the standard streams up to `last` /dev/null, and closes all other descriptors that lameduck inherited: they belong to the main
/// command.
fn become_null(inherited: &Inherited, last: RawFd) {
    // SAFETY: plain system calls on the descriptors of a new process.
    unsafe {
        for fd in &inherited.descriptors {
            libc::close(*fd);
        }
        let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        if null != -1 {
            (0..=last).for_each(|fd| _ = libc::dup2(null, fd));
        }
    }
}

#[cfg(not(any(target_arch = "arm", target_arch = "x86")))]
use libc::{SYS_setgroups as SETGROUPS, SYS_setresgid as SETRESGID, SYS_setresuid as SETRESUID};
#[cfg(any(target_arch = "arm", target_arch = "x86"))]
use libc::{SYS_setgroups32 as SETGROUPS, SYS_setresgid32 as SETRESGID, SYS_setresuid32 as SETRESUID};

/// Sets limits before privileges are given up, and the directory after: the user must be allowed to enter it. Identity is set by raw system
/// calls: the C library's would ask all threads to do the same, by signals that are blocked here.
fn set_up(setup: &Setup, from: Option<&CStr>) -> Result<(), Failed> {
    let done = |step: Step, result: i64| if result == -1 { Err(Failed::last(step)) } else { Ok(()) };
    // SAFETY: plain system calls; what they point to outlives them.
    unsafe {
        if let Some(count) = setup.nofile {
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
            limit.rlim_cur = count as libc::rlim_t;
            limit.rlim_max = limit.rlim_max.max(limit.rlim_cur);
            done(Step::OpenFiles, libc::setrlimit(libc::RLIMIT_NOFILE, &limit).into())?;
        }
        if let Some(mask) = setup.umask {
            libc::umask(mask as libc::mode_t);
        }
        if let Some(Identity { uid, gid, groups, .. }) = &setup.identity {
            let is_already = (libc::geteuid(), libc::getegid()) == (*uid, *gid);
            for fd in 0..=2 {
                give_stdio(fd, *uid);
            }
            let grouped = done(Step::User, libc::syscall(SETGROUPS, groups.len(), groups.as_ptr()) as i64);
            // A process that is that user already may lack the privilege, and keeps the groups that the runtime gave it.
            if !is_already {
                grouped?;
            }
            done(Step::User, libc::syscall(SETRESGID, *gid, *gid, *gid) as i64)?;
            done(Step::User, libc::syscall(SETRESUID, *uid, *uid, *uid) as i64)?;
        }
        for directory in [from, setup.directory.as_deref()].into_iter().flatten() {
            done(Step::Directory, libc::chdir(directory.as_ptr()).into())?;
        }
    }
    Ok(())
}

/// Gives a pipe or terminal that lameduck owned to the user, as container runtimes do: otherwise the user could not open /dev/stdout.
fn give_stdio(fd: RawFd, uid: u32) {
    // SAFETY: the structure is plain memory; a refusal changes nothing.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        let is_known = libc::fstat(fd, &mut stat) == 0;
        let is_pipe = stat.st_mode & libc::S_IFMT == libc::S_IFIFO;
        if is_known && (is_pipe || libc::isatty(fd) == 1) {
            libc::fchown(fd, uid, u32::MAX);
        }
    }
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

/// The terminal in whose foreground lameduck is. None: there is none, or it is not lameduck's to pass on.
fn terminal(streams: Streams) -> Option<RawFd> {
    let all = if streams == Streams::All { 0..3 } else { 0..0 };
    all.into_iter().find(|fd| {
        // SAFETY: 0 to 2 are open: Rust's start-up code saw to it.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(*fd) };
        tcgetpgrp(fd).is_ok_and(|foreground| foreground == nix::unistd::getpgrp())
    })
}

/// Takes back the terminal that the app's group had: the program that started lameduck reads from it next.
pub fn take_terminal_back(group: i32) {
    for fd in 0..=2 {
        // SAFETY: plain system calls; TTOU is blocked: from the background this neither stops us nor fails.
        unsafe {
            if libc::tcgetpgrp(fd) == group {
                libc::tcsetpgrp(fd, libc::getpgrp());
            }
        }
    }
}

enum Exec {
    Done,
    Failed(Failed),
    /// The exec hangs, and may yet end.
    Hangs,
}

fn wait_for_exec(report: &OwnedFd) -> Exec {
    let mut poll = libc::pollfd { fd: report.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    for _ in 0..EXEC_PATIENCE_MS / EXEC_GLANCE_MS {
        // SAFETY: one pollfd, which outlives the call.
        if unsafe { libc::poll(&mut poll, 1, EXEC_GLANCE_MS) } == 1 {
            let mut bytes = [0u8; Failed::LENGTH];
            // SAFETY: five bytes, which outlive the call.
            let read = unsafe { libc::read(report.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len()) };
            return if read == Failed::LENGTH as isize { Exec::Failed(Failed::from_bytes(bytes)) } else { Exec::Done };
        }
        // A signal that has come must not wait for it.
        if signals::pending().iter().any(|signal| signal != Signal::CHLD) {
            break;
        }
    }
    Exec::Hangs
}

/// How many dead processes one round of reaping takes: an app whose orphans die faster than they are reaped must not delay signals and
/// deadlines.
const MOST_REAPED: usize = 512;

/// What may be left after a round of reaping.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Left {
    /// Processes that run.
    Alive,
    /// Perhaps dead ones: a SIGCHLD that lameduck sends to itself is on its way.
    Dead,
    Nobody,
}

/// Reaps the dead, and calls `found` with the pid and the end of each. It uses libc's waitpid, because nix's loses processes that died of a
/// real-time signal.
pub fn reap(mut found: impl FnMut(i32, Ended)) -> Left {
    for _ in 0..MOST_REAPED {
        let mut status = 0;
        // SAFETY: the status outlives the call.
        match unsafe { libc::waitpid(-1, &mut status, libc::WNOHANG) } {
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Left::Nobody,
            0 => return Left::Alive,
            pid if libc::WIFSTOPPED(status) => let_go_on(pid, libc::WSTOPSIG(status)),
            pid if libc::WIFSIGNALED(status) => {
                if let Some(signal) = Signal::from_number(libc::WTERMSIG(status)) {
                    found(pid, Ended::Signal(signal));
                }
            }
            pid => found(pid, Ended::Code(libc::WEXITSTATUS(status) as u8)),
        }
    }
    // SAFETY: kill has no memory to harm.
    unsafe { libc::kill(libc::getpid(), libc::SIGCHLD) };
    Left::Dead
}

/// Lets a traced process go on. A process that asked to be traced by its parent (PTRACE_TRACEME) stops at each signal until its parent
/// acts. It gets its signal and is traced no more. The TRAP that the kernel sends such a process after an exec is for the tracer alone.
fn let_go_on(pid: i32, signal: i32) {
    // SAFETY: both structures are plain memory; ptrace acts on the tracee alone, and fails where there is none.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let null = ptr::null_mut::<libc::c_void>();
        let known = libc::ptrace(libc::PTRACE_GETSIGINFO, pid, null, (&raw mut info).cast::<libc::c_void>()) == 0;
        let is_exec = signal == libc::SIGTRAP && known && info.si_code == libc::SI_USER && info.si_pid() == pid;
        let delivered = if is_exec { 0 } else { signal };
        libc::ptrace(libc::PTRACE_DETACH, pid, null, ptr::without_provenance_mut::<libc::c_void>(delivered as usize));
    }
}

/// Sends a signal to one process, or with a negative number to a process group.
pub fn send(pid: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: kill has no memory to harm.
    checked(unsafe { libc::kill(pid, signal.number()) }.into()).map(drop)
}

/// Sends a signal to the group in which `main` was started; if `main` has left that group for another, to the other one; never to
/// lameduck's own group.
pub fn send_group(main: i32, signal: Signal) -> io::Result<()> {
    let result = send(-main, signal);
    match nix::unistd::getpgid(Some(Pid::from_raw(main))) {
        Ok(group) if group.as_raw() == main => result,
        Ok(group) if group != nix::unistd::getpgrp() => send(-group.as_raw(), signal).or(result),
        _ => send(main, signal).or(result),
    }
}

/// Every process of ours but lameduck: as PID 1 all of the pid namespace, otherwise the descendants. Empty if /proc shows none.
pub fn others() -> Vec<proc::Process> {
    let own = std::process::id() as i32;
    let processes = proc::processes();
    if own == 1 {
        return processes.into_iter().filter(|process| process.pid != own).collect();
    }
    proc::descendants(&processes, own)
}

/// Sends a signal to every process of ours but lameduck; if /proc shows none, to these process groups.
pub fn send_all(signal: Signal, groups: &[i32]) -> io::Result<()> {
    if std::process::id() == 1 {
        return send(-1, signal);
    }
    let others: Vec<i32> = others().iter().map(|process| process.pid).collect();
    let groups = groups.iter().map(|group| -group);
    let receivers: Vec<i32> = if others.is_empty() { groups.collect() } else { others };
    let mut result = Ok(());
    for receiver in receivers {
        result = send(receiver, signal).or(result);
    }
    result
}

/// Whether every process but lameduck refuses our signals. kill(-1) does not say so: it succeeds. False if /proc shows none.
pub fn all_refuse_signals() -> bool {
    let mut others = others().into_iter().filter(|process| !process.is_dead()).peekable();
    // SAFETY: signal 0 is sent to nobody; it asks whether one could be.
    let refuses = |pid: i32| unsafe { libc::kill(pid, 0) } == -1 && Errno::last() == Errno::EPERM;
    others.peek().is_some() && others.all(|process| refuses(process.pid))
}

/// Makes orphans lameduck's children even where it is not PID 1.
pub fn become_subreaper() -> io::Result<()> {
    Ok(nix::sys::prctl::set_child_subreaper(true)?)
}

/// Whether lameduck is root without CAP_KILL, but can start processes of other users: those would refuse its signals.
pub fn cannot_signal_others() -> bool {
    const CAP_KILL: u32 = 5;
    const CAP_SETUID: u32 = 7;
    #[repr(C)]
    struct Header {
        version: u32,
        pid: i32,
    }
    let header = Header { version: 0x2008_0522, pid: 0 };
    // Effective, permitted, inheritable; each in two words of 32 bits.
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: version 3 of capget fills two of these triples.
    let asked = unsafe { libc::syscall(libc::SYS_capget, &raw const header, sets.as_mut_ptr()) };
    let has = |capability: u32| sets[0][0] & (1 << capability) != 0;
    asked == 0 && nix::unistd::geteuid().is_root() && !has(CAP_KILL) && has(CAP_SETUID)
}

/// A word as the kernel takes it. None: there is a NUL in it.
pub fn c_string(word: &OsStr) -> Option<CString> {
    CString::new(word.as_bytes()).ok()
}

/// `NAME=value` as the kernel takes it. None: there is a NUL in it.
pub fn variable(name: &str, value: &str) -> Option<CString> {
    CString::new(format!("{name}={value}")).ok()
}

/// The value of a variable in a raw environment. None: it is not set.
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
