//! docs/stability.md has the lists of what stays, and the code has nothing else: whoever changes an option, an exit code, an event, a metric or a
//! document changes that page too, and a review sees it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::time::Duration;

use lameduck::core::output::metrics;
use lameduck::core::output::snapshot::{AppFigures, Service, Snapshot, Stop, Traffic};
use lameduck::core::shutdown::{Drain, Phase, Timing};
use lameduck::core::signals::Signal;
use lameduck::core::size::cpu::Millicores;
use lameduck::core::traffic::{PortSample, Tally};

use super::{help, read, sources};

/// Cells of a table's row, in the page without their backticks.
type Row = Vec<String>;

fn row<const N: usize>(cells: [&str; N]) -> Row {
    cells.map(str::to_owned).to_vec()
}

/// The rows of the first table after a heading of docs/stability.md.
fn promised(heading: &str) -> Vec<Row> {
    table(&read("docs/stability.md"), heading)
}

fn table(page: &str, heading: &str) -> Vec<Row> {
    let lines = page.lines().skip_while(|line| line.trim_start_matches('#').trim_start() != heading || !line.starts_with('#'));
    let rows = lines.skip(1).take_while(|line| !line.starts_with('#')).skip_while(|line| !line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', "")).collect();
    let rows: Vec<Row> = rows.take_while(|line| line.starts_with('|')).skip(2).map(cells).collect();
    assert!(!rows.is_empty(), "there is no table under {heading:?}");
    rows
}

/// The same rows, whatever their order.
#[track_caller]
fn agree<T: Clone + Debug + Ord>(what: &str, promised: &[T], real: &[T]) {
    let [promised, real]: [BTreeSet<T>; 2] = [promised, real].map(|rows| rows.iter().cloned().collect());
    assert!(!real.is_empty(), "{what}: nothing was found in the code");
    let [gone, new] = [promised.difference(&real), real.difference(&promised)].map(|rows| rows.collect::<Vec<_>>());
    assert!(
        gone.is_empty() && new.is_empty(),
        "{what}: docs/stability.md promises {gone:?}, which the code does not have; the code has {new:?}, which is not promised"
    );
}

/// The text between two others.
fn between<'a>(text: &'a str, begin: &str, end: &str) -> &'a str {
    let rest = text.split_once(begin).unwrap_or_else(|| panic!("there is no {begin:?}")).1;
    rest.split_once(end).unwrap_or_else(|| panic!("there is no {end:?} after {begin:?}")).0
}

/// The sources of a directory, without their unit tests.
fn code(directory: &str) -> String {
    let text =
        |path| fs::read_to_string(path).expect("a source file").split("#[cfg(test)]").next().unwrap_or_default().to_owned();
    sources(directory).into_iter().map(text).collect()
}

/// Pieces of `text` in double quotes. Good enough for what is looked for in them: names.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').filter(|piece| piece.len() < 64)
}

#[test]
fn the_commands() {
    let help = help();
    let commands = between(&help, "\nCommands:\n", "\n\n").lines().filter_map(|line| line.strip_prefix("  lameduck "));
    let names: Vec<Row> = commands.filter_map(|line| line.split(' ').next()).map(|name| row([name])).collect();
    let names: Vec<Row> = names.into_iter().filter(|row| !row[0].starts_with(['[', '-'])).collect();
    let promised: Vec<Row> = promised("Commands").into_iter().map(|row| row[..1].to_vec()).collect();
    agree("commands", &promised, &names);
}

/// Names, values and defaults, by `lameduck --help`.
#[test]
fn the_options() {
    let help = help();
    let mut found: Vec<(Row, String)> = Vec::new();
    for line in help.split("\nCommands:\n").next().unwrap_or_default().lines() {
        let option = line.starts_with("  ").then(|| line.trim_start()).and_then(|line| line.get(line.find("--")?..));
        match (option, found.last_mut()) {
            (Some(option), _) if !line.starts_with("          ") => {
                let (name, value) = option.split_once(" <").unwrap_or((option, ""));
                found.push((row([name, &value.trim_end_matches('>').replace('|', ", ")]), String::new()));
            }
            (_, Some((_, text))) if line.starts_with("          ") => *text = format!("{text} {}", line.trim()),
            _ => {}
        }
    }
    let default = |text: &str| text.split_once("[default: ").map_or("", |(_, default)| default.trim_end_matches(']')).to_owned();
    let found: Vec<Row> = found.into_iter().map(|(row, text)| [row, vec![default(&text)]].concat()).collect();
    agree("options of lameduck", &promised("Options of lameduck"), &found);
}

