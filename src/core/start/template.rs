//! `${NAME}` and `${NAME:-default}`, and nothing else: `$name` is the config's own, `$${` stands for `${`.

use std::borrow::Cow;

/// Why a template cannot be rendered, and on which line, counted from 1.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    pub line: usize,
    pub why: String,
}

/// Renders `text` with what `value` knows of a name. Bytes: a config need not be UTF-8.
pub fn render<'a>(text: &[u8], value: impl Fn(&str) -> Option<Cow<'a, [u8]>>) -> Result<Vec<u8>, Fault> {
    let mut rendered = Vec::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = find(rest, b"${") {
        let fault = |why: String| {
            let done = text.len() - rest.len() + at;
            Fault { line: text[..done].iter().filter(|byte| **byte == b'\n').count() + 1, why }
        };
        let (before, from) = rest.split_at(at);
        let inside = &from[2..];
        if before.ends_with(b"$") {
            // The first dollar says that the second is no beginning.
            rendered.extend_from_slice(&before[..before.len() - 1]);
            rendered.extend_from_slice(b"${");
            rest = inside;
            continue;
        }
        rendered.extend_from_slice(before);
        // A reference ends on its line: what is open there was not meant as one.
        let line_end = find(inside, b"\n").unwrap_or(inside.len());
        let end = find(&inside[..line_end], b"}").ok_or_else(|| fault("${ without }: write $${ for a literal ${".to_owned()))?;
        let (name, default) = match find(&inside[..end], b":-") {
            Some(at) => (&inside[..at], Some(&inside[at + 2..end])),
            None => (&inside[..end], None),
        };
        let name = str::from_utf8(name).ok().filter(|name| is_name(name)).ok_or_else(|| {
            let shown = String::from_utf8_lossy(&inside[..end]);
            fault(format!("${{{shown}}} is neither ${{NAME}} nor ${{NAME:-default}}: write $${{ for a literal ${{"))
        })?;
        match (value(name), default) {
            // As in a shell: empty counts as unset where there is a default.
            (Some(value), Some(default)) if value.is_empty() => rendered.extend_from_slice(default),
            (Some(value), _) => rendered.extend_from_slice(&value),
            (None, Some(default)) => rendered.extend_from_slice(default),
            (None, None) => {
                return Err(fault(format!(
                    "{name} is not set: set it, or write ${{{name}:-default}}, or $${{ for a literal ${{"
                )));
            }
        }
        rest = &inside[end + 1..];
    }
    rendered.extend_from_slice(rest);
    Ok(rendered)
}

/// Whether this can be the name of a variable.
pub fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> Result<String, Fault> {
        let value = |name: &str| match name {
            "WORKERS" => Some(Cow::from(&b"4"[..])),
            "EMPTY" => Some(Cow::from(&b""[..])),
            "TRICK" => Some(Cow::from(&b"${WORKERS}"[..])),
            _ => None,
        };
        render(text.as_bytes(), value).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn names_and_defaults_and_nothing_else() {
        for (text, result) in [
            ("", ""),
            ("worker_processes ${WORKERS};", "worker_processes 4;"),
            ("${WORKERS}${WORKERS}", "44"),
            ("a ${NONE:-7} b", "a 7 b"),
            ("${NONE:-}", ""),
            ("${NONE:-a:-b}", "a:-b"),
            ("${WORKERS:-7}", "4"),
            ("${EMPTY:-7}|${EMPTY}|", "7||"),
            ("$host $1 $$ $", "$host $1 $$ $"),
            ("$${WORKERS} $${", "${WORKERS} ${"),
            ("$$${WORKERS}", "$${WORKERS}"),
            ("${TRICK}", "${WORKERS}"),
            ("}{", "}{"),
        ] {
            assert_eq!(rendered(text).as_deref(), Ok(result), "{text}");
        }
    }

    #[test]
    fn a_fault_has_its_line() {
        for (text, line, part) in [
            ("a\nb ${NONE}\n", 2, "NONE is not set"),
            ("${", 1, "${ without }"),
            ("\n\n${WORKERS\n}", 3, "${ without }"),
            ("${}", 1, "neither"),
            ("${1}", 1, "neither"),
            ("${A-B}", 1, "neither"),
            ("${A B:-x}", 1, "neither"),
            ("${WORKERS} ${WORKERS:+x}", 1, "neither"),
        ] {
            let fault = rendered(text).unwrap_err();
            assert!(fault.line == line && fault.why.contains(part), "{text}: {fault:?}");
        }
    }
}
