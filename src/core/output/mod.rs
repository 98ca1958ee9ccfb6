//! What is said to people and machines: log lines, metrics, the snapshot; and what must not be seen.

pub mod json;
pub mod line;
pub mod metrics;
pub mod secrets;
pub mod snapshot;

/// Where the termination message is written if nobody names a place; Kubernetes puts an empty file there.
pub const TERMINATION_LOG: &str = "/dev/termination-log";
