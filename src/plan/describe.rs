//! What `lameduck plan` prints.

use std::fmt::Write;
use std::time::Duration;

use super::{CpuSource, Plan, stop_names};
use crate::core::shutdown::Drain;
use crate::core::time::Show;

impl Plan {
    pub fn describe(&self) -> String {
        let mut text = String::new();
        let command: Vec<String> = self.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        if command.is_empty() {
            text.push_str("command       none given\n");
        } else {
            let _ = writeln!(text, "command       {}", command.join(" "));
        }
        let _ = writeln!(
            text,
            "server        {}",
            self.server.map_or("not known".to_owned(), |server| format!("{} ({})", server.name, server.source))
        );
        text.push_str("\nsettings\n");
        for setting in &self.settings {
            let _ = writeln!(text, "  {:<16} {:<12} {}", setting.name, setting.value, setting.source);
        }
        text.push_str("\nworkers\n");
        match (&self.cpu, self.workers) {
            (Some(cpu), Some(workers)) => {
                let kind = match cpu.source {
                    CpuSource::Request => "request",
                    CpuSource::Limit => "limit",
                    CpuSource::Guess => "request, guessed",
                    CpuSource::Affinity => "no request or limit known",
                };
                let _ = writeln!(text, "  {:<16} {:<12} {kind}: {}", "cpu", cpu.millicores, cpu.from);
                let _ = writeln!(text, "  {:<16} {workers}", "count");
            }
            _ => text.push_str("  cpu              unknown\n"),
        }
        for (name, value) in &self.child_env {
            let _ = writeln!(text, "  {:<16} {name}={value}", "sets");
        }
        text.push_str("\ntimeline\n");
        text.push_str(&self.timeline());
        text.push_str("  UDP and QUIC have no connections to watch: what listens on UDP alone is held for the delay alone\n");
        if !self.warnings.is_empty() {
            text.push_str("\nwarnings\n");
            for warning in &self.warnings {
                let _ = writeln!(text, "  {warning}");
            }
        }
        text
    }

    /// The budget to scale.
    fn timeline(&self) -> String {
        const WIDTH: usize = 72;
        let timing = &self.timing;
        let grace = timing.grace.as_secs_f64();
        let column = |at: Duration| ((at.as_secs_f64() / grace) * WIDTH as f64).round() as usize;
        let marks = [timing.delay, timing.until_told(), timing.until_kill(), timing.grace];
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
        let signal = match (self.stop_signal, self.server) {
            (Some(signal), _) => signal.to_string(),
            (None, Some(server)) => stop_names(server),
            (None, None) => "TERM".to_owned(),
        };
        format!(
            "  |{bar}\n  = until {:<7} lame duck: the app serves on, at least the delay\n  - until {:<7} draining: {drained}\n  . until {:<7} stopping: {signal} at the latest at {}, then time to exit\n  ! until {:<7} margin: SIGKILL at {}, before the kubelet's\n",
            Show(timing.delay).to_string(),
            Show(timing.until_told()).to_string(),
            Show(timing.until_kill()).to_string(),
            Show(timing.until_told()),
            Show(timing.grace).to_string(),
            Show(timing.until_kill()),
        )
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::made;

    #[test]
    fn the_timeline_is_to_scale() {
        let plan = made(&["--grace-period", "20s", "--delay", "5s", "--stop-timeout", "5s", "nginx"], &[]).unwrap();
        let text = plan.describe();
        let bar = text.lines().find(|line| line.starts_with("  |=")).unwrap();
        // 72 columns for 20 s: 5 s are 18, told by 13 s, killed at 18 s.
        assert_eq!(bar, format!("  |{}|{}|{}|{}|", "=".repeat(18), "-".repeat(29), ".".repeat(18), "!".repeat(7)));
        assert!(text.contains("QUIT") && text.contains("--grace-period"), "{text}");
    }
}
