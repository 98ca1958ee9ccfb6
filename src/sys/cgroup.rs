//! What the cgroup says about CPU, version 1 or 2, with or without a cgroup namespace.

use std::fs;

/// Raw texts, for core/cpu.rs to read.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    /// `cpu.max`, or quota and period in its form.
    pub max: Option<String>,
    pub weight: Option<u64>,
    pub shares: Option<u64>,
}

pub fn cpu() -> Cpu {
    let table = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let unified = path_of(&table, |controllers| controllers.is_empty());
    let legacy = path_of(&table, |controllers| controllers.split(',').any(|controller| controller == "cpu"));
    // With a cgroup namespace the path is / and the mount is ours; without, a container's mount may still start at our own group.
    for directory in [format!("/sys/fs/cgroup{unified}"), "/sys/fs/cgroup".to_owned()] {
        let max = read(&directory, "cpu.max");
        let weight = read(&directory, "cpu.weight").and_then(|text| text.trim().parse().ok());
        if max.is_some() || weight.is_some() {
            return Cpu { max, weight, shares: None };
        }
    }
    for directory in
        [format!("/sys/fs/cgroup/cpu{legacy}"), "/sys/fs/cgroup/cpu".to_owned(), "/sys/fs/cgroup/cpu,cpuacct".to_owned()]
    {
        if let Some(shares) = read(&directory, "cpu.shares") {
            let quota = read(&directory, "cpu.cfs_quota_us").zip(read(&directory, "cpu.cfs_period_us"));
            let max = quota.map(|(quota, period)| {
                format!("{} {}", if quota.starts_with('-') { "max" } else { quota.trim() }, period.trim())
            });
            return Cpu { max, weight: None, shares: shares.trim().parse().ok() };
        }
    }
    Cpu::default()
}

fn read(directory: &str, file: &str) -> Option<String> {
    fs::read_to_string(format!("{}/{file}", directory.trim_end_matches('/'))).ok()
}

fn path_of(table: &str, wanted: impl Fn(&str) -> bool) -> String {
    let mut paths = table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let path = paths.find(|(controllers, _)| wanted(controllers)).map_or("", |(_, path)| path);
    if path.contains("..") { String::new() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_found_in_either_version() {
        let hybrid = "9:name=systemd:/x\n4:cpu,cpuacct:/kubepods/pod1/c1\n0::/init.scope\n";
        assert_eq!(path_of(hybrid, |controllers| controllers.is_empty()), "/init.scope");
        assert_eq!(path_of(hybrid, |c| c.split(',').any(|c| c == "cpu")), "/kubepods/pod1/c1");
        assert_eq!(path_of("0::/../other\n", |controllers| controllers.is_empty()), "");
        assert_eq!(path_of("", |_| true), "");
    }
}
