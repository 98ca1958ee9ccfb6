//! docs/rehearse.md agrees with `--help` and with a report.

use std::collections::BTreeSet;

use super::*;

/// Of cargo, gunicorn and lameduck.
const OTHERS: [&str; 10] =
    ["--admin", "--bind", "--delay", "--git", "--help", "--keep-alive", "--locked", "--path", "--release", "--target"];

fn text() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/rehearse.md")).expect("docs/rehearse.md")
}

fn options(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 3 && word.as_bytes()[2].is_ascii_lowercase()).collect()
}

#[test]
fn every_option_that_is_written_of_exists() {
    let output = rehearsal(&["--help"]).output().expect("it runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let known: BTreeSet<&str> = options(&help).into_iter().chain(OTHERS).collect();
    assert!(known.len() > 25, "{known:?}");
    let text = text();
    let unknown: Vec<_> = options(&text).difference(&known).copied().collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}

fn names<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(name, value)| {
            found.insert(name);
            names(value, found);
        }),
        Value::Array(values) => values.iter().for_each(|value| names(value, found)),
        _ => {}
    }
}

/// Every field of the JSON is written of.
#[track_caller]
pub fn documents_every_field_of(report: &Value) {
    let text = text();
    for part in ["verdict", "contenders"] {
        let mut found = BTreeSet::new();
        names(&report[part], &mut found);
        // What an event or a phase is made of speaks for itself.
        for name in ["what", "detail", "at_ms", "name", "from_ms", "to_ms"] {
            found.remove(name);
        }
        assert!(found.len() >= 4, "{report:#?}");
        let missing: Vec<_> = found.iter().filter(|name| !text.contains(**name)).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }
}

#[test]
fn every_field_of_the_report_is_documented() {
    let rehearsed = rehearse(&["--against", "none", "--load-for", "300ms", "--propagate", "300ms"]);
    documents_every_field_of(&rehearsed.report);
}
