//! Writing to stderr without ever waiting for whoever reads it, and without setting O_NONBLOCK on a description that is also the
//! app's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::checked;

const STDERR: i32 = 2;

/// How stderr is written to, by what it is.
#[derive(Debug)]
pub enum Stderr {
    /// A terminal, opened anew: that description is ours to make non-blocking.
    Own(File),
    /// Spliced from a pipe of our own: SPLICE_F_NONBLOCK is for that call alone.
    Pipe {
        read: OwnedFd,
        write: OwnedFd,
    },
    /// A file or a device: written when poll says it has room.
    Plain,
    Socket,
}

impl Stderr {
    pub fn open() -> Stderr {
        // SAFETY: borrows descriptor 2 for fstat; ManuallyDrop keeps it open.
        let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(STDERR) });
        let Ok(ours) = file.metadata() else { return Stderr::Plain };
        let kind = ours.file_type();
        if kind.is_fifo() {
            return match pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK) {
                Ok((read, write)) => Stderr::Pipe { read, write },
                Err(_) => Stderr::Plain,
            };
        }
        if kind.is_socket() {
            return Stderr::Socket;
        }
        // SAFETY: isatty only looks.
        if kind.is_char_device() && unsafe { libc::isatty(STDERR) } == 1 {
            let anew = |path: &str| {
                let options = libc::O_NONBLOCK | libc::O_NOCTTY;
                let file = OpenOptions::new().write(true).custom_flags(options).open(path).ok()?;
                let is_it = file.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino()));
                is_it.then_some(file)
            };
            // Without /proc by its number.
            let file = anew("/proc/self/fd/2").or_else(|| anew(&format!("/dev/pts/{}", libc::minor(ours.rdev()))));
            return file.map_or(Stderr::Plain, Stderr::Own);
        }
        Stderr::Plain
    }

    /// Writes a line of at most a page whole, or not at all.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        match self {
            Stderr::Own(file) => (&*file).write_all(line),
            Stderr::Pipe { read, write } => splice(read, write, line),
            Stderr::Plain => {
                let mut poll = libc::pollfd { fd: STDERR, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one pollfd, and a timeout of zero.
                if unsafe { libc::poll(&mut poll, 1, 0) } != 1 || poll.revents & libc::POLLOUT == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                // SAFETY: the line outlives the call.
                whole(line, checked(unsafe { libc::write(STDERR, line.as_ptr().cast(), line.len()) } as i64)?)
            }
            Stderr::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the line outlives the call.
                whole(line, checked(unsafe { libc::send(STDERR, line.as_ptr().cast(), line.len(), flags) } as i64)?)
            }
        }
    }
}

fn whole(line: &[u8], written: i64) -> io::Result<()> {
    if written == line.len() as i64 { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn splice(read: &OwnedFd, write: &OwnedFd, line: &[u8]) -> io::Result<()> {
    let null = std::ptr::null_mut();
    // SAFETY: the line outlives the calls; no offsets are passed.
    unsafe {
        checked(libc::write(write.as_raw_fd(), line.as_ptr().cast(), line.len()) as i64)?;
        let moved = libc::splice(read.as_raw_fd(), null, STDERR, null, line.len(), libc::SPLICE_F_NONBLOCK);
        if moved == line.len() as isize {
            return Ok(());
        }
        let error = if moved < 0 { io::Error::last_os_error() } else { io::ErrorKind::WriteZero.into() };
        // What did not go must not go before the next line.
        let mut rest = [0u8; 4096];
        while libc::read(read.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) > 0 {}
        Err(error)
    }
}
