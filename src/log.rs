//! One event a line on stderr: time, name, level, event, then its fields. Writing never waits: a line that does not go is dropped,
//! counted, and the loss is said as soon as one goes again.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::sys;
use crate::sys::stderr::Stderr;

/// A line longer than a page could go in part.
const MOST_BYTES: usize = 4096;

#[derive(Debug)]
struct Log {
    stderr: Stderr,
    level: Level,
    dropped: AtomicU64,
}

/// Every event from here on goes to stderr, down to `level`.
pub fn install(level: Level) {
    let log = Log { stderr: Stderr::open(), level, dropped: AtomicU64::new(0) };
    let _ = tracing::subscriber::set_global_default(log);
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let dropped = self.dropped.swap(0, Ordering::Relaxed);
        if dropped > 0 {
            let mut lost = Line::new(sys::wall_clock(), Level::WARN);
            lost.field("event", "warning");
            lost.field("message", "log lines were lost: stderr did not take them");
            lost.field("lines", &dropped.to_string());
            if self.stderr.write(lost.end()).is_err() {
                self.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
                return;
            }
        }
        let mut line = Line::new(sys::wall_clock(), *event.metadata().level());
        event.record(&mut line);
        if self.stderr.write(line.end()).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    // Spans are not used.
    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }
    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

/// The text format: `2026-11-20T20:47:27.123Z lameduck info stopping signal=QUIT because=drained`.
struct Line(String);

impl Line {
    fn new(time: Duration, level: Level) -> Line {
        let level = match level {
            Level::ERROR => "error",
            Level::WARN => "warn",
            Level::INFO => "info",
            Level::DEBUG => "debug",
            Level::TRACE => "trace",
        };
        Line(format!("{} lameduck {level}", rfc3339(time)))
    }

    fn field(&mut self, name: &str, value: &str) {
        // Empty fields say nothing.
        if value.is_empty() {
            return;
        }
        self.0.push(' ');
        if name != "event" {
            self.0.push_str(name);
            self.0.push('=');
        }
        let plain = !value.is_empty() && value.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
        if plain {
            self.0.push_str(value);
        } else {
            let _ = write!(self.0, "{value:?}");
        }
    }

    fn end(&mut self) -> &[u8] {
        if self.0.len() >= MOST_BYTES {
            let mut end = MOST_BYTES - 4;
            while !self.0.is_char_boundary(end) {
                end -= 1;
            }
            self.0.truncate(end);
            self.0.push_str("...");
        }
        self.0.push('\n');
        self.0.as_bytes()
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.field(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.field(field.name(), &format!("{value:?}"));
    }
}

/// UTC with milliseconds.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to a civil date, Howard Hinnant's algorithm: years begin in March, eras have 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since_1970.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_795_207_647, "2026-11-20T20:47:27.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds) + Duration::from_millis(7)), text);
        }
    }

    #[test]
    fn values_with_spaces_are_quoted_and_a_line_stays_a_line() {
        let mut line = Line::new(Duration::ZERO, Level::INFO);
        line.field("event", "start");
        line.field("command", "sh -c \"a\nb\"");
        line.field("pid", "7");
        line.field("empty", "");
        assert_eq!(line.end(), b"1970-01-01T00:00:00.000Z lameduck info start command=\"sh -c \\\"a\\nb\\\"\" pid=7\n");
        let mut long = Line::new(Duration::ZERO, Level::INFO);
        long.field("x", &"\u{e4}".repeat(5000));
        assert!(long.end().len() <= MOST_BYTES);
    }
}
