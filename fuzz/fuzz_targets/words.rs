//! The words of `--with`, `--before` and `--on-stop`.
#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests/words/properties.rs"]
mod properties;

fuzz_target!(|text: &str| {
    properties::what_is_split_can_be_run(text);
    let words: Vec<String> = text.split('\n').map(str::to_owned).collect();
    properties::quoted_words_are_split_into_themselves(&words);
});
