//! The report as bars over time, for a terminal.

use super::{BIN_MS, EndpointState, Kept, Millis, PhaseName, Pod, PodPhaseName, Report, Round, What};

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
        match report.settings.rollout {
            Some(_) => round.pods.iter().for_each(|pod| bar(short(&pod.name), pod_bar(pod, scale))),
            None => bar("server", server(round, scale, last, grace)),
        }
        bar("clients", clients(round, scale, last));
        if pinned > 0 {
            bar("kept", kept(&round.kept, scale));
        }
    }
    if report.settings.rollout.is_some() {
        text.push_str(
            "\npods: + starts, = ready, ? not ready any more, - terminating, . so, and in no EndpointSlice as serving.  ",
        );
        text.push_str("clients: : send, x lose\n");
    } else {
        text.push_str("\nserver: = serves, ~ preStop sleeps, - lame duck, . stops, ! killed.  ");
        text.push_str("clients: : send, x lose, | the last has learnt\n");
    }
    if pinned > 0 {
        text.push_str(&format!("kept: open connections of the {pinned} pinned clients, who never learn\n"));
    }
    if report.settings.rollout.is_some() {
        return text;
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

/// The end of a pod's name, by which its neighbours differ.
fn short(name: &str) -> &str {
    let most = LABEL - 3;
    let at = name.char_indices().rev().nth(most - 1).map_or(0, |(at, _)| at);
    name[at..].trim_start_matches('-')
}

fn pod_bar(pod: &Pod, scale: Scale) -> String {
    let mut line = vec![' '; WIDTH];
    let cells = |from: Millis, to: Millis| scale.column(from.max(scale.from))..=scale.column(to.max(scale.from));
    for phase in pod.phases.iter().filter(|phase| phase.to_ms >= scale.from) {
        line[cells(phase.from_ms, phase.to_ms)].fill(match phase.name {
            PodPhaseName::Starting => '+',
            PodPhaseName::Ready => '=',
            PodPhaseName::NotReady => '?',
            PodPhaseName::Terminating => '-',
        });
    }
    let ends = pod.endpoints.iter().skip(1).map(|next| next.at_ms).chain(pod.phases.last().map(|phase| phase.to_ms));
    for (endpoint, end) in pod.endpoints.iter().zip(ends) {
        // It may leave the slices after the pod is gone.
        if endpoint.state <= EndpointState::Serving || end < endpoint.at_ms {
            continue;
        }

        for cell in line[cells(endpoint.at_ms, end)].iter_mut().filter(|cell| **cell == '-') {
            *cell = '.';
        }
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
    use crate::report::{Endpoint, PodPhase};

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

    #[test]
    fn a_pod_s_bar_shows_its_phases_and_its_endpoint() {
        let phase = |name, from_ms, to_ms| PodPhase { name, from_ms, to_ms };
        let endpoint = |at_ms, state| Endpoint { at_ms, state };
        let pod = Pod {
            phases: vec![
                phase(PodPhaseName::Starting, -900, 0),
                phase(PodPhaseName::Ready, 0, 300),
                phase(PodPhaseName::NotReady, 300, 500),
                phase(PodPhaseName::Terminating, 500, 900),
            ],
            endpoints: vec![
                endpoint(0, EndpointState::Ready),
                endpoint(500, EndpointState::Serving),
                endpoint(700, EndpointState::NotServing),
            ],
            ..Pod::default()
        };
        let bar = |pod: &Pod| pod_bar(pod, Scale { from: -500, step: 100 });
        assert_eq!(bar(&pod), "+++++===??--...");
        // The news of its endpoint came after that of its end.
        let late = Pod { endpoints: vec![endpoint(0, EndpointState::Ready), endpoint(1200, EndpointState::Absent)], ..pod };
        assert_eq!(bar(&late), "+++++===??-----");
    }

    #[test]
    fn pods_are_known_by_the_end_of_their_names() {
        assert_eq!(short("web-6c8f9d7b5-x2x9z"), "b5-x2x9z");
        assert_eq!((short("web-0"), short("")), ("web-0", ""));
    }
}
