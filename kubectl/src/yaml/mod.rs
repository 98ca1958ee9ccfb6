//! YAML as text that stays where it is: documents with the place of each node, edits of the text, new text in the style around it.

pub mod edit;
pub mod print;

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};

/// Why a text cannot be read, and where.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fault {
    pub line: usize,
    pub why: String,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Scalar {
    /// Without quotes: may be null, a boolean or a number.
    Plain,
    Quoted,
    /// `|` or `>`: its end is not the end of a line of ours.
    Block,
}

#[derive(Clone, Debug)]
enum Kind {
    Scalar(Scalar, String),
    Map(Vec<(usize, usize)>),
    Seq(Vec<usize>),
    /// The anchor's number.
    Alias(usize),
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// In flow style: `{}`, `[]`. Scalars in such count too.
    flow: bool,
    /// Bytes of the whole text. A block collection begins with its first key or item.
    start: usize,
    end: usize,
    line: usize,
    /// Characters before it on its line.
    column: usize,
    /// 0: none.
    anchor: usize,
}

/// One document of a text.
#[derive(Clone, Debug, Default)]
pub struct Document {
    nodes: Vec<Node>,
    anchors: HashMap<usize, usize>,
    /// Anchors that an alias refers to.
    aliased: HashSet<usize>,
    root: Option<usize>,
}

/// A node of a document, aliases followed.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    document: &'a Document,
    id: usize,
    /// An alias or a merge key lay on the way: its text is also somebody else's.
    pub shared: bool,
}

/// Reads all documents of a text. Duplicate keys are refused, as kubectl does.
pub fn parse(text: &str) -> Result<Vec<Document>, Fault> {
    let mut documents = Vec::new();
    let mut document = Document::default();
    // Open collections, and for maps the key that waits for its value.
    let mut open: Vec<(usize, Option<usize>)> = Vec::new();
    for next in Parser::new_from_str(text) {
        let (event, span) =
            next.map_err(|error| Fault { line: error.marker().line(), why: explained(text, &error.to_string()) })?;
        let (start, end) = (span.start.byte_offset().unwrap_or(0), span.end.byte_offset().unwrap_or(0));
        let (line, column) = (span.start.line(), span.start.col());
        let node = |kind, flow, anchor| Node { kind, flow, start, end, line, column, anchor };
        let node = match event {
            Event::DocumentStart(..) => {
                document = Document::default();
                continue;
            }
            Event::DocumentEnd => {
                documents.push(std::mem::take(&mut document));
                continue;
            }
            Event::Scalar(value, style, anchor, _) => {
                let style = match style {
                    ScalarStyle::Plain => Scalar::Plain,
                    ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => Scalar::Quoted,
                    _ => Scalar::Block,
                };
                // What is left out reads as `~`.
                let value = if start == end && style == Scalar::Plain { String::new() } else { value.into_owned() };
                node(Kind::Scalar(style, value), false, anchor)
            }
            Event::SequenceStart(style, anchor, _) => node(Kind::Seq(Vec::new()), style == StructureStyle::Flow, anchor),
            Event::MappingStart(style, anchor, _) => node(Kind::Map(Vec::new()), style == StructureStyle::Flow, anchor),
            Event::Alias(anchor) => {
                document.aliased.insert(anchor);
                node(Kind::Alias(anchor), false, 0)
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some((id, _)) = open.pop() {
                    let flow = document.nodes[id].flow;
                    document.nodes[id].end = if flow { end } else { document.last_end(id) };
                }
                continue;
            }
            _ => continue,
        };
        let id = document.nodes.len();
        let is_open = matches!(node.kind, Kind::Map(_) | Kind::Seq(_));
        if node.anchor > 0 {
            document.anchors.insert(node.anchor, id);
        }
        document.nodes.push(node);
        document.attach(id, &mut open).map_err(|fault| Fault { why: explained(text, &fault.why), ..fault })?;
        if is_open {
            open.push((id, None));
        }
    }
    Ok(documents)
}

/// What a template's author has to hear first.
fn explained(text: &str, error: &str) -> String {
    let error = error.split(" at char").next().unwrap_or(error);
    let error = error.split(" at byte").next().unwrap_or(error).replace('\n', " ");
    if text.contains("{{") { format!("{error}; it looks like a template: render it first (helm template)") } else { error }
}

