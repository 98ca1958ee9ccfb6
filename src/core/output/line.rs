//! An event as a line, in one of four formats.

use std::fmt::Write;
use std::time::Duration;

use crate::core::output::json::push_string;

/// A line longer than a page could go in part.
const MOST_BYTES: usize = 4096;

/// `--log-format`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Json,
    /// As kr/logfmt reads it: values with blanks are quoted as in JSON.
    Logfmt,
    /// <http://ltsv.org>: labels and values between tabs.
    Ltsv,
    /// For people.
    Text,
}

impl Format {
    pub fn parse(text: &str) -> Option<Format> {
        Some(match text {
            "json" => Format::Json,
            "logfmt" => Format::Logfmt,
            "ltsv" => Format::Ltsv,
            "text" => Format::Text,
            _ => return None,
        })
    }
}

/// One event: its fields, in order.
#[derive(Debug)]
pub struct Line {
    time: String,
    level: &'static str,
    fields: Vec<(&'static str, Value)>,
}

#[derive(Debug)]
enum Value {
    /// A number, true or false.
    Plain(String),
    Text(String),
}

impl Value {
    fn text(&self) -> &str {
        match self {
            Value::Plain(text) | Value::Text(text) => text,
        }
    }
}

impl Line {
    /// `time`: since 1970.
    pub fn new(time: Duration, level: &'static str) -> Line {
        Line { time: rfc3339(time), level, fields: Vec::with_capacity(16) }
    }

    /// Empty fields say nothing, and are left out.
    pub fn text(&mut self, name: &'static str, value: String) {
        if !value.is_empty() {
            self.fields.push((name, Value::Text(value)));
        }
    }

    /// A number, true or false.
    pub fn plain(&mut self, name: &'static str, value: impl std::fmt::Display) {
        self.fields.push((name, Value::Plain(value.to_string())));
    }

    pub fn render(&self, format: Format) -> String {
        let mut most = usize::MAX;
        loop {
            let line = self.render_within(format, most);
            if line.len() <= MOST_BYTES || most < 16 {
                return line;
            }
            // A line stays whole: its longest values give way.
            most = if most == usize::MAX { MOST_BYTES / 2 } else { most / 2 };
        }
    }

    /// `most`: of each value.
    fn render_within(&self, format: Format, most: usize) -> String {
        let fields = self.fields.iter().map(|(name, value)| {
            let text = value.text();
            let mut end = most.min(text.len());
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            (*name, value, &text[..end], if end < text.len() { "..." } else { "" })
        });
        let mut out = String::with_capacity(256);
        match format {
            Format::Text => {
                let _ = write!(out, "{} lameduck {}", self.time, self.level);
                for (name, _, text, rest) in fields {
                    out.push(' ');
                    if name != "event" {
                        out.push_str(name);
                        out.push('=');
                    }
                    let plain = text.chars().all(|c| !c.is_whitespace() && !c.is_control() && c != '"' && c != '=');
                    let _ = if plain { write!(out, "{text}{rest}") } else { write!(out, "{:?}", format!("{text}{rest}")) };
                }
            }
            Format::Json => {
                let _ = write!(out, "{{\"time\":\"{}\",\"level\":\"{}\"", self.time, self.level);
                for (name, value, text, rest) in fields {
                    let _ = write!(out, ",\"{name}\":");
                    match value {
                        Value::Plain(text) => out.push_str(text),
                        Value::Text(_) => push_string(&mut out, &format!("{text}{rest}")),
                    }
                }
                out.push('}');
            }
            Format::Logfmt => {
                let _ = write!(out, "time={} level={}", self.time, self.level);
                for (name, _, text, rest) in fields {
                    let _ = write!(out, " {name}=");
                    let plain = text.chars().all(|c| c > ' ' && c != '"' && c != '=' && c != '\u{7f}');
                    if plain {
                        let _ = write!(out, "{text}{rest}");
                    } else {
                        push_string(&mut out, &format!("{text}{rest}"));
                    }
                }
            }
            Format::Ltsv => {
                let _ = write!(out, "time:{}\tlevel:{}", self.time, self.level);
                for (name, _, text, rest) in fields {
                    let _ = write!(out, "\t{name}:");
                    for c in text.chars() {
                        match c {
                            '\t' => out.push_str("\\t"),
                            '\n' => out.push_str("\\n"),
                            '\r' => out.push_str("\\r"),
                            '\0' => out.push_str("\\0"),
                            c => out.push(c),
                        }
                    }
                    out.push_str(rest);
                }
            }
        }
        out.push('\n');
        out
    }
}

/// UTC with milliseconds.
fn rfc3339(since_1970: Duration) -> String {
    let seconds = since_1970.as_secs();
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    // Days to a civil date, Howard Hinnant's algorithm: years begin in March, eras have 400 years.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since_1970.subsec_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_399, "2000-02-28T23:59:59.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_795_207_647, "2026-11-20T20:47:27.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds) + Duration::from_millis(7)), text);
        }
    }

    fn line() -> Line {
        let mut line = Line::new(Duration::ZERO, "info");
        line.text("event", "start".to_owned());
        line.text("command", "sh -c \"a\nb\" \t\u{1}".to_owned());
        line.plain("pid", 7);
        line.text("empty", "".to_owned());
        line.text("user", "www-data".to_owned());
        line
    }

    #[test]
    fn one_event_in_each_format() {
        for (format, text) in [
            (
                Format::Text,
                r#"1970-01-01T00:00:00.000Z lameduck info start command="sh -c \"a\nb\" \t\u{1}" pid=7 user=www-data"#,
            ),
            (
                Format::Json,
                r#"{"time":"1970-01-01T00:00:00.000Z","level":"info","event":"start","command":"sh -c \"a\nb\" \t\u0001","pid":7,"user":"www-data"}"#,
            ),
            (
                Format::Logfmt,
                r#"time=1970-01-01T00:00:00.000Z level=info event=start command="sh -c \"a\nb\" \t\u0001" pid=7 user=www-data"#,
            ),
            (
                Format::Ltsv,
                "time:1970-01-01T00:00:00.000Z\tlevel:info\tevent:start\tcommand:sh -c \"a\\nb\" \\t\u{1}\tpid:7\tuser:www-data",
            ),
        ] {
            assert_eq!(line().render(format), format!("{text}\n"));
        }
    }

    #[test]
    fn a_long_line_stays_whole() {
        for format in [Format::Text, Format::Json, Format::Logfmt, Format::Ltsv] {
            let mut long = line();
            long.text("x", "\u{e4}\n".repeat(5000));
            long.text("y", "end".to_owned());
            let text = long.render(format);
            assert!(text.len() <= MOST_BYTES && text.matches('\n').count() == 1, "{text}");
            assert!(text.contains("...") && text.contains("end"), "{text}");
        }
    }
}
