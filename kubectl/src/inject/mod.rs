//! lameduck put into manifests: which edits of the text that takes. inject is uninject, and then the edits: done twice, it is done once.

mod container;
pub mod entrypoint;
pub mod record;

use crate::manifest::{self, Container, Object, Source, Workload};
use crate::wrap::{self, Role};
use crate::yaml::Value;
use crate::yaml::edit::{self, Edit, Text};
use crate::yaml::print::{New, text};
use entrypoint::Images;

/// Where the binary is in the app's container.
const DIRECTORY: &str = "/lameduck";
pub const BINARY: &str = "/lameduck/lameduck";
/// Of the volume, and of the init container.
const NAME: &str = "lameduck";
/// Where the init container sees the volume: its image has the binary as `/lameduck`.
const INSTALL: &str = "/install";

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum How {
    /// An init container copies the binary into an emptyDir.
    Init,
    /// The image is mounted as it is: Kubernetes 1.35.
    ImageVolume,
    /// As `Init`, but lameduck is the preStop hook, and the command stays as it is.
    PreStop,
}

impl How {
    pub const ALL: [How; 3] = [How::Init, How::ImageVolume, How::PreStop];

    pub fn name(self) -> &'static str {
        match self {
            How::Init => "init",
            How::ImageVolume => "image-volume",
            How::PreStop => "prestop",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Options {
    pub how: How,
    /// An image with the binary as `/lameduck`.
    pub image: String,
    /// None named: those that serve.
    pub containers: Vec<String>,
    /// What the containers run, where the manifest does not say it.
    pub entrypoint: Option<Vec<String>>,
    /// Seconds, in place of what the pods have.
    pub grace: Option<i64>,
}

/// A text that was edited, and what a person should hear of it.
#[derive(Clone, Debug, Default)]
pub struct Edited {
    pub text: String,
    pub notes: Vec<String>,
    /// Names of containers that were there to choose from.
    pub seen: Vec<String>,
}

/// Why a workload stays as it is, or cannot be done at all.
enum Obstacle {
    Left(String),
    Refused(String),
}

/// Takes out what an earlier inject put in, and puts it in anew.
pub fn inject(source: &Source, options: &Options, images: &Images) -> Result<Edited, String> {
    let restored = uninject(source)?.text;
    let parsed = manifest::parse(Source { text: restored.clone(), ..source.clone() })?;
    let mut edits = Vec::new();
    let mut edited = Edited::default();
    let place = Text::new(&restored);
    for workload in parsed.objects().into_iter().filter_map(Object::workload) {
        edited.seen.extend(workload.containers().iter().map(|container| container.name.to_owned()));
        match of_workload(place, &workload, options, images) {
            Ok(new) => {
                let record = record::recorded(place, workload.object.value, options.how.name(), new);
                edits.extend(record.map_err(|why| cannot(&workload, source, &why))?);
            }
            Err(Obstacle::Left(why)) => edited.notes.push(format!("{}: {why}; left as it is", workload.object.path())),
            Err(Obstacle::Refused(why)) => return Err(cannot(&workload, source, &why)),
        }
    }
    edited.text = edit::apply(&restored, &edits);
    // What is handed out can be read.
    manifest::parse(Source { text: edited.text.clone(), ..source.clone() })?;
    Ok(edited)
}

fn cannot(workload: &Workload<'_>, source: &Source, why: &str) -> String {
    format!("cannot inject {} ({}:{}): {why}", workload.object.path(), source.name, workload.object.value.line())
}

/// Gives the bytes back that stood there before.
pub fn uninject(source: &Source) -> Result<Edited, String> {
    let mut edited = Edited { text: source.text.clone(), ..Edited::default() };
    let parsed = manifest::parse(source.clone())?;
    // From the end, so that the places before stay where they are.
    for object in parsed.objects().into_iter().rev() {
        let Some(annotation) = object.value.at(&["metadata", "annotations", record::ANNOTATION]) else { continue };
        let undone = record::undone(&edited.text, object.value, annotation);
        edited.text = undone
            .map_err(|why| format!("cannot uninject {} ({}:{}): {why}", object.path(), source.name, object.value.line()))?;
        edited.notes.push(format!("{}: taken out", object.path()));
    }
    Ok(edited)
}

/// The containers that are chosen.
fn chosen<'a>(workload: &Workload<'a>, options: &Options) -> Vec<Container<'a>> {
    let all = workload.containers().into_iter();
    let is_chosen = |container: &Container<'a>| match options.containers.as_slice() {
        [] => !workload.is_job() && crate::lint::serves(container),
        names => names.iter().any(|name| name == container.name),
    };
    all.filter(is_chosen).collect()
}

