//! New text: a small tree, in block style with an indentation, or in flow style, which is JSON.

use std::fmt::Write;

#[derive(Clone, Debug)]
pub enum New {
    Text(String),
    Number(i64),
    Flag(bool),
    /// Always in flow style, on one line: commands.
    Line(Vec<String>),
    List(Vec<New>),
    Map(Vec<(&'static str, New)>),
}

pub fn text(text: impl Into<String>) -> New {
    New::Text(text.into())
}

/// A text in double quotes, which are the same in YAML and JSON.
pub fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a text can stand without quotes, whoever reads it: a YAML 1.1 reader too.
fn is_plain(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    let starts = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/');
    let simple = text.chars().all(|c| c.is_ascii_alphanumeric() || "._/@-".contains(c));
    // 16Mi, 60s: no reader takes these for numbers.
    let measure = text.trim_start_matches(|c: char| c.is_ascii_digit());
    if measure.len() < text.len() && ["m", "s", "Mi"].contains(&measure) {
        return true;
    }
    let special = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"].contains(&word.as_str());
    starts && simple && !special
}

/// In flow style.
pub fn flow(new: &New) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match new {
        New::Text(text) => quoted(text),
        New::Number(number) => number.to_string(),
        New::Flag(flag) => flag.to_string(),
        New::Line(words) => format!("[{}]", joined(words.iter().map(|word| quoted(word)).collect())),
        New::List(items) => format!("[{}]", joined(items.iter().map(flow).collect())),
        New::Map(entries) => {
            format!("{{{}}}", joined(entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), flow(value))).collect()))
        }
    }
}

/// What stands behind `key:` in block style, from the blank or the line's end on. `indent` is the key's.
pub fn behind_key(new: &New, indent: usize, newline: &str) -> String {
    match new {
        New::Map(entries) => entries.iter().fold(String::new(), |mut all, (key, value)| {
            let indent = indent + 2;
            let _ = write!(all, "{newline}{:indent$}{key}:{}", "", behind_key(value, indent, newline));
            all
        }),
        New::List(items) => items.iter().fold(String::new(), |mut all, item| {
            let indent = indent + 2;
            let _ = write!(all, "{newline}{:indent$}- {}", "", behind_dash(item, indent, newline));
            all
        }),
        New::Text(text) if is_plain(text) => format!(" {text}"),
        _ => format!(" {}", flow(new)),
    }
}

/// What stands behind `- ` in block style. `indent` is the dash's.
pub fn behind_dash(new: &New, indent: usize, newline: &str) -> String {
    match new {
        New::Map(entries) => {
            let indent = indent + 2;
            let lines: Vec<String> =
                entries.iter().map(|(key, value)| format!("{key}:{}", behind_key(value, indent, newline))).collect();
            lines.join(&format!("{newline}{:indent$}", ""))
        }
        New::Text(text) if is_plain(text) => text.clone(),
        _ => flow(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plain only where YAML 1.1 and 1.2, and JSON's numbers, all see a text.
    #[test]
    fn quotes_where_a_reader_might_see_something_else() {
        for word in [
            "y", "Yes", "no", "OFF", "true", "null", "NaN", "~", "", "1", "1.5", "1e3", "0x1F", "1_000", "12:30", "a b", "a: b",
            "#a", "é", "-",
        ] {
            assert!(behind_key(&text(word), 0, "\n").starts_with(" \""), "{word}");
        }
        for word in ["name", "/lameduck", "requests.cpu", "16Mi", "60s", "10m", "a/b-c_d@1"] {
            assert_eq!(behind_key(&text(word), 0, "\n"), format!(" {word}"));
        }
    }

    #[test]
    fn the_same_in_both_styles() {
        let new = New::Map(vec![
            ("name", text("lameduck")),
            ("value", text("on")),
            ("command", New::Line(vec!["a b".to_owned(), "--".to_owned()])),
            ("list", New::List(vec![New::Map(vec![("n", New::Number(1)), ("f", New::Flag(true))]), text("x")])),
        ]);
        assert_eq!(
            behind_key(&new, 2, "\n"),
            "\n    name: lameduck\n    value: \"on\"\n    command: [\"a b\", \"--\"]\n    list:\n      - n: 1\n        f: true\n      - x"
        );
        let json: serde_json::Value = serde_json::from_str(&flow(&new)).unwrap();
        assert_eq!(json["list"][0]["n"], 1);
    }
}
