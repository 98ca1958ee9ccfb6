//! The only room that touches the kernel: only it names libc and nix, and only here unsafe is allowed, each block with its reason. It
//! returns what it saw as values of `core`; it decides nothing.
#![allow(unsafe_code)]

pub mod cgroup;
pub mod child;
pub mod connection;
pub mod files;
pub mod inherited;
pub mod modules;
pub mod netlink;
pub mod proc;
pub mod signals;
pub mod sock_diag;
pub mod stderr;
pub mod unix_diag;

use std::io;
use std::time::Duration;

/// Turns the result of a system call into a Result: -1 becomes the error in errno.
fn checked(result: i64) -> io::Result<i64> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The number of CPUs that this process may run on. None: unknown.
pub fn cpus() -> Option<usize> {
    // SAFETY: the set is plain memory of the size that is passed.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        checked(libc::sched_getaffinity(0, size_of_val(&set), &mut set).into()).ok()?;
        Some(libc::CPU_COUNT(&set) as usize)
    }
}

/// How many files this process may have open.
pub fn open_files() -> u64 {
    // SAFETY: the structure is plain memory.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit);
        limit.rlim_cur
    }
}

fn page_size() -> u64 {
    // SAFETY: only looks.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// The kernel's clock ticks as a time.
fn ticks(count: u64) -> Duration {
    // SAFETY: only looks.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100).max(1);
    Duration::from_millis(count.saturating_mul(1000) / per_second)
}

/// The CPU time of all processes that lameduck has reaped, and of those that these had reaped.
fn cpu_of_reaped() -> Duration {
    // SAFETY: the structure is plain memory of the type that is filled.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let length = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    length(usage.ru_utime) + length(usage.ru_stime)
}

/// The machine's memory in bytes. None: unknown.
pub fn memory() -> Option<u64> {
    // SAFETY: the structure is plain memory of the type that is filled.
    unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        checked(libc::sysinfo(&mut info).into()).ok()?;
        Some((info.totalram as u64).saturating_mul(info.mem_unit.max(1).into()))
    }
}

pub fn is_terminal() -> bool {
    // SAFETY: only looks at three descriptors.
    (0..=2).any(|fd| unsafe { libc::isatty(fd) } == 1)
}

/// The kernel's release, such as `6.1.0-28-amd64`. None: unknown.
pub fn kernel_release() -> Option<String> {
    nix::sys::utsname::uname().ok()?.release().to_str().map(str::to_owned)
}

/// Ends the process now: no destructors, nothing flushed.
pub fn exit(code: u8) -> ! {
    // SAFETY: ends every thread, and there is one.
    unsafe { libc::_exit(code.into()) }
}

/// The CPU time that this thread has used.
pub fn cpu_time() -> std::time::Duration {
    let mut spent = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into plain memory of ours.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut spent) };
    std::time::Duration::new(spent.tv_sec as u64, spent.tv_nsec as u32)
}

/// Wall-clock time since 1970, for the log alone.
pub fn wall_clock() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}
