//! A round over time, as SVG: the server's phases, what became of the requests, how long answers took.

use std::fmt::Write;

use super::{BIN_MS, Bin, Event, Kept, Millis, PhaseName, Pod, PodPhaseName, Report, Round, What};

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
/// What a character of a label takes, at most on average.
const CHARACTER: f64 = 6.6;
const LANE: f64 = 16.0;
const BAR: f64 = 24.0;
const KEPT: f64 = 44.0;
const REQUESTS: f64 = 80.0;
const LATENCY: f64 = 90.0;
const GAP: f64 = 14.0;
const BEFORE_MS: Millis = 1000;

/// What all rounds of a page have in common, so that they can be compared.
#[derive(Clone, Copy, Debug)]
pub struct Axes {
    from: Millis,
    to: Millis,
    /// Kept connections; where there never are any, nothing is drawn of them.
    kept: u64,
    /// Requests in a bin.
    requests: u64,
    /// Milliseconds, both powers of ten.
    least: f64,
    most: f64,
}

impl Axes {
    pub fn of<'a>(rounds: impl Iterator<Item = &'a Round> + Clone) -> Axes {
        let to = rounds.clone().flat_map(|round| &round.events).map(|event| event.at_ms).max().unwrap_or(0);
        let server = rounds.clone().flat_map(|round| &round.phases).map(|phase| phase.from_ms);
        let pods = rounds.clone().flat_map(|round| &round.pods).flat_map(|pod| &pod.phases).map(|phase| phase.from_ms);
        let began = server.chain(pods).min().unwrap_or(0);
        let kept = rounds.clone().flat_map(|round| &round.kept).map(|kept| kept.connections).max().unwrap_or(0);
        let bins = rounds.flat_map(|round| &round.bins);
        let requests = bins.clone().map(|bin| bin.answered + bin.lost.total()).max().unwrap_or(1).max(1);
        let took = bins.flat_map(|bin| [bin.p50_ms, bin.p99_ms]).flatten();
        let (least, most) = took.fold((f64::MAX, 0f64), |(least, most), took| (least.min(took), most.max(took)));
        let least = if least < most { 10f64.powf(least.max(0.01).log10().floor()) } else { 1.0 };
        let most = 10f64.powf(most.log10().ceil()).max(least * 10.0);
        Axes { from: began.clamp(-BEFORE_MS, 0), to: (to + to / 50).max(1000), kept, requests, least, most }
    }

    fn x(self, at: Millis) -> f64 {
        let share = (at.clamp(self.from, self.to) - self.from) as f64 / (self.to - self.from) as f64;
        LEFT + share * (WIDTH - LEFT - RIGHT)
    }

    /// From the bottom up, between 0 and 1.
    fn latency(self, took: f64) -> f64 {
        ((took.max(self.least) / self.least).log10() / (self.most / self.least).log10()).clamp(0.0, 1.0)
    }

    /// Whole seconds, as many as there is room for.
    fn seconds(self) -> impl Iterator<Item = Millis> {
        let step = [1, 2, 5, 10, 20, 60, 300, 3600]
            .into_iter()
            .find(|step| (self.to - self.from) / (step * 1000) <= 12)
            .unwrap_or(86_400);
        (0..=self.to / 1000).step_by(step as usize).map(|second| second * 1000)
    }
}

/// A label's lane for each place on the line, so that none touches another. The places come in order.
fn lanes(labels: &[(f64, f64)]) -> Vec<usize> {
    let mut ends: Vec<f64> = Vec::new();
    let lane = |&(begin, width): &(f64, f64)| {
        let free = ends.iter().position(|end| *end + CHARACTER <= begin).unwrap_or(ends.len());
        ends.resize(ends.len().max(free + 1), 0.0);
        ends[free] = begin + width;
        free
    };
    labels.iter().map(lane).collect()
}