/// Of clap's derive: the fields that have `long`, by their names.
fn derived(source: &str) -> Vec<Row> {
    let mut options = Vec::new();
    for part in source.split("#[arg(").skip(1) {
        let (attribute, rest) = part.split_once(")]").expect("an attribute ends");
        let field = rest.trim_start().trim_start_matches("pub ").split(':').next().expect("a field").replace('_', "-");
        let words: Vec<&str> = attribute.split([',', ' ']).filter(|word| !word.is_empty()).collect();
        if words.contains(&"long") {
            let renamed = attribute.split_once("long = \"").map(|(_, name)| name.split('"').next().expect("a name"));
            options.push(row([&format!("--{}", renamed.unwrap_or(&field))]));
        }
    }
    options
}

#[test]
fn the_options_of_the_other_programs() {
    let programs = [
        ("Options of lameduck-rehearse", read("rehearse/src/cli.rs"), &[][..]),
        // clap's own.
        ("Options of kubectl lameduck", read("kubectl/src/cli.rs"), &["--help", "--version"][..]),
    ];
    for (heading, source, own) in programs {
        let own = own.iter().map(|option| row([option]));
        let found: Vec<Row> = derived(&source).into_iter().chain(own).collect();
        let options = promised(heading).into_iter().flat_map(|row| row[1].split(", ").map(str::to_owned).collect::<Vec<_>>());
        agree(heading, &options.map(|option| vec![option]).collect::<Vec<_>>(), &found);
    }
}

/// Those that are no option's.
#[test]
fn the_variables() {
    let options: BTreeSet<String> = promised("Options of lameduck")
        .iter()
        .map(|row| format!("LAMEDUCK_{}", row[0].trim_start_matches('-').to_uppercase().replace('-', "_")))
        .collect();
    let code = code("src");
    let names = quoted(&code).filter(|name| {
        name.strip_prefix("LAMEDUCK_")
            .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'))
    });
    let names: Vec<Row> = names.filter(|name| !options.contains(*name)).map(|name| row([name])).collect();
    let promised: Vec<Row> = promised("Variables").into_iter().map(|row| row[..1].to_vec()).collect();
    agree("variables", &promised, &names);
}

#[test]
fn the_exit_codes() {
    let first = |rows: Vec<Row>| rows.into_iter().map(|row| row[..1].to_vec()).collect::<Vec<_>>();
    let promised_codes = first(promised("Exit codes of lameduck"));
    agree("exit codes of docs/shutdown.md", &promised_codes, &first(table(&read("docs/shutdown.md"), "Exit codes")));
    // The others say theirs in their help.
    for (heading, path) in
        [("Exit codes of lameduck-rehearse", "rehearse/src/cli.rs"), ("Exit codes of kubectl lameduck", "kubectl/src/cli.rs")]
    {
        let text = read(path);
        let codes = between(&text, "Exit codes: ", ".").split(';').map(|part| part.trim().trim_start_matches('\\').trim());
        let codes: Vec<Row> = codes.filter_map(|part| part.split(' ').next()).map(|code| row([code])).collect();
        agree(heading, &first(promised(heading)), &codes);
    }
    for (heading, paths, least) in [
        ("Exit codes of lameduck", &["src/fatal.rs", "src/lib.rs", "src/commands/drain.rs", "src/start/mod.rs"][..], 6),
        ("Exit codes of lameduck-rehearse", &["rehearse/src/lib.rs", "rehearse/src/rollout/mod.rs"], 4),
        ("Exit codes of kubectl lameduck", &["kubectl/src/main.rs"], 3),
    ] {
        let code: String = paths.iter().map(|path| read(path)).collect();
        let number = |rest: &str| rest.split(|c: char| !c.is_ascii_digit()).next().map(str::to_owned).filter(|n| !n.is_empty());
        let written = [": u8 = ", " { code: "].into_iter().flat_map(|before| code.split(before).skip(1)).filter_map(number);
        let written: BTreeSet<String> = written.collect();
        assert!(written.len() >= least, "{heading}: {written:?}");
        let codes = first(promised(heading));
        for code in written {
            assert!(codes.contains(&vec![code.clone()]), "docs/stability.md lacks {code} under {heading:?}");
        }
    }
}

