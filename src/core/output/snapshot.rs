//! Everything that is known at one moment, for whoever asks from outside: as JSON, and drawn for a person. As metrics: metrics.rs.

use std::fmt::Write;
use std::time::Duration;

use crate::core::output::json::Json;
use crate::core::shutdown::{Phase, Timing};
use crate::core::signals::Signal;
use crate::core::size::cpu::Millicores;
use crate::core::time::Show;
use crate::core::traffic::{PortSample, Tally};

/// Where the figures on connections come from.
pub const SOURCES: [&str; 4] = ["sock_diag", "proc_net", "metric", "none"];

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub version: &'static str,
    pub uptime: Duration,
    pub phase: Phase,
    /// How long it has been so.
    pub since: Duration,
    /// The main process; None: not started yet, or gone.
    pub pid: Option<i32>,
    /// Whom signals go to: the main process, or the server behind its shell.
    pub target: Option<i32>,
    pub command: String,
    pub server: Option<&'static str>,
    /// Where there are several, the main command first.
    pub services: Vec<Service>,
    pub timing: Timing,
    pub stop: Option<Stop>,
    pub traffic: Traffic,
    pub workers: Option<u64>,
    pub cpu: Option<Millicores>,
    pub app: Option<AppFigures>,
    /// Processes that the kernel killed because memory ran out. None: nobody counts them.
    pub oom_kills: Option<u64>,
    pub reaped: u64,
    /// Signals that came, CHLD left out.
    pub signals: Vec<(Signal, u64)>,
    pub dropped: u64,
}

/// The shutdown, once it has begun.
#[derive(Clone, Debug)]
pub struct Stop {
    /// The signal that began it.
    pub signal: Option<Signal>,
    /// The companion whose end began it.
    pub ended: Option<String>,
    /// How long ago.
    pub ago: Duration,
    /// Why the main command was sent its stop signal, once it was.
    pub reason: Option<&'static str>,
    pub tally: Option<Tally>,
    /// Kept-alive connections that were closed from outside.
    pub closed: u64,
    /// So long after the stop signal came the last new connection.
    pub last_accept: Option<Duration>,
}

/// One of several services.
#[derive(Clone, Debug)]
pub struct Service {
    pub name: String,
    /// None: it does not run.
    pub pid: Option<i32>,
    pub figures: Option<AppFigures>,
}

#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// One of SOURCES.
    pub source: &'static str,
    /// None: it is unknown.
    pub listening: Option<bool>,
    /// 0 is unix sockets.
    pub ports: Vec<PortSample>,
    pub in_flight: usize,
}

/// A process tree: the app's, or one service's.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AppFigures {
    pub processes: usize,
    pub resident_bytes: u64,
    pub cpu: Duration,
    /// None: we may not know.
    pub open_files: Option<usize>,
    /// Of a known server: the children of its main process.
    pub server_children: usize,
}

impl AppFigures {
    pub fn plus(self, other: AppFigures) -> AppFigures {
        AppFigures {
            processes: self.processes + other.processes,
            resident_bytes: self.resident_bytes + other.resident_bytes,
            cpu: self.cpu.saturating_add(other.cpu),
            open_files: self.open_files.zip(other.open_files).map(|(one, other)| one + other),
            server_children: self.server_children + other.server_children,
        }
    }
}

