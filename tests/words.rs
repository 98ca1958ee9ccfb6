//! Words of commands under random input: quoted ones come back, and a real shell splits each text in the same way.

use std::process::{Command, Stdio};

use lameduck::core::start::words;
use proptest::prelude::*;

#[path = "words/properties.rs"]
mod properties;

fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn quoted_words_are_split_into_themselves(words in prop::collection::vec("[-#&|;<>()`=a'\"\\\\ \\t\\n\\r$~*é\u{a0}\\x00]{0,6}", 0..5)) {
        properties::quoted_words_are_split_into_themselves(&words);
    }

    #[test]
    fn what_is_split_can_be_run(text in "([-#&;>=ab'\"\\\\ \\n\\r2]|\\PC){0,20}") {
        properties::what_is_split_can_be_run(&text);
    }
}

/// The words that sh splits the text into; None where it cannot read it. The text must have nothing that sh expands or runs.
fn by_shell(text: &str) -> Option<Vec<String>> {
    let shell = Command::new("sh").args(["-c", &format!("printf '[%s]\\0' {text}")]).stderr(Stdio::null()).output().expect("sh");
    let out = String::from_utf8(shell.stdout).expect("UTF-8");
    let words = out.split_terminator('\0').map(|word| word.strip_prefix('[').and_then(|word| word.strip_suffix(']')));
    shell.status.success().then(|| words.map(|word| word.expect("a word in brackets").to_owned()).collect())
}

/// Each backslash comes with what it stands before: a newline without one ends a shell's command.
const PIECES: &[&str] =
    &["a", "b", "é", " ", "  ", "\t", "'", "\"", "=", "\\a", "\\ ", "\\'", "\\\"", "\\\\", "\\\n", "\\$", "\\#"];

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn a_shell_splits_them_in_the_same_way(
        pieces in prop::collection::vec(prop::sample::select(PIECES), 1..12),
        last in prop::sample::select(vec!["", "", "", "\\"]),
    ) {
        // A first word is always there.
        let text = format!("program{}{last}", pieces.concat());
        match (words::split(&text), by_shell(&text)) {
            (Ok(words), Some(shell)) => prop_assert_eq!(words, shell, "{:?}", text),
            (Err(why), None) => prop_assert!(why.starts_with("a quote is not closed"), "{:?}: {}", text, why),
            // What only lameduck refuses: a shell takes the backslash as it is.
            (Err(why), Some(_)) if why.starts_with("it ends with a backslash") => prop_assert!(text.ends_with('\\')),
            (Err(why), Some(shell)) => prop_assert!(why.starts_with("the first word has a =") && shell[0].contains('='), "{:?}: {}", text, why),
            (Ok(words), None) => prop_assert!(false, "{:?} is {:?}, and an error to sh", text, words),
        }
    }
}
