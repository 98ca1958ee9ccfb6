//! Kubernetes quantities, exactly.

pub const LARGER_THAN_ANY_MACHINE: &str = "larger than any machine";

/// Reads a Kubernetes quantity (`1500m`, `1.5`, `2`, `15e-1`, `1k`, `1Ki`) in units of 10^-`decimals`, as Kubernetes does: exactly,
/// rounding a part of a unit up. <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>
pub fn parse(text: &str, decimals: i32, what: &'static str) -> Result<u64, &'static str> {
    if text.starts_with('-') {
        return Err("negative");
    }
    let body = text.strip_prefix('+').unwrap_or(text);
    let number_end = body.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(body.len());
    let (number, suffix) = body.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return Err(what);
    }
    let (ten, two) = match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E']).ok_or(what)?;
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || digits.len() > 3 || !digits.bytes().all(|b| b.is_ascii_digit()) {
                return Err(what);
            }
            (exponent.parse().map_err(|_| what)?, 0)
        }
    };
    // value = digits * 10^power * 2^two, in the units asked for: in decimal, so that nothing is lost however many digits there are.
    let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
    for _ in 0..two {
        double(&mut digits);
    }
    let power = ten + decimals - fraction.len() as i32;
    let behind_point = usize::try_from(-power).unwrap_or(0).min(digits.len());
    let (integer, rest) = digits.split_at(digits.len() - behind_point);
    let zeroes = std::iter::repeat_n(&0, usize::try_from(power).unwrap_or(0));
    let mut value = 0u64;
    for digit in integer.iter().chain(zeroes) {
        value = value.checked_mul(10).and_then(|value| value.checked_add((*digit).into())).ok_or(LARGER_THAN_ANY_MACHINE)?;
    }
    value.checked_add(rest.iter().any(|digit| *digit != 0).into()).ok_or(LARGER_THAN_ANY_MACHINE)
}

/// Twice the number with these decimal digits.
fn double(digits: &mut Vec<u8>) {
    let mut carry = 0;
    for digit in digits.iter_mut().rev() {
        let twice = *digit * 2 + carry;
        (*digit, carry) = (twice % 10, twice / 10);
    }
    if carry > 0 {
        digits.insert(0, carry);
    }
}
