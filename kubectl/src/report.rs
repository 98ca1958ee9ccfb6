//! Findings as text, JSON and SARIF 2.1.0.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::lint::{self, Finding, Report, Severity};

const HELP: &str = "https://github.com/lameduck-init/lameduck/blob/main/docs/lint.md";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    Text,
    Json,
    Sarif,
}

pub fn written(report: &Report, format: Format) -> String {
    match format {
        Format::Text => text(report),
        Format::Json => lines(&json(report)),
        Format::Sarif => lines(&sarif(report)),
    }
}

fn lines(value: &Value) -> String {
    format!("{value:#}\n")
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for Finding { rule, severity, file, line, column, path, said } in &report.findings {
        let _ = writeln!(text, "{file}:{line}:{column}: {} {}: {path}: {said}", severity.name(), rule.code);
        let _ = writeln!(text, "    why: {}\n    fix: {}", rule.why, rule.fix);
    }
    let count = |severity| report.findings.iter().filter(|finding| finding.severity == severity).count();
    let _ = writeln!(
        text,
        "{} workloads: {} errors, {} warnings, {} infos; {} ignored by annotations",
        report.workloads,
        count(Severity::Error),
        count(Severity::Warning),
        count(Severity::Info),
        report.ignored
    );
    if !report.absent.is_empty() {
        let _ = writeln!(text, "rules that need them were silent: the input has no {}", report.absent.join(" and no "));
    }
    text
}

fn json(report: &Report) -> Value {
    let finding = |finding: &Finding| {
        json!({
            "rule": finding.rule.code, "severity": finding.severity.name(), "file": finding.file, "line": finding.line,
            "column": finding.column, "path": finding.path, "said": finding.said, "why": finding.rule.why, "fix": finding.rule.fix,
        })
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "workloads": report.workloads,
        "ignored": report.ignored,
        "absent": report.absent,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "note",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

fn sarif(report: &Report) -> Value {
    let rules: Vec<Value> = lint::rules()
        .map(|rule| {
            json!({
                "id": rule.code,
                "shortDescription": { "text": rule.when },
                "fullDescription": { "text": rule.why },
                "help": { "text": rule.fix },
                "helpUri": format!("{HELP}#{}", rule.code),
                "defaultConfiguration": { "level": level(rule.severity) },
            })
        })
        .collect();
    let result = |finding: &Finding| {
        json!({
            "ruleId": finding.rule.code,
            "ruleIndex": lint::rules().position(|rule| rule.code == finding.rule.code),
            "level": level(finding.severity),
            "message": { "text": format!("{}: {}. Why: {}. Fix: {}", finding.path, finding.said, finding.rule.why, finding.rule.fix) },
            "locations": [{
                "physicalLocation": {
                    "artifactLocation": { "uri": uri(&finding.file) },
                    "region": { "startLine": finding.line, "startColumn": finding.column },
                },
                "logicalLocations": [{ "fullyQualifiedName": finding.path, "kind": "resource" }],
            }],
            // Stays the same when lines are added above it.
            "partialFingerprints": { "lameduck/v1": format!("{} {}", finding.rule.code, finding.path) },
        })
    };
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "kubectl-lameduck",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://github.com/lameduck-init/lameduck",
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "results": report.findings.iter().map(result).collect::<Vec<_>>(),
        }],
    })
}

/// A relative path as a URI; GitHub places no others.
fn uri(file: &str) -> String {
    file.trim_start_matches("./").bytes().fold(String::new(), |mut uri, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(byte as char);
        } else {
            let _ = write!(uri, "%{byte:02X}");
        }
        uri
    })
}