/// What stands between the bracket that `text` begins with and the one that closes it; strings are skipped.
fn bracketed(text: &str) -> &str {
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            _ if in_string => {}
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' if depth == 1 => return &text[1..at],
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
    }
    panic!("a bracket is not closed: {text:.80}");
}

/// Arguments, by the commas between them.
fn arguments(mut text: &str) -> Vec<&str> {
    let (mut all, mut from) = (Vec::new(), 0);
    while let Some(at) = text[from..].find(['(', '{', '[', '"', ',']).map(|at| at + from) {
        from = match text.as_bytes()[at] {
            b',' => {
                all.push(text[..at].trim());
                text = &text[at + 1..];
                0
            }
            b'"' => {
                let end = text[at + 1..].replace("\\\"", "  ").find('"').expect("a string ends");
                at + end + 2
            }
            _ => at + bracketed(&text[at..]).len() + 2,
        };
    }
    all.push(text.trim());
    all.into_iter().filter(|argument| !argument.is_empty()).collect()
}

/// Events that everybody sees, each with its levels and its fields: those of tracing's macros, and of the log itself.
#[test]
fn the_events_of_the_log() {
    let code = code("src");
    let mut events: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    for level in ["info", "warn", "error"] {
        for (at, found) in code.match_indices(&format!("{level}!(")) {
            let fields = arguments(bracketed(&code[at + found.len() - 1..]));
            let event = fields[0].strip_prefix("event = \"").and_then(|name| name.strip_suffix('"'));
            let event = event.unwrap_or_else(|| panic!("an event without a name: {fields:?}"));
            let [levels, names] = events.entry(event.to_owned()).or_default();
            levels.insert(level.to_owned());
            names.extend(fields[1..].iter().map(|field| field.split('=').next().unwrap_or_default().trim().to_owned()));
        }
    }
    // The loss of lines is said by the log itself.
    let log = read("src/output/log.rs");
    let own = [".text(\"", ".plain(\""].into_iter().flat_map(|call| log.split(call).skip(1));
    let own = own.filter_map(|rest| rest.split('"').next()).filter(|name| *name != "event").map(str::to_owned);
    events.get_mut("warning").expect("warnings")[1].extend(own);

    let listed = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    let sorted = |cell: &str| listed(&cell.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect());
    let found: Vec<Row> =
        events.iter().map(|(event, [levels, names])| vec![event.clone(), listed(levels), listed(names)]).collect();
    let promised: Vec<Row> =
        promised("Events of the log").into_iter().map(|row| vec![row[0].clone(), sorted(&row[1]), sorted(&row[2])]).collect();
    agree("events", &promised, &found);
}

/// All of it, at a moment at which there is something of everything.
fn snapshot() -> Snapshot {
    let second = Duration::from_secs(1);
    Snapshot {
        version: "1",
        uptime: second,
        phase: Phase::Draining,
        since: second,
        pid: Some(2),
        target: Some(2),
        command: "gunicorn".to_owned(),
        server: Some("gunicorn"),
        services: vec![Service {
            name: "gunicorn".to_owned(),
            pid: Some(2),
            figures: Some(AppFigures { open_files: Some(1), ..AppFigures::default() }),
        }],
        timing: Timing {
            grace: second,
            delay: second,
            delay_given: false,
            quiet: second,
            stop_timeout: second,
            idle_after: second,
            drain: Drain::Requests,
        },
        stop: Some(Stop {
            signal: Some(Signal::TERM),
            ended: None,
            ago: second,
            reason: None,
            tally: Some(Tally::default()),
            closed: 0,
            last_accept: Some(second),
        }),
        traffic: Traffic { source: "none", listening: Some(true), ports: vec![PortSample::default()], in_flight: 0 },
        workers: Some(1),
        cpu: Some(Millicores(1)),
        app: Some(AppFigures { open_files: Some(1), ..AppFigures::default() }),
        oom_kills: Some(0),
        reaped: 0,
        signals: vec![(Signal::TERM, 1)],
        dropped: 0,
    }
}

