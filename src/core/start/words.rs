//! The words of `--with`, `--before` and `--on-stop`: a command in one text, split as a shell splits it.
//!
//! Quotes and backslashes mean what they mean to POSIX sh. Nothing is expanded: `$HOME`, `~`, `*` and `{a,b}` stay as they were typed. What
//! only a shell can do is refused with a hint, because it would otherwise be handed to the program as an argument.
//!
//! The crates for this (shell-words, shlex) drop all that follows a `#`, and do not say which characters were quoted: `nginx -g daemon off;`
//! and `nginx -g 'daemon off;'` could not be distinguished.

const EMPTY: &str = "no program is named; write the program and its arguments";
const UNCLOSED: &str = "a quote is not closed; close it, or write a backslash before it";
const BACKSLASH: &str = "it ends with a backslash; take the backslash away, or put it in quotes";
const NUL: &str = "a NUL byte is in it, which no argument can hold; take it away";
const COMMENT: &str = "a word begins with #, which begins a comment in a shell; put the word in quotes, or use sh -c '…'";
const OPERATOR: &str =
    "a word begins or ends with one of & | ; < > ( ) `, which only a shell understands; put it in quotes, or use sh -c '…'";
const ASSIGNMENT: &str = "the first word has a =, and is no program; write env before it, or use sh -c '…'";
const DASH: &str = "the program's name begins with -; an expendable companion has one - right before its name, as in '-crond -f'";

/// Between two words.
const BLANKS: [char; 3] = [' ', '\t', '\n'];

const OPERATORS: [char; 8] = ['&', '|', ';', '<', '>', '(', ')', '`'];

/// What a quoted character is replaced by in `Word::bare`: one that means nothing to a shell.
const QUOTED: char = 'x';

/// Whether the companion of `--with` is expendable, which a `-` right before its name says, and the text without that mark. A `-` with
/// a space behind it is no mark, and `split` refuses it: systemd does so too, and a line copied from a YAML list looks the same.
pub fn expendable(text: &str) -> (bool, &str) {
    let text = text.trim_start_matches(BLANKS);
    match text.strip_prefix('-') {
        Some(rest) if !rest.is_empty() && !rest.starts_with(BLANKS) => (true, rest),
        _ => (false, text),
    }
}

/// The words of a command: at least one, the first of which is the program. The error is the cause, and what to do.
pub fn split(text: &str) -> Result<Vec<String>, &'static str> {
    if text.contains('\0') {
        return Err(NUL);
    }
    let words = scan(text)?;
    if words.iter().any(|word| word.bare.starts_with('#')) {
        return Err(COMMENT);
    }
    if words.iter().any(Word::has_operator) {
        return Err(OPERATOR);
    }
    let program = words.first().filter(|word| !word.text.is_empty()).ok_or(EMPTY)?;
    if program.bare.contains('=') {
        return Err(ASSIGNMENT);
    }
    if program.text.starts_with('-') {
        return Err(DASH);
    }
    Ok(words.into_iter().map(|word| word.text).collect())
}

#[derive(Default)]
struct Word {
    text: String,
    /// The same, with `QUOTED` for each character that was quoted.
    bare: String,
}

impl Word {
    fn push(&mut self, character: char) {
        self.text.push(character);
        self.bare.push(character);
    }

    fn push_quoted(&mut self, character: char) {
        self.text.push(character);
        self.bare.push(QUOTED);
    }

    /// `&&`, `2>&1`, `off;`, `$(nproc)`, but not the address `http://host/?a=1&b=2`.
    fn has_operator(&self) -> bool {
        let redirection = self.bare.trim_start_matches(|c: char| c.is_ascii_digit()).starts_with(['<', '>']);
        redirection || self.bare.starts_with(OPERATORS) || self.bare.ends_with(OPERATORS)
    }
}

