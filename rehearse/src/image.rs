//! A contender in a container, through podman or docker.

use std::ffi::OsString;
use std::process::Stdio;

use lameduck::core::signals::Signal;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// The engine's command and the container's name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Container {
    pub engine: OsString,
    pub name: String,
}

impl Container {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.engine);
        command.arg(verb).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// One that has ended needs no signal any more.
    pub async fn signal(&self, signal: Signal) {
        let number = signal.number().to_string();
        let _ = self.command("kill").args(["--signal", &number, &self.name]).status().await;
    }

    pub fn pid(&self) -> Option<i32> {
        let output = std::process::Command::new(&self.engine)
            .args(["inspect", "--format", "{{.State.Pid}}", &self.name])
            .stdin(Stdio::null())
            .output()
            .ok()?;
        String::from_utf8_lossy(&output.stdout).trim().parse().ok().filter(|pid| *pid > 0)
    }
}
