//! `--warm-up`: requests that must be answered before the app is ready.

use std::time::Duration;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::AbortHandle;
use tracing::{info, warn};

use crate::core::start::url::Url;
use crate::core::time::{Show, Uptime};
use crate::http::{self, Own};
use crate::plan::{self, Plan};

/// The longest time for one request: servers that compile as they run are slow at first.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause between two attempts until the app listens.
const PAUSE: Duration = Duration::from_millis(100);
const MOST_BYTES: usize = 64 << 20;

/// A request was answered, or failed.
#[derive(Debug)]
pub struct Warmed(Result<(), String>);

pub struct WarmUp {
    /// None: there is no warm-up, or it is over.
    wanted: Option<plan::WarmUp>,
    own: UnboundedSender<Own>,
    sender: UnboundedSender<Warmed>,
    warmed: UnboundedReceiver<Warmed>,
    task: Option<AbortHandle>,
    done: u32,
    failed: u32,
}

impl WarmUp {
    pub fn new(plan: &Plan, own: UnboundedSender<Own>) -> WarmUp {
        let (sender, warmed) = unbounded_channel();
        WarmUp { wanted: plan.outside.warm_up.clone(), own, sender, warmed, task: None, done: 0, failed: 0 }
    }

    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<Warmed> {
        self.warmed.recv().await
    }

    /// How far it is, in words. None: it is over.
    pub fn progress(&self) -> Option<String> {
        let all = self.wanted.as_ref()?.requests;
        (self.done < all).then(|| format!("warming up {}/{all}", self.done))
    }

    pub fn begin(&mut self) {
        let Some(wanted) = &self.wanted else { return };
        let url = &wanted.url;
        if url.addresses().is_none_or(|list| !list.iter().all(|address| address.ip().is_loopback())) {
            info!(event = "warm-up", message = %format_args!("warming up {}, which is not on this host", url.authority));
        }
        self.task = Some(tokio::spawn(requests(wanted.clone(), self.sender.clone(), self.own.clone())).abort_handle());
    }

    pub fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            self.wanted = None;
        }
    }

    pub fn warmed(&mut self, now: Uptime, Warmed(result): Warmed) {
        let Some(wanted) = &self.wanted else { return };
        self.done += 1;
        if let Err(why) = result {
            self.failed += 1;
            if self.failed == 1 {
                warn!(event = "warning", message = %format_args!("a warm-up request failed: {why}"));
            }
        }
        if self.done == wanted.requests {
            info!(event = "warm-up", requests = self.done, failed = self.failed, after = %Show(now.0));
        }
    }
}

/// Sends one request after the other, from when the app accepts connections.
async fn requests(wanted: plan::WarmUp, sender: UnboundedSender<Warmed>, own: UnboundedSender<Own>) {
    let plan::WarmUp { url, requests } = wanted;
    while http::connect(&url.host, url.port, Some(&own)).await.is_err() {
        tokio::time::sleep(PAUSE).await;
    }
    for _ in 0..requests {
        let result =
            tokio::time::timeout(PATIENCE, get(&url, &own)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()));
        if sender.send(Warmed(result)).is_err() {
            return;
        }
    }
}

/// Sends one request and reads the whole answer. The error is the reason in words.
async fn get(url: &Url, own: &UnboundedSender<Own>) -> Result<(), String> {
    let stream = http::connect(&url.host, url.port, Some(own)).await?;
    let answer = http::get(&stream, url).await?;
    let status = answer.status;
    answer.body(MOST_BYTES, |_| Ok(())).await?;
    if (200..400).contains(&status) { Ok(()) } else { Err(format!("it answers {status}")) }
}
