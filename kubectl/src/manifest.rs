//! What manifests say: objects, and the workloads among them with their pods and containers. Nothing is copied: all are places in a text.

use crate::yaml::{self, Document, Fault, Value};

/// Kinds whose pods are looked at, and where their pod template stands.
const WORKLOADS: &[(&str, &[&str])] = &[
    ("Pod", &[]),
    ("Deployment", &["spec", "template"]),
    ("StatefulSet", &["spec", "template"]),
    ("DaemonSet", &["spec", "template"]),
    ("ReplicaSet", &["spec", "template"]),
    ("Job", &["spec", "template"]),
    ("CronJob", &["spec", "jobTemplate", "spec", "template"]),
];

/// A text and the name it is spoken of by.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    pub text: String,
}

/// A source with its documents.
#[derive(Debug)]
pub struct Parsed {
    pub source: Source,
    documents: Vec<Document>,
}

/// The line for a person, without our name before it.
pub fn parse(source: Source) -> Result<Parsed, String> {
    match yaml::parse(source.text.trim_start_matches('\u{feff}')) {
        Ok(documents) if !source.text.starts_with('\u{feff}') => Ok(Parsed { source, documents }),
        Ok(_) => Err(format!("cannot read {}: it begins with a byte order mark; save it without", source.name)),
        Err(Fault { line, why }) => Err(format!("cannot read {}: line {line}: {why}; mend the YAML", source.name)),
    }
}

/// One object, in a list perhaps.
#[derive(Clone, Copy, Debug)]
pub struct Object<'a> {
    pub source: &'a Source,
    pub value: Value<'a>,
    pub kind: &'a str,
    pub name: &'a str,
    pub namespace: Option<&'a str>,
}

impl Parsed {
    /// All objects in the order of the text. What has no kind is none.
    pub fn objects(&self) -> Vec<Object<'_>> {
        let mut all = Vec::new();
        for root in self.documents.iter().filter_map(Document::root) {
            self.collect(root, &mut all);
        }
        all
    }

    fn collect<'a>(&'a self, value: Value<'a>, all: &mut Vec<Object<'a>>) {
        let Some(kind) = value.word("kind") else { return };
        if kind.ends_with("List") && value.get("items").is_some_and(|items| items.is_list()) {
            // An alias as an item is another's text, and is looked at there; so no list is endless.
            for item in value.list("items").into_iter().filter(|item| item.start() > value.start()) {
                self.collect(item, all);
            }
            return;
        }
        let metadata = |key| value.at(&["metadata", key]).and_then(|name| name.text());
        all.push(Object {
            source: &self.source,
            value,
            kind,
            name: metadata("name").or(metadata("generateName")).unwrap_or("(no name)"),
            namespace: metadata("namespace"),
        });
    }
}

impl<'a> Object<'a> {
    /// As findings and reports name it.
    pub fn path(&self) -> String {
        match self.namespace {
            Some(namespace) => format!("{}/{namespace}/{}", self.kind, self.name),
            None => format!("{}/{}", self.kind, self.name),
        }
    }

    pub fn annotation(&self, name: &str) -> Option<&'a str> {
        self.value.at(&["metadata", "annotations", name])?.text()
    }

    /// None: it has no pods.
    pub fn workload(self) -> Option<Workload<'a>> {
        let (_, path) = WORKLOADS.iter().find(|(kind, _)| *kind == self.kind)?;
        let template = self.value.at(path)?;
        let spec = template.get("spec")?;
        Some(Workload { object: self, template, spec })
    }
}

/// An object with a pod.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    pub object: Object<'a>,
    /// The pod template, or the Pod itself.
    pub template: Value<'a>,
    /// The pod's spec.
    pub spec: Value<'a>,
}

#[derive(Clone, Copy, Debug)]
pub struct Container<'a> {
    pub value: Value<'a>,
    pub name: &'a str,
    /// An init container that goes on running: a native sidecar.
    pub is_sidecar: bool,
}

/// Names of containers, and parts of images, of proxies and helpers that are not the app.
const HELPERS: &[&str] = &[
    "istio-proxy",
    "linkerd-proxy",
    "consul-dataplane",
    "envoy-sidecar",
    "cloud-sql-proxy",
    "cloudsql-proxy",
    "vault-agent",
    "fluent-bit",
    "fluentd",
    "filebeat",
    "promtail",
    "otel-collector",
    "opentelemetry-collector",
    "datadog-agent",
    "daprd",
    "pgbouncer",
    "oauth2-proxy",
];

