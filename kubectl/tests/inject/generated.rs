//! Manifests of every style: comments, quotes, flow and block, anchors, merge keys, odd indentation, CRLF, Lists.

use std::fmt::Write;

use kubectl_lameduck::yaml::Value;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::published::{python, valid};
use super::*;

/// A manifest before it has a style.
#[derive(Clone, Debug)]
enum Tree {
    /// As it must be written.
    Raw(String),
    Text(String),
    /// Several lines, ended by so many newlines.
    Lines(Vec<String>, usize),
    Map(Vec<(String, Tree)>),
    List(Vec<Tree>),
    /// `&name`, and what it stands before.
    Anchor(String, Box<Tree>),
    /// `*name`
    Alias(String),
}

use Tree::{List, Map, Raw, Text};

fn t(text: &str) -> Tree {
    Text(text.to_owned())
}

fn n(number: impl ToString) -> Tree {
    Raw(number.to_string())
}

fn map(entries: Vec<(&str, Tree)>) -> Tree {
    Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

/// Decisions, one after the other, again from the start when they are used up.
struct Dice<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Dice<'_> {
    fn roll(&mut self, sides: u8) -> u8 {
        self.at += 1;
        let byte = self.bytes[self.at % self.bytes.len()];
        byte.wrapping_add(self.at.wrapping_mul(31) as u8) % sides
    }

    fn one_in(&mut self, sides: u8) -> bool {
        self.roll(sides) == 0
    }

    fn pick<'t>(&mut self, words: &[&'t str]) -> &'t str {
        words[usize::from(self.roll(words.len() as u8))]
    }
}

fn container(dice: &mut Dice<'_>, number: usize) -> Tree {
    let name = format!("c{number}");
    let mut entries =
        vec![("name", t(&name)), ("image", t(dice.pick(&["shop", "registry.example.com/shop:1", "localhost:5000/a@sha256:00"])))];
    entries.push((
        "command",
        List((0..=dice.roll(2)).map(|_| t(dice.pick(&["serve", "sh", "-c", "a b", "yes", "0755", "é", "# no"]))).collect()),
    ));
    if dice.one_in(2) {
        entries.push(("args", List(vec![t(dice.pick(&["on", "--port=80", "{x}", "a: b", "*x", "&y", "|"]))])));
    }
    entries.push(("ports", List(vec![map(vec![("name", t("http")), ("containerPort", n(8080 + number))])])));
    if dice.one_in(2) {
        entries.push((
            "env",
            List(vec![map(vec![("name", t("A")), ("value", t(dice.pick(&["on", "1.10", "null", "", "x # y", "'"])))])]),
        ));
    }
    if dice.one_in(2) {
        let http = map(vec![
            ("path", t(dice.pick(&["/", "/health?a=b", "/é"]))),
            ("port", if dice.one_in(2) { t("http") } else { n(8080 + number) }),
        ]);
        entries.push(("readinessProbe", map(vec![("httpGet", http), ("periodSeconds", n(5))])));
    }
    if dice.one_in(3) {
        entries.push(("volumeMounts", List(vec![map(vec![("mountPath", t("/tmp")), ("name", t("tmp"))])])));
    }
    if dice.one_in(3) {
        let sleep = map(vec![("exec", map(vec![("command", List(vec![t("sleep"), t("5")]))]))]);
        let mut hooks = vec![("preStop", sleep)];
        if dice.one_in(2) {
            hooks.push(("postStart", map(vec![("exec", map(vec![("command", List(vec![t("true")]))]))])));
        }
        entries.push(("lifecycle", map(hooks)));
    }
    if dice.one_in(2) {
        entries.push(("resources", map(vec![("requests", map(vec![("cpu", t(dice.pick(&["1500m", "0.5", "1e3m"])))]))])));
    }
    let turn = usize::from(dice.roll(entries.len() as u8));
    entries.rotate_left(turn);
    map(entries)
}

