//! The report as bars over time, for a terminal.

use super::{BIN_MS, Kept, Millis, PhaseName, Report, Round, What};

/// Columns that the bars have.
const WIDTH: usize = 84;
/// Before these, what they show.
const LABEL: usize = 11;
const BEFORE_MS: Millis = 500;

pub fn draw(report: &Report) -> String {
    let rounds = || report.contenders.iter().filter_map(|column| column.rounds.get(column.worst).map(|round| (column, round)));
    let Some(last) = rounds().map(|(_, round)| end(round)).max() else { return String::new() };
    let scale = Scale { from: -BEFORE_MS, step: ((last + BEFORE_MS) / WIDTH as Millis + 1).max(20) };
    let grace = report.settings.grace_period_ms as Millis;
    let pinned = report.settings.pinned;

    let mut text = format!("\n{:LABEL$}{}\n", "", scale.ruler(last));
    for (column, round) in rounds() {
        text.push_str(&format!("{}\n", column.name));
        let mut bar = |label: &str, bar: String| text.push_str(&format!("  {label:0$}{bar}\n", LABEL - 2));
        bar("server", server(round, scale, last, grace));
        bar("clients", clients(round, scale, last));
        if pinned > 0 {
            bar("kept", kept(&round.kept, scale));
        }
    }
    text.push_str(
        "\nserver: = serves, ~ preStop sleeps, - lame duck, . stops, ! killed.  clients: : send, x lose, | the last has learnt\n",
    );
    if pinned > 0 {
        text.push_str(&format!("kept: open connections of the {pinned} pinned clients, who never learn\n"));
    }
    if grace > last {
        text.push_str(&format!("the grace period ends at {} s, off the right edge\n", grace as f64 / 1e3));
    } else {
        text.push_str("]: the grace period's end\n");
    }
    text
}

/// From milliseconds to columns.
#[derive(Clone, Copy)]
struct Scale {
    from: Millis,
    step: Millis,
}

impl Scale {
    fn column(self, at: Millis) -> usize {
        usize::try_from((at - self.from).div_euclid(self.step)).unwrap_or(0).min(WIDTH - 1)
    }

    /// Seconds, as many as there is room for.
    fn ruler(self, last: Millis) -> String {
        let mut line = String::new();
        let every = [1, 2, 5, 10, 20, 60, 300, 3600].into_iter().find(|every| every * 1000 / self.step >= 7).unwrap_or(86_400);
        for second in (0..=last / 1000).step_by(every as usize) {
            let column = self.column(second * 1000);
            if column + 4 < WIDTH {
                line.extend(std::iter::repeat_n(' ', column.saturating_sub(line.len())));
                line.push_str(&format!("{second}s"));
            }
        }
        line
    }
}

fn end(round: &Round) -> Millis {
    round.events.iter().map(|event| event.at_ms).max().unwrap_or(0)
}

fn at(round: &Round, what: What) -> Option<Millis> {
    round.events.iter().find(|event| event.what == what).map(|event| event.at_ms)
}

fn server(round: &Round, scale: Scale, last: Millis, grace: Millis) -> String {
    let mut line = vec![' '; WIDTH];
    for phase in &round.phases {
        let mark = match phase.name {
            PhaseName::Serving => '=',
            PhaseName::PreStop => '~',
            PhaseName::LameDuck => '-',
            PhaseName::Stopping => '.',
            PhaseName::Gone => continue,
        };
        let (from, to) = (scale.column(phase.from_ms.max(scale.from)), scale.column(phase.to_ms.max(scale.from)));
        line[from..=to].fill(mark);
    }
    if let Some(killed) = at(round, What::Killed) {
        line[scale.column(killed)] = '!';
    }
    if grace <= last {
        line[scale.column(grace)] = ']';
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}

fn clients(round: &Round, scale: Scale, last: Millis) -> String {
    let mut line = vec![' '; WIDTH];
    for bin in round.bins.iter().filter(|bin| bin.at_ms >= scale.from) {
        for cell in &mut line[scale.column(bin.at_ms)..=scale.column((bin.at_ms + BIN_MS - 1).min(last))] {
            if bin.lost.total() > 0 {
                *cell = 'x';
            } else if *cell == ' ' {
                *cell = ':';
            }
        }
    }
    if let Some(learnt) = at(round, What::LastLearnt) {
        line[scale.column(learnt)] = '|';
    }
    line.into_iter().collect::<String>().trim_end().to_owned()
}

/// Each number where it begins, as far as there is room; the last one always, if need be a little later.
fn kept(kept: &[Kept], scale: Scale) -> String {
    let mut columns: Vec<(usize, u64)> = Vec::new();
    for &Kept { at_ms, connections } in kept {
        let column = scale.column(at_ms);
        match columns.last_mut() {
            Some(last) if last.0 == column => last.1 = connections,
            _ => columns.push((column, connections)),
        }
    }
    let mut line = String::new();
    for (index, &(column, connections)) in columns.iter().enumerate() {
        let free = if line.is_empty() { 0 } else { line.len() + 1 };
        if free <= column || index + 1 == columns.len() {
            line.push_str(&format!("{:1$}{connections}", "", column.max(free) - line.len()));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_kept_connections_stand_where_they_begin() {
        let line = |list: &[(Millis, u64)]| {
            let list: Vec<Kept> = list.iter().map(|&(at_ms, connections)| Kept { at_ms, connections }).collect();
            kept(&list, Scale { from: -500, step: 100 })
        };
        assert_eq!(line(&[(-500, 20), (500, 0)]), "20        0");
        // Before the first column, and several in one.
        assert_eq!(line(&[(-2000, 1), (-1900, 20), (500, 19), (510, 18), (590, 17)]), "20        17");
        // No room for a number that another touches, but for the last.
        assert_eq!(line(&[(-500, 20), (-400, 19), (-300, 18), (-200, 17), (0, 0)]), "20 17 0");
        assert_eq!(line(&[(-500, 20), (-400, 0)]), "20 0");
        assert_eq!(line(&[]), "");
    }
}
