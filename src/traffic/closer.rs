//! Closes connections of the app, in a thread of its own: it may have to take the app's real ids, and a call that hangs there delays
//! nothing else.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::ports::Family;
use crate::core::traffic::keepalive::Chosen;
use crate::sys::connection::{self, Owner};
use crate::sys::proc::{self, Process};

/// How many descriptors are read at most, as in ports.rs.
const MOST_DESCRIPTORS: usize = 65_536;
/// How long after a search for the holders of connections the next one may begin.
const FIND_EVERY: Duration = Duration::from_millis(100);
/// The stack of the thread, in bytes: enough for a few calls and a read of /proc.
const STACK: usize = 128 << 10;

/// How the closing of a connection ended.
#[derive(Debug)]
pub enum Outcome {
    Closed,
    /// A request or an answer came, or another process holds it now: it may be tried again later.
    Moved,
    /// It cannot be closed.
    Refused(io::Error),
}

/// The loop's side of the thread.
#[derive(Debug)]
pub struct Closer {
    wanted: Sender<Vec<Chosen>>,
    outcomes: Receiver<(Chosen, Outcome)>,
}

impl Closer {
    pub fn start(family: Family) -> io::Result<Closer> {
        let (wanted, batches) = channel::<Vec<Chosen>>();
        let (sender, outcomes) = channel();
        thread::Builder::new().stack_size(STACK).spawn(move || {
            let mut sockets = Sockets::new(family);
            for batch in batches {
                let outcomes: Vec<_> = batch.into_iter().map(|chosen| (chosen, sockets.close(&chosen))).collect();
                // Before the result is passed on: with the app's ids this thread could be signalled by the app.
                sockets.give_ids_back();
                for outcome in outcomes {
                    let _ = sender.send(outcome);
                }
            }
        })?;
        Ok(Closer { wanted, outcomes })
    }

    /// Asks for these connections to be closed. False: the thread is gone.
    pub fn close(&self, chosen: Vec<Chosen>) -> bool {
        self.wanted.send(chosen).is_ok()
    }

    /// The outcome for one connection that was asked for. None: there is no other one yet.
    pub fn outcome(&self) -> Option<(Chosen, Outcome)> {
        self.outcomes.try_recv().ok()
    }
}

/// Where the app's connections are.
struct Sockets {
    family: Family,
    owners: HashMap<i32, Owner>,
    /// By inode: the process that holds it, and the number of its descriptor.
    places: HashMap<u64, (i32, i32)>,
    found_at: Option<Instant>,
    /// Why some could not be looked for.
    refused: Option<io::Error>,
    /// This thread has another user's real ids.
    disguised: bool,
}

impl Sockets {
    fn new(family: Family) -> Sockets {
        Sockets { family, owners: HashMap::new(), places: HashMap::new(), found_at: None, refused: None, disguised: false }
    }

    fn close(&mut self, chosen: &Chosen) -> Outcome {
        let inode = u64::from(chosen.inode);
        let is_unknown = !self.places.contains_key(&inode);
        if is_unknown && self.found_at.is_some_and(|at| at.elapsed() < FIND_EVERY) {
            return Outcome::Moved;
        }
        if is_unknown {
            self.find();
            self.found_at = Some(now());
        }
        let Some((pid, number)) = self.places.get(&inode).copied() else {
            let unknown = || io::Error::new(io::ErrorKind::NotFound, "no process is seen to hold it");
            return Outcome::Refused(self.refused.take().unwrap_or_else(unknown));
        };
        let result = self.duplicate(pid, number).and_then(|socket| {
            if connection::socket_inode(&socket) == Some(inode) { connection::end_reading(&socket, chosen) } else { Ok(false) }
        });
        match result {
            Ok(true) => Outcome::Closed,
            Ok(false) => Outcome::Moved,
            Err(error) if is_refusal(&error) => Outcome::Refused(error),
            // The process or its descriptor is gone, or lameduck has no free descriptor at this moment.
            Err(_) => {
                self.places.remove(&inode);
                Outcome::Moved
            }
        }
    }

    /// Reads the descriptors of the app's processes.
    fn find(&mut self) {
        self.owners.clear();
        self.places.clear();
        let mut left = MOST_DESCRIPTORS;
        for process in self.family.members(&proc::processes()) {
            match proc::socket_descriptors(&process, &mut left) {
                Some(sockets) => self.places.extend(sockets.into_iter().map(|(number, inode)| (inode, (process.pid, number)))),
                // /proc does not show them; but if they may be duplicated, each can be looked at that way.
                None => self.find_one_by_one(&process, &mut left),
            }
        }
    }

    fn find_one_by_one(&mut self, process: &Process, left: &mut usize) {
        for number in 0..proc::descriptor_count(process.pid).unwrap_or_default() {
            let Some(less) = left.checked_sub(1) else { return };
            *left = less;
            match self.duplicate(process.pid, number) {
                Ok(file) => {
                    if let Some(inode) = connection::socket_inode(&file) {
                        self.places.insert(inode, (process.pid, number));
                    }
                }
                Err(error) if is_refusal(&error) => {
                    self.refused = Some(error);
                    return;
                }
                Err(_) => {}
            }
        }
    }

    /// A duplicate of a process's descriptor. If the process is another user's, this thread takes that user's real ids for the call.
    fn duplicate(&mut self, pid: i32, number: i32) -> io::Result<std::os::fd::OwnedFd> {
        let owner = match self.owners.entry(pid) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Owner::open(pid)?),
        };
        let refused = match owner.duplicate(number) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => error,
            result => return result,
        };
        match proc::real_ids(pid) {
            Some((uid, gid)) if connection::take_real_ids(uid, gid).is_ok() => {
                self.disguised = true;
                owner.duplicate(number)
            }
            _ => Err(refused),
        }
    }

    fn give_ids_back(&mut self) {
        if std::mem::take(&mut self.disguised)
            && let Some((uid, gid)) = proc::real_ids(std::process::id() as i32)
        {
            let _ = connection::take_real_ids(uid, gid);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this thread has no clock but this")]
fn now() -> Instant {
    Instant::now()
}

/// Whether it is refused for good: EPERM; EACCES of a security module; ENOSYS.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::Unsupported)
}