fn scan(text: &str) -> Result<Vec<Word>, &'static str> {
    let mut words = Vec::new();
    // None between two words: an empty one is a word too, if it was quoted.
    let mut word: Option<Word> = None;
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            blank if BLANKS.contains(&blank) => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(UNCLOSED)? {
                        '\'' => break,
                        inside => word.push_quoted(inside),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match rest.next().ok_or(UNCLOSED)? {
                        '"' => break,
                        '\\' => match rest.next().ok_or(UNCLOSED)? {
                            '\n' => {}
                            escaped @ ('$' | '`' | '"' | '\\') => word.push_quoted(escaped),
                            other => {
                                word.push_quoted('\\');
                                word.push_quoted(other);
                            }
                        },
                        inside => word.push_quoted(inside),
                    }
                }
            }
            '\\' => match rest.next().ok_or(BACKSLASH)? {
                // The line goes on.
                '\n' => {}
                escaped => word.get_or_insert_default().push_quoted(escaped),
            },
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_splits_them() {
        let cases: &[(&str, &[&str])] = &[
            ("php-fpm -F", &["php-fpm", "-F"]),
            ("  a \t b\n", &["a", "b"]),
            ("a\nb", &["a", "b"]),
            ("nginx -g 'daemon off;'", &["nginx", "-g", "daemon off;"]),
            ("nginx -g \"daemon off;\"", &["nginx", "-g", "daemon off;"]),
            ("sh -c 'a && b | c > d 2>&1 # e'", &["sh", "-c", "a && b | c > d 2>&1 # e"]),
            ("sh -c \"a && b\"", &["sh", "-c", "a && b"]),
            ("a ''", &["a", ""]),
            ("a \"\"b", &["a", "b"]),
            ("a'b'\"c\"d", &["abcd"]),
            ("a 'it'\\''s'", &["a", "it's"]),
            ("a b\\ c", &["a", "b c"]),
            ("a \\\nb", &["a", "b"]),
            ("a b\\\nc", &["a", "bc"]),
            ("a \\\n b", &["a", "b"]),
            ("a \"b\\\nc\"", &["a", "bc"]),
            (r#"a "\$\`\"\\\n\'""#, &["a", r#"$`"\\n\'"#]),
            (r"a '\n'", &["a", r"\n"]),
            (r"a \n\\", &["a", r"n\"]),
            (r"a \&\& b", &["a", "&&", "b"]),
            ("a '&&' \\; \">\" \\# '2'>1", &["a", "&&", ";", ">", "#", "2>1"]),
            ("a $HOME ~ * {b,c} $x? !", &["a", "$HOME", "~", "*", "{b,c}", "$x?", "!"]),
            ("curl http://host/?a=1&b=2#c", &["curl", "http://host/?a=1&b=2#c"]),
            ("a b=c --d=e", &["a", "b=c", "--d=e"]),
            ("'a=b' c", &["a=b", "c"]),
            ("a\r b\u{a0}c é", &["a\r", "b\u{a0}c", "é"]),
        ];
        for (text, words) in cases {
            assert_eq!(
                split(text).as_deref(),
                Ok(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>()[..]),
                "{text:?}"
            );
        }
    }

    #[test]
    fn what_only_a_shell_can_do_is_refused() {
        for (text, problem) in [
            ("", EMPTY),
            (" \t\n", EMPTY),
            ("''", EMPTY),
            ("'' a", EMPTY),
            ("\\\n", EMPTY),
            ("a 'b", UNCLOSED),
            ("a \"b", UNCLOSED),
            ("a \"b\\\"", UNCLOSED),
            ("a \"b\\", UNCLOSED),
            ("a \\", BACKSLASH),
            ("a \0", NUL),
            ("a '\0'", NUL),
            ("a # b", COMMENT),
            ("#a", COMMENT),
            ("a && b", OPERATOR),
            ("a || b", OPERATOR),
            ("a | b", OPERATOR),
            ("a |b", OPERATOR),
            ("a ; b", OPERATOR),
            ("a; b", OPERATOR),
            ("nginx -g daemon off;", OPERATOR),
            ("a &", OPERATOR),
            ("a&", OPERATOR),
            ("a > b", OPERATOR),
            ("a >> b", OPERATOR),
            ("a >b", OPERATOR),
            ("a 2>&1", OPERATOR),
            ("a 2>/dev/null", OPERATOR),
            ("a &>b", OPERATOR),
            ("a < b", OPERATOR),
            ("(a)", OPERATOR),
            ("a -j$(nproc)", OPERATOR),
            ("a `b`", OPERATOR),
            ("FOO=1 a", ASSIGNMENT),
            ("FOO='1 2' a", ASSIGNMENT),
            ("-a", DASH),
            ("- a", DASH),
            ("'-a'", DASH),
            ("--with a", DASH),
        ] {
            assert_eq!(split(text), Err(problem), "{text:?}");
        }
    }

    #[test]
    fn the_mark_stands_right_before_the_name() {
        for (text, marked, rest) in [
            ("crond -f", false, "crond -f"),
            ("-crond -f", true, "crond -f"),
            (" \n-crond", true, "crond"),
            ("-'my cron'", true, "'my cron'"),
            ("\r-crond", false, "\r-crond"),
            ("\u{a0}-crond", false, "\u{a0}-crond"),
            ("- crond", false, "- crond"),
            ("-", false, "-"),
            ("-\n", false, "-\n"),
            ("--crond", true, "-crond"),
            ("", false, ""),
        ] {
            assert_eq!(expendable(text), (marked, rest), "{text:?}");
        }
        // Neither a lone mark nor two of them get past both.
        for text in ["- crond", "-", "--crond"] {
            assert_eq!(split(expendable(text).1), Err(DASH), "{text:?}");
        }
    }
}
