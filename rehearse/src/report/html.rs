//! The report as one page that needs nothing else: no script, no font, no picture from anywhere.

use std::fmt::Write;

use super::plot::{self, Axes, escape};
use super::table::{self, worst};
use super::{Column, End, PhaseName, PodPhaseName, Report, Settings};

pub fn draw(report: &Report) -> String {
    let verdict = table::verdict(report);
    let (class, word) = (class(report.verdict.end()), table::word(report.verdict.end()));
    let axes = Axes::of(report.contenders.iter().filter_map(worst));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<meta name=\"color-scheme\" content=\"light dark\">\n<title>{}: {word}</title>\n\
         <link rel=\"icon\" href=\"data:,\">\n<style>\n{}</style>\n</head>\n<body>\n",
        escape(&report.settings.url),
        include_str!("page.css"),
    );
    let _ = write!(
        page,
        "<h1>How {} stops</h1>\n<p class=\"verdict {class}\">{}</p>\n<p class=\"soft\"><code>{}</code></p>\n<p class=\"soft\">{}</p>\n",
        escape(report.settings.rollout.as_ref().unwrap_or(&report.settings.url)),
        escape(&verdict),
        escape(&report.command),
        escape(&settings(&report.settings)),
    );
    summary(&mut page, report);
    legend(&mut page, report);
    for column in &report.contenders {
        contender(&mut page, report, column, axes);
    }
    let _ = write!(
        page,
        "<p class=\"soft\">Only a whole answer with a status below 400 counts as answered. Latency is that of answered quick requests, from \
         their scheduled time on. lameduck-rehearse {}</p>\n</body>\n</html>\n",
        escape(&report.version)
    );
    page
}

/// In sentences.
fn settings(settings: &Settings) -> String {
    let learns = match settings.propagate_ms {
        Some([first, last]) => format!(
            "; each client learns that the pod is going {:.1} s to {:.1} s after its deletion",
            first as f64 / 1e3,
            last as f64 / 1e3
        ),
        None => format!(" ask for {}", settings.url),
    };
    let stop = settings.stop_signal.as_ref().map_or(String::new(), |signal| format!(", stop signal {signal}"));
    format!(
        "{} requests a second by {} clients with {} keep-alive connections{learns}. {} pinned clients keep one connection each, go on \
         asking and never learn. Grace period {:.0} s{stop}.",
        settings.rate,
        settings.clients,
        settings.connections,
        settings.pinned,
        settings.grace_period_ms as f64 / 1e3,
    )
}

fn class(end: End) -> &'static str {
    match end {
        End::Passed => "passed",
        End::Failed => "failed",
        End::NothingJudged => "nothing-judged",
    }
}

fn summary(page: &mut String, report: &Report) {
    let heads: String =
        report.contenders.iter().map(|column| format!("<th scope=\"col\">{}</th>", words(&column.name))).collect();
    let _ = writeln!(page, "<div class=\"wide\"><table>\n<thead><tr><td></td>{heads}</tr></thead><tbody>");
    for (name, cells) in table::rows(report) {
        let lost = name.starts_with("lost") || name.starts_with("  ");
        let cells: String = cells
            .iter()
            .map(|cell| match cell.as_str() {
                "0" => "<td>0</td>".to_owned(),
                _ if lost => format!("<td class=\"some\">{}</td>", escape(cell)),
                _ => format!("<td>{}</td>", escape(cell)),
            })
            .collect();
        let _ = writeln!(page, "<tr><th scope=\"row\">{}</th>{cells}</tr>", escape(&name));
    }
    page.push_str("</tbody></table></div>\n");
}

/// A name that a narrow window may break at its blanks, and not after an option's hyphens.
fn words(name: &str) -> String {
    let word = |word: &str| match word.starts_with('-') {
        true => format!("<span class=\"option\">{}</span>", escape(word)),
        false => escape(word),
    };
    name.split(' ').map(word).collect::<Vec<_>>().join(" ")
}

fn legend(page: &mut String, report: &Report) {
    page.push_str("<p class=\"soft\">");
    let phases = [PhaseName::Serving, PhaseName::PreStop, PhaseName::LameDuck, PhaseName::Stopping, PhaseName::Gone];
    let kept = [("kept", "kept connections")];
    let figures = [("answered", "answered"), ("lost", "lost"), ("p50", "latency, median"), ("p99", "99th percentile")];
    let figures = kept.iter().filter(|_| report.settings.pinned > 0).chain(&figures);
    let pods = [PodPhaseName::Starting, PodPhaseName::Ready, PodPhaseName::NotReady, PodPhaseName::Terminating];
    let bars = match report.settings.rollout {
        Some(_) => pods.map(|phase| (plot::pod_class(phase), plot::pod_word(phase))).to_vec(),
        None => phases.map(|phase| (plot::class(phase), plot::word(phase))).to_vec(),
    };
    for row in [bars, figures.copied().collect()] {
        for (class, word) in row {
            let _ = write!(page, "<span class=\"entry\"><span class=\"key {class}\"></span>{word}</span> ");
        }
        page.push_str("<br>");
    }
    if report.settings.rollout.is_some() {
        page.push_str("Time runs from the moment when the workload was restarted, or its first pod deleted or evicted.</p>\n");
        return;
    }
    let _ = writeln!(
        page,
        "Time runs from the deletion of the pod; the grace period ends at {:.0} s.</p>",
        report.settings.grace_period_ms as f64 / 1e3
    );
}

fn contender(page: &mut String, report: &Report, column: &Column, axes: Axes) {
    let Some(round) = worst(column) else { return };
    let _ = writeln!(page, "<section>\n<h2>{}</h2>", escape(&column.name));
    if column.rounds.len() > 1 {
        let chaos = round.chaos.as_ref().map_or(String::new(), |chaos| format!(", {chaos}"));
        let _ = writeln!(
            page,
            "<p class=\"soft\">The worst of {} rounds: --seed {}{}.</p>",
            column.rounds.len(),
            round.seed,
            escape(&chaos)
        );
    } else if let Some(chaos) = &round.chaos {
        let _ = writeln!(page, "<p class=\"soft\">{}.</p>", escape(chaos));
    }
    for note in &round.notes {
        let _ = writeln!(page, "<p>{}.</p>", escape(note));
    }
    let _ = write!(page, "<div class=\"wide\">{}</div>\n</section>\n", plot::draw(report, &column.name, round, axes));
    if column.rounds.len() > 1 {
        page.push_str(
            "<details><summary>All rounds</summary>\n<div class=\"wide\"><table class=\"rounds\">\n<thead><tr><th>--seed</th>",
        );
        page.push_str("<th>answered</th><th>lost</th><th>time to stop</th><th class=\"chaos\"></th></tr></thead><tbody>\n");
        for round in &column.rounds {
            let excused = if round.is_judged() { "" } else { " (not judged)" };
            let _ = writeln!(
                page,
                "<tr><td>{}</td><td>{}</td><td{}>{}</td><td>{}</td><td class=\"chaos\">{}{excused}</td></tr>",
                round.seed,
                round.tally.answered,
                if round.tally.lost.total() > 0 { " class=\"some\"" } else { "" },
                round.tally.lost.total(),
                table::seconds(round.stop.took_ms.map(|took| took.max(0) as u64)),
                escape(round.chaos.as_deref().unwrap_or_default()),
            );
        }
        page.push_str("</tbody></table></div></details>\n");
    }
}
