//! Kubernetes quantities, as in the Downward API and in options: what the grammar lets one write is read as exact fractions say, and nothing
//! else is.
#![no_main]

use lameduck::core::size::cpu::{self, Millicores};
use lameduck::core::size::quantity;
use lameduck::core::size::workers::{self, Decided, Decimal, Memory, Policy};
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/size/properties.rs"]
mod properties;

/// The grammar's words, by a reader of our own: digits, fraction, suffix. None: it is no quantity.
fn parts(text: &str) -> Option<(&str, &str, &str)> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - suffix.len()];
    let (digits, fraction) = number.split_once('.').unwrap_or((number, ""));
    let exponent = |suffix: &str| {
        let digits = suffix.strip_prefix(['e', 'E'])?;
        let digits = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        // More than three digits are no quantity of ours.
        let short = (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        short.then_some(())
    };
    let named = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"].contains(&suffix);
    if digits.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    (named || exponent(suffix).is_some()).then_some((digits, fraction, suffix))
}

fuzz_target!(|text: &str| {
    match parts(text) {
        Some((digits, fraction, suffix)) => properties::a_quantity_is_what_exact_fractions_say(text, digits, fraction, suffix),
        None => assert!(quantity::parse(text, 0, "").is_err() && cpu::parse_quantity(text).is_err(), "{text:?}"),
    }
    let milli = text.trim();
    let whole = !milli.is_empty() && milli.bytes().all(|byte| byte.is_ascii_digit());
    let number = milli.parse().ok().filter(|milli| whole && *milli <= 1_000_000_000_000).map(Millicores);
    assert_eq!(cpu::parse_millicores(text).ok(), number, "{text:?}");

    // And what is made of it: never no worker, never more than memory holds.
    if let (Some(cpu), Ok(per_cpu)) = (cpu::parse_quantity(text).ok(), Decimal::parse(text)) {
        assert_eq!(Decimal::parse(&per_cpu.to_string()), Ok(per_cpu));
        let policy = Policy { per_cpu, extra: -3, ..Policy::default() };
        let memory = Memory { limit: cpu.0, reserve: 100, worker: 1000 };
        let (count, decided) = workers::count(cpu, &policy, Some(&memory));
        assert!(count >= 1 && (count == 1 || count <= memory.holds()), "{count} by {decided:?}");
        assert!(decided != Decided::Max);
    }
});
