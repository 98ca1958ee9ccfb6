//! JSON, written by hand: strings escaped, nothing read.

use std::fmt::Write;

/// `text` as a JSON string, quotes included.
pub fn push_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' || c == '\u{7f}' => _ = write!(out, "\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Objects and arrays as they are opened and closed; a comma wherever one is due.
#[derive(Debug, Default)]
pub struct Json(String);

impl Json {
    pub fn object() -> Json {
        Json("{".to_owned())
    }

    pub fn end(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }

    fn key(&mut self, key: &str) {
        if !self.0.ends_with(['{', '[']) {
            self.0.push(',');
        }
        if !key.is_empty() {
            push_string(&mut self.0, key);
            self.0.push(':');
        }
    }

    /// An object or, by its brackets, an array; without a key in an array.
    pub fn nested(&mut self, key: &str, [open, close]: [char; 2], inside: impl FnOnce(&mut Json)) {
        self.key(key);
        self.0.push(open);
        inside(self);
        self.0.push(close);
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key);
        push_string(&mut self.0, value);
    }

    /// A number, true, false or null.
    pub fn plain(&mut self, key: &str, value: impl std::fmt::Display) {
        self.key(key);
        let _ = write!(self.0, "{value}");
    }

    /// null where there is none.
    pub fn optional(&mut self, key: &str, value: Option<impl std::fmt::Display>) {
        match value {
            Some(value) => self.plain(key, value),
            None => self.plain(key, "null"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_and_escapes() {
        let mut json = Json::object();
        json.string("a", "\"\\\n\t\u{1}ä");
        json.nested("b", ['[', ']'], |list| {
            list.nested("", ['{', '}'], |item| item.plain("n", 1.5));
            list.nested("", ['{', '}'], |_| {});
        });
        json.optional("c", None::<u8>);
        json.plain("d", true);
        assert_eq!(json.end(), "{\"a\":\"\\\"\\\\\\n\\t\\u0001ä\",\"b\":[{\"n\":1.5},{}],\"c\":null,\"d\":true}\n");
    }
}