impl Document {
    fn attach(&mut self, id: usize, open: &mut [(usize, Option<usize>)]) -> Result<(), Fault> {
        let Some((parent, waiting)) = open.last_mut() else {
            self.root = Some(id);
            return Ok(());
        };
        let is_flow = self.nodes[*parent].flow;
        if !matches!(self.nodes[id].kind, Kind::Map(_) | Kind::Seq(_)) {
            self.nodes[id].flow = is_flow;
        }
        match (waiting.take(), &self.nodes[*parent].kind) {
            (None, Kind::Map(entries)) => {
                let fault = |why| Fault { line: self.nodes[id].line, why };
                let Kind::Scalar(_, name) = &self.nodes[id].kind else { return Err(fault("a key is no text".to_owned())) };
                if entries.iter().any(|(key, _)| matches!(&self.nodes[*key].kind, Kind::Scalar(_, other) if other == name)) {
                    return Err(fault(format!("the key {name:?} stands there twice")));
                }
                *waiting = Some(id);
            }
            (key, _) => match (&mut self.nodes[*parent].kind, key) {
                (Kind::Map(entries), Some(key)) => entries.push((key, id)),
                (Kind::Seq(items), _) => items.push(id),
                _ => {}
            },
        }
        Ok(())
    }

    /// Where the last node of a block collection ends.
    fn last_end(&self, id: usize) -> usize {
        let last = match &self.nodes[id].kind {
            Kind::Map(entries) => entries.last().map(|(_, value)| *value),
            Kind::Seq(items) => items.last().copied(),
            _ => None,
        };
        last.map_or(self.nodes[id].start, |last| self.nodes[last].end)
    }

    /// None: the document is empty.
    pub fn root(&self) -> Option<Value<'_>> {
        self.root.map(|id| Value { document: self, id, shared: false })
    }
}

