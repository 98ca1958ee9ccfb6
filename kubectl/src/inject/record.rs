//! What inject keeps so that uninject gives the very bytes back: an annotation with the version and, of each edit, its place, its length, a
//! check sum of what was put in, and what stood there before.

use std::fmt::Write;

use crate::yaml::edit::{Edit, Refusal, Text, apply};
use crate::yaml::print::{New, text};
use crate::yaml::{self, Value};

pub const ANNOTATION: &str = "lameduck/injected";
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// One edit, as it is found again. Places count from the object's first byte, in the text without the annotation.
#[derive(Debug, Eq, PartialEq)]
struct Done {
    at: usize,
    length: usize,
    sum: u32,
    old: String,
}

/// The edits and, with them, the one of the annotation. None: nothing to do.
pub fn recorded(place: Text<'_>, object: Value<'_>, how: &str, mut edits: Vec<Edit>) -> Result<Vec<Edit>, Refusal> {
    edits.sort_by_key(|edit| (edit.start, edit.end));
    let mut shift = 0i64;
    let mut value = format!("{VERSION} {how}");
    for edit in &edits {
        let at = (edit.start - object.start()) as i64 + shift;
        let _ = write!(value, " {at}+{}:{:08x}", edit.new.len(), sum(&edit.new));
        let old = &place.text[edit.start..edit.end];
        if !old.is_empty() {
            let _ = write!(value, "={}", escaped(old));
        }
        shift += edit.new.len() as i64 - old.len() as i64;
    }
    edits.push(annotation(place, object, &value)?);
    Ok(edits)
}

/// The edit that writes the annotation. Its value ends with what stands around it in the edit: how many bytes before, how many behind, and
/// what it replaced.
fn annotation(place: Text<'_>, object: Value<'_>, value: &str) -> Result<Edit, Refusal> {
    let map = |entries| New::Map(entries);
    let written = |value: &str| -> Result<Edit, Refusal> {
        let new = text(value);
        match object.own("metadata") {
            None => place.add_key(object, None, "metadata", &map(vec![("annotations", map(vec![(ANNOTATION, new)]))])),
            Some((_, metadata)) if metadata.is_null() => {
                place.replace(metadata, &map(vec![("annotations", map(vec![(ANNOTATION, new)]))]))
            }
            Some((key, metadata)) => match metadata.own("annotations") {
                None => place.add_key(metadata, Some(key), "annotations", &map(vec![(ANNOTATION, new)])),
                Some((_, annotations)) if annotations.is_null() => place.replace(annotations, &map(vec![(ANNOTATION, new)])),
                Some((key, annotations)) => place.add_key(annotations, Some(key), ANNOTATION, &new),
            },
        }
    };
    // How it looks around the value does not depend on the value.
    let plain = written("\"")?;
    let quoted = yaml::print::quoted("\"");
    let at = plain.new.find(&quoted).ok_or("the annotation has no place")?;
    let behind = plain.new.len() - at - quoted.len();
    let old = &place.text[plain.start..plain.end];
    written(&format!("{value} around={at},{behind}{}", if old.is_empty() { String::new() } else { format!("={}", escaped(old)) }))
}

/// The text without what inject put into `object`.
pub fn undone(whole: &str, object: Value<'_>, annotation: Value<'_>) -> Result<String, String> {
    const REWRITTEN: &str = "the text was changed where inject had edited it; take the manifest from before, or undo that change";
    let value = annotation.text().unwrap_or_default();
    let (version, rest) = value.split_once(' ').ok_or("its annotation cannot be read; take the manifest from before")?;
    if newer(version) {
        return Err(format!("a newer version injected it ({version}, this is {VERSION}); use that one"));
    }
    let (done, around) = parse(rest).ok_or("its annotation cannot be read; take the manifest from before")?;
    let (before, behind, old) = around;
    let quoted = yaml::print::quoted(value);
    let start = annotation.start();
    if !whole[start..].starts_with(&quoted) {
        return Err(REWRITTEN.to_owned());
    }
    let from = start.checked_sub(before).filter(|from| whole.is_char_boundary(*from)).ok_or(REWRITTEN)?;
    let to = start + quoted.len() + behind;
    // What stands around must be what was written: the key at least.
    if !whole[from..start].contains(ANNOTATION) || !whole.is_char_boundary(to) {
        return Err(REWRITTEN.to_owned());
    }
    let bare = apply(whole, &[Edit { start: from, end: to, new: old }]);
    let mut edits = Vec::new();
    let mut shift = 0i64;
    let mut least = object.start();
    for edit in done {
        let expected = object.start() as i64 + edit.at as i64 + shift;
        let found = nearest(&bare, usize::try_from(expected).unwrap_or(0), least, &edit).ok_or(REWRITTEN)?;
        shift += found as i64 - expected;
        least = found + edit.length;
        edits.push(Edit { start: found, end: found + edit.length, new: edit.old });
    }
    Ok(apply(&bare, &edits))
}

/// Where what was put in stands now, nearest to where it stood.
fn nearest(text: &str, expected: usize, least: usize, edit: &Done) -> Option<usize> {
    let fits = |at: &usize| *at >= least && text.get(*at..*at + edit.length).is_some_and(|part| sum(part) == edit.sum);
    let around = (0..=text.len()).flat_map(|distance| [expected.checked_sub(distance), expected.checked_add(distance)]);
    around.flatten().find(fits)
}

fn parse(rest: &str) -> Option<(Vec<Done>, (usize, usize, String))> {
    let mut done = Vec::new();
    let mut around = None;
    for word in rest.split(' ').skip(1) {
        let (what, old) = match word.strip_prefix("around=") {
            Some(rest) => {
                let (frame, old) = rest.split_once('=').unwrap_or((rest, ""));
                let (before, behind) = frame.split_once(',')?;
                around = Some((number(before)?, number(behind)?, unescaped(old)?));
                continue;
            }
            None => word.split_once('=').unwrap_or((word, "")),
        };
        let (at, rest) = what.split_once('+')?;
        let (length, sum) = rest.split_once(':')?;
        done.push(Done {
            at: number(at)?,
            length: number(length)?,
            sum: u32::from_str_radix(sum, 16).ok()?,
            old: unescaped(old)?,
        });
    }
    Some((done, around?))
}

/// No text is longer than this can say, and sums of it stay numbers.
fn number(text: &str) -> Option<usize> {
    usize::try_from(text.parse::<u32>().ok()?).ok()
}

fn newer(version: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> { text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect() };
    numbers(version) > numbers(VERSION)
}

/// FNV-1a: it finds what was changed by hand, not by an enemy.
fn sum(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// One word without quotes, blanks and backslashes.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut all, byte| {
        if byte.is_ascii_alphanumeric() || b"._/:,-".contains(&byte) {
            all.push(byte as char);
        } else {
            let _ = write!(all, "%{byte:02x}");
        }
        all
    })
}

fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for text in ["", "a b", "é\r\n  - \"x\": 'y' # %20", "100%"] {
            assert_eq!(unescaped(&escaped(text)).as_deref(), Some(text));
            assert!(!escaped(text).contains([' ', '"', '\\', '=']));
        }
        assert_eq!((unescaped("%"), unescaped("%zz"), unescaped("%ff")), (None, None, None));
        assert!(newer("99.0.0") && !newer(VERSION) && !newer("0.0.1") && newer("0.1.0.1"));
    }
}