/// The second container's variables are the first one's, by an alias: they cannot be edited in place.
fn share(containers: &mut [Tree]) {
    let [Map(first), Map(second)] = containers else { return };
    let Some((_, env)) = first.iter_mut().find(|(key, _)| key == "env") else { return };
    *env = Tree::Anchor("env".to_owned(), Box::new(env.clone()));
    second.retain(|(key, _)| key != "env");
    second.push(("env".to_owned(), Tree::Alias("env".to_owned())));
}

fn pod(dice: &mut Dice<'_>) -> Tree {
    let count = 1 + usize::from(dice.roll(2));
    let mut containers: Vec<Tree> = (0..count).map(|number| container(dice, number)).collect();
    if count == 2 && dice.one_in(6) {
        share(&mut containers);
    }
    let mut entries = vec![("containers", List(containers))];
    if dice.one_in(2) {
        entries.push(("terminationGracePeriodSeconds", n([30, 60, 5][usize::from(dice.roll(3))])));
    }
    if dice.one_in(2) {
        entries.push(("volumes", List(vec![map(vec![("name", t("tmp")), ("emptyDir", map(vec![]))])])));
    }
    if dice.one_in(3) {
        entries.push(("initContainers", List(vec![map(vec![("name", t("first")), ("image", t("shop"))])])));
    }
    if dice.one_in(3) {
        entries.push(("nodeSelector", map(vec![("disk", t("on"))])));
    }
    let turn = usize::from(dice.roll(entries.len() as u8));
    entries.rotate_left(turn);
    map(entries)
}

fn object(dice: &mut Dice<'_>, number: usize) -> Tree {
    let mut metadata = vec![("name", t(&format!("w{number}")))];
    if dice.one_in(2) {
        let note = if dice.one_in(2) {
            Tree::Lines(vec!["# no comment".to_owned(), "  a: b".to_owned(), "é".to_owned()], usize::from(dice.roll(3)))
        } else {
            t(dice.pick(&["yes", "1_000", "12:30:45", "~", "a\tb"]))
        };
        metadata.push(("annotations", map(vec![("note", note)])));
    }
    let labels = map(vec![("app", t(&format!("w{number}")))]);
    // The same labels, written out or by an alias.
    let (labels, again) = if dice.one_in(2) {
        (Tree::Anchor(format!("labels{number}"), Box::new(labels)), Tree::Alias(format!("labels{number}")))
    } else {
        (labels.clone(), labels)
    };
    let kind = dice.pick(&["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Pod"]);
    if kind == "Pod" {
        return map(vec![("apiVersion", t("v1")), ("kind", t(kind)), ("metadata", map(metadata)), ("spec", pod(dice))]);
    }
    let template = map(vec![("metadata", map(vec![("labels", again)])), ("spec", pod(dice))]);
    let mut spec = vec![("selector", map(vec![("matchLabels", labels)])), ("template", template)];
    if kind == "StatefulSet" {
        spec.push(("serviceName", t("w")));
    }
    let mut entries = vec![("apiVersion", t("apps/v1")), ("kind", t(kind)), ("metadata", map(metadata)), ("spec", map(spec))];
    let turn = usize::from(dice.roll(4));
    entries.rotate_left(turn);
    map(entries)
}

/// How a scalar is written in this place.
fn scalar(dice: &mut Dice<'_>, text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || b"/-.".contains(&byte));
    let plain =
        plain && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '/') && !["on", "yes", "null", "true"].contains(&text);
    match dice.roll(3) {
        0 if plain => text.to_owned(),
        1 if !text.contains(['\n', '\t']) => format!("'{}'", text.replace('\'', "''")),
        _ => serde_json::Value::from(text).to_string(),
    }
}

