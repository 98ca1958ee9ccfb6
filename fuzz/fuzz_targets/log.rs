//! The log: whatever a line says and in whatever format, it is one line that other readers read, and no secret is in it.
#![no_main]

use std::ffi::OsStr;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use lameduck::core::output::line::{Format, Line};
use lameduck::core::output::secrets::Secrets;
use libfuzzer_sys::fuzz_target;

/// In the middle of the secret, and nowhere else.
const MARK: &str = "9zZ";

/// Long enough to be masked wherever it stands.
fn secret(u: &mut Unstructured) -> Result<String> {
    let tail: String = u.arbitrary::<&str>()?.chars().take(12).filter(|c| *c != '\0').collect();
    Ok(format!("Xy{tail}{MARK}{tail}Q"))
}

/// Noise, and the secret as it may be shown.
fn text(u: &mut Unstructured, secret: &str) -> Result<String> {
    let mut text = String::new();
    for _ in 0..u.int_in_range(0..=6)? {
        match u.int_in_range(0..=7)? {
            0 => text.push_str(secret),
            1 => text.push_str(&format!("{secret:?}")),
            2 => text.push_str(&format!("{:?}", OsStr::new(secret))),
            3 => text.push_str(&format!("postgres://user:{secret}@db/x")),
            4 => text.push_str(&format!("{:?}", ["--password", secret])),
            5 => text.push_str(&" ".repeat(u.int_in_range(0..=3000)?)),
            _ => text.push_str(&u.arbitrary::<&str>()?.replace('Z', "z")),
        }
    }
    Ok(text)
}

/// Labels and values of a line, by its format's own rules; None: it has no other reader here.
fn fields(format: Format, line: &str) -> Option<Vec<(String, String)>> {
    match format {
        Format::Json => {
            let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).expect("JSON");
            let text = |value: serde_json::Value| value.as_str().map_or(value.to_string(), str::to_owned);
            Some(object.into_iter().map(|(name, value)| (name, text(value))).collect())
        }
        Format::Ltsv => {
            let fields = line.split('\t').map(|field| field.split_once(':').expect("label:value"));
            Some(fields.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
        }
        Format::Logfmt => {
            let (mut fields, mut rest) = (Vec::new(), line);
            while !rest.is_empty() {
                let (name, value) = rest.split_once('=').expect("name=value");
                let value = if value.starts_with('"') {
                    let mut read = serde_json::Deserializer::from_str(value).into_iter::<String>();
                    let text = read.next().expect("a string").expect("quoted as in JSON");
                    rest = &value[read.byte_offset()..];
                    text
                } else {
                    let end = value.find(' ').unwrap_or(value.len());
                    rest = &value[end..];
                    value[..end].to_owned()
                };
                fields.push((name.to_owned(), value));
                rest = match rest.strip_prefix(' ') {
                    Some(rest) => rest,
                    None => {
                        assert!(rest.is_empty(), "{line}");
                        rest
                    }
                };
            }
            Some(fields)
        }
        Format::Text => None,
    }
}

fn play(u: &mut Unstructured) -> Result<()> {
    let secret = secret(u)?;
    // It is known by a variable, as a word of the command, or by the word before it.
    let word = format!("--db-password={secret}");
    let none: &[&str] = &[];
    let (variables, words): (Vec<(&str, &str)>, &[&str]) = match u.int_in_range(0..=2)? {
        0 => (vec![("DB_PASSWORD", &secret), ("HOME", "/root")], none),
        1 => (vec![], &["app", &word]),
        _ => (vec![], &["app", "--token", &secret]),
    };
    let secrets = Secrets::new(variables.into_iter(), words.iter().copied());
    let message = text(u, &secret)?;
    let other = text(u, &secret)?;
    let masked = [&message, &other].map(|text| secrets.mask(text).into_owned());
    for text in &masked {
        assert!(!text.contains(MARK), "{secret:?} in {text:?}");
    }
    let time = Duration::from_millis(u.int_in_range(0..=10_000_000_000_000)?);
    let mut line = Line::new(time, "info");
    line.text("event", "warning".to_owned());
    line.text("message", masked[0].clone());
    line.plain("pid", 7);
    line.text("other", masked[1].clone());
    for format in [Format::Json, Format::Logfmt, Format::Ltsv, Format::Text] {
        let rendered = line.render(format);
        assert!(!rendered.contains(MARK), "{format:?}: {secret:?} in {rendered:?}");
        assert!(rendered.len() <= 4096, "{format:?}: {} bytes", rendered.len());
        let bare = rendered.strip_suffix('\n').expect("a line");
        assert!(!bare.contains('\n'), "{format:?}: {rendered:?}");
        let Some(fields) = fields(format, bare) else { continue };
        let said = masked.iter().filter(|text| !text.is_empty()).count();
        assert_eq!(fields.len(), 4 + said, "{format:?}: {rendered:?}");
        let field = |name: &str| fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(field("pid"), Some("7"));
        let short = message.len() + other.len() < 500;
        if short && !masked[0].is_empty() && format != Format::Ltsv {
            assert_eq!(field("message"), Some(masked[0].as_str()), "{format:?}");
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are over end the play.
    let _ = play(&mut Unstructured::new(bytes));
});
