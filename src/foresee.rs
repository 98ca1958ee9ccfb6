//! The door for tools that read manifests: what lameduck would decide in a container that does not run yet. Pure: it looks at nothing but
//! what it is given.

use std::ffi::OsString;

use crate::cli::{self, Verb};
use crate::core::servers::Server;
use crate::core::shutdown::rule::StopOn;
use crate::core::shutdown::{Drain, Timing};
use crate::core::signals::SignalSet;
use crate::core::size::cgroup::{Cgroup, Figure};
use crate::core::traffic::keepalive::Way;
use crate::plan::{self, Env, Facts, Refused};

/// A container as its manifest describes it.
#[derive(Clone, Debug, Default)]
pub struct Container {
    /// What stands behind `lameduck`: options, a command of ours, the app's words.
    pub words: Vec<String>,
    /// With KUBERNETES_SERVICE_HOST where there is a pod.
    pub variables: Vec<(String, String)>,
    /// What the files `cpu_request` and `memory_limit` of LAMEDUCK_PODINFO say.
    pub podinfo_cpu: Option<String>,
    pub podinfo_memory: Option<String>,
    /// In millicores and in bytes, as the cgroup will have them.
    pub cpu_limit: Option<u64>,
    pub memory_limit: Option<u64>,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Foreseen {
    pub timing: Timing,
    /// The app's words, options of ours taken away.
    pub command: Vec<String>,
    pub server: Option<&'static Server>,
    /// The ports of `--admin` and of `--port`.
    pub admin: Option<u16>,
    pub ports: Vec<u16>,
    /// `/readyz` goes on passing while lame duck.
    pub pass_on_stop: bool,
    /// Kept-alive connections in use would be closed one by one, where that is permitted.
    pub closes: bool,
    /// None: auto.
    pub stop_on: Option<SignalSet>,
    pub workers: Option<u64>,
    /// What had the last word on that.
    pub because: String,
    pub child_env: Vec<(String, String)>,
    pub warnings: Vec<String>,
    /// What `lameduck plan` prints.
    pub text: String,
}

/// Decides as `lameduck` would at its start. The error is the line with which it would refuse, without our name before it.
pub fn foresee(container: &Container) -> Result<Foreseen, String> {
    let words: Vec<OsString> = container.words.iter().map(OsString::from).collect();
    let (verb, args) = cli::parse(&words)?;
    let env = Env::new(container.variables.iter().map(|(name, value)| (name.clone(), OsString::from(value))));
    let figure = |path: &str, text: String| Figure { path: path.to_owned(), text };
    let podinfo = |file: &str, text: &Option<String>| text.clone().map(|text| figure(&format!("/etc/podinfo/{file}"), text));
    const PERIOD: u64 = 100_000;
    let facts = Facts {
        termination_log: true,
        podinfo_cpu: podinfo("cpu_request", &container.podinfo_cpu),
        podinfo_memory: podinfo("memory_limit", &container.podinfo_memory),
        cgroup: Cgroup {
            cpu_max: container
                .cpu_limit
                .map(|milli| figure("cpu.max", format!("{} {PERIOD}", milli.saturating_mul(PERIOD / 1000))))
                .into_iter()
                .collect(),
            memory_max: container.memory_limit.map(|bytes| figure("memory.max", bytes.to_string())).into_iter().collect(),
            ..Cgroup::default()
        },
        ..Facts::default()
    };
    let plan = plan::plan(verb, &args, &env, &facts).map_err(|refused| match refused {
        Refused::Usage(line) | Refused::BadFile(line) => line,
    })?;
    let text = if verb == Verb::Drain { String::new() } else { plan.describe() };
    Ok(Foreseen {
        child_env: plan.main().child_env.clone(),
        command: plan.main().command.iter().map(|word| word.to_string_lossy().into_owned()).collect(),
        server: plan.main().server,
        admin: plan.outside.admin.as_ref().and_then(|(_, addresses)| Some(addresses.first()?.port())),
        closes: plan.timing.drain != Drain::Off && plan.way(true) == Way::Close,
        pass_on_stop: plan.outside.pass_on_stop,
        stop_on: match plan.rule.stop_on {
            StopOn::Auto => None,
            StopOn::Given(signals) => Some(signals),
        },
        workers: plan.size.workers,
        because: plan.size.because,
        ports: plan.ports,
        timing: plan.timing,
        warnings: plan.warnings,
        text,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_pod_that_does_not_run_yet() {
        let mut container = Container {
            words: ["--delay", "8s", "--", "gunicorn", "app:app"].map(str::to_owned).to_vec(),
            variables: vec![("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())],
            podinfo_cpu: Some("1500".to_owned()),
            cpu_limit: Some(4000),
            ..Container::default()
        };
        let seen = foresee(&container).unwrap();
        assert_eq!((seen.timing.grace, seen.timing.delay), (Duration::from_secs(30), Duration::from_secs(8)));
        assert_eq!((seen.workers, seen.command), (Some(2), vec!["gunicorn".to_owned(), "app:app".to_owned()]));
        assert!(seen.closes);
        assert!(seen.text.contains("WEB_CONCURRENCY=2"), "{}", seen.text);
        container.variables.push(("LAMEDUCK_KEEP_ALIVE".to_owned(), "wait".to_owned()));
        container.podinfo_cpu = None;
        assert!(!foresee(&container).unwrap().closes);
        assert_eq!(foresee(&container).unwrap().workers, Some(4), "the limit");
        container.words[1] = "29s".to_owned();
        assert!(foresee(&container).unwrap_err().contains("delay 29s (--delay) + margin 2s > grace period 30s"));
    }
}
