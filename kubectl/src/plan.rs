//! What would happen in each workload: the timeline, and the number of workers.

use std::fmt::Write;

use lameduck::core::time::Show;

use crate::lint::serves;
use crate::manifest::{Container, Object, Parsed, Workload};
use crate::wrap::{self, CPU_MILLIS, GRACE_PERIOD, Role};

/// For a person.
pub fn plan(parsed: &[Parsed]) -> String {
    let mut text = String::new();
    for workload in parsed.iter().flat_map(Parsed::objects).filter_map(Object::workload) {
        let (grace, written) = workload.grace();
        let _ = writeln!(
            text,
            "{}: {grace}s until SIGKILL{}",
            workload.object.path(),
            if written.is_some() { "" } else { " (the default)" }
        );
        for container in workload.containers() {
            let _ = write!(text, "  containers[{}]: ", container.name);
            text.push_str(&of_container(&workload, &container));
        }
        text.push('\n');
    }
    if text.is_empty() {
        text.push_str("nothing here has pods\n");
    }
    text
}

fn of_container(workload: &Workload<'_>, container: &Container<'_>) -> String {
    let wrap = wrap::of(container);
    let (head, foreseen) = match &wrap {
        Some(wrap) => {
            let role = match wrap.role {
                Role::Command => "lameduck is its command",
                Role::Image => "lameduck is in its image, as its variables say; options there are not known",
                Role::Hook => "lameduck drain is its preStop hook",
            };
            (role, wrap::foresee(workload, container, wrap))
        }
        None if !serves(container) => return "takes no requests\n".to_owned(),
        None => ("without lameduck; with it there would be", would_be(workload, container)),
    };
    let foreseen = match foreseen {
        Ok(foreseen) => foreseen,
        Err(line) => return format!("lameduck would not start: {line}\n"),
    };
    let mut text = format!("{head}\n");
    let timing = &foreseen.timing;
    // Its own words on the timeline; a hook has the same budget.
    match foreseen.text.split_once("\ntimeline\n") {
        Some((_, timeline)) => {
            for line in timeline.lines().take_while(|line| !line.starts_with("  UDP ")) {
                let _ = writeln!(text, "  {line}");
            }
        }
        None => {
            let told = Show(timing.until_sent());
            let _ = writeln!(
                text,
                "    waits at least {}, at most {told}; then the app has until {}",
                Show(timing.delay),
                Show(timing.grace)
            );
        }
    }
    if wrap.is_none_or(|wrap| wrap.role != Role::Hook) {
        match foreseen.workers {
            Some(workers) => {
                let _ = writeln!(text, "    workers: {workers} ({})", foreseen.because);
            }
            None => text.push_str("    workers: not known, since there is neither a CPU request nor a limit\n"),
        }
        for (name, value) in &foreseen.child_env {
            let _ = writeln!(text, "    sets {name}={value}");
        }
    }
    for warning in &foreseen.warnings {
        let _ = writeln!(text, "    warning: {warning}");
    }
    text
}

/// As inject would have it.
fn would_be(workload: &Workload<'_>, container: &Container<'_>) -> Result<lameduck::foresee::Foreseen, String> {
    let words = [vec!["--".to_owned()], container.command(), container.args()].concat();
    let mut described = wrap::described(workload, container, words);
    described.variables.push((GRACE_PERIOD.to_owned(), format!("{}s", workload.grace().0)));
    let request = wrap::resource(container, "requests", "cpu");
    described.variables.extend(request.map(|milli| (CPU_MILLIS.to_owned(), milli.to_string())));
    lameduck::foresee::foresee(&described)
}
