//! The rooms that decide. Pure: no clock, no environment, no I/O, no async. Time comes in as an argument, decisions go out as values, so
//! that each file can be read, tested and fuzzed alone; tests/docs.rs checks this.

pub mod output;
pub mod servers;
pub mod shutdown;
pub mod signals;
pub mod size;
pub mod spelling;
pub mod start;
pub mod time;
pub mod traffic;
