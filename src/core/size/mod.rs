//! The right size: quantities and cgroups in, a number of workers and sizes of heaps out.

pub mod cgroup;
pub mod cpu;
pub mod heap;
pub mod quantity;
pub mod workers;