impl<'a> Value<'a> {
    fn node(&self) -> &'a Node {
        &self.document.nodes[self.id]
    }

    fn follow(mut self) -> Value<'a> {
        while let Kind::Alias(anchor) = self.node().kind {
            let Some(id) = self.document.anchors.get(&anchor) else { break };
            self = Value { id: *id, shared: true, ..self };
        }
        self
    }

    fn child(&self, id: usize) -> Value<'a> {
        let anchor = self.document.nodes[id].anchor;
        let shared = self.shared || anchor > 0 && self.document.aliased.contains(&anchor);
        Value { document: self.document, id, shared }.follow()
    }

    /// The value of a key; merge keys (`<<`) are looked through.
    pub fn get(&self, key: &str) -> Option<Value<'a>> {
        self.find(key, &mut Vec::new())
    }

    /// Each map is looked into once: they may be merged again and again.
    fn find(&self, key: &str, seen: &mut Vec<usize>) -> Option<Value<'a>> {
        if let Some((_, value)) = self.own(key) {
            return Some(value);
        }
        if seen.contains(&self.id) {
            return None;
        }
        seen.push(self.id);
        let (_, merged) = self.own("<<")?;
        let maps = if merged.is_list() { merged.items() } else { vec![merged] };
        let found = maps.into_iter().find_map(|map| map.find(key, seen))?;
        Some(Value { shared: true, ..found })
    }

    /// The key and its value, if they stand in this very map.
    pub fn own(&self, key: &str) -> Option<(Value<'a>, Value<'a>)> {
        let Kind::Map(entries) = &self.node().kind else { return None };
        let document = self.document;
        let is_it = |id: usize| matches!(&document.nodes[id].kind, Kind::Scalar(_, name) if name == key);
        let (key, value) = entries.iter().find(|(key, _)| is_it(*key))?;
        Some((Value { document, id: *key, shared: self.shared }, self.child(*value)))
    }

    /// The keys that stand in this very map.
    fn keys(&self) -> Vec<Value<'a>> {
        let Kind::Map(entries) = &self.node().kind else { return Vec::new() };
        entries.iter().map(|(key, _)| Value { id: *key, ..*self }).collect()
    }

    pub fn at(&self, path: &[&str]) -> Option<Value<'a>> {
        path.iter().try_fold(*self, |value, key| value.get(key))
    }

    /// The items of a sequence; of anything else none.
    pub fn items(&self) -> Vec<Value<'a>> {
        match &self.node().kind {
            Kind::Seq(items) => items.iter().map(|id| self.child(*id)).collect(),
            _ => Vec::new(),
        }
    }

    /// The items under a key.
    pub fn list(&self, key: &str) -> Vec<Value<'a>> {
        self.get(key).map(|list| list.items()).unwrap_or_default()
    }

    /// Keys and values of a map as they stand there; of anything else none.
    pub fn entries(&self) -> Vec<(&'a str, Value<'a>)> {
        let Kind::Map(entries) = &self.node().kind else { return Vec::new() };
        let name = |id: usize| match &self.document.nodes[id].kind {
            Kind::Scalar(_, name) => name.as_str(),
            _ => "",
        };
        entries.iter().map(|(key, value)| (name(*key), self.child(*value))).collect()
    }

    pub fn is_map(&self) -> bool {
        matches!(self.node().kind, Kind::Map(_))
    }

    pub fn is_list(&self) -> bool {
        matches!(self.node().kind, Kind::Seq(_))
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.node().kind, Kind::Scalar(Scalar::Plain, text) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// A scalar's text, whatever its type.
    pub fn text(&self) -> Option<&'a str> {
        match &self.node().kind {
            Kind::Scalar(_, text) if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The text under a key.
    pub fn word(&self, key: &str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    /// The texts of the list under a key.
    pub fn words(&self, key: &str) -> Vec<String> {
        self.list(key).iter().filter_map(|item| item.text().map(str::to_owned)).collect()
    }

    pub fn integer(&self, key: &str) -> Option<i64> {
        self.word(key)?.parse().ok()
    }

    /// As kubectl reads it: YAML 1.1 has many words for true.
    pub fn is_true(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| match &value.node().kind {
            Kind::Scalar(Scalar::Plain, text) => {
                matches!(text.to_ascii_lowercase().as_str(), "true" | "yes" | "on" | "y")
            }
            _ => false,
        })
    }

    /// From 1.
    pub fn line(&self) -> usize {
        self.node().line
    }

    /// From 1.
    pub fn column(&self) -> usize {
        self.node().column + 1
    }

    /// Bytes of the text.
    pub fn start(&self) -> usize {
        self.node().start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_and_what_they_mean() {
        let text = "a: &x {b: [1, 'two']}\nc: *x\nd:\n  <<: *x\n  e: on\nf: ~\n---\n---\nlast\n";
        let documents = parse(text).unwrap();
        assert_eq!(documents.len(), 3);
        let root = documents[0].root().unwrap();
        assert_eq!(root.at(&["c"]).unwrap().words("b"), ["1", "two"]);
        let merged = root.at(&["d", "b"]).unwrap();
        assert!(merged.shared && root.get("a").unwrap().shared && !root.get("d").unwrap().shared);
        assert!(root.get("d").unwrap().is_true("e") && root.get("f").unwrap().is_null());
        assert_eq!((merged.line(), merged.column(), &text[merged.start()..merged.start() + 2]), (1, 11, "[1"));
        assert!(documents[1].root().is_none_or(|root| root.is_null()));
        assert_eq!(documents[2].root().unwrap().text(), Some("last"));
    }

    #[test]
    fn faults_have_a_line() {
        assert_eq!(parse("a: 1\nb: 2\na: 3\n").unwrap_err().line, 3);
        assert_eq!(parse("a:\n  - b\n c: [\n").unwrap_err().line, 3);
        assert!(parse("a: {{ .Values.x }}\n").unwrap_err().why.contains("helm template"));
        // An alias that would be a thousand million nodes is four.
        let bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]\n";
        assert_eq!(parse(bomb).unwrap()[0].root().unwrap().list("d").len(), 2);
        // Maps that merge the one before ten times, twenty deep.
        let merges =
            |number: usize| format!("m{number}: &m{number} {{<<: [{}]}}\n", vec![format!("*m{}", number - 1); 10].join(", "));
        let bomb: String = std::iter::once("m0: &m0 {a: 1}\n".to_owned()).chain((1..=20).map(merges)).collect();
        let documents = parse(&bomb).unwrap();
        let last = documents[0].root().unwrap().get("m20").unwrap();
        assert_eq!((last.word("a"), last.word("b")), (Some("1"), None));
    }
}
