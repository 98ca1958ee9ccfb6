//! Prometheus' text format (0.0.4, and OpenMetrics as far as samples go), read piece by piece: the sum of the samples that a
//! selector matches. https://prometheus.io/docs/instrumenting/exposition_formats/

/// A line longer than this, in bytes, is an error.
const LONGEST_LINE: usize = 64 * 1024;

/// `name{label="value",…}`: a sample matches if it has this name and these labels with these values; it may have more labels.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Selector {
    name: String,
    labels: Vec<(String, String)>,
}

impl Selector {
    pub fn parse(text: &str) -> Result<Selector, &'static str> {
        const WHAT: &str = "not a metric (try http_in_flight or busy_workers{state=\"busy\"})";
        let mut rest = text;
        let series = series(&mut rest).ok_or(WHAT)?;
        if rest.is_empty() { Ok(series) } else { Err(WHAT) }
    }

    fn matches(&self, series: &Selector) -> bool {
        self.name == series.name && self.labels.iter().all(|label| series.labels.contains(label))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Malformed {
    /// The line with this number is neither a comment nor a sample.
    Line(usize),
    /// A matching sample is negative or not a number.
    NotACount,
    NothingMatches,
}

/// Sums the matching samples while the text comes in.
#[derive(Debug)]
pub struct Sum<'a> {
    selector: &'a Selector,
    partial: Vec<u8>,
    line: usize,
    matched: bool,
    sum: f64,
}

impl Sum<'_> {
    pub fn of(selector: &Selector) -> Sum<'_> {
        Sum { selector, partial: Vec::new(), line: 0, matched: false, sum: 0.0 }
    }

    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, rest) = (&bytes[..end], &bytes[end + 1..]);
            if self.partial.is_empty() {
                self.take(head)?;
            } else {
                self.partial.extend(head);
                let line = std::mem::take(&mut self.partial);
                self.take(&line)?;
            }
            bytes = rest;
        }
        self.partial.extend(bytes);
        if self.partial.len() > LONGEST_LINE { Err(Malformed::Line(self.line + 1)) } else { Ok(()) }
    }

    pub fn finish(mut self) -> Result<f64, Malformed> {
        let last = std::mem::take(&mut self.partial);
        self.take(&last)?;
        if !self.matched {
            return Err(Malformed::NothingMatches);
        }
        if self.sum.is_finite() && self.sum >= 0.0 { Ok(self.sum) } else { Err(Malformed::NotACount) }
    }

    fn take(&mut self, line: &[u8]) -> Result<(), Malformed> {
        self.line += 1;
        let malformed = Malformed::Line(self.line);
        let text = str::from_utf8(line).map_err(|_| malformed)?.trim_matches(BLANK);
        if text.is_empty() || text.starts_with('#') {
            return Ok(());
        }
        let (series, value) = sample(text).ok_or(malformed)?;
        if self.selector.matches(&series) {
            self.matched = true;
            self.sum += value;
        }
        Ok(())
    }
}

const BLANK: [char; 3] = [' ', '\t', '\r'];

fn sample(text: &str) -> Option<(Selector, f64)> {
    let mut rest = text;
    let series = series(&mut rest)?;
    if !rest.starts_with(BLANK) {
        return None;
    }
    // An exemplar is OpenMetrics', behind a #.
    let mut words = rest.split(BLANK).filter(|word| !word.is_empty()).take_while(|word| *word != "#");
    let value = words.next()?.parse().ok()?;
    if let Some(timestamp) = words.next() {
        timestamp.parse::<f64>().ok()?;
    }
    if words.next().is_some() { None } else { Some((series, value)) }
}

/// Reads a name and its labels. Since Prometheus 3 the name may also stand among the labels, quoted. None: this is no series.
fn series(rest: &mut &str) -> Option<Selector> {
    let mut name = word(rest, |c| c == ':').map(str::to_owned);
    let mut labels = Vec::new();
    let mut at = rest.trim_start_matches(BLANK);
    if let Some(inside) = at.strip_prefix('{') {
        at = inside.trim_start_matches(BLANK);
        while !at.starts_with('}') {
            if at.starts_with('"') {
                let text = quoted(&mut at)?;
                at = at.trim_start_matches(BLANK);
                if at.starts_with('=') {
                    labels.push((text, value(&mut at)?));
                } else if name.replace(text).is_some() {
                    return None;
                }
            } else {
                let label = word(&mut at, |_| false)?.to_owned();
                labels.push((label, value(&mut at)?));
            }
            at = at.trim_start_matches(BLANK);
            match at.strip_prefix(',') {
                Some(after) => at = after.trim_start_matches(BLANK),
                None if at.starts_with('}') => {}
                None => return None,
            }
        }
        *rest = &at[1..];
    }
    Some(Selector { name: name.filter(|name| !name.is_empty())?, labels })
}

