//! Namespaces: each contender is PID 1 of a pid namespace with a /proc of its own, and has a network of its own, so that all use the
//! same port and nobody else's is touched. Its stage is PID 1 of one around it: whatever happens to us, and whoever the contender becomes,
//! the kernel ends what we started.
#![allow(unsafe_code)] // fork, and what a child does before it becomes the command: each block with its reason

use std::fs;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, close, fork, getgid, getuid};

use crate::Refused;

/// What to do where namespaces are refused.
const WAY_OUT: &str = "run it as root, or allow user namespaces (sysctl user.max_user_namespaces, \
                       kernel.apparmor_restrict_unprivileged_userns=0 on Ubuntu)";

/// We die with whoever holds the other end of `alive`, which is our parent.
pub fn die_with_parent(alive: impl AsFd) -> io::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // It may have died before that was said.
    let mut ends = [PollFd::new(alive.as_fd(), PollFlags::empty())];
    match poll(&mut ends, PollTimeout::ZERO)? {
        0 => Ok(()),
        _ => Err(io::Error::other("the parent is gone")),
    }
}

/// Namespaces for this process, and a pid namespace for those that it will start. To be called while there is but one thread.
pub fn enter(own_network: bool, own_processes: bool) -> Result<(), Refused> {
    let mut spaces = CloneFlags::empty();
    spaces.set(CloneFlags::CLONE_NEWNET, own_network);
    spaces.set(CloneFlags::CLONE_NEWPID, own_processes);
    if unshare(spaces) == Err(Errno::EPERM) {
        as_ourselves().and_then(|()| unshare(spaces).map_err(io::Error::from)).map_err(|error| refused(&error))?;
    }
    if own_network {
        loopback_up().map_err(|error| Refused::unavailable(format!("cannot bring loopback up: {error}; {WAY_OUT}")))?;
    }
    Ok(())
}

/// Goes on as a child, PID 1 of the pid namespace that was entered, while this process waits for it, and dies with it. To be called while
/// there is but one thread.
pub fn go_on_as_pid_1() -> io::Result<()> {
    let alive = Alive::new()?;
    // SAFETY: there is no other thread, whose locks the child would find taken.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let Alive { theirs, ours } = alive;
            drop(ours);
            die_with_parent(&theirs)?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            own_proc()?;
            Ok(())
        }
        ForkResult::Parent { child } => {
            // Its word on how it went is on standard output, which both have.
            let ended = waitpid(child, None);
            std::process::exit(i32::from(!matches!(ended, Ok(WaitStatus::Exited(_, 0)))))
        }
    }
}

/// The children of this process that are yet to come are in a pid namespace of their own.
pub fn next_is_pid_1() -> io::Result<()> {
    Ok(unshare(CloneFlags::CLONE_NEWPID)?)
}

/// A /proc of this pid namespace, in this mount namespace alone.
fn own_proc() -> io::Result<()> {
    mount(None::<&str>, c"/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some(c"proc"), c"/proc", Some(c"proc"), flags, None::<&str>)?)
}

fn refused(error: &io::Error) -> Refused {
    Refused::unavailable(format!("cannot make namespaces: {error}; {WAY_OUT}"))
}

/// A user namespace in which we are who we were.
fn as_ourselves() -> io::Result<()> {
    let (user, group) = (getuid(), getgid());
    unshare(CloneFlags::CLONE_NEWUSER)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// RTM_NEWLINK for interface 1, which loopback is in a new network namespace.
fn loopback_up() -> io::Result<()> {
    const RTM_NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 1 | 4;
    const UP: u32 = 1;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut message = Vec::with_capacity(32);
    message.extend(32u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_ACK.to_ne_bytes());
    message.extend([0; 8]); // sequence, port
    message.extend([0; 4]); // family, padding, type
    message.extend(1u32.to_ne_bytes());
    message.extend(UP.to_ne_bytes());
    message.extend(UP.to_ne_bytes()); // which flags to change
    sendto(netlink.as_raw_fd(), &message, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 64];
    let length = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let error = answer[..length].get(16..20).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match error {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(-error)),
        None => Err(io::Error::other("the kernel's answer is short")),
    }
}

/// As many descriptors as we may have; returns how many others are to have.
pub fn more_descriptors() -> io::Result<Descriptors> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(Descriptors { soft, hard })
}

#[derive(Clone, Copy, Debug)]
pub struct Descriptors {
    soft: rlim_t,
    hard: rlim_t,
}

/// The pipe by which a child sees that we live.
#[derive(Debug)]
pub struct Alive {
    theirs: PipeReader,
    ours: PipeWriter,
}

impl Alive {
    pub fn new() -> io::Result<Alive> {
        let (theirs, ours) = io::pipe()?;
        Ok(Alive { theirs, ours })
    }

    /// What the child does before it becomes PID 1's program: it is to die with us, to see its own processes in /proc, and to find
    /// the limits that we found.
    pub fn prepare(
        &self,
        command: &mut tokio::process::Command,
        descriptors: Descriptors,
        own_processes: bool,
        cpu: Option<usize>,
    ) {
        let (theirs, ours) = (self.theirs.as_raw_fd(), self.ours.as_raw_fd());
        let cpus = cpu.and_then(|cpu| only(cpu).ok());
        // SAFETY: between fork and exec; each step is a system call on values made before, without allocation or locks.
        unsafe {
            command.pre_exec(move || before_exec(theirs, ours, descriptors, own_processes, cpus));
        }
    }
}

fn before_exec(
    theirs: RawFd,
    ours: RawFd,
    descriptors: Descriptors,
    own_processes: bool,
    cpus: Option<CpuSet>,
) -> io::Result<()> {
    close(ours)?;
    // SAFETY: the descriptor is open for as long as `Alive` lives, which is longer than this.
    die_with_parent(unsafe { std::os::fd::BorrowedFd::borrow_raw(theirs) })?;
    if own_processes {
        unshare(CloneFlags::CLONE_NEWNS)?;
        own_proc()?;
    }
    if let Some(cpus) = cpus {
        sched_setaffinity(Pid::from_raw(0), &cpus)?;
    }
    setrlimit(Resource::RLIMIT_NOFILE, descriptors.soft, descriptors.hard)?;
    Ok(())
}

/// One CPU alone.
pub fn only(cpu: usize) -> io::Result<CpuSet> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(cpus)
}