impl Snapshot {
    /// The document of `/status`: docs/admin.md has its shape.
    pub fn json(&self) -> String {
        let seconds = |length: Duration| length.as_millis() as f64 / 1000.0;
        let mut json = Json::object();
        json.string("version", self.version);
        json.string("phase", self.phase.name());
        json.plain("phase_seconds", seconds(self.since));
        json.plain("uptime_seconds", seconds(self.uptime));
        json.nested("app", ['{', '}'], |app| {
            app.optional("pid", self.pid);
            app.string("command", &self.command);
            match self.server {
                Some(server) => app.string("server", server),
                None => app.plain("server", "null"),
            }
            app.optional("listening", self.traffic.listening);
            if let Some(figures) = &self.app {
                app.figures(figures);
            }
        });
        if !self.services.is_empty() {
            json.nested("services", ['[', ']'], |services| {
                for service in &self.services {
                    services.nested("", ['{', '}'], |json| {
                        json.string("service", &service.name);
                        json.optional("pid", service.pid);
                        if let Some(figures) = &service.figures {
                            json.figures(figures);
                        }
                    });
                }
            });
        }
        json.nested("budget", ['{', '}'], |budget| {
            budget.plain("grace_period_seconds", seconds(self.timing.grace));
            budget.plain("delay_seconds", seconds(self.timing.delay));
            budget.plain("stop_signal_by_seconds", seconds(self.timing.until_sent()));
            budget.plain("killed_by_seconds", seconds(self.timing.until_kill()));
        });
        match &self.stop {
            None => json.plain("stop", "null"),
            Some(stop) => json.nested("stop", ['{', '}'], |json| {
                match stop.signal {
                    Some(signal) => json.string("signal", &signal.to_string()),
                    None => json.plain("signal", "null"),
                }
                match &stop.ended {
                    Some(service) => json.string("ended_service", service),
                    None => json.plain("ended_service", "null"),
                }
                json.plain("seconds_ago", seconds(stop.ago));
                match stop.reason {
                    Some(reason) => json.string("stop_signal_because", reason),
                    None => json.plain("stop_signal_because", "null"),
                }
                json.optional("last_accept_seconds", stop.last_accept.map(seconds));
                json.optional("accepted", stop.tally.map(|tally| tally.accepted));
                json.optional("accepted_or_more", stop.tally.map(|tally| tally.uncertain));
                json.optional("finished", stop.tally.map(|tally| tally.finished));
                json.plain("closed", stop.closed);
            }),
        }
        json.nested("traffic", ['{', '}'], |traffic| {
            traffic.string("source", self.traffic.source);
            traffic.plain("in_flight", self.traffic.in_flight);
            traffic.nested("ports", ['[', ']'], |ports| {
                for port in &self.traffic.ports {
                    ports.nested("", ['{', '}'], |json| {
                        json.string("port", &name(port.port));
                        json.plain("busy", port.busy);
                        json.plain("cooling", port.cooling);
                        json.plain("idle", port.idle);
                        json.plain("queued", port.queued);
                        json.plain("accepted", port.accepted);
                    });
                }
            });
        });
        json.optional("workers", self.workers);
        json.optional("cpu_millicores", self.cpu.map(|cpu| cpu.0));
        json.optional("oom_kills", self.oom_kills);
        json.plain("reaped", self.reaped);
        json.nested("signals", ['{', '}'], |signals| {
            self.signals.iter().for_each(|(signal, count)| signals.plain(&signal.to_string(), count));
        });
        json.plain("dropped_log_lines", self.dropped);
        json.end()
    }

    /// For `lameduck status`: what an operator wants to see during a rollout.
    pub fn draw(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(text, "{}  for {}", self.phase.name(), Show(self.since));
        let server = self.server.map_or(String::new(), |server| format!(" ({server})"));
        let pid = self.pid.map_or("-".to_owned(), |pid| pid.to_string());
        let _ = writeln!(text, "app        {}{server}, pid {pid}", self.command);
        if let Some(figures) = &self.app {
            let _ = writeln!(
                text,
                "           {} processes, {} MiB resident, {} open files",
                figures.processes,
                figures.resident_bytes >> 20,
                figures.open_files.map_or("?".to_owned(), |files| files.to_string())
            );
        }
        for service in &self.services {
            let pid = service.pid.map_or("not running".to_owned(), |pid| format!("pid {pid}"));
            let figures = service.figures.as_ref().map_or(String::new(), |figures| {
                format!(", {} processes, {} MiB resident", figures.processes, figures.resident_bytes >> 20)
            });
            let _ = writeln!(text, "service    {}, {pid}{figures}", service.name);
        }
        match &self.stop {
            None => {
                let _ = writeln!(text, "budget     {} grace period, not begun", Show(self.timing.grace));
            }
            Some(stop) => {
                let began = stop.ended.clone().map(|service| format!("the end of {service}"));
                let began = stop.signal.map(|signal| signal.to_string()).or(began);
                let signal = began.map_or(String::new(), |began| format!(" by {began}"));
                let _ =
                    writeln!(text, "budget     {} {} of {}{signal}", self.bar(stop.ago), Show(stop.ago), Show(self.timing.grace));
                if let Some(reason) = stop.reason {
                    let _ = writeln!(text, "stop       signal sent because {reason}");
                }
                if let Some(tally) = stop.tally {
                    let last = stop.last_accept.map_or(String::new(), |last| format!(", the last after {}", Show(last)));
                    let _ = writeln!(
                        text,
                        "since then {} new connection{}{last}; {} finished their work",
                        tally.accepted,
                        if tally.accepted == 1 { "" } else { "s" },
                        tally.finished
                    );
                }
            }
        }
        let _ = writeln!(text, "traffic    {} in flight, seen by {}", self.traffic.in_flight, self.traffic.source);
        if !self.traffic.ports.is_empty() {
            let _ = writeln!(text, "           {:>5} {:>7} {:>7} {:>7} {:>7}", "port", "busy", "cooling", "idle", "queued");
        }
        for port in &self.traffic.ports {
            let _ = writeln!(
                text,
                "           {:>5} {:>7} {:>7} {:>7} {:>7}",
                name(port.port),
                port.busy,
                port.cooling,
                port.idle,
                port.queued
            );
        }
        text
    }

