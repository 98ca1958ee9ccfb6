//! The rooms that think. std only: no clock, no environment, no I/O, no async. Time comes in as an argument, decisions go out
//! as values, so that each file can be read, tested and fuzzed alone; `tests/docs.rs` holds this promise against the code.

pub mod cgroup;
pub mod cpu;
pub mod exposition;
pub mod identity;
pub mod json;
pub mod line;
pub mod metrics;
pub mod network;
pub mod quantity;
pub mod question;
pub mod secrets;
pub mod servers;
pub mod shutdown;
pub mod signals;
pub mod snapshot;
pub mod spelling;
pub mod status;
pub mod template;
pub mod time;
pub mod traffic;
pub mod url;
pub mod workers;
