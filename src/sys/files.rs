//! Writing files in directories that other users may change. lameduck may be root where the app's user owns the directory: a link that was
//! planted there must not be followed.

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

/// How many links are followed: as many as the kernel follows.
const MOST_LINKS: usize = 40;

/// A file, or the place for one, in its directory.
#[derive(Debug)]
pub struct Place {
    directory: OwnedFd,
    name: OsString,
}

/// What stands at a place.
#[derive(Clone, Copy, Debug)]
pub struct Present {
    /// It is a file, and no directory, pipe or device.
    pub is_plain: bool,
    pub device: u64,
    pub inode: u64,
}

impl Place {
    /// Finds the directory of `path`, which may be relative to lameduck's own, and follows links. A link is followed only if its directory
    /// and the link itself belong to root or to lameduck's user. The last link is followed too, even if it leads to nothing yet.
    pub fn find(path: &Path) -> io::Result<Place> {
        let mut rest: VecDeque<OsString> = path.components().map(|part| part.as_os_str().to_owned()).collect();
        let mut directory = open_directory(AT_FDCWD, OsStr::new("."), OFlag::O_NOFOLLOW)?;
        let mut links = 0;
        loop {
            let name = rest.pop_front().ok_or_else(|| io::Error::other("there is something that is not a plain file"))?;
            let is_plain = matches!(Path::new(&name).components().next(), Some(Component::Normal(_)));
            match readlinkat(&directory, name.as_os_str()) {
                // The links of /proc are taken as files: what they name is no path.
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

    /// What is there; a link is not followed. None: nothing.
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

    /// Makes a new file in the same directory, under a new name, which only its owner can read.
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
            // A lameduck with the same pid that was killed during its start left it.
            let _ = unlinkat(&self.directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            result = openat(&self.directory, name.as_os_str(), flags, Mode::S_IRUSR | Mode::S_IWUSR);
            match result {
                // It is a directory, or some process creates it again and again.
                Err(Errno::EEXIST) => {}
                Ok(file) => return Ok((file.into(), Draft { place: self, name })),
                Err(_) => break,
            }
        }
        Err(result.err().unwrap_or(Errno::EEXIST).into())
    }

    /// Replaces the contents of the file. If it is a pipe, it does not wait for a reader. The file is shortened after it was written: whoever
    /// reads it in between, or after we were killed there, finds the text and not an empty file.
    pub fn write(&self, text: &[u8]) -> io::Result<()> {
        let follow = if is_proc(&self.directory) { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, self.name.as_os_str(), flags | follow, Mode::from_bits_truncate(0o644))?;
        let mut file = File::from(file);
        file.write_all(text)?;
        if file.metadata()?.is_file() { file.set_len(text.len() as u64) } else { Ok(()) }
    }
}

/// A file beside its place; it is removed if it is never renamed to it.
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
        // If it was renamed, it is not there any more.
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
