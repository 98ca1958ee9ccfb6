//! Writing files whose directories others may have a hand in. We may be root where the app's user owns the directory: a link that was
//! planted there must not lead us anywhere.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};

/// As many as the kernel follows.
const MOST_LINKS: usize = 40;

/// A file, or a place for one, in its directory.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// A file, and no directory, pipe or device.
    pub is_plain: bool,
    pub device: u64,
    pub inode: u64,
}

impl Place {
    /// Finds the directory of `path`, relative to our own, and follows its links: those in a directory of root or of our own user, and made
    /// by one of them. The last link is followed too, even if it leads to nothing yet.
    pub fn find(path: &Path) -> io::Result<Place> {
        let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut directory = open_directory(AT_FDCWD, OsStr::new("."), OFlag::O_NOFOLLOW)?;
        let mut links = 0;
        loop {
            let name = rest.pop_front().ok_or_else(|| io::Error::other("there is something that is not a plain file"))?;
            let is_plain = matches!(Path::new(&name).components().next(), Some(Component::Normal(_)));
            match readlinkat(&directory, name.as_os_str()) {
                // The links of /proc are none: what they name is no path.
                Ok(target) if is_plain && !is_proc(&directory) => {
                    check_link(&directory, &name)?;
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    let parts: Vec<OsString> = Path::new(&target).components().map(|part| part.as_os_str().to_owned()).collect();
                    parts.into_iter().rev().for_each(|part| rest.push_front(part));
                }
                _ if rest.is_empty() && is_plain => return Ok(Place { directory, name }),
                Ok(_) if is_proc(&directory) => directory = open_directory(&directory, &name, OFlag::empty())?,
                _ => directory = open_directory(&directory, &name, OFlag::O_NOFOLLOW)?,
            }
        }
    }

    /// What is there, a link not followed. None: nothing.
    pub fn present(&self) -> io::Result<Option<Present>> {
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let is_plain = SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG;
                Ok(Some(Present { is_plain, device: stat.st_dev, inode: stat.st_ino }))
            }
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    pub fn is_same(&self, other: &Place) -> bool {
        let identity = |place: &Place| fstat(&place.directory).ok().map(|stat| (stat.st_dev, stat.st_ino));
        self.name == other.name && identity(self) == identity(other)
    }

    /// A new file in the same directory that nobody else may read, under a name of its own.
    pub fn draft(&self) -> io::Result<(File, Draft<'_>)> {
        const MOST_NAMES: u32 = 100;
        let mut result = Err(Errno::EEXIST);
        for number in 0..MOST_NAMES {
            let mut name = OsString::from(".");
            name.push(&self.name);
            name.push(format!(".lameduck-{}", std::process::id()));
            if number > 0 {
                name.push(format!("-{number}"));
            }
            // A start that was killed, with the same pid, left it.
            let _ = unlinkat(&self.directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            result = openat(&self.directory, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
            match result {
                // A directory, or what somebody puts there again and again.
                Err(Errno::EEXIST) => {}
                Ok(file) => return Ok((file.into(), Draft { place: self, name })),
                Err(_) => break,
            }
        }
        Err(result.err().unwrap_or(Errno::EEXIST).into())
    }

    /// Replaces what is in the file, without waiting for a reader should it be a pipe.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        let follow = if is_proc(&self.directory) { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, self.name.as_os_str(), flags | follow, Mode::from_bits_truncate(0o644))?;
        File::from(file).write_all(text)
    }
}

/// A file beside its place, gone if it never takes it.
#[derive(Debug)]
pub struct Draft<'a> {
    place: &'a Place,
    name: OsString,
}

impl Draft<'_> {
    pub fn take_its_place(self) -> io::Result<()> {
        let Place { directory, name } = self.place;
        Ok(renameat(directory, self.name.as_os_str(), directory, name.as_os_str())?)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // Once renamed it is not there any more.
        let _ = unlinkat(&self.place.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir);
    }
}

fn open_directory(from: impl AsFd, name: &OsStr, follow: OFlag) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | follow;
    Ok(openat(from, name, flags, Mode::empty())?)
}

fn is_proc(directory: &OwnedFd) -> bool {
    fstatfs(directory).is_ok_and(|stat| stat.filesystem_type() == PROC_SUPER_MAGIC)
}

fn check_link(directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
    let trusted = |stat: FileStat| stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    if trusted(fstat(directory)?) && trusted(fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?) {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "{name:?} on the way is another user's link, or in another user's directory, and is not followed"
    )))
}
