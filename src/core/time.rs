//! Points in time and lengths of time, as lameduck reads and prints them.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// Time since lameduck started: what the loop passes in, so that no test needs a clock.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Uptime(pub Duration);

impl Uptime {
    /// How long ago `earlier` was; zero if it is yet to come.
    pub fn since(self, earlier: Uptime) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Uptime {
    type Output = Uptime;

    fn add(self, length: Duration) -> Uptime {
        Uptime(self.0.saturating_add(length))
    }
}

/// Reads `500ms`, `5s`, `1m30s`, `1h`, or a bare number of seconds. Decimals are allowed (`1.5s`), signs and spaces are not.
pub fn parse_duration(text: &str) -> Result<Duration, &'static str> {
    const WHAT: &str = "not a duration (try 500ms, 5s or 1m30s)";
    if let Some(seconds) = number(text) {
        return limited(seconds);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).ok_or(WHAT)?;
        let value = number(&rest[..digits]).ok_or(WHAT)?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
        let seconds = match &rest[..unit_end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(WHAT),
        };
        rest = &rest[unit_end..];
        total = total.saturating_add(limited(value * seconds)?);
    }
    if text.is_empty() { Err(WHAT) } else { limited(total.as_secs_f64()).map(|_| total) }
}

fn number(text: &str) -> Option<f64> {
    let well_formed = text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(|c| c.is_ascii_digit() || c == '.');
    if well_formed { text.parse().ok() } else { None }
}

/// A year at most: nobody means more, and sums of such lengths cannot overflow.
fn limited(seconds: f64) -> Result<Duration, &'static str> {
    // Whole microseconds, so that 0.1 and 100ms are the same length.
    let length = Duration::from_micros((seconds * 1e6).round().min(1e15) as u64);
    if length > Duration::from_secs(365 * 86_400) { Err("longer than a year") } else { Ok(length) }
}

/// Prints a length of time as `parse_duration` reads it: `500ms`, `5s`, `2.5s`, `1m30s`.
#[derive(Clone, Copy, Debug)]
pub struct Show(pub Duration);

impl fmt::Display for Show {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = (self.0.as_micros() + 500) / 1000;
        let (minutes, rest) = (millis / 60_000, millis % 60_000);
        if millis < 1000 && millis != 0 {
            return write!(f, "{millis}ms");
        }
        if minutes > 0 {
            write!(f, "{minutes}m")?;
            if rest == 0 {
                return Ok(());
            }
        }
        let (seconds, fraction) = (rest / 1000, rest % 1000);
        if fraction == 0 {
            return write!(f, "{seconds}s");
        }
        let fraction = format!("{fraction:03}");
        write!(f, "{seconds}.{}s", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        for (text, millis) in [
            ("500ms", 500),
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("30", 30_000),
            ("0", 0),
            ("1.5s", 1_500),
            ("0.1", 100),
            ("1h", 3_600_000),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "5x", "-5s", "+5", "5 s", "1.2.3", "5s ", "1e3", "ms5", ".5", "9999999h", "inf", "NaN", "5S"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_shown_can_be_read_back() {
        for millis in [0, 1, 999, 1_000, 2_500, 59_999, 60_000, 90_000, 90_010, 3_600_000] {
            let length = Duration::from_millis(millis);
            assert_eq!(parse_duration(&Show(length).to_string()), Ok(length), "{}", Show(length));
        }
    }
}
