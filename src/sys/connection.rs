//! Connections of another process, by a duplicate of its own socket (pidfd_getfd(2), Linux 5.6): looked at, and ended for reading, as if
//! the client had closed them. docs/keepalive.md says what the kernel permits.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use super::checked;
use super::sock_diag::decode_info;
use crate::core::traffic::keepalive::Chosen;

/// A process whose descriptors may be duplicated.
#[derive(Debug)]
pub struct Owner(OwnedFd);

impl Owner {
    pub fn open(pid: i32) -> io::Result<Owner> {
        // SAFETY: only numbers are passed; the result is checked.
        let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as i64)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Owner(unsafe { OwnedFd::from_raw_fd(fd as i32) }))
    }

    /// A duplicate of the process's descriptor with this number. Close it soon: while it is open, the process's own close sends no FIN.
    pub fn duplicate(&self, number: i32) -> io::Result<OwnedFd> {
        // SAFETY: only numbers are passed; the result is checked. The kernel sets close-on-exec.
        let fd = checked(unsafe { libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), number, 0) } as i64)?;
        // SAFETY: the descriptor is new and nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }
}

/// Whether descriptors can be duplicated here at all. It is tried on lameduck itself, so only an old kernel or a seccomp filter makes it
/// fail.
pub fn is_permitted() -> io::Result<()> {
    Owner::open(std::process::id() as i32)?.duplicate(libc::STDERR_FILENO).or_else(|error| match error.raw_os_error() {
        // lameduck has no stderr.
        Some(libc::EBADF) => Ok(OwnedFd::from(std::fs::File::open("/dev/null")?)),
        _ => Err(error),
    })?;
    Ok(())
}

/// The inode of a socket. None: the file is something else.
pub fn socket_inode(file: &OwnedFd) -> Option<u64> {
    let stat = nix::sys::stat::fstat(file).ok()?;
    (stat.st_mode & libc::S_IFMT == libc::S_IFSOCK).then_some(stat.st_ino)
}

/// Ends the connection for reading, if it stands as it did when it was chosen: its process reads end-of-file, and nothing is sent. False:
/// something has moved, and nothing was done.
pub fn end_reading(socket: &OwnedFd, chosen: &Chosen) -> io::Result<bool> {
    if !(unread(socket)? == 0 && is_as_it_was(socket, chosen)?) {
        return Ok(false);
    }
    // SAFETY: only numbers are passed.
    checked(unsafe { libc::shutdown(socket.as_raw_fd(), libc::SHUT_RD) }.into())?;
    Ok(true)
}

fn unread(socket: &OwnedFd) -> io::Result<i32> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the number outlives the call.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::FIONREAD, &mut bytes) }.into())?;
    Ok(bytes)
}

fn is_as_it_was(socket: &OwnedFd, chosen: &Chosen) -> io::Result<bool> {
    const ESTABLISHED: u8 = 1;
    let mut bytes = [0u8; 512];
    let mut length = bytes.len() as libc::socklen_t;
    let (fd, place) = (socket.as_raw_fd(), bytes.as_mut_ptr().cast());
    // SAFETY: the buffer is of the length that is passed.
    checked(unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, place, &mut length) }.into())?;
    let bytes = bytes.get(..length as usize).unwrap_or_default();
    let Some(info) = decode_info(bytes, 0) else { return Ok(false) };
    let stands = info.bytes_received == chosen.bytes_received && info.bytes_sent == chosen.bytes_sent;
    // A request that may be closed at any moment may have been answered meanwhile.
    Ok(bytes.first() == Some(&ESTABLISHED) && (stands || chosen.any_moment))
}

/// Gives this thread, and no other, the real ids of another user: it is then permitted what that user is, and keeps its effective ids and
/// capabilities.
pub fn take_real_ids(uid: u32, gid: u32) -> io::Result<()> {
    const SAME: libc::c_long = -1;
    // SAFETY: the raw calls, which act on one thread; the C library's would ask all others to follow.
    unsafe {
        checked(libc::syscall(libc::SYS_setresgid, libc::c_long::from(gid as i32), SAME, SAME) as i64)?;
        checked(libc::syscall(libc::SYS_setresuid, libc::c_long::from(uid as i32), SAME, SAME) as i64)?;
    }
    Ok(())
}