/// The moments that are named, in the order of their time.
fn moments(round: &Round, grace: Option<Millis>) -> Vec<(Millis, String)> {
    let named = |what| match what {
        What::Deleted => Some("deleted"),
        What::FirstLearnt => Some("first client knows"),
        What::LastLearnt => Some("last client knows"),
        What::Draining => Some("nothing new comes"),
        What::AppStopSignal => Some("app gets stop signal"),
        What::StopSignal => Some("stop signal"),
        What::Killed | What::AppKilled => Some("KILL"),
        What::Exited => Some("ended"),
        What::ProbeNotReady => Some("not ready"),
        What::Restarted => Some("restarted"),
        What::Complete => Some("complete"),
        What::Chaos => Some(""),
        _ => None,
    };
    let detailed = |event: &'_ Event| match named(event.what)? {
        "" => Some((event.at_ms, event.detail.clone())),
        name => Some((event.at_ms, name.to_owned())),
    };
    let end = grace.map(|grace| (grace, "grace period ends".to_owned()));
    let mut all: Vec<_> = round.events.iter().filter_map(detailed).chain(end).collect();
    all.sort_by_key(|(at, _)| *at);
    let mut moments: Vec<(Millis, String)> = Vec::new();
    for (at_ms, name) in all.into_iter().filter(|(at, _)| *at >= -BEFORE_MS) {
        match moments.last_mut() {
            Some((at, names)) if at_ms - *at < BIN_MS / 2 => {
                names.push_str(", ");
                names.push_str(&name);
            }
            _ => moments.push((at_ms, name)),
        }
    }
    moments
}

