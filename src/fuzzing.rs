//! What fuzz/ needs of the rooms that are closed to everybody else: bytes and texts in, what came of them out. In no binary: compiled
//! with `--cfg fuzzing` alone.

use std::ffi::OsString;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::mpsc::unbounded_channel;

use crate::core::output::snapshot::Snapshot;
use crate::core::shutdown::Timing;
use crate::core::size::cgroup::{Cgroup, Figure};
use crate::core::start::url::Url;
use crate::endpoints::{answer, serve};
use crate::plan::{self, Env, Facts, Refused};
use crate::{cli, http};

/// One connection to `--admin`, until it ends. Nobody asks the app: `/readyz` goes unanswered.
pub async fn admin(stream: TcpStream, snapshot: Snapshot) {
    let (sender, mut messages) = unbounded_channel();
    let answering = async {
        while let Some(asked) = messages.recv().await {
            answer(asked, &snapshot);
        }
    };
    tokio::join!(serve(stream, sender, Arc::default()), answering);
}

/// Asks, and takes `most` bytes of the answer's body.
pub async fn get(stream: &TcpStream, url: &Url, most: usize) -> Result<(u16, Vec<u8>), String> {
    let answer = http::get(stream, url).await?;
    let status = answer.status;
    let mut body = Vec::new();
    let take = |bytes: &[u8]| {
        body.extend_from_slice(bytes);
        Ok(())
    };
    answer.body(most, take).await?;
    Ok((status, body))
}

/// What the machine says.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    pub podinfo_cpu: Option<String>,
    pub podinfo_memory: Option<String>,
    pub cgroup: Cgroup,
    pub cpus: Option<usize>,
    pub memory: Option<u64>,
}

pub struct Planned {
    pub timing: Timing,
    pub workers: Option<u64>,
    /// As `lameduck plan` prints it, masked.
    pub described: String,
}

/// From the words of the command line to the plan. The error is masked, as it is printed.
pub fn plan(words: &[OsString], variables: Vec<(String, OsString)>, machine: Machine) -> Result<Planned, String> {
    let env = Env::new(variables);
    let secrets = crate::secrets(&env, words);
    let (verb, args) = cli::parse(words).map_err(|why| secrets.mask(&why).into_owned())?;
    let figure = |text: String| Figure { path: "/etc/podinfo/file".to_owned(), text };
    let facts = Facts {
        podinfo_cpu: machine.podinfo_cpu.map(figure),
        podinfo_memory: machine.podinfo_memory.map(figure),
        cgroup: machine.cgroup,
        cpus: machine.cpus,
        memory: machine.memory,
        ..Facts::default()
    };
    match plan::plan(verb, &args, &env, &facts) {
        Ok(plan) => {
            let described = secrets.mask(&plan.describe()).into_owned();
            Ok(Planned { timing: plan.timing, workers: plan.size.workers, described })
        }
        Err(Refused::Usage(why) | Refused::BadFile(why)) => Err(secrets.mask(&why).into_owned()),
    }
}
