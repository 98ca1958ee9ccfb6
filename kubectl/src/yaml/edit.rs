//! Edits of a text: where what is put in place of what. Each insertion goes where it changes no meaning of what stands around it.

use super::print::{self, New};
use super::{Kind, Scalar, Value};

/// Bytes `start..end` of a text become `new`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Edit {
    pub start: usize,
    pub end: usize,
    pub new: String,
}

/// Why a place cannot be edited: one half of a line for a person.
pub type Refusal = String;

/// Applies edits that do not overlap. Those at one place keep their order, what is put in there before what is replaced.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let mut sorted: Vec<&Edit> = edits.iter().collect();
    sorted.sort_by_key(|edit| (edit.start, edit.end));
    let mut result = String::with_capacity(text.len() + sorted.iter().map(|edit| edit.new.len()).sum::<usize>());
    let mut from = 0;
    for edit in sorted {
        result.push_str(&text[from..edit.start]);
        result.push_str(&edit.new);
        from = edit.end;
    }
    result.push_str(&text[from..]);
    result
}

/// A text and how its lines end.
#[derive(Clone, Copy, Debug)]
pub struct Text<'a> {
    pub text: &'a str,
    pub newline: &'a str,
}

impl<'a> Text<'a> {
    pub fn new(text: &'a str) -> Text<'a> {
        Text { text, newline: if text.contains("\r\n") { "\r\n" } else { "\n" } }
    }

    /// Where the line of `from` ends. None: there is more on it than a comment.
    fn line_end(&self, from: usize) -> Option<usize> {
        let rest = &self.text[from..];
        let length = rest.find('\n').unwrap_or(rest.len());
        let length = if rest[..length].ends_with('\r') { length - 1 } else { length };
        let left = rest[..length].trim_start_matches([' ', '\t']);
        (left.is_empty() || left.starts_with('#')).then_some(from + length)
    }

    /// Puts `key: new` into a map that lacks it. `under` is the map's own key, where it has one.
    pub fn add_key(&self, map: Value<'_>, under: Option<Value<'_>>, key: &str, new: &New) -> Result<Edit, Refusal> {
        if map.shared {
            return Err(shared(map));
        }
        let Kind::Map(entries) = &map.node().kind else { return Err(format!("line {} is not a map", map.line())) };
        let insert = |at: usize, new: String| Ok(Edit { start: at, end: at, new });
        if map.node().flow {
            let comma = if entries.is_empty() { "" } else { ", " };
            return insert(map.start() + 1, format!("{}: {}{comma}", print::quoted(key), print::flow(new)));
        }
        let indent = map.node().column;
        let added = format!("{}{:indent$}{key}:{}", self.newline, "", print::behind_key(new, indent, self.newline));
        // Behind a value that ends with its line: no comment is torn from what it speaks of.
        for name in ["image", "name", "generateName", "kind", "apiVersion"] {
            if let Some((_, value)) = map.own(name)
                && let Some(end) = self.one_line(value)
            {
                return insert(end, added);
            }
        }
        if let Some(end) = self.above(map, under) {
            return insert(end, added);
        }
        insert(map.start(), format!("{key}:{}{}{:indent$}", print::behind_key(new, indent, self.newline), self.newline, ""))
    }

    /// The end of the line of a scalar that stands on one.
    fn one_line(&self, value: Value<'_>) -> Option<usize> {
        let node = value.node();
        let fits = matches!(node.kind, Kind::Scalar(Scalar::Plain | Scalar::Quoted, _)) && !value.shared && node.end > node.start;
        if !fits || self.text[node.start..node.end].contains('\n') {
            return None;
        }
        self.line_end(node.end)
    }

    /// The end of the line of a block collection's key, where it begins below.
    fn above(&self, collection: Value<'_>, under: Option<Value<'_>>) -> Option<usize> {
        let key = under?.node();
        let colon = key.end + self.text[key.end..collection.start()].find(':')? + 1;
        let rest = &self.text[colon..collection.start()];
        let end = colon + rest.find('\n')?;
        Some(if self.text[..end].ends_with('\r') { end - 1 } else { end })
    }

    /// Puts items before those of a list under `key`.
    pub fn add_items(&self, list: Value<'_>, key: Value<'_>, new: &[New]) -> Result<Edit, Refusal> {
        if list.shared {
            return Err(shared(list));
        }
        let Kind::Seq(items) = &list.node().kind else { return Err(format!("line {} is not a list", list.line())) };
        let insert = |at: usize, new: String| Ok(Edit { start: at, end: at, new });
        if list.node().flow {
            let words: Vec<String> = new.iter().map(print::flow).collect();
            let comma = if items.is_empty() { "" } else { ", " };
            return insert(list.start() + 1, format!("{}{comma}", words.join(", ")));
        }
        // A list below its key without indentation begins, for the parser, behind its first dash.
        let first = items.first().map_or(list.start(), |id| list.document.nodes[*id].start);
        let has_dash = self.text[list.start()..].starts_with('-') && first != list.start();
        let indent = if has_dash { list.node().column } else { key.node().column };
        let Some(end) = self.above(list, Some(key)) else {
            return Err(format!("line {} begins a list in a way that is not understood", list.line()));
        };
        let line = |new: &New| format!("{}{:indent$}- {}", self.newline, "", print::behind_dash(new, indent, self.newline));
        insert(end, new.iter().map(line).collect())
    }

    /// Puts something else in a value's place. What stands there must be a scalar or in flow style.
    pub fn replace(&self, value: Value<'_>, new: &New) -> Result<Edit, Refusal> {
        if value.shared {
            return Err(shared(value));
        }
        let node = value.node();
        let is_block = match &node.kind {
            Kind::Scalar(style, _) => *style == Scalar::Block,
            _ => !node.flow,
        };
        if is_block {
            return Err(format!("line {} is in block style", value.line()));
        }
        if node.start < node.end {
            return Ok(Edit { start: node.start, end: node.end, new: print::flow(new) });
        }
        // Nothing stands there, and it may be said to begin before the colon.
        let at = if self.text[node.start..].starts_with(':') { node.start + 1 } else { node.start };
        Ok(Edit { start: at, end: at, new: format!(" {}", print::flow(new)) })
    }

    /// Takes a key and its value out of a map that has others.
    pub fn remove(&self, map: Value<'_>, key: Value<'_>, value: Value<'_>) -> Result<Edit, Refusal> {
        let (start, end) = self.lines(map, key, value)?;
        Ok(Edit { start, end, new: String::new() })
    }

    /// Puts `name: new` in the place of a key and its value.
    pub fn put(&self, map: Value<'_>, key: Value<'_>, value: Value<'_>, name: &str, new: &New) -> Result<Edit, Refusal> {
        if map.node().flow || value.node().flow && !value.shared {
            return self.replace(value, new);
        }
        let (start, end) = self.lines(map, key, value)?;
        let indent = key.node().column;
        let new = print::behind_key(new, indent, self.newline);
        Ok(Edit { start, end, new: format!("{:indent$}{name}:{new}{}", "", self.newline) })
    }

    /// An entry of a map with what belongs to it alone: its lines, or a comma.
    fn lines(&self, map: Value<'_>, key: Value<'_>, value: Value<'_>) -> Result<(usize, usize), Refusal> {
        if map.shared || value.shared {
            return Err(shared(value));
        }
        let odd = || format!("line {} has it together with something else; leave it out by hand", key.line());
        let end = value.node().end.max(key.node().end);
        if map.node().flow {
            return self.flow_entry(key.start(), end).ok_or_else(odd);
        }
        let start = key.start() - key.node().column;
        if self.text.get(start..key.start()).is_none_or(|before| before.bytes().any(|byte| byte != b' ')) {
            // Behind a dash: the next key takes its place.
            let keys = map.keys().into_iter();
            let next = keys.filter(|other| other.start() > key.start()).map(|other| other.start()).min();
            return next.map(|next| (key.start(), next)).ok_or_else(odd);
        }
        let end = self.line_end(end).ok_or_else(odd)?;
        if self.text[end..].starts_with(self.newline) {
            return Ok((start, end + self.newline.len()));
        }
        // The last line, without an end of its own.
        let start = self.text[..start].strip_suffix(self.newline).map_or(start, str::len);
        Ok((start, end))
    }

    /// An entry in flow style with one comma.
    fn flow_entry(&self, start: usize, end: usize) -> Option<(usize, usize)> {
        let blank = [' ', '\t', '\r', '\n'];
        let behind = self.text[end..].trim_start_matches(blank);
        if let Some(rest) = behind.strip_prefix(',') {
            return Some((start, self.text.len() - rest.trim_start_matches(blank).len()));
        }
        let before = self.text[..start].trim_end_matches(blank);
        match before.strip_suffix(',') {
            Some(before) => Some((before.len(), end)),
            None => before.ends_with('{').then_some((start, end)),
        }
    }
}

fn shared(value: Value<'_>) -> Refusal {
    format!("line {} is an anchor or a merge key that is also used elsewhere; write it out", value.line())
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    fn added(text: &str) -> Result<String, Refusal> {
        let documents = parse(text).unwrap();
        let root = documents[0].root().unwrap();
        let Some((key, map)) = root.own("m") else { panic!("no m") };
        let edit = if map.is_list() {
            Text::new(text).add_items(map, key, &[New::Map(vec![("x", New::Number(1)), ("y", New::Flag(true))])])?
        } else {
            Text::new(text).add_key(map, Some(key), "new", &New::List(vec![print::text("v")]))?
        };
        let result = apply(text, &[edit]);
        // What is written can be read, and reads as meant.
        let documents = parse(&result).unwrap_or_else(|fault| panic!("{fault:?}: {result}"));
        let map = documents[0].root().unwrap().get("m").unwrap();
        let ok = if map.is_list() { map.items()[0].word("x") == Some("1") } else { map.words("new") == ["v"] };
        assert!(ok, "{result}");
        Ok(result)
    }

    #[test]
    fn places() {
        for (text, expected) in [
            ("m:\n  # of a\n  a: 1\n", "m:\n  new:\n    - v\n  # of a\n  a: 1\n"),
            ("m:\n  name: x # why\n  # of a\n  a: 1\n", "m:\n  name: x # why\n  new:\n    - v\n  # of a\n  a: 1\n"),
            ("m: # so\r\n    a: 1\r\n", "m: # so\r\n    new:\r\n      - v\r\n    a: 1\r\n"),
            ("m: {a: 1}\n", "m: {\"new\": [\"v\"], a: 1}\n"),
            ("m: {}\n", "m: {\"new\": [\"v\"]}\n"),
            ("m:\n- a\n- b", "m:\n- x: 1\n  y: true\n- a\n- b"),
            ("m: # so\n   - a\n", "m: # so\n   - x: 1\n     y: true\n   - a\n"),
            ("m:\n- - a\n", "m:\n- x: 1\n  y: true\n- - a\n"),
            ("m: [a]\n", "m: [{\"x\": 1, \"y\": true}, a]\n"),
            ("m: []\n", "m: [{\"x\": 1, \"y\": true}]\n"),
            ("m:\n\n# so\n  -\n    a: 1\n", "m:\n  - x: 1\n    y: true\n\n# so\n  -\n    a: 1\n"),
        ] {
            assert_eq!(added(text).as_deref(), Ok(expected));
        }
        assert!(added("m: &a {b: 1}\nc: *a\n").unwrap_err().contains("write it out"));
        assert!(added("c: &a {b: 1}\nm: *a\n").unwrap_err().contains("write it out"));
    }
}
