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
}
