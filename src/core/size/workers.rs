//! How many workers a CPU request feeds, and a memory limit holds.

use crate::core::size::cpu::Millicores;

/// `--workers-per-cpu`, `--workers-extra`, `--workers-min`, `--workers-max`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    pub per_cpu: Decimal,
    pub extra: i64,
    pub min: u64,
    pub max: Option<u64>,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { per_cpu: Decimal(1_000_000), extra: 0, min: 1, max: None }
    }
}

/// A decimal with six places, so that 0.1 is 0.1.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Decimal(pub u64);

impl Decimal {
    pub fn parse(text: &str) -> Result<Decimal, &'static str> {
        const WHAT: &str = "not a number (try 1, 2 or 0.75; six decimals at most)";
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) || whole.len() > 6 || fraction.len() > 6 {
            return Err(WHAT);
        }
        format!("{whole}{fraction:0<6}").parse().map(Decimal).map_err(|_| WHAT)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let fraction = format!("{:06}", self.0 % 1_000_000);
        let fraction = fraction.trim_end_matches('0');
        write!(f, "{}{}{fraction}", self.0 / 1_000_000, if fraction.is_empty() { "" } else { "." })
    }
}

/// `--worker-memory` and `--memory-reserve` in bytes, and the limit they must fit into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Memory {
    pub limit: u64,
    pub reserve: u64,
    pub worker: u64,
}

impl Memory {
    /// So many fit beside the reserve.
    pub fn holds(&self) -> u64 {
        self.limit.saturating_sub(self.reserve) / self.worker.max(1)
    }
}

/// What had the last word on a count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decided {
    Cpu,
    Min,
    Max,
    Memory,
    /// There is no fewer than one.
    One,
}

/// min(clamp(round-half-up(cpu × per-cpu) + extra, min, max), (limit − reserve) / worker memory), never below 1.
pub fn count(cpu: Millicores, policy: &Policy, memory: Option<&Memory>) -> (u64, Decided) {
    let by_cpu = by_cpu(cpu, policy);
    let mut decided = (by_cpu, Decided::Cpu);
    if policy.min > decided.0 {
        // The default of 1 is nobody's wish.
        decided = (policy.min, if policy.min == 1 { Decided::One } else { Decided::Min });
    }
    if let Some(max) = policy.max.filter(|max| *max < decided.0) {
        decided = (max, Decided::Max);
    }
    if let Some(held) = memory.map(Memory::holds).filter(|held| *held < decided.0) {
        decided = (held, Decided::Memory);
    }
    if decided.0 == 0 { (1, Decided::One) } else { decided }
}

/// round-half-up(cpu × per-cpu) + extra.
pub fn by_cpu(cpu: Millicores, policy: &Policy) -> u64 {
    let rounded = (u128::from(cpu.0) * u128::from(policy.per_cpu.0) + 500_000_000) / 1_000_000_000;
    let with_extra = i128::try_from(rounded).unwrap_or(i128::MAX).saturating_add(i128::from(policy.extra));
    u64::try_from(with_extra.max(0)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(cpu: Millicores, policy: &Policy) -> u64 {
        count(cpu, policy, None).0
    }

    #[test]
    fn memory_holds_so_many() {
        let mib = 1 << 20;
        let fits = |limit: u64, reserve: u64, worker: u64, cpu: u64, policy: &Policy| {
            count(Millicores(cpu), policy, Some(&Memory { limit: limit * mib, reserve: reserve * mib, worker: worker * mib }))
        };
        let policy = Policy::default();
        assert_eq!(fits(512, 0, 100, 64_000, &policy), (5, Decided::Memory));
        assert_eq!(fits(512, 113, 100, 64_000, &policy), (3, Decided::Memory));
        assert_eq!(fits(512, 0, 100, 2000, &policy), (2, Decided::Cpu));
        assert_eq!(fits(512, 512, 100, 2000, &policy), (1, Decided::One), "at least one");
        assert_eq!(fits(50, 0, 100, 2000, &policy), (1, Decided::One));
        let clamped = Policy { min: 8, max: Some(10), ..policy };
        assert_eq!(fits(512, 0, 100, 64_000, &clamped), (5, Decided::Memory), "an OOM is worse than too few");
        assert_eq!(fits(51_200, 0, 100, 64_000, &clamped), (10, Decided::Max));
        assert_eq!(fits(51_200, 0, 100, 1000, &clamped), (8, Decided::Min));
        assert_eq!(count(Millicores(100), &policy, None), (1, Decided::One));
    }

    #[test]
    fn rounds_half_up_then_adds_then_clamps() {
        let one = Policy::default();
        for (milli, workers) in [(1, 1), (100, 1), (499, 1), (1499, 1), (1500, 2), (2499, 2), (2500, 3), (64_000, 64)] {
            assert_eq!(counted(Millicores(milli), &one), workers, "{milli}m");
        }
        let gunicorn = Policy { per_cpu: Decimal::parse("2").unwrap(), extra: 1, ..one };
        assert_eq!(counted(Millicores(250), &gunicorn), 2);
        assert_eq!(counted(Millicores(1500), &gunicorn), 4);
        let clamped = Policy { min: 2, max: Some(3), ..one };
        assert_eq!([100, 2600, 9000].map(|milli| counted(Millicores(milli), &clamped)), [2, 3, 3]);
        assert_eq!(counted(Millicores(1000), &Policy { extra: -5, ..one }), 1);
        assert_eq!(counted(Millicores(2000), &Policy { per_cpu: Decimal::parse("0.75").unwrap(), ..one }), 2);
    }

    #[test]
    fn decimals_are_exact() {
        for text in ["1", "0.75", "2.000001", "0.1"] {
            assert_eq!(Decimal::parse(text).unwrap().to_string(), text);
        }
        for text in ["", ".", "1.", ".5", "-1", "1e3", "1.0000001", "1234567"] {
            assert!(Decimal::parse(text).is_err(), "{text:?}");
        }
    }
}
