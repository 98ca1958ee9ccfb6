//! The one reader of the clock.

use std::time::Instant;

use crate::core::time::Uptime;

/// The clock, begun when lameduck was.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one clock")]
    pub fn start() -> Clock {
        Clock(Instant::now())
    }

    pub fn now(self) -> Uptime {
        Uptime(self.0.elapsed())
    }

    pub async fn until(self, when: Option<Uptime>) {
        match when.and_then(|when| self.0.checked_add(when.0)) {
            Some(when) => tokio::time::sleep_until(when.into()).await,
            None => std::future::pending().await,
        }
    }
}
