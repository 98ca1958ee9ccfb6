//! A snapshot in Prometheus' text format.

use std::fmt::{Display, Write};
use std::time::Duration;

use crate::core::output::snapshot::{AppFigures, SOURCES, Snapshot, name};
use crate::core::shutdown::Phase;

/// What to answer a scrape with.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Families one after the other: help and type, then samples.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// `labels` without braces, their values escaped if they need it.
    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let _ = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            _ => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
    }

    /// One sample; with several services one for each.
    fn by_service<T: Display>(
        &mut self,
        snapshot: &Snapshot,
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&AppFigures) -> T,
    ) {
        if snapshot.services.is_empty() {
            return self.only(name, kind, help, snapshot.app.as_ref().map(value));
        }
        self.family(name, kind, help);
        for service in &snapshot.services {
            if let Some(figures) = &service.figures {
                self.sample(name, &format!("service=\"{}\"", service.name), value(figures));
            }
        }
    }

    fn only(&mut self, name: &str, kind: &str, help: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.family(name, kind, help);
            self.sample(name, "", value);
        }
    }
}

pub fn page(snapshot: &Snapshot) -> String {
    let seconds = |length: Duration| length.as_secs_f64();
    let mut page = Page(String::with_capacity(8192));
    page.family("lameduck_build_info", "gauge", "Always 1; the version is the label.");
    page.sample("lameduck_build_info", &format!("version=\"{}\"", snapshot.version), 1);

    page.family("lameduck_phase", "gauge", "1 for the phase of the shutdown that it is in, 0 for all others.");
    for phase in Phase::ALL {
        let labels = format!("phase=\"{}\"", phase.name());
        page.sample("lameduck_phase", &labels, u8::from(phase == snapshot.phase));
    }

    page.family("lameduck_connections", "gauge", "Connections to the app by local port and state.");
    for port in &snapshot.traffic.ports {
        for (state, count) in [("busy", port.busy), ("cooling", port.cooling), ("idle", port.idle), ("queued", port.queued)] {
            page.sample("lameduck_connections", &format!("port=\"{}\",state=\"{state}\"", name(port.port)), count);
        }
    }
    page.only(
        "lameduck_in_flight",
        "gauge",
        "Requests in flight: connections that are busy or queued, or what --in-flight says.",
        Some(snapshot.traffic.in_flight),
    );
    page.family("lameduck_traffic_source", "gauge", "1 for the source of the connections' figures, 0 for the others.");
    for source in SOURCES {
        let labels = format!("source=\"{source}\"");
        page.sample("lameduck_traffic_source", &labels, u8::from(source == snapshot.traffic.source));
    }

    page.family(
        "lameduck_shutdown_connections_accepted_total",
        "counter",
        "New connections since the stop signal by local port; nothing is watched before.",
    );
    for port in &snapshot.traffic.ports {
        let labels = format!("port=\"{}\"", name(port.port));
        page.sample("lameduck_shutdown_connections_accepted_total", &labels, port.accepted);
    }
    page.only(
        "lameduck_shutdown_connections_closed_total",
        "counter",
        "Kept-alive connections that were closed from outside, between two requests, since the stop signal.",
        Some(snapshot.stop.as_ref().map_or(0, |stop| stop.closed)),
    );
    page.only(
        "lameduck_shutdown_last_accept_seconds",
        "gauge",
        "So long after the stop signal the last new connection came; 0 if none did. --delay should be longer.",
        snapshot.stop.as_ref().map(|stop| seconds(stop.last_accept.unwrap_or_default())),
    );

    page.only(
        "lameduck_oom_kills_total",
        "counter",
        "Processes of the container that the kernel killed because memory ran out, by its cgroup.",
        snapshot.oom_kills,
    );
    page.only("lameduck_reaped_total", "counter", "Processes reaped, orphans and the app's own.", Some(snapshot.reaped));
    page.family("lameduck_signals_total", "counter", "Signals received, SIGCHLD left out.");
    for (signal, count) in &snapshot.signals {
        page.sample("lameduck_signals_total", &format!("signal=\"{signal}\""), count);
    }
    page.only("lameduck_workers", "gauge", "Workers computed from the CPU request and the memory limit.", snapshot.workers);
    page.only(
        "lameduck_cpu_request_cores",
        "gauge",
        "The CPU request that the workers were computed from, or what stood in for it.",
        snapshot.cpu.map(|cpu| cpu.0 as f64 / 1000.0),
    );
    if !snapshot.services.is_empty() {
        page.family("lameduck_service_up", "gauge", "1 if the service runs, 0 if it has ended or is not started yet.");
        for service in &snapshot.services {
            page.sample("lameduck_service_up", &format!("service=\"{}\"", service.name), u8::from(service.pid.is_some()));
        }
    }
    page.by_service(snapshot, "lameduck_app_processes", "gauge", "Processes of the app.", |app| app.processes);
    page.by_service(
        snapshot,
        "lameduck_app_resident_memory_bytes",
        "gauge",
        "Resident memory of the app's processes; what they share counts once for each.",
        |app| app.resident_bytes,
    );
    page.by_service(
        snapshot,
        "lameduck_app_cpu_seconds_total",
        "counter",
        "CPU time of the app's processes, those that have ended included.",
        |app| seconds(app.cpu),
    );
    let app = snapshot.app.as_ref();
    page.only("lameduck_app_open_files", "gauge", "Open descriptors of the app's processes.", app.and_then(|app| app.open_files));
    if let (Some(server), Some(app)) = (snapshot.server, app) {
        page.family("lameduck_app_server_children", "gauge", "Children of the known server's main process: its workers, mostly.");
        page.sample("lameduck_app_server_children", &format!("server=\"{server}\""), app.server_children);
    }
    page.only("lameduck_dropped_log_lines_total", "counter", "Log lines that stderr did not take.", Some(snapshot.dropped));
    page.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::output::snapshot::tests::example;

    #[test]
    fn the_contract_s_names() {
        let text = page(&example());
        for line in [
            "lameduck_build_info{version=\"0.1.0\"} 1",
            "lameduck_phase{phase=\"lame-duck\"} 1",
            "lameduck_phase{phase=\"serving\"} 0",
            "lameduck_connections{port=\"8080\",state=\"busy\"} 2",
            "lameduck_connections{port=\"unix\",state=\"queued\"} 0",
            "lameduck_traffic_source{source=\"sock_diag\"} 1",
            "lameduck_traffic_source{source=\"none\"} 0",
            "lameduck_shutdown_connections_accepted_total{port=\"8080\"} 5",
            "lameduck_in_flight 3",
            "lameduck_oom_kills_total 1",
            "lameduck_reaped_total 2",
            "lameduck_signals_total{signal=\"TERM\"} 2",
            "lameduck_workers 4",
            "lameduck_cpu_request_cores 1.5",
            "lameduck_app_processes 5",
            "lameduck_app_resident_memory_bytes 128974848",
            "lameduck_app_cpu_seconds_total 1.25",
            "lameduck_app_open_files 42",
            "lameduck_app_server_children{server=\"gunicorn\"} 4",
            "lameduck_shutdown_connections_closed_total 6",
            "lameduck_shutdown_last_accept_seconds 2.7",
            "lameduck_dropped_log_lines_total 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} is missing in\n{text}");
        }
    }

    /// Samples are counters' or gauges' that were introduced just before.
    #[test]
    fn every_sample_has_help_and_type() {
        let text = page(&example());
        let mut family = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split(' ').next().unwrap();
            } else if !line.starts_with('#') {
                assert_eq!(line.split(['{', ' ']).next(), Some(family), "{line}");
            }
        }
    }
}