/// `="value"`
fn value(rest: &mut &str) -> Option<String> {
    *rest = rest.trim_start_matches(BLANK).strip_prefix('=')?.trim_start_matches(BLANK);
    quoted(rest)
}

fn word<'a>(rest: &mut &'a str, also: impl Fn(char) -> bool) -> Option<&'a str> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_' || also(c);
    let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    if word.is_empty() || word.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    *rest = after;
    Some(word)
}

fn quoted(rest: &mut &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = rest.strip_prefix('"')?.char_indices();
    loop {
        match characters.next()? {
            (at, '"') => {
                *rest = &rest[at + 2..];
                return Some(text);
            }
            (_, '\\') => text.push(match characters.next()?.1 {
                'n' => '\n',
                escaped @ ('"' | '\\') => escaped,
                _ => return None,
            }),
            (_, plain) => text.push(plain),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(selector: &str, text: &str) -> Result<f64, Malformed> {
        let selector = Selector::parse(selector).unwrap();
        // Whatever the pieces, the sum is the same.
        let whole = {
            let mut sum = Sum::of(&selector);
            sum.feed(text.as_bytes()).and_then(|()| sum.finish())
        };
        let mut sum = Sum::of(&selector);
        let bytewise = text.as_bytes().iter().try_for_each(|byte| sum.feed(&[*byte])).and_then(|()| sum.finish());
        assert_eq!(whole, bytewise);
        whole
    }

    const PAGE: &str = "# HELP apache_workers Apache worker statuses\r\n# TYPE apache_workers gauge\napache_workers{state=\"busy\"} 3\n\
        apache_workers{state=\"idle\"} 7\n\n  go_info { version = \"a}\\\"\\\\\\n\" , } 1 1700000000000\nrpc:rate5m +Inf\n\
        phpfpm_active_processes{pool=\"www\",scrape_uri=\"tcp://127.0.0.1:9000/status\"} 2.5e0\n\
        hits_total{x=\"1\"} 5 1.5 # {trace=\"x\"} 0.3 1.2\n{\"http.in.flight\", \"host.name\"=\"a\"} 4\nnan NaN\nminus -2\n# EOF";

    #[test]
    fn samples_are_summed() {
        for (selector, value) in [
            ("apache_workers{state=\"busy\"}", 3.0),
            ("apache_workers", 10.0),
            ("phpfpm_active_processes{pool=\"www\"}", 2.5),
            ("go_info{version=\"a}\\\"\\\\\\n\"}", 1.0),
            ("hits_total", 5.0),
            ("{\"http.in.flight\"}", 4.0),
        ] {
            assert_eq!(sum(selector, PAGE), Ok(value), "{selector}");
        }
    }

    #[test]
    fn what_is_no_count_is_no_answer() {
        assert_eq!(sum("apache_workers{state=\"gone\"}", PAGE), Err(Malformed::NothingMatches));
        assert_eq!(sum("absent", ""), Err(Malformed::NothingMatches));
        for selector in ["nan", "minus", "rpc:rate5m"] {
            assert_eq!(sum(selector, PAGE), Err(Malformed::NotACount), "{selector}");
        }
    }

    #[test]
    fn what_is_not_the_format_is_refused() {
        for line in [
            "<html>",
            "a",
            "a{",
            "a{b}",
            "a{b=\"c\" 1",
            "a{b=\"c\"d=\"e\"} 1",
            "a{b=\"\\x\"} 1",
            "a 1 2 3",
            "a one",
            "1a 1",
            "a{\"b\",\"c\"} 1",
            "a\u{1f986} 1",
            "{} 1",
            "a1",
        ] {
            assert_eq!(sum("x", &format!("x 1\n{line}\n")), Err(Malformed::Line(2)), "{line:?}");
        }
        let selector = Selector::parse("x").unwrap();
        let mut sum = Sum::of(&selector);
        let endless = (0..100).try_for_each(|_| sum.feed(&[b'a'; 1000]));
        assert_eq!(endless, Err(Malformed::Line(1)));
        for text in ["", "a b", "a{b=c}", "a{b=\"c\"}x", "-1", "a-1"] {
            assert!(Selector::parse(text).is_err(), "{text:?}");
        }
    }
}
