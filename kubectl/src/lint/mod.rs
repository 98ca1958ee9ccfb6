//! What would lose requests, waste time or kill late. Each rule is a row in a table, with what docs/lint.md says of it; a rule looks and
//! answers with what it saw.

mod cluster;
mod probes;
mod process;
mod size;
mod time;

use std::str::FromStr;

use lameduck::foresee::Foreseen;

use crate::manifest::{Container, Object, Parsed, Workload};
use crate::wrap::{self, Wrap};
use crate::yaml::Value;
pub use process::serves;

/// `ignore.lameduck/RULE: "why"`
const IGNORE: &str = "ignore.lameduck/";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    Info,
    Warning,
    Error,
}

impl Severity {
    pub fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

impl FromStr for Severity {
    type Err = ();

    fn from_str(text: &str) -> Result<Severity, ()> {
        [Severity::Info, Severity::Warning, Severity::Error].into_iter().find(|severity| severity.name() == text).ok_or(())
    }
}

/// A row of the table.
pub struct Rule {
    /// Stable: annotations and other tools refer to it.
    pub code: &'static str,
    pub severity: Severity,
    /// When it fires.
    pub when: &'static str,
    pub why: &'static str,
    pub fix: &'static str,
    check: Check,
}

/// What a rule looks at.
enum Check {
    Container(fn(&Place<'_>) -> Vec<Hit>),
    Workload(for<'a> fn(&Scene<'a>, &Workload<'a>) -> Vec<Hit>),
    Object(fn(&Scene<'_>, &Object<'_>) -> Vec<Hit>),
}

/// All that was given.
pub struct Scene<'a> {
    pub objects: Vec<Object<'a>>,
    pub workloads: Vec<Workload<'a>>,
}

/// A container, and what is known of lameduck in it.
pub struct Place<'a> {
    workload: Workload<'a>,
    container: Container<'a>,
    wrap: Option<Wrap>,
    /// What lameduck decides there, or the line with which it would refuse to start.
    foreseen: Option<Result<Foreseen, String>>,
}

/// What a rule saw.
pub struct Hit {
    line: usize,
    column: usize,
    said: String,
    /// Where it is another than the rule's.
    severity: Option<Severity>,
}

impl Hit {
    fn at(value: Value<'_>, said: impl Into<String>) -> Hit {
        Hit { line: value.line(), column: value.column(), said: said.into(), severity: None }
    }

    fn of(self, severity: Severity) -> Hit {
        Hit { severity: Some(severity), ..self }
    }
}

pub struct Finding {
    pub rule: &'static Rule,
    pub severity: Severity,
    pub file: String,
    pub line: usize,
    pub column: usize,
    /// `Deployment/shop containers[web]`
    pub path: String,
    /// What stands there.
    pub said: String,
}

/// Findings, and what could not be looked at.
pub struct Report {
    pub findings: Vec<Finding>,
    pub workloads: usize,
    pub ignored: usize,
    /// Kinds that are not in the input, so that rules which need them are silent.
    pub absent: Vec<&'static str>,
}

const IGNORED_WITHOUT_REASON: Rule = Rule {
    code: "ignore-without-reason",
    severity: Severity::Warning,
    when: "an annotation `ignore.lameduck/RULE` has no reason as its value, or names no rule",
    why: "nobody can tell later whether the finding may still be ignored; so it is not",
    fix: "write the reason: ignore.lameduck/RULE: \"why this is meant\"",
    check: Check::Object(ignored_without_reason),
};

/// Every rule there is.
pub fn rules() -> impl Iterator<Item = &'static Rule> {
    const OWN: &[Rule] = &[IGNORED_WITHOUT_REASON];
    [time::RULES, process::RULES, probes::RULES, size::RULES, cluster::RULES, OWN].into_iter().flatten()
}

impl<'a> Scene<'a> {
    pub fn new(parsed: &'a [Parsed]) -> Scene<'a> {
        let objects: Vec<Object<'a>> = parsed.iter().flat_map(Parsed::objects).collect();
        let workloads = objects.iter().filter_map(|object| object.workload()).collect();
        Scene { objects, workloads }
    }

    fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object<'a>> {
        self.objects.iter().filter(move |object| object.kind == kind)
    }

