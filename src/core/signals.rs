//! Signal numbers and names, real-time ones too, and which of them lameduck passes on.

use std::fmt;

/// A signal by its Linux number. Numbers are those of x86, ARM, RISC-V and most others (not MIPS, SPARC or PA-RISC).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Signal(i32);

/// Where `RTMIN+n` counts from: the kernel's and glibc's habit, as in kill(1), Docker and systemd.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM", "STKFLT",
    "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

impl Signal {
    pub const HUP: Signal = Signal(1);
    pub const INT: Signal = Signal(2);
    pub const QUIT: Signal = Signal(3);
    pub const KILL: Signal = Signal(9);
    pub const USR1: Signal = Signal(10);
    pub const PIPE: Signal = Signal(13);
    pub const TERM: Signal = Signal(15);
    pub const CHLD: Signal = Signal(17);
    pub const CONT: Signal = Signal(18);
    pub const WINCH: Signal = Signal(28);

    pub fn from_number(number: i32) -> Option<Signal> {
        (1..=RTMAX).contains(&number).then_some(Signal(number))
    }

    pub fn number(self) -> i32 {
        self.0
    }

    /// Reads `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `RTMAX-1` or `37`.
    pub fn parse(text: &str) -> Result<Signal, &'static str> {
        const WHAT: &str = "not a signal (try TERM, QUIT, 15 or RTMIN+3)";
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let number = if let Some(index) = NAMES.iter().position(|known| *known == name) {
            index as i32 + 1
        } else if let Some(above) = name.strip_prefix("RTMIN") {
            RTMIN + offset(above, '+').ok_or(WHAT)?
        } else if let Some(below) = name.strip_prefix("RTMAX") {
            RTMAX - offset(below, '-').ok_or(WHAT)?
        } else {
            match name {
                "CLD" => 17,
                "IOT" => 6,
                "POLL" => 29,
                _ if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map_err(|_| WHAT)?,
                _ => return Err(WHAT),
            }
        };
        match Signal::from_number(number) {
            None => Err(WHAT),
            Some(signal) if signal.is_reserved() => Err("signals 32 to 34 belong to the C library"),
            Some(signal) => Ok(signal),
        }
    }

    /// Whether lameduck hands it to the app. Not CHLD (ours to act on), not what cannot be caught, not faults, which mean the
    /// process they hit, not the terminal's TTIN and TTOU, not what the C library keeps for itself.
    pub fn is_forwarded(self) -> bool {
        !matches!(self.0, 9 | 17 | 19 | 21 | 22) && !self.is_fault() && !self.is_reserved()
    }

    /// Raised by the CPU for a mistake in the very instruction: must stay deliverable to lameduck itself.
    pub fn is_fault(self) -> bool {
        matches!(self.0, 4 | 5 | 7 | 8 | 11 | 31)
    }

    fn is_reserved(self) -> bool {
        (32..=34).contains(&self.0)
    }
}

fn offset(text: &str, sign: char) -> Option<i32> {
    if text.is_empty() {
        return Some(0);
    }
    let digits = text.strip_prefix(sign)?;
    if digits.len() <= 2 && digits.bytes().all(|b| b.is_ascii_digit()) {
        digits.parse().ok().filter(|n| *n <= RTMAX - RTMIN)
    } else {
        None
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => f.write_str(name),
            None if self.0 < RTMIN => write!(f, "{}", self.0),
            None if self.0 == RTMIN => f.write_str("RTMIN"),
            None => write!(f, "RTMIN+{}", self.0 - RTMIN),
        }
    }
}

/// A set of signals, one bit each, as the kernel keeps them: bit n-1 is signal n.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct SignalSet(pub u64);

impl SignalSet {
    pub fn contains(self, signal: Signal) -> bool {
        self.0 & (1 << (signal.0 - 1)) != 0
    }

    pub fn insert(&mut self, signal: Signal) {
        self.0 |= 1 << (signal.0 - 1);
    }

    pub fn iter(self) -> impl Iterator<Item = Signal> {
        (1..=RTMAX).map(Signal).filter(move |signal| self.contains(*signal))
    }
}

impl FromIterator<Signal> for SignalSet {
    fn from_iter<I: IntoIterator<Item = Signal>>(signals: I) -> SignalSet {
        let mut set = SignalSet::default();
        signals.into_iter().for_each(|signal| set.insert(signal));
        set
    }
}

impl fmt::Display for SignalSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, signal) in self.iter().enumerate() {
            write!(f, "{}{signal}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// One `--rewrite FROM:TO`; `to` is None for `FROM:0`, which drops the signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rewrite {
    pub from: Signal,
    pub to: Option<Signal>,
}

impl Rewrite {
    pub fn parse(text: &str) -> Result<Rewrite, &'static str> {
        let (from, to) = text.split_once(':').ok_or("not FROM:TO (try HUP:USR2, or HUP:0 to drop it)")?;
        let to = if to == "0" { None } else { Some(Signal::parse(to)?) };
        let from = Signal::parse(from)?;
        if !from.is_forwarded() {
            return Err("this signal is never forwarded");
        }
        Ok(Rewrite { from, to })
    }
}

/// What `signal` is forwarded as; None drops it. Rewrites do not chain.
pub fn rewritten(rewrites: &[Rewrite], signal: Signal) -> Option<Signal> {
    rewrites.iter().find(|rewrite| rewrite.from == signal).map_or(Some(signal), |rewrite| rewrite.to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_read_back_from_what_it_prints() {
        for number in (1..=31).chain(35..=64) {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(Signal::parse(&signal.to_string()), Ok(signal));
            assert_eq!(Signal::parse(&number.to_string()), Ok(signal));
            assert_eq!(Signal::parse(&format!("sig{signal}")), Ok(signal));
        }
        assert_eq!(Signal::parse("RTMAX-1").unwrap().number(), 63);
        assert_eq!(Signal::parse("RTMIN+3").unwrap().number(), 37);
        for text in
            ["", "0", "65", "-1", "32", "34", "RTMIN", "RTMIN+31", "RTMIN-1", "RTMAX+1", "TERMS", "1 5", "SIG", "RTMIN++3"]
        {
            assert!(Signal::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn what_is_forwarded_is_what_the_contract_says() {
        let kept: Vec<i32> = (1..=64).filter(|n| !Signal(*n).is_forwarded()).collect();
        assert_eq!(kept, [4, 5, 7, 8, 9, 11, 17, 19, 21, 22, 31, 32, 33, 34]);
    }

    #[test]
    fn rewrites() {
        let rewrites =
            [Rewrite::parse("HUP:USR2").unwrap(), Rewrite::parse("USR2:0").unwrap(), Rewrite::parse("36:SIGRTMIN+3").unwrap()];
        assert_eq!(rewritten(&rewrites, Signal::HUP).unwrap().to_string(), "USR2");
        assert_eq!(rewritten(&rewrites, Signal(12)), None);
        assert_eq!(rewritten(&rewrites, Signal(36)), Some(Signal(37)));
        assert_eq!(rewritten(&rewrites, Signal::TERM), Some(Signal::TERM));
        for text in ["HUP", "HUP:", ":HUP", "KILL:TERM", "CHLD:TERM", "HUP:USR2:INT", "0:HUP"] {
            assert!(Rewrite::parse(text).is_err(), "{text:?}");
        }
    }
}