/// Whether lameduck is not there yet. Settings alone say that it is in the image, unless somebody chose this very container.
fn is_bare(container: &Container<'_>, options: &Options) -> bool {
    wrap::of(container).is_none_or(|wrap| wrap.role == Role::Image && !options.containers.is_empty())
}

/// Images that the manifest leaves open what they run.
pub fn images(source: &Source, options: &Options) -> Result<Vec<String>, String> {
    if options.how == How::PreStop || options.entrypoint.is_some() {
        return Ok(Vec::new());
    }
    let parsed = manifest::parse(Source { text: uninject(source)?.text, ..source.clone() })?;
    let workloads: Vec<Workload<'_>> = parsed.objects().into_iter().filter_map(Object::workload).collect();
    let containers = workloads.iter().flat_map(|workload| chosen(workload, options));
    let open = containers.filter(|container| container.command().is_empty() && is_bare(container, options));
    let mut images: Vec<String> = open.map(|container| container.image().to_owned()).collect();
    images.sort();
    images.dedup();
    Ok(images)
}

fn of_workload(place: Text<'_>, workload: &Workload<'_>, options: &Options, images: &Images) -> Result<Vec<Edit>, Obstacle> {
    let left = |why: &str| Obstacle::Left(why.to_owned());
    let chosen = chosen(workload, options);
    if chosen.is_empty() {
        let why = if options.containers.is_empty() { "no container serves" } else { "it has none of these containers" };
        return Err(left(why));
    }
    let bare: Vec<Container<'_>> = chosen.into_iter().filter(|container| is_bare(container, options)).collect();
    if bare.is_empty() {
        return Err(left("lameduck is in it already"));
    }
    if workload.spec.at(&["os", "name"]).is_some_and(|name| name.text() == Some("windows")) {
        return Err(left("it runs on Windows"));
    }
    if workload.spec.is_true("hostNetwork") {
        return Err(left("hostNetwork: its admin port would be the node's; wrap it by hand, with --port"));
    }
    let taken = |list: &str| workload.spec.list(list).iter().any(|item| item.word("name") == Some(NAME));
    if taken("volumes") || taken("initContainers") {
        return Err(Obstacle::Refused(format!("a volume or an init container of another origin is named {NAME}; rename it")));
    }
    let refused = Obstacle::Refused;
    let grace = options.grace.unwrap_or(workload.grace().0);
    let mut edits = Vec::new();
    let mut volumes = vec![binary_volume(options)];
    let mut ports = used_ports(workload);
    for (number, container) in bare.iter().enumerate() {
        let mut wish = container::Wish { options, images, grace, admin: free_port(&mut ports), podinfo: podinfo_name(number) };
        edits.extend(container::edits(place, workload, container, &mut wish).map_err(refused)?);
        if options.how != How::PreStop && wish.wants_podinfo(container) {
            volumes.push(podinfo_volume(&wish.podinfo, container));
        }
    }
    let spec = Spot { place, map: workload.spec, key: own_key(workload) };
    edits.push(spec.items("volumes", &volumes).map_err(refused)?);
    if options.how != How::ImageVolume {
        edits.push(spec.items("initContainers", &[init_container(options)]).map_err(refused)?);
    }
    edits.extend(spec.value("terminationGracePeriodSeconds", New::Number(grace)).map_err(refused)?);
    Ok(edits)
}

/// A map whose keys are edited.
#[derive(Clone, Copy)]
struct Spot<'t, 'a> {
    place: Text<'t>,
    map: Value<'a>,
    /// The map's own key, where it has one.
    key: Option<Value<'a>>,
}

