//! The report as a table, a column for each contender.

use super::{Column, End, Pod, PodPhaseName, Report, Round, Tally, Verdict, What};

/// A contender's name has a line more where it would be wider.
const WIDEST: usize = 24;

pub fn draw(report: &Report) -> String {
    let rows = rows(report);
    let heads: Vec<Vec<&str>> = report.contenders.iter().map(|column| wrapped(&column.name)).collect();
    let lines = heads.iter().map(Vec::len).max().unwrap_or(0);
    // The last lines of all names stand on one line.
    let head = |line: usize| heads.iter().map(move |head| (line + head.len()).checked_sub(lines).map_or("", |line| head[line]));
    let first = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let width = |index: usize| {
        let cells = rows.iter().map(|(_, cells)| cells[index].as_str()).chain(heads[index].iter().copied());
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..report.contenders.len()).map(width).collect();
    let mut text = String::from("\n");
    let mut put = |name: &str, cells: &mut dyn Iterator<Item = &str>| {
        let cells: String = cells.zip(&widths).map(|(cell, &width)| format!("   {cell:>width$}")).collect();
        text.push_str(format!("{name:first$}{cells}").trim_end());
        text.push('\n');
    };
    (0..lines).for_each(|line| put("", &mut head(line)));
    for (name, cells) in &rows {
        put(name, &mut cells.iter().map(String::as_str));
    }
    text.push('\n');
    text.push_str(&notes(report));
    text
}

/// A name in lines, broken at blanks.
fn wrapped(name: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = name;
    while rest.chars().count() > WIDEST {
        let most = rest.char_indices().nth(WIDEST + 1).map_or(rest.len(), |(at, _)| at);
        // An option keeps its value if it can; a word that is wider by itself stays whole.
        let at = rest[..most].rfind(" -").or_else(|| rest[..most].rfind(' ')).or_else(|| rest.find(' '));
        let Some(at) = at else { break };
        lines.push(&rest[..at]);
        rest = &rest[at + 1..];
    }
    lines.push(rest);
    lines
}

/// The rows with a cell for each contender.
pub fn rows(report: &Report) -> Vec<(String, Vec<String>)> {
    let columns = &report.contenders;
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, cell: &dyn Fn(&Column) -> String| rows.push((name.to_owned(), columns.iter().map(cell).collect()));
    let many = report.settings.rounds > 1;

    row("answered", &|column| total(column).answered.to_string());
    row("lost", &|column| total(column).lost.total().to_string());
    for (index, (kind, _)) in Tally::default().lost.kinds().into_iter().enumerate() {
        // The first three are always there: that nothing was cut is a finding.
        if index < 3 || columns.iter().any(|column| total(column).lost.kinds()[index].1 > 0) {
            row(&format!("  {kind}"), &|column| total(column).lost.kinds()[index].1.to_string());
        }
    }
    row("retried", &|column| total(column).retried.to_string());
    if columns.iter().any(|column| total(column).elsewhere > 0) {
        row("answered elsewhere", &|column| total(column).elsewhere.to_string());
    }
    if report.settings.rollout.is_some() {
        row("time to complete", &|column| seconds(most(column, complete)));
        row("longest end of a pod", &|column| seconds(most(column, |round| round.pods.iter().filter_map(end).max())));
        return rows;
    }
    let of = if many { ", at most" } else { "" };
    row(&format!("time to stop{of}"), &|column| seconds(most(column, |round| round.stop.took_ms.map(|took| took.max(0) as u64))));
    row(&format!("time wasted{of}"), &|column| seconds(most(column, |round| round.stop.wasted_ms)));
    row(&format!("stopped too early by{of}"), &|column| match most(column, |round| round.stop.early_ms) {
        None if column.rounds.iter().any(|round| round.stop.ignored) => "ignored".to_owned(),
        early => seconds(early),
    });
    if many {
        row("rounds that lost", &|column| {
            let lost = column.rounds.iter().filter(|round| round.tally.lost.total() > 0).count();
            format!("{lost} of {}", column.rounds.len())
        });
    } else {
        row("exit code", &|column| {
            worst(column).and_then(|round| round.stop.code).map_or("-".to_owned(), |code| code.to_string())
        });
    }
    rows
}

/// From the restart to the moment when the old pods were gone and enough others ready, in milliseconds.
fn complete(round: &Round) -> Option<u64> {
    let event = round.events.iter().find(|event| event.what == What::Complete)?;
    u64::try_from(event.at_ms).ok()
}

