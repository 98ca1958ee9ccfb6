//! Processes that the kernel killed because memory ran out, as the cgroup counts them.

use tracing::warn;

use crate::sys::cgroup;

#[derive(Debug)]
pub struct OomKills {
    /// The cgroup's count when the app started. None: nobody counts.
    before: Option<u64>,
    /// How many since then were said.
    said: u64,
}

impl OomKills {
    pub fn begin() -> OomKills {
        OomKills { before: cgroup::oom_kills(), said: 0 }
    }

    /// How many were said.
    pub fn said(&self) -> u64 {
        self.said
    }

    /// How many since the app started; what is new is said in the log. None: nobody counts.
    pub fn look(&mut self) -> Option<u64> {
        let count = cgroup::oom_kills()?.saturating_sub(self.before?);
        if count > self.said {
            let new = count - self.said;
            self.said = count;
            warn!(
                event = "oom-kill",
                processes = new,
                message = "memory ran out, and the kernel killed processes of this container"
            );
        }
        Some(count)
    }
}
