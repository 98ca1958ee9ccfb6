//! What must hold of the words of a command whatever the text: for the random ones of tests/words.rs and for the fuzzer's.
#![allow(dead_code)] // the fuzzer has its own part

use lameduck::core::start::words;

/// Each word in single quotes, as a shell wants them.
pub fn quoted(words: &[String]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("'{}'", word.replace('\'', "'\\''"))).collect();
    quoted.join(" ")
}

/// Whether these can be the words of a command at all.
pub fn can_run(words: &[String]) -> bool {
    let named = words.first().is_some_and(|program| !program.is_empty() && !program.starts_with('-'));
    named && words.iter().all(|word| !word.contains('\0'))
}

pub fn quoted_words_are_split_into_themselves(words: &[String]) {
    let split = words::split(&quoted(words));
    if can_run(words) {
        assert_eq!(split.as_deref(), Ok(words));
    } else {
        assert!(split.is_err(), "{words:?}");
    }
}

/// What is accepted can be run, and no character comes from anywhere but the text.
pub fn what_is_split_can_be_run(text: &str) {
    let (expendable, rest) = words::expendable(text);
    assert!(rest.len() <= text.len() && (!expendable || !rest.starts_with([' ', '\t', '\n'])), "{text:?}");
    match words::split(text) {
        Ok(words) => {
            assert!(can_run(&words), "{text:?} is {words:?}");
            assert!(words.iter().map(String::len).sum::<usize>() <= text.len(), "{text:?} is {words:?}");
            quoted_words_are_split_into_themselves(&words);
            // The mark is not needed here, and no text means two things.
            assert!(!expendable, "{text:?}");
        }
        Err(why) => assert!(why.contains("; ") && !why.contains('\n'), "{why}"),
    }
}
