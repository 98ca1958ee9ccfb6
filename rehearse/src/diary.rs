//! What happened in a round, as it happens.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::report::What;

#[derive(Clone, Debug)]
pub struct Entry {
    pub at: Instant,
    pub what: What,
    pub detail: String,
}

#[derive(Clone, Debug, Default)]
pub struct Diary(Arc<Mutex<Vec<Entry>>>);

impl Diary {
    pub fn note(&self, what: What, detail: impl Into<String>) -> Instant {
        let at = Instant::now();
        self.note_at(at, what, detail);
        at
    }

    pub fn note_at(&self, at: Instant, what: What, detail: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Entry { at, what, detail: detail.into() });
    }

    pub fn entries(&self) -> Vec<Entry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
