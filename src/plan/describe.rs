//! What `lameduck plan` prints.

use std::ffi::OsString;
use std::fmt::Write;
use std::time::Duration;

use super::size::Look;
use super::{CpuSource, Plan, joined};
use crate::core::servers::KeptAlive;
use crate::core::shutdown::Drain;
use crate::core::shutdown::rule::own_stop_signals;
use crate::core::time::Show;
use crate::core::traffic::keepalive::{KeepAlive, Way};

impl Plan {
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let words = |command: &[OsString]| command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let main = self.main();
        if main.command.is_empty() {
            text.push_str("command       none given\n");
        } else {
            let _ = writeln!(text, "command       {}", words(&main.command));
        }
        let _ = writeln!(
            text,
            "server        {}",
            main.server.map_or("not known".to_owned(), |server| format!("{} ({})", server.name, server.source))
        );
        for companion in self.services.iter().skip(1) {
            let expendable = if companion.expendable { "; its end is only a warning" } else { "" };
            let _ = writeln!(text, "companion     {}: {}{expendable}", companion.name, words(&companion.command));
        }
        if self.has_companions() || !self.before_commands.is_empty() {
            text.push_str("\nstart, one after the other\n");
            self.start_order().iter().for_each(|step| _ = writeln!(text, "  {step}"));
        }
        text.push_str("\nsettings\n");
        for setting in &self.settings {
            let _ = writeln!(text, "  {:<16} {:<12} {}", setting.name, setting.value, setting.source);
        }
        text.push_str(&self.size());
        text.push_str("\ntimeline\n");
        text.push_str(&self.timeline());
        text.push_str(&self.stop_order());
        text.push_str(&self.kept_alive());
        text.push_str("  UDP and QUIC have no connections to watch: what listens on UDP alone is held for the delay alone\n");
        if !self.warnings.is_empty() {
            text.push_str("\nwarnings\n");
            for warning in &self.warnings {
                let _ = writeln!(text, "  {warning}");
            }
        }
        text
    }

    /// CPU, memory, workers: each place that was looked at, and what was taken.
    fn size(&self) -> String {
        let size = &self.size;
        let mut text = String::from("\nsize: of each the first that is known is taken (>)\n");
        let said = |look: &Look| look.text.as_ref().map_or("-".to_owned(), |said| format!("{said:?}"));
        let place_width = size.looks.iter().map(|look| look.place.len()).max().unwrap_or_default();
        let said_width = size.looks.iter().map(|look| said(look).len()).max().unwrap_or_default();
        for look in &size.looks {
            let mark = if look.taken { '>' } else { ' ' };
            let (place, said) = (&look.place, said(look));
            let _ = writeln!(text, "{mark} {:<16} {place:<place_width$}  {said:<said_width$}  {}", look.what, look.means);
        }
        text.push_str("\nworkers\n");
        match (&size.cpu, size.workers) {
            (Some(cpu), Some(workers)) => {
                let kind = match cpu.source {
                    CpuSource::Request => "request",
                    CpuSource::Limit => "limit",
                    CpuSource::Guess => "request, guessed: only LAMEDUCK_WORKERS is set",
                    CpuSource::Affinity => "no request or limit known: only LAMEDUCK_WORKERS is set",
                };
                let _ = writeln!(text, "  {:<16} {:<12} {kind}", "cpu", cpu.millicores.to_string());
                if let Some(memory) = size.memory {
                    let _ = writeln!(text, "  {:<16} {:<12} limit, in bytes", "memory", memory);
                }
                let _ = writeln!(text, "  {:<16} {workers:<12} {}", "count", size.because);
            }
            _ => text.push_str("  cpu              unknown\n"),
        }
        for service in &self.services {
            let whose = if self.has_companions() { format!("  for {}", service.name) } else { String::new() };
            for (name, value) in &service.child_env {
                let _ = writeln!(text, "  {:<16} {name}={value}{whose}", "sets");
            }
            for set in &service.heap.set {
                let _ = writeln!(text, "  {:<16} {:<12} {}{whose}", "heap", set.name, set.why);
            }
            for why in &service.heap.not_set {
                let _ = writeln!(text, "  {:<16} {:<12} {why}{whose}", "heap", "not set:");
            }
        }
        text
    }

    /// What will be done about kept-alive connections, and whether it is permitted.
    fn kept_alive(&self) -> String {
        if self.timing.drain == Drain::Off {
            return String::new();
        }
        let what = match self.way(self.cannot_close.is_none()) {
            Way::Close => "closed one by one once nothing new comes, each between two requests",
            Way::Fewest => "not closed; the app gets its stop signal in the moment with the fewest in use",
            Way::OwnStop => "left to the server's own stop, as soon as nothing new comes",
            Way::Wait => "waited for until they are at rest",
        };
        let mut text = format!("  kept-alive connections in use are {what}\n");
        if let Some(why) = self.cannot_close.as_ref().filter(|_| self.keep_alive != KeepAlive::Wait) {
            let _ = writeln!(text, "  they cannot be closed from outside here: {why}");
        }
        text
    }

    /// The way in which kept-alive connections are handled. `permitted`: they can be closed from outside.
    pub fn way(&self, permitted: bool) -> Way {
        let server = self.main().server;
        let facts = server.map_or(KeptAlive::UNKNOWN, |server| server.kept_alive);
        Way::choose(self.keep_alive, facts, self.rule.is_own_stop(server), permitted)
    }

    /// The steps of the start, the main command last.
    fn start_order(&self) -> Vec<String> {
        let words = |command: &[OsString]| command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
        let mut steps = Vec::new();
        let targets = &self.before.wait_for;
        let mut waited = 0;
        let mut wait = |steps: &mut Vec<String>, until: usize| {
            steps.extend(targets.iter().take(until).skip(waited).map(|(text, _)| format!("wait for {text}")));
            waited = until.max(waited);
        };
        for before in &self.before_commands {
            wait(&mut steps, before.waits);
            steps.push(format!("run {}", words(&before.command)));
        }
        steps.extend(self.services.iter().skip(1).map(|companion| format!("start {}", companion.name)));
        wait(&mut steps, targets.len());
        steps.push(format!("start {}", self.main().name));
        steps
    }

    /// The order of the stop: the `--on-stop` commands, and the services if there are several.
    fn stop_order(&self) -> String {
        let mut text = String::new();
        for command in &self.on_stop {
            let command = command.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
            let _ = writeln!(
                text,
                "  at the stop signal: run {command}; no service is stopped before it has ended, or the time is up"
            );
        }
        if !self.has_companions() {
            return text;
        }
        let main = format!("{} ({})", self.main().name, joined(&self.rule.stop_signals(self.main().server)));
        let companions = self.services.iter().skip(1).rev();
        let companions = companions.map(|service| format!("{} ({})", service.name, joined(&own_stop_signals(service.server))));
        let order: Vec<String> = [main].into_iter().chain(companions).collect();
        let _ = writeln!(text, "  stopped one after the other, each when the one before has ended: {}", order.join(", "));
        text.push_str("  each has an equal share of what is left until SIGKILL; then the next is stopped, too\n");
        text
    }

    /// The budget, drawn to scale.
    fn timeline(&self) -> String {
        const WIDTH: usize = 72;
        let timing = &self.timing;
        let grace = timing.grace.as_secs_f64();
        let column = |at: Duration| ((at.as_secs_f64() / grace) * WIDTH as f64).round() as usize;
        let marks = [timing.delay, timing.until_sent(), timing.until_kill(), timing.grace];
        let mut bar = String::new();
        let mut from = 0;
        for (mark, fill) in marks.iter().zip(['=', '-', '.', '!']) {
            let to = column(*mark).max(from);
            bar.extend(std::iter::repeat_n(fill, to - from));
            bar.push('|');
            from = to;
        }
        let drained = match timing.drain {
            Drain::Off => "nothing is waited for after the delay",
            Drain::Requests => "and until nothing new comes and nothing is in flight",
            Drain::Connections => "and until nothing new comes and all connections are closed",
        };
        let signal = joined(&self.rule.stop_signals(self.main().server));
        format!(
            "  |{bar}\n  = until {:<7} lame duck: the app serves on, at least the delay\n  - until {:<7} draining: {drained}\n  . until {:<7} stopping: {signal} at the latest at {}, then time to exit\n  ! until {:<7} margin: SIGKILL at {}, before the kubelet's\n",
            Show(timing.delay).to_string(),
            Show(timing.until_sent()).to_string(),
            Show(timing.until_kill()).to_string(),
            Show(timing.until_sent()),
            Show(timing.grace).to_string(),
            Show(timing.until_kill()),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::core::size::cgroup::{Cgroup, Figure};
    use crate::plan::Facts;
    use crate::plan::tests::{made, with};

    #[test]
    fn the_timeline_is_to_scale() {
        let plan = made(&["--grace-period", "20s", "--delay", "5s", "--stop-timeout", "5s", "nginx"], &[]).unwrap();
        let text = plan.describe();
        let bar = text.lines().find(|line| line.starts_with("  |=")).unwrap();
        // 72 columns for 20 s: 5 s are 18, the stop signal by 13 s, killed at 18 s.
        assert_eq!(bar, format!("  |{}|{}|{}|{}|", "=".repeat(18), "-".repeat(29), ".".repeat(18), "!".repeat(7)));
        assert!(text.contains("QUIT") && text.contains("--grace-period"), "{text}");
    }

    fn figure(path: &str, text: &str) -> Figure {
        Figure { path: path.to_owned(), text: text.to_owned() }
    }

    /// As the kubelet and the kernel write it.
    #[test]
    fn in_kubernetes() {
        let facts = Facts {
            podinfo_cpu: Some(figure("/etc/podinfo/cpu_request", "1500")),
            podinfo_memory: Some(figure("/etc/podinfo/memory_limit", "1073741824")),
            cgroup: Cgroup {
                cpu_max: vec![figure("/sys/fs/cgroup/cpu.max", "300000 100000\n")],
                cpu_weight: Some(figure("/sys/fs/cgroup/cpu.weight", "59\n")),
                memory_max: vec![figure("/sys/fs/cgroup/memory.max", "1073741824\n")],
                ..Cgroup::default()
            },
            cpus: Some(64),
            ..Facts::default()
        };
        let options = ["plan", "--grace-period", "60s", "--delay", "15s", "--workers-per-cpu", "2", "--workers-extra", "1"];
        let memory = ["--worker-memory", "300Mi", "--memory-reserve", "100Mi"];
        let before = ["--wait-for", "tcp://db:5432", "--user", "www-data", "--template", "/t/app.ini:/run/app.ini"];
        let command = ["sh", "-c", "exec gunicorn app:app"];
        let variables =
            [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("LAMEDUCK_QUIET_PERIOD", "2s"), ("LAMEDUCK_CPU_REQUEST_MILLIS", "0")];
        let plan = with(&[&options[..], &memory, &before, &command].concat(), &variables, &facts).unwrap();
        assert_eq!(plan.describe(), include_str!("../../tests/plan/kubernetes.txt"));
    }

    #[test]
    fn heaps() {
        let limit = ("LAMEDUCK_MEMORY_LIMIT", "1Gi");
        let said = |options: &[&str], variables: &[(&str, &str)]| {
            let text = with(&[&["plan"], options].concat(), variables, &Facts::default()).unwrap().describe();
            text.lines().filter(|line| line.contains("heap ")).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(
            said(&["--heap", "auto", "node"], &[limit]),
            ["  heap             auto         --heap", "  heap             NODE_OPTIONS a heap of 512 MiB of 1024 MiB"]
        );
        assert_eq!(said(&["./app"], &[limit]), [""; 0]);
        let not_set = said(&["./app"], &[limit, ("LAMEDUCK_HEAP", "50%"), ("GOMEMLIMIT", "off")]);
        assert_eq!(
            not_set,
            ["  heap             50%          LAMEDUCK_HEAP", "  heap             not set:     GOMEMLIMIT is set"]
        );
    }

    /// Version 1, with nothing set.
    #[test]
    fn in_docker() {
        let facts = Facts {
            cgroup: Cgroup {
                cpu_max: vec![figure("/sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "max 100000")],
                cpu_shares: Some(figure("/sys/fs/cgroup/cpu,cpuacct/cpu.shares", "1024\n")),
                memory_max: vec![figure("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n")],
                ..Cgroup::default()
            },
            cpus: Some(8),
            ..Facts::default()
        };
        let plan = with(&["plan", "apache2-foreground"], &[("LAMEDUCK_DELAYS", "1s")], &facts).unwrap();
        assert_eq!(plan.describe(), include_str!("../../tests/plan/docker.txt"));
    }
}
