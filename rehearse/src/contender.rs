//! Who stands between the kubelet and the app: a column of the table.

use std::ffi::OsString;
use std::time::Duration;

use lameduck::core::time::{Show, parse_duration};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Contender {
    /// The app itself is PID 1.
    None,
    /// The same, with `preStop: sleep`.
    Sleep(Duration),
    Tini,
    DumbInit,
    /// With these options.
    Lameduck(Vec<String>),
}

/// What a contender may begin with; a colon or a blank follows, if anything does.
const NAMES: [&str; 5] = ["none", "tini", "dumb-init", "sleep", "lameduck"];

impl Contender {
    fn parse(text: &str) -> Result<Contender, String> {
        let cannot = |why: &str| format!("cannot read --against {text}: {why}");
        if let Some(length) = text.strip_prefix("sleep:") {
            return parse_duration(length).map(Contender::Sleep).map_err(cannot);
        }
        if let Some(options) = text.strip_prefix("lameduck ") {
            return words(options).map(Contender::Lameduck).map_err(cannot);
        }
        match text {
            "none" => Ok(Contender::None),
            "tini" => Ok(Contender::Tini),
            "dumb-init" => Ok(Contender::DumbInit),
            "lameduck" => Ok(Contender::Lameduck(Vec::new())),
            _ => {
                let names = "there is no such contender; try none, tini, dumb-init, sleep:15 or \"lameduck --delay 3s\"";
                Err(cannot(names))
            }
        }
    }

    /// `tini,sleep:15,lameduck --port 80,81` is three.
    pub fn parse_list(text: &str) -> Result<Vec<Contender>, String> {
        let mut items: Vec<String> = Vec::new();
        for part in text.split(',') {
            let name = part.split([':', ' ']).next().unwrap_or_default();
            match items.last_mut() {
                // A comma in lameduck's own options.
                Some(last) if !NAMES.contains(&name) && last.starts_with("lameduck ") => {
                    last.push(',');
                    last.push_str(part);
                }
                _ => items.push(part.to_owned()),
            }
        }
        items.iter().map(|item| Contender::parse(item)).collect()
    }

    /// As the table's head has it, and as it could be typed.
    pub fn name(&self) -> String {
        match self {
            Contender::None => "none".to_owned(),
            Contender::Sleep(length) => format!("sleep:{}", Show(*length)),
            Contender::Tini => "tini".to_owned(),
            Contender::DumbInit => "dumb-init".to_owned(),
            Contender::Lameduck(options) => typed(["lameduck"].into_iter().chain(options.iter().map(String::as_str))),
        }
    }

    pub fn pre_stop(&self) -> Option<Duration> {
        match self {
            Contender::Sleep(length) => Some(*length),
            _ => None,
        }
    }

    /// The init's name and its arguments before the app's own; none where the app is PID 1.
    pub fn entrypoint(&self) -> Option<(&'static str, Vec<OsString>)> {
        let (name, options): (_, &[String]) = match self {
            Contender::None | Contender::Sleep(_) => return None,
            Contender::Tini => ("tini", &[]),
            Contender::DumbInit => ("dumb-init", &[]),
            Contender::Lameduck(options) => ("lameduck", options),
        };
        Some((name, options.iter().map(OsString::from).chain([OsString::from("--")]).collect()))
    }

    pub fn is_lameduck(&self) -> bool {
        matches!(self, Contender::Lameduck(_))
    }
}

/// Words as they would be typed in a shell.
pub fn typed(words: impl Iterator<Item = impl AsRef<str>>) -> String {
    let quoted = words.map(|word| {
        let word = word.as_ref();
        let plain = !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c));
        if plain { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

/// Words as a shell splits them: quotes of both kinds, and a backslash outside of them.
fn words(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match quote {
            Some(q) if c == q => quote = None,
            Some(_) => word.get_or_insert_default().push(c),
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c == '\\' => word.get_or_insert_default().extend(chars.next()),
            None if c.is_whitespace() => words.extend(word.take()),
            None => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lameduck(options: &[&str]) -> Contender {
        Contender::Lameduck(options.iter().map(|&option| option.to_owned()).collect())
    }

    #[test]
    fn contenders_are_read() {
        let list = Contender::parse_list("none,tini,sleep:15,lameduck --port 80,81 --delay '3 s',dumb-init,lameduck").unwrap();
        assert_eq!(
            list,
            [
                Contender::None,
                Contender::Tini,
                Contender::Sleep(Duration::from_secs(15)),
                lameduck(&["--port", "80,81", "--delay", "3 s"]),
                Contender::DumbInit,
                lameduck(&[]),
            ]
        );
        assert_eq!(list[2].name(), "sleep:15s");
        assert_eq!(list[3].name(), "lameduck --port 80,81 --delay '3 s'");
    }

    #[test]
    fn a_command_line_is_a_contender_and_so_is_its_name() {
        let list = Contender::parse_list("lameduck,lameduck --keep-alive wait,lameduck --admin :9102 --port 80,81,none").unwrap();
        let expected = [
            lameduck(&[]),
            lameduck(&["--keep-alive", "wait"]),
            lameduck(&["--admin", ":9102", "--port", "80,81"]),
            Contender::None,
        ];
        assert_eq!(list, expected);
        assert_eq!(list[1].name(), "lameduck --keep-alive wait");
        for contender in [lameduck(&["--with", "-sh -c 'a b'", ""]), lameduck(&["--port", "80,81"]), Contender::Tini] {
            assert_eq!(Contender::parse_list(&contender.name()).unwrap(), [contender]);
        }
    }

    #[test]
    fn others_are_refused_with_the_names_that_there_are() {
        let texts = ["", "tiny", "sleep", "sleep:x", "none:1", "none --delay 3s", "tini,", "lameduck,80", "lameduck:--delay 3s"];
        for text in texts.into_iter().chain(["lameduck --delay '3s"]) {
            let error = Contender::parse_list(text).unwrap_err();
            assert!(error.starts_with("cannot read --against"), "{error}");
        }
    }
}