impl<'a> Spot<'_, 'a> {
    /// Puts items into the list under `name`, or a new list there.
    fn items(&self, name: &'static str, new: &[New]) -> Result<Edit, String> {
        let Some(value) = self.present(name)? else {
            return self.place.add_key(self.map, self.key, name, &New::List(new.to_vec()));
        };
        if value.is_null() {
            return self.place.replace(value, &New::List(new.to_vec()));
        }
        let (key, value) = self.map.own(name).ok_or("it stands nowhere")?;
        self.place.add_items(value, key, new)
    }

    /// Makes the value under `name` this one. None: it is so already.
    fn value(&self, name: &'static str, new: New) -> Result<Option<Edit>, String> {
        match self.present(name)? {
            None => self.place.add_key(self.map, self.key, name, &new).map(Some),
            Some(value) if matches!(&new, New::Number(number) if value.text() == Some(&number.to_string())) => Ok(None),
            Some(value) => self.place.replace(value, &new).map(Some),
        }
    }

    /// The map's own value; one that comes by a merge key would have to be written out.
    fn present(&self, name: &str) -> Result<Option<Value<'a>>, String> {
        match (self.map.own(name), self.map.get(name)) {
            (Some((_, value)), _) => Ok(Some(value)),
            (None, Some(merged)) => Err(format!("{name} comes from a merge key (line {}); write it out", merged.line())),
            (None, None) => Ok(None),
        }
    }
}

/// The key that the pod's spec stands under.
fn own_key<'a>(workload: &Workload<'a>) -> Option<Value<'a>> {
    workload.template.own("spec").map(|(key, _)| key)
}

fn used_ports(workload: &Workload<'_>) -> Vec<i64> {
    let containers = [workload.containers(), workload.init_containers()].concat();
    containers
        .iter()
        .flat_map(|container| container.value.list("ports"))
        .filter_map(|port| port.integer("containerPort"))
        .collect()
}

/// For `--admin`: the usual one if it is free.
fn free_port(used: &mut Vec<i64>) -> i64 {
    let port = (9102..).find(|port| !used.contains(port)).unwrap_or(9102);
    used.push(port);
    port
}

fn podinfo_name(number: usize) -> String {
    if number == 0 { "lameduck-podinfo".to_owned() } else { format!("lameduck-podinfo-{}", number + 1) }
}

fn binary_volume(options: &Options) -> New {
    let what = match options.how {
        How::ImageVolume => ("image", New::Map(vec![("reference", text(&options.image)), ("pullPolicy", text("IfNotPresent"))])),
        How::Init | How::PreStop => ("emptyDir", New::Map(vec![("sizeLimit", text("16Mi"))])),
    };
    New::Map(vec![("name", text(NAME)), what])
}

/// Files that follow an in-place resize, as variables do not.
fn podinfo_volume(name: &str, container: &Container<'_>) -> New {
    let item = |path: &str, resource: &str, divisor: &str| {
        let reference = vec![("containerName", text(container.name)), ("resource", text(resource)), ("divisor", text(divisor))];
        New::Map(vec![("path", text(path)), ("resourceFieldRef", New::Map(reference))])
    };
    let items = New::List(vec![item("cpu_request", "requests.cpu", "1m"), item("memory_limit", "limits.memory", "1")]);
    New::Map(vec![("name", text(name)), ("downwardAPI", New::Map(vec![("items", items)]))])
}

/// As the policy `restricted` wants it, and small enough to cost nothing: an init container counts by the greatest, not by the sum.
fn init_container(options: &Options) -> New {
    let security = New::Map(vec![
        ("allowPrivilegeEscalation", New::Flag(false)),
        ("capabilities", New::Map(vec![("drop", New::Line(vec!["ALL".to_owned()]))])),
        ("readOnlyRootFilesystem", New::Flag(true)),
        ("runAsNonRoot", New::Flag(true)),
        ("runAsUser", New::Number(65532)),
        ("seccompProfile", New::Map(vec![("type", text("RuntimeDefault"))])),
    ]);
    let resources = New::Map(vec![
        ("requests", New::Map(vec![("cpu", text("10m")), ("memory", text("16Mi"))])),
        ("limits", New::Map(vec![("memory", text("16Mi"))])),
    ]);
    let command = ["/lameduck", "install", INSTALL].map(str::to_owned).to_vec();
    let mount = New::Map(vec![("name", text(NAME)), ("mountPath", text(INSTALL))]);
    New::Map(vec![
        ("name", text(NAME)),
        ("image", text(&options.image)),
        ("command", New::Line(command)),
        // A copy that failed says why in `kubectl describe pod`.
        ("terminationMessagePolicy", text("FallbackToLogsOnError")),
        ("resources", resources),
        ("securityContext", security),
        ("volumeMounts", New::List(vec![mount])),
    ])
}
