//! lameduck in a container as its manifest shows it, and what it would decide there.

use lameduck::core::size::quantity;
use lameduck::foresee::{self, Foreseen};

use crate::manifest::{Container, Workload, base_name};
use crate::yaml::Value;

pub const GRACE_PERIOD: &str = "LAMEDUCK_GRACE_PERIOD";
pub const CPU_MILLIS: &str = "LAMEDUCK_CPU_REQUEST_MILLIS";
const IN_KUBERNETES: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");

/// How lameduck runs in a container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// In `command` or `args`.
    Command,
    /// In the image, since there are settings for it: its options there are not known.
    Image,
    /// As a preStop hook.
    Hook,
}

#[derive(Clone, Debug)]
pub struct Wrap {
    pub role: Role,
    /// What stands behind the word lameduck.
    pub words: Vec<String>,
}

/// None: no lameduck there, as far as the manifest shows.
pub fn of(container: &Container<'_>) -> Option<Wrap> {
    let hook = container.value.at(&["lifecycle", "preStop", "exec"]).map(|exec| exec.words("command")).unwrap_or_default();
    if let Some(words) = behind_lameduck(&hook) {
        return Some(Wrap { role: Role::Hook, words });
    }
    let command = [container.command(), container.args()].concat();
    if let Some(words) = behind_lameduck(&command) {
        return Some(Wrap { role: Role::Command, words });
    }
    let is_set =
        container.value.list("env").iter().any(|entry| entry.word("name").is_some_and(|name| name.starts_with("LAMEDUCK_")));
    is_set.then_some(Wrap { role: Role::Image, words: command })
}

fn behind_lameduck(words: &[String]) -> Option<Vec<String>> {
    let at = words.iter().position(|word| base_name(word) == "lameduck")?;
    // Far behind it is some argument.
    (at < 3).then(|| words[at + 1..].to_vec())
}

/// What lameduck decides here, or the line with which it refuses to start.
pub fn foresee(workload: &Workload<'_>, container: &Container<'_>, wrap: &Wrap) -> Result<Foreseen, String> {
    let mut words = wrap.words.clone();
    if wrap.role == Role::Hook && words.first().is_none_or(|word| word != "drain") {
        words.insert(0, "drain".to_owned());
    }
    // An image's ENTRYPOINT ends its options before the app; here there is the app alone.
    if wrap.role == Role::Image {
        words.insert(0, "--".to_owned());
    }
    foresee::foresee(&described(workload, container, words))
}

/// The same for words that do not stand there yet.
pub fn described(workload: &Workload<'_>, container: &Container<'_>, words: Vec<String>) -> foresee::Container {
    let mut variables = vec![(IN_KUBERNETES.0.to_owned(), IN_KUBERNETES.1.to_owned())];
    for entry in container.value.list("env") {
        let Some(name) = entry.word("name") else { continue };
        let reference = entry.at(&["valueFrom", "resourceFieldRef"]);
        let value = entry.word("value").map(str::to_owned).or_else(|| downward(workload, container, reference?));
        variables.extend(value.map(|value| (name.to_owned(), value)));
    }
    foresee::Container {
        words,
        variables,
        podinfo_cpu: podinfo(workload, container, "cpu_request"),
        podinfo_memory: podinfo(workload, container, "memory_limit"),
        cpu_limit: resource(container, "limits", "cpu"),
        memory_limit: resource(container, "limits", "memory"),
    }
}

/// Millicores or bytes. A request that is not made is the limit's.
pub fn resource(container: &Container<'_>, part: &str, name: &str) -> Option<u64> {
    let decimals = if name == "cpu" { 3 } else { 0 };
    let read = |part: &str| {
        let text = container.value.at(&["resources", part, name])?.text()?;
        quantity::parse(text, decimals, "").ok()
    };
    read(part).or_else(|| if part == "requests" { read("limits") } else { None })
}

/// What the kubelet writes for a resourceFieldRef: rounded up.
fn downward(workload: &Workload<'_>, container: &Container<'_>, reference: Value<'_>) -> Option<String> {
    let other = reference.word("containerName").filter(|name| *name != container.name);
    let other = other.and_then(|name| workload.containers().into_iter().find(|container| container.name == name));
    let container = other.as_ref().unwrap_or(container);
    let (part, name) = reference.word("resource")?.split_once('.')?;
    let figure = match (resource(container, part, name), part) {
        (Some(figure), _) => figure,
        (None, "requests") => 0,
        // The node's, whatever that is.
        (None, _) => return None,
    };
    let divisor = reference.word("divisor").filter(|divisor| *divisor != "0").unwrap_or("1");
    let decimals = if name == "cpu" { 3 } else { 0 };
    let divisor = quantity::parse(divisor, decimals, "").ok().filter(|divisor| *divisor > 0)?;
    Some(figure.div_ceil(divisor).to_string())
}

/// The mount of a downwardAPI volume where lameduck looks for it: its items.
pub fn podinfo_items<'a>(workload: &Workload<'a>, container: &Container<'a>) -> Vec<Value<'a>> {
    let directory = container.variable("LAMEDUCK_PODINFO").and_then(|entry| entry.word("value")).unwrap_or("/etc/podinfo");
    let mounts = container.value.list("volumeMounts");
    let volume =
        mounts.into_iter().find(|mount| mount.word("mountPath").is_some_and(|path| path.trim_end_matches('/') == directory));
    let Some(name) = volume.and_then(|mount| mount.word("name")) else { return Vec::new() };
    let volume = workload.spec.list("volumes").into_iter().find(|volume| volume.word("name") == Some(name));
    volume.and_then(|volume| Some(volume.get("downwardAPI")?.list("items"))).unwrap_or_default()
}

fn podinfo(workload: &Workload<'_>, container: &Container<'_>, file: &str) -> Option<String> {
    let item = podinfo_items(workload, container).into_iter().find(|item| item.word("path") == Some(file))?;
    downward(workload, container, item.get("resourceFieldRef")?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::{self, Source};

    /// As a kubelet writes it (observed on 1.33 and 1.36): rounded up, 0 for what is not requested, a limit for a request.
    #[test]
    fn what_the_downward_api_writes() {
        let pod = |resources: &str, resource: &str, divisor: &str| {
            let text = format!(
                "kind: Pod\nspec: {{containers: [{{name: a, resources: {resources}, env: [{{name: X, valueFrom: {{resourceFieldRef: {{resource: {resource}{divisor}}}}}}}]}}]}}"
            );
            let parsed = manifest::parse(Source { name: "x".to_owned(), text }).unwrap();
            let workload = parsed.objects()[0].workload().unwrap();
            let container = workload.containers()[0];
            let described = described(&workload, &container, Vec::new());
            described.variables.into_iter().find(|(name, _)| name == "X").map(|(_, value)| value)
        };
        let requests = "{requests: {cpu: 1500m, memory: 64Mi}}";
        for (resources, resource, divisor, written) in [
            (requests, "requests.cpu", ", divisor: 1m", Some("1500")),
            (requests, "requests.cpu", "", Some("2")),
            (requests, "requests.cpu", ", divisor: 1", Some("2")),
            (requests, "requests.memory", "", Some("67108864")),
            (requests, "requests.memory", ", divisor: 1Mi", Some("64")),
            ("{limits: {cpu: 250m}}", "requests.cpu", ", divisor: 1m", Some("250")),
            ("{}", "requests.cpu", ", divisor: 1m", Some("0")),
            ("{}", "limits.memory", "", None),
        ] {
            assert_eq!(pod(resources, resource, divisor).as_deref(), written, "{resources} {resource}{divisor}");
        }
    }
}
