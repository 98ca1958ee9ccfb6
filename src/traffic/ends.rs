//! The ends of connections between two looks: what is read of the kernel's events, and what is counted where they are lost.

use super::Traffic;
use super::origin::Ended;
use crate::core::time::Uptime;
use crate::sys::proc;
use crate::sys::sock_diag::Lost;

/// How many destroy events are read at once.
const MOST_EVENTS: usize = 1024;
/// The same at the end, when there is nothing else to do.
const LAST_EVENTS: usize = 65_536;

impl Traffic {
    /// Reads the announced ends of connections.
    pub fn read_ends(&mut self, now: Uptime) {
        self.read_events(now, MOST_EVENTS);
    }

    /// As `read_ends`, for the last time: reads all that are there.
    pub fn read_last_ends(&mut self, now: Uptime) {
        self.read_events(now, LAST_EVENTS);
    }

    fn read_events(&mut self, now: Uptime, most: usize) {
        self.own.hear(now);
        if let Some(why) = self.metric.as_mut().and_then(|metric| metric.hear(now)) {
            self.warnings.push(format!("cannot ask --in-flight: {why}; the sockets decide until it answers"));
        }
        let tell = self.tables.tell_client_ends();
        let Some(events) = self.tables.events_mut() else { return };
        let (tracker, ports, origins, own) = (&mut self.tracker, &mut self.ports, &mut self.origins, &mut self.own);
        let lost = events.read(most, |row| {
            if !ports.numbers().contains(&row.port) {
                return;
            }
            if own.ended(&row) {
                return tracker.forget(row.cookie);
            }
            match origins.ended(&row, ports, tell) {
                Ended::Traffic => tracker.ended(now, &row),
                Ended::Perhaps => {
                    tracker.forget(row.cookie);
                    tracker.missed(now, 1);
                }
                Ended::NotTraffic => tracker.forget(row.cookie),
            }
        });
        match lost {
            Lost::None => {}
            Lost::Exactly(ends) => self.tracker.missed(now, ends),
            Lost::Some => self.count_opened(now),
        }
    }

    /// Adds connections that the kernel counted and no look has shown. It counts the whole namespace, so the figure may be too high: better
    /// one arrival too many than one missed.
    pub(super) fn count_opened(&mut self, now: Uptime) {
        let opened = proc::passive_opens();
        let known = self.tracker.accepted() + self.own.count + self.origins.left_out;
        if let (Some(before), Some(after)) = (self.opened, opened) {
            self.tracker.missed(now, after.saturating_sub(before).saturating_sub(known - self.known.min(known)));
        }
        (self.opened, self.known) = (opened, known);
    }
}