impl<'a> Workload<'a> {
    /// What runs while the pod serves.
    pub fn containers(&self) -> Vec<Container<'a>> {
        self.spec.list("containers").into_iter().map(|value| Container::of(value, false)).collect()
    }

    pub fn init_containers(&self) -> Vec<Container<'a>> {
        let all = self.spec.list("initContainers");
        all.into_iter().map(|value| Container::of(value, value.word("restartPolicy") == Some("Always"))).collect()
    }

    /// Kubernetes' default is 30 s.
    pub fn grace(&self) -> (i64, Option<Value<'a>>) {
        let key = "terminationGracePeriodSeconds";
        match self.spec.integer(key) {
            Some(seconds) => (seconds, self.spec.get(key)),
            None => (30, None),
        }
    }

    pub fn is_job(&self) -> bool {
        matches!(self.object.kind, "Job" | "CronJob")
    }

    /// Rolled out and counted in replicas.
    pub fn replicas(&self) -> Option<i64> {
        let counted = matches!(self.object.kind, "Deployment" | "StatefulSet" | "ReplicaSet");
        counted.then(|| self.object.value.at(&["spec"]).and_then(|spec| spec.integer("replicas")).unwrap_or(1))
    }

    pub fn labels(&self) -> Vec<(&'a str, &'a str)> {
        let labels = self.template.at(&["metadata", "labels"]);
        labels
            .map(|labels| labels.entries().iter().filter_map(|(key, value)| Some((*key, value.text()?))).collect())
            .unwrap_or_default()
    }

    /// An annotation or a label of the pods.
    pub fn pod_annotation(&self, name: &str) -> Option<&'a str> {
        let from = |part| self.template.at(&["metadata", part, name])?.text();
        from("annotations").or(from("labels"))
    }

    /// Whether the selector, a map of labels, takes these pods. Both must be in one namespace, as far as it is written down.
    pub fn is_selected(&self, by: Object<'_>, selector: Option<Value<'_>>) -> bool {
        let Some(selector) = selector.filter(|selector| !selector.entries().is_empty()) else { return false };
        let labels = self.labels();
        let holds = |key: &str, value: Value<'_>| value.text().is_some_and(|value| labels.contains(&(key, value)));
        let together = match (by.namespace, self.object.namespace) {
            (Some(one), Some(other)) => one == other,
            _ => true,
        };
        together && selector.entries().into_iter().all(|(key, value)| holds(key, value))
    }
}

impl<'a> Container<'a> {
    fn of(value: Value<'a>, is_sidecar: bool) -> Container<'a> {
        Container { value, name: value.word("name").unwrap_or("(no name)"), is_sidecar }
    }

    pub fn path(&self, workload: &Workload<'_>) -> String {
        format!("{} containers[{}]", workload.object.path(), self.name)
    }

    pub fn image(&self) -> &'a str {
        self.value.word("image").unwrap_or_default()
    }

    /// A proxy or a helper beside the app, by its name or its image.
    pub fn is_helper(&self) -> bool {
        let image = self.image().rsplit('/').next().unwrap_or_default();
        let image = image.split([':', '@']).next().unwrap_or_default();
        HELPERS.iter().any(|helper| self.name == *helper || image == *helper)
    }

    /// `command` and `args` as the manifest has them.
    pub fn command(&self) -> Vec<String> {
        self.value.words("command")
    }

    pub fn args(&self) -> Vec<String> {
        self.value.words("args")
    }

    /// The variable's entry.
    pub fn variable(&self, name: &str) -> Option<Value<'a>> {
        // The last one wins.
        self.value.list("env").into_iter().rev().find(|entry| entry.word("name") == Some(name))
    }

    /// The script of `sh -c SCRIPT`.
    pub fn shell_script(&self) -> Option<String> {
        const SHELLS: &[&str] = &["sh", "bash", "dash", "ash"];
        let words: Vec<String> = [self.command(), self.args()].concat();
        let shell = words.iter().position(|word| SHELLS.contains(&base_name(word)))?;
        let rest = &words[shell + 1..];
        let option = rest.iter().position(|word| word.starts_with('-') && word.ends_with('c'))?;
        // Behind a wrapper it is an argument, but still what runs.
        (option < 3).then(|| rest.get(option + 1).cloned()).flatten()
    }

    pub fn port(&self, named: &str) -> Option<i64> {
        if let Ok(number) = named.parse() {
            return Some(number);
        }
        self.value.list("ports").into_iter().find(|port| port.word("name") == Some(named))?.integer("containerPort")
    }
}

pub fn base_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or_default()
}
