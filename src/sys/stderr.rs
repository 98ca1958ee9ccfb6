//! Writing to stderr without ever waiting for its reader, and without setting O_NONBLOCK on an open file that the app uses too.

use std::borrow::Cow;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::OFlag;
use nix::unistd::pipe2;

use super::checked;

const STDERR: i32 = 2;

#[derive(Debug)]
pub struct Stderr {
    way: Way,
    /// A line was written in part, for example to a full disk: the next one must begin on a new line.
    torn: AtomicBool,
}

/// How it is written to; this depends on what it is.
#[derive(Debug)]
enum Way {
    /// A terminal or a pipe, opened again: this open file is only lameduck's, so it can be non-blocking.
    Own(File),
    /// A pipe of another user, which can't be opened again: lines are spliced from a pipe of lameduck's own, and SPLICE_F_NONBLOCK is for
    /// that call alone. Each line takes one of its sixteen pages, however short it is.
    Pipe {
        read: OwnedFd,
        write: OwnedFd,
    },
    /// A file or a device: written to when poll says that it has room.
    Plain,
    Socket,
}

impl Stderr {
    pub fn open() -> Stderr {
        // SAFETY: borrows descriptor 2 for fstat; ManuallyDrop keeps it open.
        let file = std::mem::ManuallyDrop::new(unsafe { File::from_raw_fd(STDERR) });
        let way = file.metadata().map_or(Way::Plain, |ours| Way::of(&ours));
        Stderr { way, torn: AtomicBool::new(false) }
    }

    /// Writes a line of at most one page, and never waits. The error: not all of it could be written.
    pub fn write(&self, line: &[u8]) -> io::Result<()> {
        let line = if self.torn.load(Ordering::Relaxed) { Cow::Owned([b"\n", line].concat()) } else { Cow::Borrowed(line) };
        let written = self.way.write(&line)?;
        if written > 0 {
            self.torn.store(written < line.len(), Ordering::Relaxed);
        }
        if written == line.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }
}

impl Way {
    fn of(ours: &Metadata) -> Way {
        let kind = ours.file_type();
        // SAFETY: isatty only looks.
        let terminal = kind.is_char_device() && unsafe { libc::isatty(STDERR) } == 1;
        let anew = |path: &str| {
            let options = libc::O_NONBLOCK | libc::O_NOCTTY;
            let file = OpenOptions::new().write(true).custom_flags(options).open(path).ok()?;
            let is_it = file.metadata().is_ok_and(|it| (it.dev(), it.ino()) == (ours.dev(), ours.ino()));
            is_it.then_some(file)
        };
        // A terminal is opened by its number where there is no /proc.
        let by_number = || if terminal { anew(&format!("/dev/pts/{}", libc::minor(ours.rdev()))) } else { None };
        if (terminal || kind.is_fifo())
            && let Some(file) = anew("/proc/self/fd/2").or_else(by_number)
        {
            return Way::Own(file);
        }
        if kind.is_fifo()
            && let Ok((read, write)) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)
        {
            return Way::Pipe { read, write };
        }
        if kind.is_socket() { Way::Socket } else { Way::Plain }
    }

    /// Writes, and returns how many bytes were written.
    fn write(&self, line: &[u8]) -> io::Result<usize> {
        match self {
            Way::Own(file) => (&*file).write(line),
            Way::Pipe { read, write } => splice(read, write, line),
            Way::Plain => {
                let mut poll = libc::pollfd { fd: STDERR, events: libc::POLLOUT, revents: 0 };
                // SAFETY: one pollfd, and a timeout of zero.
                if unsafe { libc::poll(&mut poll, 1, 0) } != 1 || poll.revents & libc::POLLOUT == 0 {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
                // SAFETY: the line outlives the call.
                checked(unsafe { libc::write(STDERR, line.as_ptr().cast(), line.len()) } as i64).map(|written| written as usize)
            }
            Way::Socket => {
                let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
                // SAFETY: the line outlives the call.
                let sent = unsafe { libc::send(STDERR, line.as_ptr().cast(), line.len(), flags) };
                checked(sent as i64).map(|sent| sent as usize)
            }
        }
    }
}

fn splice(read: &OwnedFd, write: &OwnedFd, line: &[u8]) -> io::Result<usize> {
    let null = std::ptr::null_mut();
    // SAFETY: the line outlives the calls; no offsets are passed.
    unsafe {
        checked(libc::write(write.as_raw_fd(), line.as_ptr().cast(), line.len()) as i64)?;
        let moved = libc::splice(read.as_raw_fd(), null, STDERR, null, line.len(), libc::SPLICE_F_NONBLOCK);
        if moved == line.len() as isize {
            return Ok(line.len());
        }
        let error = if moved < 0 { io::Error::last_os_error() } else { io::ErrorKind::WriteZero.into() };
        // What could not be written must not come before the next line.
        let mut rest = [0u8; 4096];
        while libc::read(read.as_raw_fd(), rest.as_mut_ptr().cast(), rest.len()) > 0 {}
        Err(error)
    }
}