    /// The Services of a workload.
    fn services(&self, workload: &Workload<'_>) -> Vec<&Object<'a>> {
        self.of_kind("Service")
            .filter(|service| workload.is_selected(**service, service.value.at(&["spec", "selector"])))
            .collect()
    }

    fn selected_by(&self, service: &Object<'_>) -> Vec<&Workload<'a>> {
        let selector = service.value.at(&["spec", "selector"]);
        self.workloads.iter().filter(|workload| workload.is_selected(*service, selector)).collect()
    }

    fn places(&self, workload: &Workload<'a>) -> Vec<Place<'a>> {
        let of = |container: Container<'a>| {
            let wrap = wrap::of(&container);
            let foreseen = wrap.as_ref().map(|wrap| wrap::foresee(workload, &container, wrap));
            Place { workload: *workload, container, wrap, foreseen }
        };
        workload.containers().into_iter().map(of).collect()
    }
}

impl Place<'_> {
    /// What lameduck decides, where it starts at all.
    fn decided(&self) -> Option<&Foreseen> {
        self.foreseen.as_ref()?.as_ref().ok()
    }

    /// Where a finding on the whole container points.
    fn hit(&self, said: impl Into<String>) -> Hit {
        let value = self.container.value.own("name").map_or(self.container.value, |(_, name)| name);
        Hit::at(value, said)
    }
}

/// Runs every rule over all that was given.
pub fn lint(parsed: &[Parsed]) -> Report {
    let scene = Scene::new(parsed);
    let mut report = Report { findings: Vec::new(), workloads: scene.workloads.len(), ignored: 0, absent: Vec::new() };
    for rule in rules() {
        match rule.check {
            Check::Object(check) => {
                for object in &scene.objects {
                    report.add(rule, object, &[object.value], object.path(), check(&scene, object));
                }
            }
            Check::Workload(check) => {
                for workload in &scene.workloads {
                    let annotated = [workload.object.value, workload.template];
                    report.add(rule, &workload.object, &annotated, workload.object.path(), check(&scene, workload));
                }
            }
            Check::Container(check) => {
                for workload in &scene.workloads {
                    let annotated = [workload.object.value, workload.template];
                    for place in scene.places(workload) {
                        report.add(rule, &workload.object, &annotated, place.container.path(workload), check(&place));
                    }
                }
            }
        }
    }
    if report.workloads > 0 {
        report.absent =
            ["Service", "PodDisruptionBudget"].into_iter().filter(|kind| scene.of_kind(kind).next().is_none()).collect();
    }
    report.findings.sort_by(|a, b| (&a.file, a.line, a.column, a.rule.code).cmp(&(&b.file, b.line, b.column, b.rule.code)));
    report
}

impl Report {
    fn add(&mut self, rule: &'static Rule, object: &Object<'_>, annotated: &[Value<'_>], path: String, hits: Vec<Hit>) {
        let key = format!("{IGNORE}{}", rule.code);
        let reason = annotated.iter().find_map(|value| value.at(&["metadata", "annotations", &key])?.text());
        if reason.is_some_and(is_reason) {
            self.ignored += hits.len();
            return;
        }
        self.findings.extend(hits.into_iter().map(|hit| Finding {
            rule,
            severity: hit.severity.unwrap_or(rule.severity),
            file: object.source.name.clone(),
            line: hit.line,
            column: hit.column,
            path: path.clone(),
            said: hit.said,
        }));
    }
}

fn is_reason(text: &str) -> bool {
    let text = text.trim().to_ascii_lowercase();
    !["", "true", "yes", "on", "1", "y"].contains(&text.as_str())
}

fn ignored_without_reason(_: &Scene<'_>, object: &Object<'_>) -> Vec<Hit> {
    let template =
        object.workload().map(|workload| workload.template).filter(|template| template.start() != object.value.start());
    let annotated = [Some(object.value), template].into_iter().flatten();
    let entries = annotated.filter_map(|value| value.at(&["metadata", "annotations"])).flat_map(|map| map.entries());
    let mut hits = Vec::new();
    for (key, value) in entries {
        let Some(code) = key.strip_prefix(IGNORE) else { continue };
        if !rules().any(|rule| rule.code == code) {
            hits.push(Hit::at(value, format!("{key}: there is no rule {code}")));
        } else if !value.text().is_some_and(is_reason) {
            hits.push(Hit::at(value, format!("{key}: the reason is missing")));
        }
    }
    hits
}
