//! Prometheus' text, as `--in-flight` reads it: in whatever pieces it comes, the sum is the same.
#![no_main]

use lameduck::core::traffic::exposition::{Malformed, Selector, Sum};
use lameduck::core::traffic::question::Question;
use libfuzzer_sys::fuzz_target;

fn sum<'a>(selector: &Selector, pieces: impl Iterator<Item = &'a [u8]>) -> Result<f64, Malformed> {
    let mut sum = Sum::of(selector);
    for piece in pieces {
        sum.feed(piece)?;
    }
    sum.finish()
}

// The selector in the first line, the page behind it.
fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let (first, page) = (String::from_utf8_lossy(&bytes[..end]), bytes.get(end + 1..).unwrap_or_default());
    if let Ok(question) = Question::parse(&first) {
        assert!(question.url.addresses().is_some(), "{first}");
    }
    let Ok(selector) = Selector::parse(&first) else { return };
    let whole = sum(&selector, [page].into_iter());
    assert_eq!(whole, sum(&selector, page.chunks(1)));
    assert_eq!(whole, sum(&selector, page.chunks(usize::from(bytes[0]))));
    if let Ok(count) = whole {
        assert!(count.is_finite() && count >= 0.0);
        // What it asks for, said once more, is counted once more.
        let more = [page, b"\n", first.as_bytes(), b" 3\n"].concat();
        let with_more = sum(&selector, [&more[..]].into_iter());
        assert!(with_more == Ok(count + 3.0) || first.contains('{'), "{with_more:?} after {count}");
    }
    // A page that has only what it asks for.
    if !first.starts_with('{') && !first.ends_with([' ', '\t', '\r']) {
        assert_eq!(sum(&selector, [format!("{first} 3").as_bytes()].into_iter()), Ok(3.0), "{first:?}");
    }
});
