//! What must not be seen: values of variables whose name looks like a secret's, and credentials in URLs.

use std::borrow::Cow;

const MASK: &str = "***";
/// A shorter value is masked only where it stands alone: it is part of too many words.
const SHORT: usize = 6;

#[derive(Clone, Debug, Default)]
pub struct Secrets {
    /// Each once, in no order.
    values: Vec<String>,
}

impl Secrets {
    /// Of an environment, and of the words of a command (`env TOKEN=x app`, `--password=x`, `--password x`).
    pub fn new<'a>(variables: impl Iterator<Item = (&'a str, &'a str)>, words: impl Iterator<Item = &'a str>) -> Secrets {
        let mut secrets = Secrets::default();
        variables.filter(|(name, _)| is_secret(name)).for_each(|(_, value)| secrets.learn(value));
        // As the app gets them, blanks and all, and then as a shell would read them.
        let words: Vec<&str> = words.collect();
        secrets.learn_words(&words);
        let mut is_next = false;
        for word in words {
            for part in word.split([' ', '\t', '\n', ';']) {
                let part = part.trim_matches(QUOTES);
                let option = part.starts_with('-');
                if std::mem::take(&mut is_next) && !option {
                    secrets.learn(part);
                    in_quotes(word, part).into_iter().for_each(|all| secrets.learn(all));
                }
                match part.split_once('=') {
                    Some((name, value)) if is_secret(name) => {
                        let value = value.trim_matches(QUOTES);
                        secrets.learn(value);
                        // As of 'NAME=a b' and of NAME='a b'.
                        let of_all = in_quotes(word, name).and_then(|all| all.split_once('=')).map(|(_, value)| value);
                        in_quotes(word, value).into_iter().chain(of_all).for_each(|all| secrets.learn(all));
                    }
                    None if option && is_secret(part) => is_next = true,
                    _ => {}
                }
            }
        }
        secrets.values.sort_unstable();
        secrets.values.dedup();
        secrets
    }

    fn learn_words(&mut self, words: &[&str]) {
        // `sh -c`'s, where blanks and quotes are the shell's.
        let is_script = |name: &str, value: &str| name.contains(char::is_whitespace) || value.starts_with(['"', '\'']);
        let mut is_next = false;
        for word in words {
            let option = word.starts_with('-');
            if std::mem::take(&mut is_next) && !option {
                self.learn(word);
            }
            match word.split_once('=') {
                Some((name, value)) if is_secret(name) && !is_script(name, value) => self.learn(value),
                None if option && is_secret(word) => is_next = true,
                _ => {}
            }
        }
    }

    fn learn(&mut self, value: &str) {
        // Nobody's secret, and part of every other line.
        let trivial = matches!(value, "true" | "false" | "yes" | "no" | "on" | "off" | "none" | "null");
        if value.is_empty() || trivial || value.len() <= 3 && value.bytes().all(|byte| byte.is_ascii_digit()) {
            return;
        }
        // As it is shown between quotes.
        let quoted = format!("{value:?}");
        let inside = &quoted[1..quoted.len() - 1];
        if inside != value {
            self.values.push(inside.to_owned());
        }
        self.values.push(value.to_owned());
    }

    pub fn mask<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let masked = match self.without_values(text) {
            Some(without) => Cow::Owned(without),
            None => Cow::Borrowed(text),
        };
        match without_credentials(&masked) {
            Some(without) => Cow::Owned(without),
            None => masked,
        }
    }

    /// None: none is there. All at once: one that was masked first could leave a part of another that overlaps it.
    fn without_values(&self, text: &str) -> Option<String> {
        let mut places: Vec<_> = self.values.iter().flat_map(|value| places(text, value)).collect();
        places.sort_unstable();
        let mut masked = None::<String>;
        let mut done = 0;
        for (start, end) in places {
            if masked.is_none() || start >= done {
                let masked = masked.get_or_insert_default();
                masked.push_str(&text[done..start]);
                masked.push_str(MASK);
            }
            done = done.max(end);
        }
        masked.map(|masked| masked + &text[done..])
    }
}

const QUOTES: [char; 2] = ['"', '\''];

/// All that stands between quotes, where `part` of `word` begins just behind one.
fn in_quotes<'a>(word: &'a str, part: &str) -> Option<&'a str> {
    let start = part.as_ptr().addr() - word.as_ptr().addr();
    let quote = word[..start].chars().next_back().filter(|c| QUOTES.contains(c))?;
    word[start..].split(quote).next()
}

fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let says_so =
        ["PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "TOKEN", "KEY", "CREDENTIAL"].iter().any(|word| name.contains(word));
    // PWD and OLDPWD are directories.
    let short = name.split(['_', '-']).any(|part| matches!(part, "PASS" | "PWD")) && name != "PWD";
    (says_so || short) && !name.starts_with("LAMEDUCK_")
}

/// From where to where it stands.
fn places<'a>(text: &'a str, value: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
    let alone = |start: usize, end: usize| {
        let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        !is_part(text[..start].chars().next_back()) && !is_part(text[end..].chars().next())
    };
    let step = value.chars().next().map_or(1, char::len_utf8);
    let long = value.chars().count() >= SHORT;
    let mut from = 0;
    let all = std::iter::from_fn(move || {
        let start = from + text[from..].find(value)?;
        // It may overlap itself.
        from = start + step;
        Some((start, start + value.len()))
    });
    all.filter(move |&(start, end)| long || alone(start, end))
}