fn flow(dice: &mut Dice<'_>, tree: &Tree) -> String {
    let blank = dice.pick(&["", " "]);
    match tree {
        Raw(text) => text.clone(),
        Text(text) => scalar(dice, text),
        Tree::Anchor(name, tree) => format!("&{name} {}", flow(dice, tree)),
        Tree::Alias(name) => format!("*{name} "),
        Tree::Lines(lines, _) => serde_json::Value::from(lines.join("\n")).to_string(),
        List(items) => {
            let items: Vec<String> = items.iter().map(|item| flow(dice, item)).collect();
            format!("[{blank}{}{blank}]", items.join(", "))
        }
        Map(entries) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| {
                    let value = flow(dice, value);
                    if dice.one_in(3) { format!("\"{key}\": {value}") } else { format!("{key}: {value}") }
                })
                .collect();
            format!("{{{blank}{}{blank}}}", entries.join(", "))
        }
    }
}

/// A tree in block style, as lines without indentation. `step` is what lists and maps are indented by.
fn block(dice: &mut Dice<'_>, tree: &Tree, step: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let is_flat = |tree: &Tree| match tree {
        Map(entries) => entries.is_empty(),
        List(items) => items.is_empty(),
        _ => true,
    };
    match tree {
        Map(entries) => {
            for (number, (key, value)) in entries.iter().enumerate() {
                let (anchor, value) = match value {
                    Tree::Anchor(name, value) => (format!(" &{name}"), value.as_ref()),
                    value => (String::new(), value),
                };
                if number > 0 && dice.one_in(5) {
                    lines.push(dice.pick(&["# a comment: [", "", "# - x", "#"]).to_owned());
                }
                let comment = if dice.one_in(5) { dice.pick(&[" # why", "  #", " "]) } else { "" };
                if let Tree::Lines(text, ends) = value {
                    let chomp = ["-", "", "+"][*ends];
                    lines.push(format!("{key}: |{chomp}"));
                    lines.extend(text.iter().map(|line| format!("  {line}")));
                    lines.extend(vec![String::new(); ends.saturating_sub(1)]);
                } else if is_flat(value) || dice.one_in(4) {
                    lines.push(format!("{key}:{anchor} {}{comment}", flow(dice, value)));
                } else {
                    lines.push(format!("{key}:{anchor}{comment}"));
                    let indent = if matches!(value, List(_)) && dice.one_in(2) { 0 } else { step };
                    lines.extend(block(dice, value, step).into_iter().map(|line| indented(indent, &line)));
                }
            }
        }
        List(items) => {
            for item in items {
                if is_flat(item) || dice.one_in(6) {
                    lines.push(format!("- {}", flow(dice, item)));
                    continue;
                }
                let inner = block(dice, item, step);
                let wide = 1 + usize::from(dice.roll(3));
                let mut inner = inner.into_iter();
                if dice.one_in(5) {
                    lines.push("-".to_owned());
                } else {
                    lines.push(format!("-{}{}", " ".repeat(wide), inner.next().unwrap_or_default()));
                }
                lines.extend(inner.map(|line| indented(wide + 1, &line)));
            }
        }
        other => lines.push(flow(dice, other)),
    }
    lines
}

fn indented(by: usize, line: &str) -> String {
    if line.is_empty() { String::new() } else { format!("{}{line}", " ".repeat(by)) }
}

/// A whole text: documents, or a List, or JSON.
fn manifest_text(bytes: &[u8]) -> String {
    let mut dice = Dice { bytes, at: 0 };
    let count = 1 + usize::from(dice.roll(2));
    let objects: Vec<Tree> = (0..count).map(|number| object(&mut dice, number)).collect();
    let step = 2 + usize::from(dice.roll(3));
    let mut text = String::new();
    match dice.roll(5) {
        0 => {
            let list = map(vec![("apiVersion", t("v1")), ("kind", t("List")), ("items", List(objects))]);
            text = block(&mut dice, &list, step).join("\n");
        }
        1 => text = flow(&mut dice, &objects[0]),
        _ => {
            for object in &objects {
                if !text.is_empty() || dice.one_in(2) {
                    let _ = writeln!(text, "---{}", dice.pick(&["", " # next", "\n# top"]));
                }
                let _ = writeln!(text, "{}", block(&mut dice, object, step).join("\n"));
            }
            if dice.one_in(3) {
                text.push_str("---\nkind: Other\nspec: &s {a: 0755}\ncopy: *s\nmerged:\n  <<: *s\n  on: yes\n");
            }
        }
    }
    if dice.one_in(4) {
        text = text.trim_end().to_owned();
    }
    if dice.one_in(4) { text.replace('\n', "\r\n") } else { text }
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 3..60)
}

