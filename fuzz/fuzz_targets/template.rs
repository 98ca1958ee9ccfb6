//! Templates, and the command's words with `--expand-args`.
#![no_main]

use std::borrow::Cow;

use lameduck::core::start::template;
use libfuzzer_sys::fuzz_target;

#[path = "../../tests/size/properties.rs"]
mod properties;

// `${A}`, `${EMPTY}` and `${DOLLARS}` are known.
fuzz_target!(|bytes: &[u8]| {
    properties::without_a_reference_a_text_stays_as_it_is(bytes);
    let text = String::from_utf8_lossy(bytes);
    properties::a_quoted_text_is_rendered_to_itself(&text);
    properties::what_is_rendered_is_done(&text);
    properties::a_fault_is_on_the_first_line_that_has_one(&text);
    // A fault's line is one of the template's, whatever its bytes.
    if let Err(fault) = properties::rendered(bytes) {
        assert!((1..=bytes.split(|byte| *byte == b'\n').count()).contains(&fault.line) && !fault.why.is_empty());
    }
    // Values are put in as they are.
    let value = template::render(b"[${V}]", |_| Some(Cow::from(bytes))).expect("no fault");
    assert_eq!(&value[1..value.len() - 1], bytes);
});
