//! What Kubernetes and the kernel write about CPU, as thousandths of a core.

use std::fmt;

use crate::core::size::quantity::{self, LARGER_THAN_ANY_MACHINE};

/// A billion cores.
const MOST: u64 = 1_000_000_000_000;

/// Thousandths of a core, Kubernetes' own unit.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Millicores(pub u64);

impl fmt::Display for Millicores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}m", self.0)
    }
}

/// Reads a CPU quantity.
pub fn parse_quantity(text: &str) -> Result<Millicores, &'static str> {
    const WHAT: &str = "not a Kubernetes quantity (try 500m or 2)";
    let milli = quantity::parse(text, 3, WHAT)?;
    Some(milli).filter(|milli| *milli <= MOST).map(Millicores).ok_or(LARGER_THAN_ANY_MACHINE)
}

/// Reads what the Downward API writes with `divisor: 1m`: whole millicores.
pub fn parse_millicores(text: &str) -> Result<Millicores, &'static str> {
    let text = text.trim();
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err("not whole millicores (use the Downward API with divisor: 1m, or LAMEDUCK_CPU_REQUEST for a quantity)");
    }
    text.parse().ok().filter(|milli| *milli <= MOST).map(Millicores).ok_or(LARGER_THAN_ANY_MACHINE)
}

/// Reads cgroup v2's `cpu.max` (`150000 100000`, `max 100000`). None: no limit.
pub fn parse_cpu_max(text: &str) -> Option<Millicores> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    quota_to_limit(quota, words.next()?.parse().ok()?)
}

/// Quota over period, as cgroup v1 and v2 both keep it. None: no limit.
pub fn quota_to_limit(quota: u64, period: u64) -> Option<Millicores> {
    if quota == 0 || period == 0 { None } else { Some(Millicores(quota.saturating_mul(1000).div_ceil(period))) }
}

/// The request behind cgroup v1's `cpu.shares`: the kubelet writes milli * 1024 / 1000, at least 2. None: nothing was asked for.
pub fn shares_to_request(shares: u64) -> Option<Millicores> {
    // 1024 is also what Docker and the kernel give to those who asked for nothing: it says nothing.
    if shares <= 2 || shares == 1024 { None } else { Some(Millicores(shares.saturating_mul(1000).div_ceil(1024))) }
}

/// The requests that cgroup v2's `cpu.weight` can stand for. Two formulas are in use: the linear one of KEP-2254 (runc until
/// 1.3.1, crun until 1.22) and the quadratic one of opencontainers/cgroups v0.0.3 (runc from 1.3.2, crun from 1.23). The one
/// that is a multiple of 50m and no more than there are CPUs is taken; where both or neither are, it is unknown. It is a guess.
pub fn weight_to_request(weight: u64, most: Option<Millicores>) -> Option<Millicores> {
    // 1 is what no request gives, 100 what the kernel gives to those nobody set.
    if weight <= 1 || weight == 100 {
        return None;
    }
    let plausible = |candidates: Vec<u64>, to_weight: fn(u64) -> u64| {
        candidates
            .into_iter()
            .filter(|milli| to_weight(*milli) == weight && most.is_none_or(|most| *milli <= most.0))
            .map(Millicores)
            .collect::<Vec<_>>()
    };
    // Round requests only: 50m steps up to 64 cores.
    let steps: Vec<u64> = (1..=1280).map(|step| step * 50).collect();
    let linear = plausible(steps.clone(), linear_weight);
    let quadratic = plausible(steps, quadratic_weight);
    match (linear.as_slice(), quadratic.as_slice()) {
        ([one], []) | ([], [one]) => Some(*one),
        _ => None,
    }
}

fn milli_to_shares(milli: u64) -> u64 {
    (milli * 1024 / 1000).clamp(2, 262_144)
}

/// KEP-2254: 1 + (shares - 2) * 9999 / 262142.
pub fn linear_weight(milli: u64) -> u64 {
    1 + (milli_to_shares(milli) - 2) * 9999 / 262_142
}

/// opencontainers/cgroups `ConvertCPUSharesToCgroupV2Value`: ceil(10 ^ ((l^2 + 125 l) / 612 - 7/34)), l = log2(shares).
pub fn quadratic_weight(milli: u64) -> u64 {
    let shares = milli_to_shares(milli);
    if shares <= 2 {
        return 1;
    }
    let l = (shares as f64).log2();
    10f64.powf((l * l + 125.0 * l) / 612.0 - 7.0 / 34.0).ceil() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_as_kubernetes_reads_them() {
        for (text, milli) in [
            ("1500m", 1500),
            ("1.5", 1500),
            ("2", 2000),
            ("0", 0),
            ("0.25", 250),
            (".5", 500),
            ("5.", 5000),
            ("+1", 1000),
            ("15e-1", 1500),
            ("1E2", 100_000),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("100u", 1),
            ("1n", 1),
            ("1000001u", 1001),
            ("0.0005", 1),
            ("1.0001", 1001),
            ("0000000000000000000000000000000000000000002", 2000),
            ("2.0000000000000000000000000000000000000000", 2000),
            ("0.00000000000000000000000000000000000000001", 1),
            ("0.5Ki", 512_000),
        ] {
            assert_eq!(parse_quantity(text), Ok(Millicores(milli)), "{text}");
        }
        for text in [
            "", ".", "m", "0.5.0", "-1", "1 ", " 1", "1x", "1mm", "1e", "1e+", "0x1", "1_000", "1,5", "1e9999", "9E", "1ki", "１",
        ] {
            assert!(parse_quantity(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn downward_api_text() {
        assert_eq!(parse_millicores("1500"), Ok(Millicores(1500)));
        assert_eq!(parse_millicores("250\n"), Ok(Millicores(250)));
        for text in ["", "1500m", "1.5", "-1", "99999999999999999999"] {
            assert!(parse_millicores(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn limits_from_quota() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(Millicores(1500)));
        assert_eq!(parse_cpu_max("max 100000\n"), None);
        assert_eq!(parse_cpu_max("garbage"), None);
    }

    /// The table of runc's and the kubelet's own figures.
    #[test]
    fn weights_as_the_runtimes_compute_them() {
        let milli = [0, 100, 250, 500, 1000, 1500, 2000, 4000, 8000];
        assert_eq!(milli.map(linear_weight), [1, 4, 10, 20, 39, 59, 79, 157, 313]);
        assert_eq!(milli.map(quadratic_weight), [1, 17, 35, 59, 100, 138, 174, 303, 532]);
    }

    #[test]
    fn an_ambiguous_weight_is_no_request() {
        assert_eq!(weight_to_request(100, None), None);
        assert_eq!(weight_to_request(1, None), None);
        assert_eq!(weight_to_request(59, None), None, "1500m in one formula, 500m in the other");
        assert_eq!(weight_to_request(59, Some(Millicores(1000))), Some(Millicores(500)));
        assert_eq!(shares_to_request(1536), Some(Millicores(1500)));
        assert_eq!(shares_to_request(2), None);
    }
}
