//! Commands of ours that start nothing.

pub mod client;
pub mod drain;
pub mod install;