/// Every scalar with its path.
fn flattened(path: &str, value: Value<'_>, all: &mut Vec<(String, String)>) {
    for (key, value) in value.entries() {
        flattened(&format!("{path}.{key}"), value, all);
    }
    for item in value.items() {
        // Named, so that what is put before does not count.
        let name = item.word("name").or(item.word("path")).or(item.text()).unwrap_or("").to_owned();
        flattened(&format!("{path}[{name}]"), item, all);
    }
    if let Some(text) = value.text() {
        all.push((path.to_owned(), text.to_owned()));
    }
}

fn scalars(text: &str) -> Vec<(String, String)> {
    let parsed = manifest::parse(self::super::text("x", text)).unwrap_or_else(|line| panic!("{line}\n{text}"));
    let mut all = Vec::new();
    for (number, object) in parsed.objects().into_iter().enumerate() {
        flattened(&number.to_string(), object.value, &mut all);
    }
    all
}

/// inject → uninject is the identity, inject twice is inject once, nothing else is changed, and what serves has lameduck.
fn check(text: &str, how: How) -> bool {
    let source = super::text("generated", text);
    let edited = match inject::inject(&source, &options(how), &Images::new()) {
        Ok(edited) => edited,
        // What cannot be edited in place is refused, in one line.
        Err(line) => {
            assert!(line.starts_with("cannot inject ") && !line.contains('\n'), "{line}\n{text}");
            assert!(line.contains("leave it out by hand") || line.contains("also used elsewhere"), "{line}\n{text}");
            return false;
        }
    };
    let again = |text: &str| super::text("generated", text);
    assert_eq!(inject::uninject(&again(&edited.text)).unwrap().text, text, "\n{}", edited.text);
    assert_eq!(inject::inject(&again(&edited.text), &options(how), &Images::new()).unwrap().text, edited.text);
    let parsed = manifest::parse(again(&edited.text)).unwrap();
    for workload in parsed.objects().into_iter().filter_map(Object::workload) {
        assert!(workload.containers().iter().all(|container| wrap::of(container).is_some()), "{}", edited.text);
        assert!(workload.object.annotation("lameduck/injected").is_some());
        for container in workload.containers().iter().filter(|_| how != How::PreStop) {
            let names: Vec<_> = container.value.list("env").iter().filter_map(|entry| entry.word("name")).collect();
            assert_eq!(names.iter().filter(|name| **name == wrap::GRACE_PERIOD).count(), 1, "{}", edited.text);
        }
    }
    if text.contains("\r\n") {
        assert_eq!(edited.text.matches('\n').count(), edited.text.matches("\r\n").count(), "lines end in two ways");
    }
    let (before, after) = (scalars(text), scalars(&edited.text));
    let may_change =
        |path: &str| [".lifecycle", ".httpGet.", "terminationGracePeriodSeconds"].iter().any(|part| path.contains(part));
    for row in before.iter().filter(|(path, _)| !may_change(path)) {
        assert!(after.contains(row), "{row:?} is not there any more:\n{}", edited.text);
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn uninject_undoes_inject(bytes in bytes(), how in prop::sample::select(How::ALL.to_vec())) {
        check(&manifest_text(&bytes), how);
    }

    /// Whatever bytes come: no panic, and a text that has no pods stays as it is.
    #[test]
    fn no_text_is_too_odd(text in "[ \\-:#\\[\\]{},&*|>'\"a-c\\n\\r\\té]{0,60}") {
        for how in How::ALL {
            let source = super::text("odd", &text);
            if let Ok(edited) = inject::inject(&source, &options(how), &Images::new()) {
                prop_assert_eq!(edited.text, text.clone());
            }
            let _ = manifest::parse(source).map(|parsed| lint::lint(&[parsed]).findings.len());
        }
    }

    /// An annotation that somebody tampered with: undone, or refused in one line.
    #[test]
    fn annotations_that_were_changed(at in any::<prop::sample::Index>(), with in "[0-9a-f+:,=% .]{0,12}", cut in 0usize..9) {
        let bare = fs::read_to_string(source("tests/manifests/stock.yaml")).unwrap();
        let done = injected(&super::text("x", &bare), How::Init).unwrap().text;
        let start = done.find("\"lameduck/injected\": \"").unwrap() + 22;
        let length = done[start..].find('"').unwrap();
        let at = start + at.index(length);
        let end = (at + cut).min(start + length);
        let changed = format!("{}{with}{}", &done[..at], &done[end..]);
        if let Err(line) = inject::uninject(&super::text("x", &changed)) {
            prop_assert!(line.starts_with("cannot ") && !line.contains('\n'), "{}", line);
        }
    }

    /// A manifest with a few characters changed: it is read or refused, and what is read is undone.
    #[test]
    fn nearly_manifests(bytes in bytes(), at in any::<prop::sample::Index>(), with in "[ \\-:#\\[\\]{},&*|>'\"\\n]{0,3}") {
        let mut text = manifest_text(&bytes);
        let mut at = at.index(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        text.insert_str(at, &with);
        for how in How::ALL {
            if let Ok(edited) = inject::inject(&super::text("near", &text), &options(how), &Images::new()) {
                let back = inject::uninject(&super::text("near", &edited.text)).map(|edited| edited.text);
                prop_assert_eq!(back, Ok(text.clone()));
            }
        }
    }
}

/// The same texts each time, read by PyYAML and held against the schemas of three versions. Most can be edited: few refusals, or the
/// properties above would be about nothing.
#[test]
fn generated_ones_are_what_kubernetes_takes() {
    let mut runner = TestRunner::new_with_rng(Config::default(), TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let mut documents = Vec::new();
    let (mut done, all) = (0, 120);
    for number in 0..all {
        let bytes = bytes().new_tree(&mut runner).unwrap();
        let text = manifest_text(&proptest::strategy::ValueTree::current(&bytes));
        let how = How::ALL[number % 3];
        if check(&text, how) {
            done += 1;
            documents.push(inject::inject(&super::text("x", &text), &options(how), &Images::new()).unwrap().text);
        }
    }
    assert!(done * 10 > all * 8, "{done} of {all} could be edited");
    // One document each; PyYAML's own output is what is held against the schemas, so that both readers must agree on what it means.
    let program = "
import sys, yaml, json
for text in json.load(sys.stdin):
    for d in yaml.safe_load_all(text):
        for o in (d or {}).get('items', [d]):
            if o and o.get('kind') != 'Other':
                print('---'); print(yaml.safe_dump(o))
";
    let read = python(program, &serde_json::Value::from(documents).to_string());
    assert!(read.matches("kind: ").count() >= done);
    for version in ["1.33", "1.35", "1.37"] {
        valid(version, "generated", &[("all.yaml".to_owned(), read.clone())]);
    }
    let parsed = manifest::parse(super::text("read", &read)).unwrap();
    for workload in parsed.objects().into_iter().filter_map(Object::workload) {
        assert!(workload.containers().iter().all(|container| wrap::of(container).is_some()), "{}", workload.object.path());
    }
}
