//! What the files of a cgroup say, as texts.

/// A text, and the file it stands in.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Figure {
    pub path: String,
    pub text: String,
}

/// Version 1 or 2; limits of the own group first, then of those around it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Cgroup {
    /// `cpu.max`, or quota and period in its form.
    pub cpu_max: Vec<Figure>,
    /// Version 2.
    pub cpu_weight: Option<Figure>,
    /// Version 1.
    pub cpu_shares: Option<Figure>,
    /// `memory.max` or `memory.limit_in_bytes`.
    pub memory_max: Vec<Figure>,
}

/// Reads `memory.max` or `memory.limit_in_bytes`. None: no limit; version 1 writes a number close to 2^63 for that.
pub fn memory_limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

/// Reads from `memory.events` or `memory.oom_control` how many processes of the group the kernel has killed because memory ran out.
pub fn oom_kills(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_memory_limit_in_either_version() {
        assert_eq!(memory_limit("max\n"), None);
        assert_eq!(memory_limit("9223372036854771712\n"), None);
        assert_eq!(memory_limit("536870912\n"), Some(536_870_912));
        assert_eq!(memory_limit("0\n"), Some(0));
    }

    #[test]
    fn kills_in_either_version() {
        assert_eq!(oom_kills("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"), Some(1));
        assert_eq!(oom_kills("oom_kill_disable 0\nunder_oom 0\n"), None, "before Linux 4.13");
    }
}
