//! The kubelet's part in a pod's end. After k8s:pkg/kubelet/kuberuntime/kuberuntime_container.go and pkg/kubelet/prober/worker.go:
//! preStop runs inside the grace period; what it leaves, in whole seconds and at least 2, PID 1 has between the stop signal and KILL;
//! liveness probes end with the deletion, readiness probes go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lameduck::core::signals::Signal;
use lameduck::core::time::Show;
use tokio::time::{sleep, timeout};

use crate::diary::Diary;
use crate::load::client::{Target, get};
use crate::pod::{Handling, Pod};
use crate::report::What;

/// What the stop signal has at least: minimumGracePeriodInSeconds.
const LEAST: Duration = Duration::from_secs(2);
/// From KILL to the end.
const KILL_LIMIT: Duration = Duration::from_secs(20);
/// How often, and after what time each, to look again whether the app takes the stop signal.
const LOOKS: usize = 100;
const LOOK_EACH: Duration = Duration::from_millis(10);
/// A probe's timeoutSeconds.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
/// A probe's failureThreshold.
const FAILURES: u32 = 3;
/// Our number among the clients: the node's address is not a client's.
const NODE: usize = 65_000;

#[derive(Clone, Copy, Debug)]
pub struct Orders {
    pub grace: Duration,
    pub pre_stop: Option<Duration>,
    pub stop_signal: Signal,
    /// The app's process, as we see it: the one that is to stop.
    pub app: Option<i32>,
    /// The whole of it ends so early, as with an eviction or a node that goes down.
    pub kill_after: Option<Duration>,
}

/// What is left of the grace period after the hook.
fn left(grace: Duration, hook: Duration) -> Duration {
    grace.saturating_sub(Duration::from_secs(hook.as_secs())).max(LEAST)
}

/// From the deletion to the end of PID 1; returns its exit code.
pub async fn stop(pod: &mut Pod, orders: Orders, diary: &Diary) -> i32 {
    let early = async {
        match orders.kill_after {
            Some(after) => sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let in_order = tokio::select! {
        code = stop_in_order(pod, orders, diary) => Some(code),
        () = early => None,
    };
    let code = match in_order {
        Some(code) => code,
        None => kill(pod, diary).await,
    };
    diary.note(What::Exited, code.to_string());
    code
}

async fn stop_in_order(pod: &mut Pod, orders: Orders, diary: &Diary) -> i32 {
    let mut hook = Duration::ZERO;
    if let Some(length) = orders.pre_stop {
        hook = length.min(orders.grace);
        diary.note(What::PreStop, format!("sleep {}", Show(length)));
        if let Ok(code) = timeout(hook, pod.wait()).await {
            return code;
        }
        diary.note(What::PreStopEnded, "");
    }
    let signal = orders.stop_signal;
    // Before it comes: its handler may change what becomes of the next one.
    let handling = orders.app.and_then(|app| Some((app, Handling::of(app, signal)?)));
    diary.note(What::StopSignal, signal.to_string());
    pod.signal(signal).await;
    match handling {
        Some((_, Handling::Dropped(why))) => {
            diary.note(What::Ignored, why);
        }
        Some((app, Handling::Blocked)) => {
            tokio::spawn(look_again(app, signal, diary.clone()));
        }
        Some((_, Handling::Taken)) | None => {}
    }
    match timeout(left(orders.grace, hook), pod.wait()).await {
        Ok(code) => code,
        Err(_) => kill(pod, diary).await,
    }
}

/// Until the signal is not blocked any more, or it is clear that it stays so.
async fn look_again(app: i32, signal: Signal, diary: Diary) {
    for _ in 0..LOOKS {
        sleep(LOOK_EACH).await;
        match Handling::of(app, signal) {
            Some(Handling::Blocked) => {}
            Some(Handling::Dropped(why)) => {
                diary.note(What::Ignored, why);
                return;
            }
            Some(Handling::Taken) | None => return,
        }
    }
}

async fn kill(pod: &mut Pod, diary: &Diary) -> i32 {
    diary.note(What::Killed, "");
    pod.signal(Signal::KILL).await;
    // An engine that does not answer must not hold us: whatever it left is removed in the end.
    timeout(KILL_LIMIT, pod.wait()).await.unwrap_or(128 + Signal::KILL.number())
}

/// Probes on the app's URL until it is dropped: liveness as long as nobody has said `deleted`.
pub async fn probe(target: Target, every: Duration, deleted: Arc<AtomicBool>, diary: Diary) {
    let mut ready = true;
    let (mut unready_in_row, mut dead_in_row) = (0, 0);
    loop {
        sleep(every).await;
        let well = async || timeout(PROBE_LIMIT, get(&target, NODE)).await.is_ok_and(|answer| answer.is_ok());
        unready_in_row = if well().await { 0 } else { unready_in_row + 1 };
        let now_ready = unready_in_row < FAILURES && (ready || unready_in_row == 0);
        if now_ready != ready {
            ready = now_ready;
            diary.note(if ready { What::ProbeReady } else { What::ProbeNotReady }, "");
        }
        if !deleted.load(Ordering::Relaxed) {
            dead_in_row = if well().await { 0 } else { dead_in_row + 1 };
            if dead_in_row == FAILURES {
                diary.note(What::ProbeNotReady, "liveness failed: a kubelet would restart it");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hook_s_whole_seconds_are_taken_from_the_grace_period() {
        let left = |grace, hook| left(Duration::from_millis(grace), Duration::from_millis(hook)).as_millis();
        assert_eq!(left(30_000, 0), 30_000);
        assert_eq!(left(30_000, 5_000), 25_000);
        assert_eq!(left(30_000, 5_900), 25_000);
        assert_eq!(left(30_000, 30_000), 2_000);
        assert_eq!(left(1_000, 0), 2_000);
    }
}
