//! The CPU request, from which lameduck counts workers.

use lameduck::core::servers::Workers;

use super::{Check, Hit, Place, Rule, Severity};
use crate::wrap::{self, CPU_MILLIS, Role};
use crate::yaml::Value;

pub const RULES: &[Rule] = &[
    Rule {
        code: "cpu-divisor",
        severity: Severity::Error,
        when: "LAMEDUCK_CPU_REQUEST_MILLIS, or the file cpu_request of the podinfo volume, has no divisor: 1m",
        why: "with the default divisor the Downward API writes whole cores, rounded up: 1500m becomes 2, and is read as 2 millicores",
        fix: "add divisor: 1m to the resourceFieldRef",
        check: Check::Container(cpu_divisor),
    },
    Rule {
        code: "cpu-request",
        severity: Severity::Info,
        when: "lameduck's container has no CPU request and no CPU limit",
        why: "the number of workers is then not set at all: 64 of them on a node of 64 cores would run out of memory",
        fix: "set resources.requests.cpu",
        check: Check::Container(cpu_request),
    },
    Rule {
        code: "cpu-unseen",
        severity: Severity::Info,
        when: "a server that takes its number of workers from a variable has a CPU request, and lameduck is not told",
        why: "a container cannot look its request up: it is guessed from the cgroup, and a guess does not reach the server's own variable",
        fix: "add LAMEDUCK_CPU_REQUEST_MILLIS by resourceFieldRef requests.cpu with divisor: 1m",
        check: Check::Container(cpu_unseen),
    },
];

fn cpu_divisor(place: &Place<'_>) -> Vec<Hit> {
    let variable = place.container.variable(CPU_MILLIS).and_then(|entry| entry.at(&["valueFrom", "resourceFieldRef"]));
    let items = wrap::podinfo_items(&place.workload, &place.container).into_iter();
    let file = items.filter(|item| place.wrap.is_some() && item.word("path") == Some("cpu_request"));
    let files = file.filter_map(|item| item.get("resourceFieldRef")).map(|reference| ("the file cpu_request", reference));
    let is_wrong = |reference: &Value<'_>| {
        reference.word("resource").is_some_and(|resource| resource.ends_with(".cpu")) && reference.word("divisor") != Some("1m")
    };
    let said = |(what, reference): (&str, Value<'_>)| {
        let divisor = reference.word("divisor").map_or("no divisor".to_owned(), |divisor| format!("divisor {divisor}"));
        Hit::at(reference, format!("{what} has {divisor}"))
    };
    variable
        .map(|reference| (CPU_MILLIS, reference))
        .into_iter()
        .chain(files)
        .filter(|(_, value)| is_wrong(value))
        .map(said)
        .collect()
}

fn is_init(place: &Place<'_>) -> bool {
    place.wrap.as_ref().is_some_and(|wrap| wrap.role != Role::Hook)
}

fn cpu_request(place: &Place<'_>) -> Vec<Hit> {
    let request = wrap::resource(&place.container, "requests", "cpu");
    let told = place.decided().is_some_and(|foreseen| foreseen.workers.is_some());
    if !is_init(place) || request.is_some() || told { Vec::new() } else { vec![place.hit("no CPU request, no CPU limit")] }
}

fn cpu_unseen(place: &Place<'_>) -> Vec<Hit> {
    let told = [CPU_MILLIS, "LAMEDUCK_CPU_REQUEST"].iter().any(|name| place.container.variable(name).is_some())
        || wrap::podinfo_items(&place.workload, &place.container).iter().any(|item| item.word("path") == Some("cpu_request"))
        || place.wrap.as_ref().is_some_and(|wrap| wrap.words.iter().any(|word| word.starts_with("--cpu-request")));
    let server = place.decided().and_then(|foreseen| foreseen.server);
    let takes = server.is_some_and(|server| server.workers != Workers::Elsewhere);
    let request = place.container.value.at(&["resources", "requests", "cpu"]).filter(|_| is_init(place) && takes && !told);
    request.map(|request| Hit::at(request, "lameduck is not told this request")).into_iter().collect()
}