/// `scheme://user:password@host`: all before the @. None: there is nothing of the kind.
fn without_credentials(text: &str) -> Option<String> {
    let mut masked = None::<String>;
    let mut done = 0;
    for (at, separator) in text.match_indices("://") {
        let start = at + separator.len();
        let rest = &text[start..];
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, '/' | '?' | '#' | '"' | '\'' | ',' | ';')).unwrap_or(rest.len());
        let Some(sign) = rest[..end].rfind('@').filter(|_| start >= done) else { continue };
        let masked = masked.get_or_insert_default();
        masked.push_str(&text[done..start]);
        masked.push_str(MASK);
        done = start + sign;
    }
    masked.map(|masked| masked + &text[done..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(variables: &[(&str, &str)], words: &[&str], text: &str) -> String {
        Secrets::new(variables.iter().copied(), words.iter().copied()).mask(text).into_owned()
    }

    #[test]
    fn values_of_secret_variables() {
        let variables = [
            ("DB_PASSWORD", "hunter2!"),
            ("API_TOKEN", "abc"),
            ("MYSQL_PWD", "pa\"ss word"),
            ("PWD", "/srv/app"),
            ("SHORTKEY", "x"),
            ("LAMEDUCK_TOKEN", "visible"),
            ("HOME", "/root"),
            ("EMPTY_SECRET", ""),
        ];
        for (text, expected) in [
            ("connect with hunter2!", "connect with ***"),
            ("hunter2!hunter2!", "******"),
            ("--token=abc abcd xabc", "--token=*** abcd xabc"),
            ("pa\"ss word", "***"),
            ("\"pa\\\"ss word\"", "\"***\""),
            ("/srv/app /root visible", "/srv/app /root visible"),
            ("x=xx x", "***=xx ***"),
        ] {
            assert_eq!(masked(&variables, &[], text), expected);
        }
    }

    #[test]
    fn secrets_in_the_command() {
        let words = [
            "env",
            "TOKEN=abcdef",
            "app",
            "--password",
            "swordfish",
            "--api-key=k-12345",
            "--verbose",
            "sh -c 'X_SECRET=qwertz run'",
        ];
        let line = words.join(" ");
        assert_eq!(masked(&[], &words, &line), "env TOKEN=*** app --password *** --api-key=*** --verbose sh -c 'X_SECRET=***'");
    }

    #[test]
    fn secrets_with_blanks_in_a_script() {
        for (script, expected) in [
            ("A_SECRET='open sesame' run", "A_SECRET='***' run"),
            ("env \"A_SECRET=open sesame\" run", "env \"A_SECRET=***\" run"),
            ("run --password \"open sesame\" --x", "run --password \"***\" --x"),
            ("run --password='open sesame'", "run --password='***'"),
            // All of it may be the value.
            ("bash -c 'A_SECRET=sesame run; x'", "bash -c 'A_SECRET=***'"),
            ("A_SECRET='sesame never closed", "A_SECRET='***"),
        ] {
            assert_eq!(masked(&[], &["sh", "-c", script], script), expected);
        }
        assert_eq!(masked(&[], &["bash -c 'A_SECRET=sesame run'"], "sesame"), "***");
    }

    #[test]
    fn secrets_that_overlap() {
        let variables = [("A_KEY", "abcdefgh"), ("B_KEY", "ghijklm"), ("C_KEY", "xyxyxy")];
        assert_eq!(masked(&variables, &[], "<abcdefghijklm>"), "<***>");
        assert_eq!(masked(&variables, &[], "<xyxyxyxy>"), "<***>", "with itself");
        assert_eq!(masked(&variables, &[], "<abcdefgh abcdefgh>"), "<*** ***>");
    }

    /// A word is what the app gets, blanks and all; only a shell makes several of it.
    #[test]
    fn a_secret_of_several_words() {
        let words = ["app", "--password=correct horse battery", "--token", "one two;three", "--verbose"];
        assert_eq!(masked(&[], &words, &words.join(" ")), "app --password=*** --token *** --verbose");
        assert_eq!(masked(&[], &["x", "--key=a\nbcdefg"], "cannot expand \"--key=a\\nbcdefg\""), "cannot expand \"--key=***\"");
    }

    #[test]
    fn credentials_in_urls() {
        for (text, expected) in [
            ("postgres://u:p@db/x and http://a@b:1/", "postgres://***@db/x and http://***@b:1/"),
            ("http://host/path@x", "http://host/path@x"),
            ("amqp://u:p@ss@host", "amqp://***@host"),
            ("http://host", "http://host"),
        ] {
            assert_eq!(masked(&[], &[], text), expected);
        }
    }

    #[test]
    fn one_that_is_part_of_another() {
        assert_eq!(masked(&[("A_KEY", "secret"), ("B_KEY", "secret-longer")], &[], "secret-longer secret"), "*** ***");
    }
}