/// From a pod's deletion to the moment when it was gone, in milliseconds.
fn end(pod: &Pod) -> Option<u64> {
    let began = pod.phases.iter().find(|phase| phase.name == PodPhaseName::Terminating)?.from_ms;
    u64::try_from(pod.gone_ms? - began).ok()
}

/// What is to be known besides, and the verdict.
fn notes(report: &Report) -> String {
    let mut text = String::new();
    let many = report.settings.rounds > 1;
    for column in &report.contenders {
        if let Some(round) = worst(column) {
            if many {
                let chaos = round.chaos.as_ref().map_or(String::new(), |chaos| format!(", {chaos}"));
                text.push_str(&format!(
                    "{}: worst round {} lost, --seed {}{chaos}\n",
                    column.name,
                    round.tally.lost.total(),
                    round.seed
                ));
            }
            text.extend(round.notes.iter().map(|note| format!("{}: {note}\n", column.name)));
        }
        let count = |of: &dyn Fn(&Round) -> bool| column.rounds.iter().filter(|round| of(round)).count() as u64;
        let excused = count(&|round| round.excused);
        let unasked = count(&|round| !round.excused && !round.is_judged());
        for (rounds, what) in [(excused, "took the app itself away"), (unasked, "ended before a client had come")] {
            if rounds > 0 && report.settings.rollout.is_none() {
                text.push_str(&format!("{}: {} {what}: shown, not judged\n", column.name, counted(rounds, "round")));
            }
        }
    }
    text.push_str(&verdict(report));
    text.push('\n');
    text
}

/// In one line.
pub fn verdict(report: &Report) -> String {
    let Verdict { contender, lost, seed, .. } = &report.verdict;
    let word = word(report.verdict.end());
    if report.verdict.end() == End::NothingJudged && report.settings.rollout.is_some() {
        return format!("{word} of {contender}: it was not seen to its end, or no client asked; --seed {seed}");
    }
    if report.verdict.end() == End::NothingJudged {
        return format!("{word} of {contender}: in each round no client came, or chaos took the app away; --seed {seed}");
    }
    let allowed = match report.settings.max_lost {
        0 => String::new(),
        most => format!(" ({most} allowed)"),
    };
    format!("{word}: {contender} lost {}{allowed}; --seed {seed}", counted(*lost, "request"))
}

pub fn word(end: End) -> &'static str {
    match end {
        End::Passed => "passed",
        End::Failed => "failed",
        End::NothingJudged => "nothing judged",
    }
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

pub fn worst(column: &Column) -> Option<&Round> {
    column.rounds.get(column.worst)
}

fn total(column: &Column) -> Tally {
    let mut sum = Tally::default();
    for Tally { answered, lost, retried, elsewhere } in column.rounds.iter().map(|round| round.tally) {
        sum.answered += answered;
        sum.retried += retried;
        sum.elsewhere += elsewhere;
        sum.lost.refused += lost.refused;
        sum.lost.reset += lost.reset;
        sum.lost.cut += lost.cut;
        sum.lost.failed += lost.failed;
        sum.lost.timed_out += lost.timed_out;
    }
    sum
}

fn most(column: &Column, figure: impl Fn(&Round) -> Option<u64>) -> Option<u64> {
    column.rounds.iter().filter_map(figure).max()
}

pub fn seconds(figure: Option<u64>) -> String {
    figure.map_or("-".to_owned(), |millis| format!("{:.1} s", millis as f64 / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_name_has_lines_and_none_is_shortened() {
        assert_eq!(wrapped("lameduck --delay 2s"), ["lameduck --delay 2s"]);
        assert_eq!(wrapped("lameduck --keep-alive wait"), ["lameduck", "--keep-alive wait"]);
        let long = ["lameduck --delay 2s", "--in-flight", "http://127.0.0.1:9253/metrics#active", "--port 80"];
        assert_eq!(wrapped(&long.join(" ")), long);
        assert_eq!(wrapped("a word and another word and one more"), ["a word and another word", "and one more"]);
        assert_eq!(wrapped("exactly as wide as it is it"), ["exactly as wide as it is", "it"]);
    }

    #[test]
    fn names_end_on_one_line_above_their_figures() {
        let column = |name: &str| Column { name: name.to_owned(), rounds: Vec::new(), worst: 0 };
        let report =
            Report { contenders: vec![column("none"), column("lameduck --delay 2s --keep-alive wait")], ..Report::default() };
        let text = draw(&report);
        let lines: Vec<&str> = text.lines().skip(1).take(3).collect();
        let expected = [
            "                              lameduck --delay 2s",
            "                       none     --keep-alive wait",
            "answered                  0                     0",
        ];
        assert_eq!(lines, expected);
    }
}
