//! The right size: quantities and cgroups in, a number of workers out.

pub mod cgroup;
pub mod cpu;
pub mod quantity;
pub mod workers;