#[test]
fn the_metrics() {
    let page = metrics::page(&snapshot());
    let mut values: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let mut found = Vec::new();
    for (family, kind) in families {
        let samples = page.lines().filter_map(|line| line.strip_prefix(family)?.strip_prefix('{')?.split('}').next());
        let mut labels = Vec::new();
        for (label, value) in samples.flat_map(|sample| sample.split(',').filter_map(|label| label.split_once('='))) {
            if !labels.contains(&label) {
                labels.push(label);
            }
            values.entry(label).or_default().insert(value.trim_matches('"'));
        }
        found.push(row([family, kind, &labels.join(", ")]));
    }
    agree("metrics", &promised("Metrics"), &found);

    for row in promised("Values of labels") {
        let promised: Vec<&str> = row[1].split(", ").collect();
        let real: Vec<&str> = values.get(row[0].as_str()).into_iter().flatten().copied().collect();
        agree(&format!("values of the label {}", row[0]), &promised, &real);
    }
}

/// The keys of a document's objects: (where, key). An array's are those of its elements.
fn keys(document: &str) -> BTreeSet<(String, String)> {
    let (mut found, mut path, mut key) = (BTreeSet::new(), Vec::new(), "");
    let mut rest = document;
    while let Some(c) = rest.chars().next() {
        let mut step = c.len_utf8();
        match c {
            '"' => {
                let end = rest[1..].find('"').expect("a string ends");
                if rest[end + 2..].starts_with(':') {
                    key = &rest[1..=end];
                    found.insert((path.join(".").trim_matches('.').to_owned(), key.to_owned()));
                }
                step = end + 2;
            }
            '{' if path.last().is_some_and(|last: &String| last.ends_with("[]")) && key.is_empty() => path.push(String::new()),
            '{' => path.push(std::mem::take(&mut key).to_owned()),
            '[' => path.push(format!("{}[]", std::mem::take(&mut key))),
            '}' | ']' => _ = path.pop(),
            ',' => key = "",
            _ => {}
        }
        rest = &rest[step..];
    }
    found
}

/// Rows of (where, keys), one for each object.
fn documented(heading: &str) -> Vec<(String, String)> {
    let place = |place: &str| if place == "the document" { String::new() } else { place.to_owned() };
    let rows = promised(heading).into_iter();
    rows.flat_map(|row| row[1].split(", ").map(|key| (place(&row[0]), key.to_owned())).collect::<Vec<_>>()).collect()
}

#[test]
fn the_document_of_status() {
    let found: Vec<_> = keys(&snapshot().json()).into_iter().collect();
    assert!(found.contains(&("traffic.ports[]".to_owned(), "busy".to_owned())), "{found:?}");
    // What signals came is a matter of the moment.
    let found: Vec<_> = found.into_iter().filter(|(place, _)| place != "signals").collect();
    agree("/status", &documented("The document of /status"), &found);
}

