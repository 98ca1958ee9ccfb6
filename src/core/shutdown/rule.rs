//! The one rule for which signals begin the shutdown, and what the main command is sent. It looks at nothing: its caller says what runs.

use crate::core::servers::Server;
use crate::core::signals::{Rewrite, Signal, SignalSet};

/// `--stop-on`: which signals begin the shutdown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StopOn {
    /// TERM, and the graceful signal of the server that runs.
    Auto,
    Given(SignalSet),
}

/// What is known of the process that a stop signal would go to.
#[derive(Clone, Copy, Debug)]
pub struct Runs {
    pub server: Option<&'static Server>,
    /// It handles QUIT. Asked of an unknown program alone.
    pub handles_quit: bool,
}

#[derive(Clone, Debug)]
pub struct StopRule {
    pub stop_on: StopOn,
    /// `--stop-signal`; None: auto.
    pub stop_signal: Option<Signal>,
    pub rewrites: Vec<Rewrite>,
    /// There is a terminal, which sends WINCH when it is resized.
    pub terminal: bool,
}

impl StopRule {
    /// Whether `signal` begins the shutdown. None: what runs decides; ask `begins_for`.
    pub fn begins(&self, signal: Signal) -> Option<bool> {
        if let StopOn::Given(set) = self.stop_on {
            return Some(set.contains(signal));
        }
        if signal == Signal::TERM {
            return Some(true);
        }
        if self.rewrites.iter().any(|rewrite| rewrite.from == signal) || self.is_resize(signal) {
            return Some(false);
        }
        self.stop_signal.map(|stop| signal == stop)
    }

    /// TERM; and what the running server understands as graceful, since a wrapped image keeps its STOPSIGNAL. QUIT too for a program that
    /// neither is known nor handles it: forwarding could only kill it.
    pub fn begins_for(&self, signal: Signal, runs: Runs) -> bool {
        self.begins(signal).unwrap_or_else(|| match runs.server {
            Some(server) => server.stop_signal() == signal,
            None => signal == Signal::QUIT && !runs.handles_quit,
        })
    }

    /// What surely begins the shutdown of a command whose words name `server`, for those who read the plan.
    pub fn known(&self, server: Option<&'static Server>) -> SignalSet {
        let all = (1..=64).filter_map(Signal::from_number);
        all.filter(|signal| self.begins_for(*signal, Runs { server, handles_quit: true })).collect()
    }

    /// The first of these signals that begins the shutdown of a command that is not started yet: then it never is.
    pub fn before_start(&self, came: SignalSet, server: Option<&'static Server>) -> Option<Signal> {
        came.iter().find(|signal| self.begins_for(*signal, Runs { server, handles_quit: false }))
    }

    /// What the main command is sent to stop it: one signal, or two, the second later.
    pub fn stop_signals(&self, server: Option<&'static Server>) -> Vec<Signal> {
        match self.stop_signal {
            Some(signal) => vec![signal],
            None => own_stop_signals(server),
        }
    }

    /// Whether the first signal that it is sent is its server's own.
    pub fn is_own_stop(&self, server: Option<&'static Server>) -> bool {
        self.stop_signal.is_none_or(|signal| server.is_none_or(|server| signal == server.stop_signal()))
    }

    fn is_resize(&self, signal: Signal) -> bool {
        signal == Signal::WINCH && self.terminal
    }
}

/// What a program understands as graceful: the server's own, else TERM.
pub fn own_stop_signals(server: Option<&'static Server>) -> Vec<Signal> {
    server.map_or(vec![Signal::TERM], |server| server.stop.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::servers;

    fn rule() -> StopRule {
        StopRule { stop_on: StopOn::Auto, stop_signal: None, rewrites: Vec::new(), terminal: false }
    }

    fn server(name: &str) -> Option<&'static Server> {
        let server = servers::recognise(&[name]);
        assert!(server.is_some(), "{name}");
        server
    }

    /// The signals that begin the shutdown while `runs` runs.
    fn begin(rule: &StopRule, runs: Runs) -> String {
        let all = (1..=64).filter_map(Signal::from_number);
        all.filter(|signal| rule.begins_for(*signal, runs)).collect::<SignalSet>().to_string()
    }

    #[test]
    fn what_begins_the_shutdown() {
        let runs = |server, handles_quit| Runs { server, handles_quit };
        assert_eq!(begin(&rule(), runs(server("nginx"), true)), "QUIT,TERM");
        assert_eq!(begin(&rule(), runs(server("apache2"), true)), "TERM,WINCH");
        assert_eq!(begin(&rule(), runs(None, true)), "TERM");
        assert_eq!(begin(&rule(), runs(None, false)), "QUIT,TERM", "forwarding QUIT could only kill it");
        let at_terminal = StopRule { terminal: true, ..rule() };
        assert_eq!(begin(&at_terminal, runs(server("apache2"), true)), "TERM", "WINCH is a resize");
        let named = StopRule { stop_signal: Some(Signal::INT), ..rule() };
        assert_eq!(begin(&named, runs(server("nginx"), true)), "INT,TERM");
        let rewritten = StopRule { rewrites: vec![Rewrite { from: Signal::QUIT, to: None }], ..rule() };
        assert_eq!(begin(&rewritten, runs(None, false)), "TERM");
        let given = StopRule { stop_on: StopOn::Given([Signal::HUP].into_iter().collect()), ..rule() };
        assert_eq!(begin(&given, runs(server("nginx"), false)), "HUP");
    }

    #[test]
    fn before_the_start_the_words_decide() {
        let came = |signals: &[Signal]| signals.iter().copied().collect::<SignalSet>();
        assert_eq!(rule().before_start(came(&[Signal::HUP, Signal::QUIT]), None), Some(Signal::QUIT));
        assert_eq!(rule().before_start(came(&[Signal::QUIT]), server("apache2")), None);
        assert_eq!(rule().known(server("nginx")).to_string(), "QUIT,TERM");
        assert_eq!(rule().known(None).to_string(), "TERM");
    }

    #[test]
    fn what_it_is_sent() {
        assert_eq!(rule().stop_signals(server("apache2")), [Signal::WINCH, Signal::TERM]);
        assert_eq!(rule().stop_signals(None), [Signal::TERM]);
        let named = StopRule { stop_signal: Some(Signal::INT), ..rule() };
        assert_eq!(named.stop_signals(server("nginx")), [Signal::INT]);
        assert!(!named.is_own_stop(server("nginx")) && named.is_own_stop(None) && rule().is_own_stop(server("nginx")));
    }
}
