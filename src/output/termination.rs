//! The termination message: the line that the kubelet shows when the container has ended. It is written when the start is refused, at the stop
//! signal and at each phase of the shutdown, so that something is there if we are killed, and at the end.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tracing::warn;

use crate::cli::Verb;
use crate::core::output::TERMINATION_LOG;
use crate::output::log;
use crate::plan::Env;
use crate::sys::files::Place;

/// The kubelet keeps this much of it.
const MOST_BYTES: usize = 4096;
/// How long the last line may take. After SIGKILL half of the margin is left, which is this at the least.
const PATIENCE: Duration = Duration::from_millis(250);

#[derive(Debug, Default)]
pub struct TerminationMessage {
    /// Whole, since our own directory may change. None: nobody wants it.
    path: Option<PathBuf>,
    /// What writes while the app still runs: a disk that hangs must not hold up the shutdown.
    writer: Option<Writer>,
}

#[derive(Debug)]
struct Writer {
    lines: Sender<String>,
    /// How each line went.
    done: Receiver<io::Result<()>>,
    pending: usize,
}

impl TerminationMessage {
    /// Before the settings are known: as the variable says, or the usual place. Only a verb that starts an app reports its end.
    pub fn unplanned(verb: Option<Verb>, env: &Env) -> TerminationMessage {
        if !matches!(verb, Some(Verb::Run | Verb::Exec)) {
            return TerminationMessage::default();
        }
        let named = env.get("LAMEDUCK_TERMINATION_LOG").map(Path::new);
        TerminationMessage::at(named.or_else(|| Some(Path::new(TERMINATION_LOG)).filter(|usual| usual.exists())))
    }

    pub fn at(path: Option<&Path>) -> TerminationMessage {
        TerminationMessage { path: path.map(|path| std::path::absolute(path).unwrap_or(path.to_owned())), writer: None }
    }

    /// Replaces what was written before, in a thread: what is written here is not the last word.
    pub fn write_meanwhile(&mut self, line: &str) {
        let Some(path) = &self.path else { return };
        let writer = match &mut self.writer {
            Some(writer) => writer,
            // Without a thread there is the last line alone.
            None => match Writer::start(path.clone()) {
                Ok(writer) => self.writer.insert(writer),
                Err(_) => return,
            },
        };
        writer.write(line.to_owned());
    }

    /// Replaces what was written before, and waits for it, but not for long once the shutdown has begun.
    pub fn write(&mut self, line: &str) {
        let result = match (&mut self.writer, &self.path) {
            (Some(writer), _) => {
                writer.write(line.to_owned());
                writer.wait()
            }
            (None, Some(path)) => write(path, line),
            (None, None) => Ok(()),
        };
        if let (Err(error), Some(path)) = (result, &self.path) {
            warn!(event = "warning", message = %format_args!("cannot write the termination message to {}: {error}", path.display()));
        }
    }
}

impl Writer {
    fn start(path: PathBuf) -> io::Result<Writer> {
        let (lines, to_write) = channel::<String>();
        let (written, done) = channel();
        std::thread::Builder::new().spawn(move || to_write.iter().try_for_each(|line| written.send(write(&path, &line))))?;
        Ok(Writer { lines, done, pending: 0 })
    }

    fn write(&mut self, line: String) {
        self.pending += usize::from(self.lines.send(line).is_ok());
    }

    /// How the last line went.
    fn wait(&mut self) -> io::Result<()> {
        let mut last = Ok(());
        for _ in 0..std::mem::take(&mut self.pending) {
            last = self.done.recv_timeout(PATIENCE).map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        }
        last
    }
}

fn write(path: &Path, line: &str) -> io::Result<()> {
    let mut line = log::masked(line);
    while line.len() >= MOST_BYTES {
        line.pop();
    }
    Place::find(path)?.write(line.as_bytes())
}