/// Fields of the structs that serde writes, from the report down; values of its enums.
#[test]
fn the_report_of_the_rehearsal() {
    fn fields(source: &str, name: &str, place: &str, found: &mut Vec<(String, String)>) {
        let body = between(source, &format!("pub struct {name} {{"), "\n}");
        for (field, kind) in
            body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.trim_end_matches(',').split_once(": "))
        {
            found.push((place.to_owned(), field.to_owned()));
            let many = if kind.starts_with("Vec<") { "[]" } else { "" };
            let inner = kind.trim_start_matches("Vec<").trim_start_matches("Option<").trim_end_matches('>');
            if source.contains(&format!("pub struct {inner} {{")) {
                let below = format!("{place}.{field}{many}");
                fields(source, inner, below.trim_start_matches('.'), found);
            }
        }
    }
    let source = read("rehearse/src/report/mod.rs");
    let mut found = Vec::new();
    fields(&source, "Report", "", &mut found);
    agree("the rehearsal's JSON", &documented("The rehearsal's JSON"), &found);

    let snake = |name: &str| {
        let words: String =
            name.chars().flat_map(|c| if c.is_uppercase() { vec!['_', c.to_ascii_lowercase()] } else { vec![c] }).collect();
        words.trim_start_matches('_').to_owned()
    };
    for row in promised("Words in the rehearsal's JSON") {
        let name = match row[0].as_str() {
            "events[].what" => "What",
            "phases[].name" => "PhaseName",
            "pods[].phases[].name" => "PodPhaseName",
            "pods[].endpoints[].state" => "EndpointState",
            other => panic!("the code has no words for {other:?}"),
        };
        let body = between(&source, &format!("pub enum {name} {{"), "\n}");
        let variants: Vec<String> = body.lines().filter_map(|line| line.trim().strip_suffix(',')).map(snake).collect();
        agree(&row[0], &row[1].split(", ").map(str::to_owned).collect::<Vec<_>>(), &variants);
    }
}

#[test]
fn the_report_of_lint() {
    let source = read("kubectl/src/report.rs");
    let [_, finding, report]: [&str; 3] =
        between(&source, "\nfn json(", "\n}").split("json!({").collect::<Vec<_>>().try_into().expect("a finding and the report");
    let names = |text: &str| {
        let name = |piece: &str| piece.rsplit_once('"').map(|(_, name)| name.to_owned()).filter(|name| !name.is_empty());
        text.split("\": ").filter_map(name).collect::<Vec<_>>()
    };
    let found: Vec<(String, String)> = [("findings[]", finding), ("", report)]
        .into_iter()
        .flat_map(|(place, text)| names(text).into_iter().map(|name| (place.to_owned(), name)).collect::<Vec<_>>())
        .collect();
    agree("lint's JSON", &documented("The JSON of kubectl lameduck lint"), &found);
}

#[test]
fn the_names_in_manifests() {
    let code = code("kubectl/src");
    let names: Vec<Row> = quoted(&code)
        .filter(|name| name.contains("lameduck/") && !name.starts_with('/') && !name.contains([' ', ':']))
        .map(|name| row([name]))
        .collect();
    let promised = promised("Names in manifests").into_iter().map(|row| vec![row[0].replace("RULE", "")]);
    agree("names in manifests", &promised.collect::<Vec<_>>(), &names);
}

/// An empty section for what comes next, one for the version in Cargo.toml, and a link for each.
#[test]
fn the_changelog_has_this_version() {
    let text = read("CHANGELOG.md");
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings[0], "[Unreleased]");
    let dated = format!("[{}] - ", env!("CARGO_PKG_VERSION"));
    assert!(headings.iter().any(|heading| heading.starts_with(&dated)), "CHANGELOG.md lacks {dated}");
    for heading in headings {
        let version = heading.split(']').next().unwrap_or_default();
        assert!(text.contains(&format!("\n{version}]: https://")), "CHANGELOG.md lacks the link of {version}]");
    }
}

/// By a whole commit, with its version beside it; and no workflow takes more than it says.
#[test]
fn workflows_are_pinned_and_say_what_they_may() {
    let workflows = sources(".github/workflows");
    assert!(workflows.len() >= 3);
    for path in workflows {
        let text = fs::read_to_string(&path).expect("a workflow");
        assert!(text.contains("\npermissions:"), "{}: no permissions for all jobs", path.display());
        for line in text.lines().filter(|line| line.contains("uses: ") && !line.contains("uses: ./")) {
            let (_, rest) = line.split_once('@').unwrap_or_else(|| panic!("{}: {line}", path.display()));
            let (commit, version) = rest.split_once(" # v").unwrap_or((rest, ""));
            let whole = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(whole && !version.is_empty(), "{}: not pinned by a commit, with its version: {line}", path.display());
        }
    }
}
