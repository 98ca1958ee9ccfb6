//! What must hold of quantities and templates whatever the text: for the random ones of tests/size.rs and for the fuzzer's.
#![allow(dead_code)] // each of the fuzzer's targets has its own part

use std::borrow::Cow;

use lameduck::core::size::cpu::{self, Millicores};
use lameduck::core::size::quantity;
use lameduck::core::start::template;
use num_bigint::BigInt;
use num_rational::BigRational;

pub fn power(base: u32, exponent: i32) -> BigRational {
    BigRational::from_integer(BigInt::from(base)).pow(exponent)
}

/// The value as a fraction, by the grammar's own words: number × 10^n or 2^n.
pub fn model(digits: &str, fraction: &str, suffix: &str) -> BigRational {
    let number: BigInt = format!("0{digits}{fraction}").parse().expect("digits");
    let unit = match suffix {
        "n" => power(10, -9),
        "u" => power(10, -6),
        "m" => power(10, -3),
        "" => power(10, 0),
        "k" => power(10, 3),
        "M" => power(10, 6),
        "G" => power(10, 9),
        "T" => power(10, 12),
        "P" => power(10, 15),
        "E" => power(10, 18),
        "Ki" => power(1024, 1),
        "Mi" => power(1024, 2),
        "Gi" => power(1024, 3),
        "Ti" => power(1024, 4),
        "Pi" => power(1024, 5),
        "Ei" => power(1024, 6),
        exponent => power(10, exponent[1..].parse().expect("an exponent")),
    };
    BigRational::from_integer(number) * power(10, -i32::try_from(fraction.len()).expect("short")) * unit
}

/// In units of 10^-decimals, a part rounded up; None where u64 ends.
pub fn in_units(value: &BigRational, decimals: i32) -> Option<u64> {
    u64::try_from((value * power(10, decimals)).ceil().to_integer()).ok()
}

/// A quantity by its parts, read in units of 10^0 and 10^-3.
pub fn a_quantity_is_what_exact_fractions_say(text: &str, digits: &str, fraction: &str, suffix: &str) {
    let value = model(digits, fraction, suffix);
    for decimals in [0, 3] {
        let read = quantity::parse(text, decimals, "what");
        match in_units(&value, decimals) {
            Some(units) => assert_eq!(read, Ok(units), "{text} in 10^-{decimals}"),
            None => assert_eq!(read, Err(quantity::LARGER_THAN_ANY_MACHINE), "{text}"),
        }
    }
    // CPU ends at a billion cores.
    let most = 1_000_000_000_000;
    let milli = in_units(&value, 3).filter(|milli| *milli <= most).map(Millicores);
    assert_eq!(cpu::parse_quantity(text).ok(), milli, "{text}");
}

pub fn known(name: &str) -> Option<Cow<'static, [u8]>> {
    match name {
        "A" => Some(Cow::from(&b"one"[..])),
        "EMPTY" => Some(Cow::from(&b""[..])),
        "DOLLARS" => Some(Cow::from(&b"${A} $A $$"[..])),
        _ => None,
    }
}

pub fn rendered(text: &[u8]) -> Result<Vec<u8>, template::Fault> {
    template::render(text, known)
}

/// Whatever bytes they are.
pub fn without_a_reference_a_text_stays_as_it_is(text: &[u8]) {
    if !text.windows(2).any(|two| two == b"${") {
        assert_eq!(rendered(text).as_deref(), Ok(text));
    }
}

pub fn a_quoted_text_is_rendered_to_itself(text: &str) {
    assert_eq!(rendered(text.replace("${", "$${").as_bytes()), Ok(text.as_bytes().to_vec()));
}

/// Rendered twice is rendered once, unless what came out speaks of references again.
pub fn what_is_rendered_is_done(text: &str) {
    if let Ok(once) = rendered(text.as_bytes())
        && !once.windows(2).any(|two| two == b"${")
    {
        assert_eq!(rendered(&once), Ok(once));
    }
}

/// Line by line it is the same: a fault names the first line that has one.
pub fn a_fault_is_on_the_first_line_that_has_one(text: &str) {
    let first = text.split('\n').position(|line| rendered(line.as_bytes()).is_err()).map(|index| index + 1);
    assert_eq!(rendered(text.as_bytes()).err().map(|fault| fault.line), first);
    if first.is_none() {
        let lines: Vec<Vec<u8>> = text.split('\n').map(|line| rendered(line.as_bytes()).expect("no fault")).collect();
        assert_eq!(rendered(text.as_bytes()).expect("no fault"), lines.join(&b'\n'));
    }
}
