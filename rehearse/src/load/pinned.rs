//! Clients that keep one connection, go on asking through it and never learn that the pod is going: other services, whose connection
//! through a Service's address stays with this pod for as long as it is open. A new connection comes here as well until the endpoint has
//! been removed where the client is; from then on it goes to another pod, which answers everything and is none of this one's figures.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep_until, timeout};

use super::client::{Connection, Message, Outcome, Target, Whole, connect, exchange};
use super::{Record, State};

/// Between an answer and the next request.
const PAUSE_MS: std::ops::RangeInclusive<u64> = 100..=300;

/// A kept connection was opened, or has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// From the beginning of the load on.
    pub at: Duration,
    pub opened: bool,
}

#[derive(Debug)]
pub struct Pinned {
    /// Among the pinned ones.
    number: usize,
    /// Among all clients.
    address: usize,
    target: Arc<Target>,
    rng: Rng,
    began: Instant,
    connection: Option<Connection>,
    records: Vec<Record>,
    turns: Vec<Turn>,
}

impl Pinned {
    pub fn new(number: usize, address: usize, target: Arc<Target>, rng: Rng, began: Instant) -> Pinned {
        Pinned { number, address, target, rng, began, connection: None, records: Vec::new(), turns: Vec::new() }
    }

    /// Asks until it is another pod's client.
    pub(super) async fn ask_on(mut self, state: Arc<State>, limit: Duration) -> (Vec<Record>, Vec<Turn>) {
        loop {
            let scheduled = Instant::now() + Duration::from_millis(self.rng.u64(PAUSE_MS));
            self.rest(scheduled).await;
            if state.is_removed(self.number) && (self.connection.is_none() || state.is_over()) {
                return (self.records, self.turns);
            }
            let sent = self.began.elapsed();
            let asked = timeout(limit, self.ask(&state)).await.unwrap_or_else(|_| {
                self.close();
                Some((Err(Outcome::TimedOut), false))
            });
            if let Some((result, retried)) = asked {
                state.count(&result);
                let scheduled = scheduled - self.began;
                self.records.push(Record::new(None, [scheduled, sent, self.began.elapsed()], result, retried));
            }
        }
    }

    /// Until this moment, with an eye on the connection.
    async fn rest(&mut self, until: Instant) {
        if let Some(connection) = &mut self.connection {
            tokio::select! {
                () = sleep_until(until) => return,
                () = connection.ended() => self.close(),
            }
        }
        sleep_until(until).await;
    }

    /// How it ended, and whether it was sent twice. None: it went to another pod, and nothing of it came here.
    async fn ask(&mut self, state: &State) -> Option<(Result<Whole, Outcome>, bool)> {
        let message = if self.target.upload.is_some() && self.rng.bool() { Message::Post } else { Message::Get };
        let mut retried = false;
        if self.connection.is_some() {
            match self.exchange(message).await {
                None => {}
                // No byte came: the libraries of clients send again what is idempotent.
                Some(Err(Outcome::Reset)) if message == Message::Get => retried = true,
                Some(result) => return Some((result, false)),
            }
            if state.is_removed(self.number) {
                return retried.then_some((Err(Outcome::Elsewhere), true));
            }
        }
        match connect(self.target.address, self.address, None).await {
            Ok(connection) => self.open(connection),
            Err(outcome) => return Some((Err(outcome), retried)),
        }
        Some((self.exchange(message).await.unwrap_or(Err(Outcome::Reset)), retried))
    }

    /// On the connection, which ends if nothing can follow. None: it had ended before, and nothing was sent.
    async fn exchange(&mut self, message: Message) -> Option<Result<Whole, Outcome>> {
        let connection = self.connection.as_mut()?;
        let result = exchange(connection, self.target.request(message, true)).await;
        if !matches!(result, Some(Ok(_) | Err(Outcome::Failed))) || !connection.is_free().await {
            self.close();
        }
        result
    }

    fn open(&mut self, connection: Connection) {
        self.connection = Some(connection);
        self.turns.push(Turn { at: self.began.elapsed(), opened: true });
    }

    fn close(&mut self) {
        if self.connection.take().is_some() {
            self.turns.push(Turn { at: self.began.elapsed(), opened: false });
        }
    }
}