pub fn draw(report: &Report, name: &str, round: &Round, axes: Axes) -> String {
    let in_cluster = report.settings.rollout.is_some();
    // Each pod has its own.
    let grace = Some(report.settings.grace_period_ms as Millis).filter(|grace| *grace <= axes.to && !in_cluster);
    let moments = moments(round, grace);
    // To the left where there is no room to the right.
    let places: Vec<(f64, f64)> = moments
        .iter()
        .map(|(at, text)| {
            let width = text.chars().count() as f64 * CHARACTER;
            (axes.x(*at).min(WIDTH - width - RIGHT).max(0.0), width)
        })
        .collect();
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_by(|&a, &b| places[a].0.total_cmp(&places[b].0));
    let in_order: Vec<(f64, f64)> = order.iter().map(|&index| places[index]).collect();
    let lanes = lanes(&in_order);

    let top = (lanes.iter().max().map_or(0, |most| most + 1)) as f64 * LANE + 6.0;
    let connections = top + BAR * if in_cluster { round.pods.len() as f64 } else { 1.0 } + GAP;
    let requests = if axes.kept > 0 { connections + KEPT + GAP } else { connections };
    let latency = requests + REQUESTS + GAP;
    let bottom = latency + LATENCY;
    let height = bottom + 24.0;
    let mut svg = String::new();
    let label = escape(&format!("{name} over time: phases of the server, requests, latency"));
    let _ = write!(svg, r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{label}">"#);
    for second in axes.seconds() {
        let x = axes.x(second);
        let _ = write!(svg, r#"<line class="grid" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/>"#);
        let _ = write!(svg, r#"<text class="middle" x="{x:.1}" y="{:.1}">{} s</text>"#, bottom + 17.0, second / 1000);
    }
    if in_cluster {
        pods(&mut svg, &round.pods, axes, top);
    } else {
        phases(&mut svg, round, axes, top);
    }
    if axes.kept > 0 {
        kept(&mut svg, &round.kept, axes, connections);
    }
    bins(&mut svg, &round.bins, axes, requests);
    lines(&mut svg, &round.bins, axes, latency);
    for ((&index, lane), (x, _)) in order.iter().zip(&lanes).zip(&in_order) {
        let (at, text) = &moments[index];
        let (line, y) = (axes.x(*at), *lane as f64 * LANE + 12.0);
        let _ = write!(svg, r#"<line class="moment" x1="{line:.1}" x2="{line:.1}" y1="{:.1}" y2="{bottom}"/>"#, y + 3.0);
        let _ = write!(svg, r#"<text x="{x:.1}" y="{y:.1}">{}</text>"#, escape(text));
    }
    if let Some(x) = grace.map(|grace| axes.x(grace)) {
        let _ = write!(svg, r#"<line class="grace" x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}"/>"#);
    }
    svg.push_str("</svg>\n");
    svg
}

pub fn class(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Serving => "serving",
        PhaseName::PreStop => "pre-stop",
        PhaseName::LameDuck => "lame-duck",
        PhaseName::Stopping => "stopping",
        PhaseName::Gone => "gone",
    }
}

pub fn word(phase: PhaseName) -> &'static str {
    match phase {
        PhaseName::Serving => "serves",
        PhaseName::PreStop => "preStop sleeps",
        PhaseName::LameDuck => "lame duck",
        PhaseName::Stopping => "stops",
        PhaseName::Gone => "gone",
    }
}

fn phases(svg: &mut String, round: &Round, axes: Axes, top: f64) {
    let _ = write!(svg, r#"<text class="end" x="{:.1}" y="{:.1}">server</text>"#, LEFT - 8.0, top + 16.0);
    for phase in round.phases.iter().filter(|phase| phase.to_ms > axes.from) {
        let (x, word) = (axes.x(phase.from_ms), word(phase.name));
        let width = (axes.x(phase.to_ms) - x).max(2.0);
        let _ = write!(
            svg,
            r#"<rect class="{}" x="{x:.1}" y="{top}" width="{width:.1}" height="{BAR}"><title>{word}, {:.2} s to {:.2} s</title></rect>"#,
            class(phase.name),
            phase.from_ms as f64 / 1e3,
            phase.to_ms as f64 / 1e3
        );
        if phase.name != PhaseName::Gone && word.len() as f64 * CHARACTER + 12.0 < width {
            let _ = write!(svg, r#"<text class="inside" x="{:.1}" y="{:.1}">{word}</text>"#, x + 6.0, top + 16.0);
        }
    }
}

pub fn pod_class(phase: PodPhaseName) -> &'static str {
    match phase {
        PodPhaseName::Starting => "pre-stop",
        PodPhaseName::Ready => "serving",
        PodPhaseName::NotReady => "not-ready",
        PodPhaseName::Terminating => "lame-duck",
    }
}

pub fn pod_word(phase: PodPhaseName) -> &'static str {
    match phase {
        PodPhaseName::Starting => "starts",
        PodPhaseName::Ready => "ready",
        PodPhaseName::NotReady => "not ready any more",
        PodPhaseName::Terminating => "terminating",
    }
}

/// A bar for each, with its name where there is room.
fn pods(svg: &mut String, pods: &[Pod], axes: Axes, top: f64) {
    let _ = write!(svg, r#"<text class="end" x="{:.1}" y="{:.1}">pods</text>"#, LEFT - 8.0, top + 16.0);
    for (row, pod) in pods.iter().enumerate() {
        let y = top + BAR * row as f64;
        let name = escape(&pod.name);
        for phase in pod.phases.iter().filter(|phase| phase.to_ms > axes.from) {
            let (x, word) = (axes.x(phase.from_ms), pod_word(phase.name));
            let width = (axes.x(phase.to_ms) - x).max(2.0);
            let _ = write!(
                svg,
                r#"<rect class="{}" x="{x:.1}" y="{:.1}" width="{width:.1}" height="{:.1}"><title>{name}: {word}, {:.2} s to {:.2} s</title></rect>"#,
                pod_class(phase.name),
                y + 1.0,
                BAR - 2.0,
                phase.from_ms as f64 / 1e3,
                phase.to_ms as f64 / 1e3
            );
        }
        let widest = pod.phases.iter().map(|phase| (axes.x(phase.from_ms), axes.x(phase.to_ms)));
        let widest = widest.max_by(|a, b| (a.1 - a.0).total_cmp(&(b.1 - b.0)));
        if let Some((x, _)) = widest.filter(|(from, to)| pod.name.len() as f64 * CHARACTER + 12.0 < to - from) {
            let _ = write!(svg, r#"<text class="inside" x="{:.1}" y="{:.1}">{name}</text>"#, x + 6.0, y + 16.0);
        }
    }
}

/// Beside a strip: what its top stands for, of what, and its bottom.
fn scale(svg: &mut String, [most, unit, least]: [&str; 3], top: f64, bottom: f64) {
    for (y, text) in [(top + 10.0, most), (top + 26.0, unit), (bottom, least)] {
        let _ = write!(svg, r#"<text class="end" x="{:.1}" y="{y:.1}">{text}</text>"#, LEFT - 8.0);
    }
}

/// How many connections pinned clients keep open.
fn kept(svg: &mut String, kept: &[Kept], axes: Axes, top: f64) {
    let bottom = top + KEPT;
    scale(svg, [&axes.kept.to_string(), "kept", "0"], top, bottom);
    let ends = kept.iter().skip(1).map(|next| next.at_ms).chain([axes.to]);
    for (&Kept { at_ms, connections }, end) in
        kept.iter().zip(ends).filter(|(kept, end)| kept.connections > 0 && *end > axes.from)
    {
        let x = axes.x(at_ms);
        let tall = connections as f64 / axes.kept as f64 * KEPT;
        let _ = write!(
            svg,
            r#"<rect class="kept" x="{x:.1}" y="{:.1}" width="{:.1}" height="{tall:.1}"><title>from {:.2} s to {:.2} s: {connections} kept connections</title></rect>"#,
            bottom - tall,
            axes.x(end) - x,
            at_ms as f64 / 1e3,
            end as f64 / 1e3
        );
    }
    let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{bottom:.1}" y2="{bottom:.1}"/>"#, WIDTH - RIGHT);
}

/// The requests that ended, the lost ones on top.
fn bins(svg: &mut String, bins: &[Bin], axes: Axes, top: f64) {
    let bottom = top + REQUESTS;
    scale(svg, [&(axes.requests * 10).to_string(), "per s", "0"], top, bottom);
    for bin in bins.iter().filter(|bin| bin.at_ms >= axes.from) {
        let x = axes.x(bin.at_ms);
        let width = (axes.x(bin.at_ms + BIN_MS) - x - 0.5).max(0.5);
        let lost = bin.lost.total();
        let tall = |count: u64| count as f64 / axes.requests as f64 * REQUESTS;
        let mut rest = bottom;
        for (class, count) in [("answered", bin.answered), ("lost", lost)] {
            if count > 0 {
                rest -= tall(count);
                let kinds = bin.lost.kinds().into_iter().filter(|(_, count)| class == "lost" && *count > 0);
                let kinds: String = kinds.map(|(kind, count)| format!(", {count} {kind}")).collect();
                let _ = write!(
                    svg,
                    r#"<rect class="{class}" x="{x:.1}" y="{rest:.1}" width="{width:.1}" height="{:.1}"><title>{:.1} s: {count} {class}{kinds}</title></rect>"#,
                    tall(count),
                    bin.at_ms as f64 / 1e3
                );
            }
        }
    }
}

/// Latency, in powers of ten.
fn lines(svg: &mut String, bins: &[Bin], axes: Axes, top: f64) {
    let y = |took: f64| top + LATENCY * (1.0 - axes.latency(took));
    let mut tick = axes.least;
    while tick <= axes.most * 1.01 {
        let text = if tick >= 1000.0 { format!("{:.0} s", tick / 1e3) } else { format!("{tick} ms") };
        let y = y(tick);
        let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{:.1}" y1="{y:.1}" y2="{y:.1}"/>"#, WIDTH - RIGHT);
        let _ = write!(svg, r#"<text class="end" x="{:.1}" y="{:.1}">{text}</text>"#, LEFT - 8.0, y + 4.0);
        tick *= 10.0;
    }
    for (class, figure) in [("p99", (|bin| bin.p99_ms) as fn(&Bin) -> Option<f64>), ("p50", |bin| bin.p50_ms)] {
        let mut path = String::new();
        let mut last = None;
        for bin in bins.iter().filter(|bin| bin.at_ms >= axes.from) {
            let Some(took) = figure(bin) else { continue };
            // Nothing was answered between these: no line pretends that it was.
            let step = if last == Some(bin.at_ms - BIN_MS) { 'L' } else { 'M' };
            last = Some(bin.at_ms);
            let (x, y) = (axes.x(bin.at_ms + BIN_MS / 2), y(took));
            let _ = write!(path, "{step}{x:.1} {y:.1}");
            if step == 'M' {
                // A point of its own, should no other follow.
                let _ = write!(path, "h1");
            }
        }
        let _ = write!(svg, r#"<path class="{class}" d="{path}"/>"#);
    }
}

pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::PodPhase;

    #[test]
    fn labels_that_would_touch_have_lanes_of_their_own() {
        assert_eq!(lanes(&[(0.0, 50.0), (10.0, 50.0), (70.0, 50.0), (75.0, 10.0)]), [0, 1, 0, 1]);
        assert!(lanes(&[]).is_empty());
    }

    #[test]
    fn the_axes_hold_every_round() {
        let kept = vec![Kept { at_ms: 0, connections: 7 }];
        let bin = |at_ms, p50_ms| Bin { at_ms, answered: 3, p50_ms, p99_ms: p50_ms, ..Bin::default() };
        let round = Round { kept, bins: vec![bin(0, Some(0.4)), bin(100, Some(130.0))], ..Round::default() };
        let axes = Axes::of([round, Round::default()].iter());
        assert_eq!((axes.kept, axes.requests, axes.least, axes.most), (7, 3, 0.1, 1000.0));
        assert_eq!((axes.latency(0.1), axes.latency(1000.0), axes.latency(10.0)), (0.0, 1.0, 0.5));
        assert!(axes.seconds().count() > 0);
        // Nothing was answered at all.
        let empty = Axes::of([Round::default()].iter());
        assert!(empty.least < empty.most && empty.from < empty.to);
    }

    /// The picture's own numbers, not its looks: page.rs has these.
    #[test]
    fn kept_connections_are_as_tall_as_they_are_many() {
        let kept = [(0, 4), (500, 1), (700, 0)].map(|(at_ms, connections)| Kept { at_ms, connections });
        let round = Round { kept: kept.to_vec(), ..Round::default() };
        let axes = Axes::of([round.clone()].iter());
        let svg = draw(&Report::default(), "x", &round, axes);
        let all: Vec<&str> = svg.split("<rect class=\"kept\"").skip(1).collect();
        assert_eq!(all.len(), 2, "{svg}");
        assert!(all[0].contains(" height=\"44.0\"") && all[0].contains("from 0.00 s to 0.50 s: 4 kept connections"), "{svg}");
        assert!(all[1].contains(" height=\"11.0\"") && all[1].contains("from 0.50 s to 0.70 s: 1 kept connections"), "{svg}");
        let none = Round::default();
        assert!(!draw(&Report::default(), "x", &none, Axes::of([none.clone()].iter())).contains("kept"));
    }

    #[test]
    fn what_was_typed_stays_text() {
        assert_eq!(escape("<b a=\"&\">"), "&lt;b a=&quot;&amp;&quot;&gt;");
    }

    #[test]
    fn each_pod_has_a_bar_of_its_own() {
        let phase = |name, from_ms, to_ms| PodPhase { name, from_ms, to_ms };
        let pod = |name: &str, phases| Pod { name: name.to_owned(), phases, ..Pod::default() };
        let round = Round {
            pods: vec![
                pod("a<b", vec![phase(PodPhaseName::Ready, 0, 500), phase(PodPhaseName::Terminating, 500, 900)]),
                pod("c", vec![phase(PodPhaseName::Starting, 100, 300)]),
            ],
            ..Round::default()
        };
        let mut report = Report::default();
        report.settings.rollout = Some("shop/deployment/web".to_owned());
        let svg = draw(&report, "x", &round, Axes::of([round.clone()].iter()));
        for part in ["a&lt;b: ready, 0.00 s to 0.50 s", "a&lt;b: terminating, 0.50 s to 0.90 s", "c: starts, 0.10 s to 0.30 s"] {
            assert_eq!(svg.matches(part).count(), 1, "{part}: {svg}");
        }
        assert!(!svg.contains(">server<"));
    }
}
