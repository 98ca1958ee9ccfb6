//! One event a line on stderr: time, level, event, then its fields, in one of four formats. Writing never waits: a line that cannot be
//! written is dropped and counted, and the next line that can be written says how many were lost. What looks like a secret is masked.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::core::output::line::{Format, Line};
use crate::core::output::secrets::Secrets;
use crate::sys;
use crate::sys::stderr::Stderr;

static SECRETS: OnceLock<Secrets> = OnceLock::new();
/// How many lines stderr did not take, and how many of these were not reported yet.
static DROPPED: AtomicU64 = AtomicU64::new(0);
static UNSAID: AtomicU64 = AtomicU64::new(0);

#[derive(Debug)]
struct Log {
    stderr: Stderr,
    level: Level,
    format: Format,
}

/// From here on these secrets are masked: in the log, and in everything else that goes through `masked`.
pub fn keep(secrets: Secrets) {
    let _ = SECRETS.set(secrets);
}

pub fn masked(text: &str) -> String {
    SECRETS.get().map_or_else(|| text.to_owned(), |secrets| secrets.mask(text).into_owned())
}

/// How many lines were lost.
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// From here on every event down to `level` goes to stderr.
pub fn install(level: Level, format: Format) {
    let _ = tracing::subscriber::set_global_default(Log { stderr: Stderr::open(), level, format });
}

impl Log {
    fn write(&self, line: &Line) -> bool {
        self.stderr.write(line.render(self.format).as_bytes()).is_ok()
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= self.level
    }

    fn event(&self, event: &Event<'_>) {
        let unsaid = UNSAID.swap(0, Ordering::Relaxed);
        if unsaid > 0 {
            let mut lost = Line::new(sys::wall_clock(), "warn");
            lost.text("event", "warning".to_owned());
            lost.text("message", "log lines were lost: stderr did not take them".to_owned());
            lost.plain("lines", unsaid);
            if !self.write(&lost) {
                UNSAID.fetch_add(unsaid, Ordering::Relaxed);
            }
        }
        let mut fields = Fields(Line::new(sys::wall_clock(), name(*event.metadata().level())));
        event.record(&mut fields);
        if !self.write(&fields.0) {
            DROPPED.fetch_add(1, Ordering::Relaxed);
            UNSAID.fetch_add(1, Ordering::Relaxed);
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

fn name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}

struct Fields(Line);

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The name of the event is lameduck's own, and is not masked.
        self.0.text(field.name(), if field.name() == "event" { value.to_owned() } else { masked(value) });
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.plain(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.plain(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}