    /// How much of the budget is used, with marks where the stop signal and SIGKILL are sent at the latest.
    fn bar(&self, used: Duration) -> String {
        const WIDTH: usize = 40;
        let column = |at: Duration| {
            let share = at.as_secs_f64() / self.timing.grace.as_secs_f64().max(0.001);
            ((share * WIDTH as f64).round() as usize).min(WIDTH)
        };
        let marks = [self.timing.until_sent(), self.timing.until_kill()].map(column);
        let cell = |index: usize| match index {
            _ if marks.contains(&index) => '|',
            _ if index < column(used) => '#',
            _ => '.',
        };
        (0..WIDTH).map(cell).collect()
    }
}

impl Json {
    fn figures(&mut self, figures: &AppFigures) {
        self.plain("processes", figures.processes);
        self.plain("resident_memory_bytes", figures.resident_bytes);
        self.plain("cpu_seconds", figures.cpu.as_millis() as f64 / 1000.0);
        self.optional("open_files", figures.open_files);
    }
}

/// A port as a label.
pub fn name(port: u16) -> String {
    if port == 0 { "unix".to_owned() } else { port.to_string() }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::core::shutdown::Drain;

    pub fn example() -> Snapshot {
        let second = Duration::from_secs(1);
        let port = PortSample { port: 8080, busy: 2, cooling: 1, idle: 7, queued: 0, accepted: 5 };
        Snapshot {
            version: "0.1.0",
            uptime: 3601 * second,
            phase: Phase::LameDuck,
            since: 3 * second,
            pid: Some(7),
            target: Some(7),
            command: "gunicorn \"a b\"".to_owned(),
            server: Some("gunicorn"),
            services: Vec::new(),
            timing: Timing {
                grace: 30 * second,
                delay: 5 * second,
                delay_given: false,
                quiet: second,
                stop_timeout: 10 * second,
                idle_after: second,
                drain: Drain::Requests,
            },
            stop: Some(Stop {
                signal: Some(Signal::TERM),
                ended: None,
                ago: 15 * second,
                reason: None,
                tally: Some(Tally { accepted: 5, uncertain: 0, finished: 4, cut: 0 }),
                closed: 6,
                last_accept: Some(Duration::from_millis(2700)),
            }),
            traffic: Traffic {
                source: "sock_diag",
                listening: Some(true),
                ports: vec![port, PortSample { port: 0, ..PortSample::default() }],
                in_flight: 3,
            },
            workers: Some(4),
            cpu: Some(Millicores(1500)),
            app: Some(AppFigures {
                processes: 5,
                resident_bytes: 123 << 20,
                cpu: Duration::from_millis(1250),
                open_files: Some(42),
                server_children: 4,
            }),
            oom_kills: Some(1),
            reaped: 2,
            signals: vec![(Signal::HUP, 1), (Signal::TERM, 2)],
            dropped: 0,
        }
    }

    #[test]
    fn drawn_for_a_person() {
        let drawn = "\
lame-duck  for 3s
app        gunicorn \"a b\" (gunicorn), pid 7
           5 processes, 123 MiB resident, 42 open files
budget     ####################....|............|.. 15s of 30s by TERM
since then 5 new connections, the last after 2.7s; 4 finished their work
traffic    3 in flight, seen by sock_diag
            port    busy cooling    idle  queued
            8080       2       1       7       0
            unix       0       0       0       0
";
        assert_eq!(example().draw(), drawn);
    }

    #[test]
    fn the_document() {
        let text = example().json();
        assert!(text.starts_with("{\"version\":\"0.1.0\",\"phase\":\"lame-duck\",\"phase_seconds\":3,"), "{text}");
        assert!(text.contains("\"ports\":[{\"port\":\"8080\",\"busy\":2,"), "{text}");
        assert!(text.contains("\"command\":\"gunicorn \\\"a b\\\"\""), "{text}");
        let mut serving = example();
        serving.stop = None;
        assert!(serving.json().contains("\"stop\":null"));
    }
}
