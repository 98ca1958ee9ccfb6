//! One container: its command, its variables, its mounts, its probes, its hook.

use super::entrypoint::{Entrypoint, Images};
use super::{BINARY, DIRECTORY, How, NAME, Options, Spot};
use crate::manifest::{Container, Workload, base_name};
use crate::wrap::{self, CPU_MILLIS, GRACE_PERIOD};
use crate::yaml::Value;
use crate::yaml::edit::{Edit, Text};
use crate::yaml::print::{New, text};

const PODINFO: &str = "/etc/podinfo";

/// What is wanted of this container.
pub struct Wish<'a> {
    pub options: &'a Options,
    pub images: &'a Images,
    pub grace: i64,
    /// The port of `--admin`.
    pub admin: i64,
    /// The name of its podinfo volume.
    pub podinfo: String,
}

impl Wish<'_> {
    /// Not where something is mounted there, or is looked for elsewhere.
    pub fn wants_podinfo(&self, container: &Container<'_>) -> bool {
        let mounts = container.value.list("volumeMounts");
        let is_taken =
            mounts.iter().any(|mount| mount.word("mountPath").is_some_and(|path| path.trim_end_matches('/') == PODINFO));
        !is_taken && container.variable("LAMEDUCK_PODINFO").is_none()
    }
}

pub fn edits(
    place: Text<'_>,
    workload: &Workload<'_>,
    container: &Container<'_>,
    wish: &mut Wish<'_>,
) -> Result<Vec<Edit>, String> {
    let cannot = |why: String| format!("containers[{}]: {why}", container.name);
    let all = match wish.options.how {
        How::PreStop => hooked(place, workload, container, wish),
        How::Init | How::ImageVolume => wrapped(place, workload, container, wish),
    };
    all.map_err(cannot)
}

fn wrapped(place: Text<'_>, workload: &Workload<'_>, container: &Container<'_>, wish: &Wish<'_>) -> Result<Vec<Edit>, String> {
    let spot = Spot { place, map: container.value, key: None };
    let (mut edits, words) = command(&spot, container, wish)?;
    edits.extend(without_sleep(place, container)?);
    let (ready, probes) = probes(place, workload, container, wish.admin)?;
    let mut variables =
        vec![(GRACE_PERIOD, New::Map(vec![("name", text(GRACE_PERIOD)), ("value", text(format!("{}s", wish.grace)))]))];
    let admin = format!(":{}", wish.admin);
    variables.push(("LAMEDUCK_ADMIN", New::Map(vec![("name", text("LAMEDUCK_ADMIN")), ("value", text(&admin))])));
    if let Some(ready) = &ready {
        variables.push(("LAMEDUCK_READY", New::Map(vec![("name", text("LAMEDUCK_READY")), ("value", text(ready))])));
    }
    let reference = New::Map(vec![("resource", text("requests.cpu")), ("divisor", text("1m"))]);
    let from = New::Map(vec![("resourceFieldRef", reference)]);
    variables.push((CPU_MILLIS, New::Map(vec![("name", text(CPU_MILLIS)), ("valueFrom", from)])));
    let new: Vec<New> =
        variables.iter().filter(|(name, _)| container.variable(name).is_none()).map(|(_, new)| new.clone()).collect();
    edits.push(spot.items("env", &new)?);
    let mut mounts = vec![mount(NAME, DIRECTORY)];
    if wish.wants_podinfo(container) {
        mounts.push(mount(&wish.podinfo, PODINFO));
    }
    edits.push(spot.items("volumeMounts", &mounts)?);
    edits.extend(probes);
    fits(workload, container, wish, [vec!["--".to_owned()], words].concat())?;
    Ok(edits)
}

/// What lameduck itself would refuse is refused here.
fn fits(workload: &Workload<'_>, container: &Container<'_>, wish: &Wish<'_>, words: Vec<String>) -> Result<(), String> {
    let mut described = wrap::described(workload, container, words);
    described.variables.push((GRACE_PERIOD.to_owned(), format!("{}s", wish.grace)));
    match lameduck::foresee::foresee(&described) {
        Ok(_) => Ok(()),
        Err(line) => Err(format!("lameduck would refuse: {line}; or give --grace-period")),
    }
}

fn mount(name: &str, path: &str) -> New {
    New::Map(vec![("name", text(name)), ("mountPath", text(path)), ("readOnly", New::Flag(true))])
}

/// lameduck before what runs, and the words of that.
fn command(spot: &Spot<'_, '_>, container: &Container<'_>, wish: &Wish<'_>) -> Result<(Vec<Edit>, Vec<String>), String> {
    let wrapper = [BINARY.to_owned(), "--".to_owned()];
    let own = container.command();
    if !own.is_empty() {
        let words = [own, container.args()].concat();
        return Ok((vec![spot.items("command", &wrapper.map(text))?], words));
    }
    let Entrypoint { entrypoint, cmd } = entrypoint(container, wish)?;
    // `command` takes the place of CMD too.
    let args = container.args();
    let behind = if args.is_empty() { cmd } else { args };
    let add_args = container.args().is_empty() && !behind.is_empty();
    let mut edits: Vec<Edit> = spot.value("command", New::Line([&wrapper[..], &entrypoint].concat()))?.into_iter().collect();
    if add_args {
        edits.extend(spot.value("args", New::Line(behind.clone()))?);
    }
    Ok((edits, [entrypoint, behind].concat()))
}

fn entrypoint(container: &Container<'_>, wish: &Wish<'_>) -> Result<Entrypoint, String> {
    if let Some(words) = &wish.options.entrypoint {
        return Ok(Entrypoint { entrypoint: words.clone(), cmd: Vec::new() });
    }
    wish.images.get(container.image()).cloned().ok_or_else(|| {
        format!(
            "nobody says what {} runs: the manifest has no command, and neither podman nor docker nor skopeo knows the image; \
             give --entrypoint 'WORDS', or use --how prestop",
            container.image()
        )
    })
}

/// The preStop hook is left out where it only sleeps: lameduck's delay is that wait.
fn without_sleep(place: Text<'_>, container: &Container<'_>) -> Result<Vec<Edit>, String> {
    let Some((lifecycle_key, lifecycle)) = container.value.own("lifecycle") else { return Ok(Vec::new()) };
    let Some((hook_key, hook)) = lifecycle.own("preStop") else { return Ok(Vec::new()) };
    if !only_sleeps(hook) {
        return Ok(Vec::new());
    }
    let alone = lifecycle.entries().len() == 1;
    let (map, key, value) = if alone { (container.value, lifecycle_key, lifecycle) } else { (lifecycle, hook_key, hook) };
    place
        .remove(map, key, value)
        .map(|edit| vec![edit])
        .map_err(|why| format!("its preStop hook sleeps, and cannot be left out: {why}"))
}

fn only_sleeps(hook: Value<'_>) -> bool {
    if hook.get("sleep").is_some() {
        return true;
    }
    let words = hook.get("exec").map(|exec| exec.words("command")).unwrap_or_default();
    let is_sleep = |words: &[&str]| matches!(words, [program, _] if base_name(program) == "sleep");
    let refs: Vec<&str> = words.iter().map(String::as_str).collect();
    match refs.as_slice() {
        [shell, option, script] if base_name(shell).ends_with("sh") && option.ends_with('c') => {
            is_sleep(&script.trim().trim_end_matches(';').split_whitespace().collect::<Vec<_>>())
        }
        words => is_sleep(words),
    }
}

/// The readiness probe asks lameduck, which asks the app what the probe asked. A liveness probe stays: the kubelet ends it with the deletion,
/// and what is to restart the app is not for us to say.
fn probes(
    place: Text<'_>,
    workload: &Workload<'_>,
    container: &Container<'_>,
    admin: i64,
) -> Result<(Option<String>, Vec<Edit>), String> {
    let spot = Spot { place, map: container.value, key: None };
    let Some(probe) = spot.present("readinessProbe")?.filter(|probe| !probe.is_null()) else {
        if workload.is_job() || !crate::lint::serves(container) {
            return Ok((None, Vec::new()));
        }
        let http = New::Map(vec![("path", text("/readyz")), ("port", New::Number(admin))]);
        let new = New::Map(vec![("httpGet", http), ("periodSeconds", New::Number(5)), ("timeoutSeconds", New::Number(4))]);
        return Ok((None, spot.value("readinessProbe", new)?.into_iter().collect()));
    };
    let Some(url) = asked(probe, container) else { return Ok((None, Vec::new())) };
    let mut edits = redirected(place, probe, admin)?;
    if let Some(startup) = spot.present("startupProbe")?.filter(|startup| asked(*startup, container).as_ref() == Some(&url)) {
        edits.extend(redirected(place, startup, admin)?);
    }
    Ok((Some(url), edits))
}

/// What a probe asks over plain HTTP, as `--ready` takes it. None: something else, which stays.
fn asked(probe: Value<'_>, container: &Container<'_>) -> Option<String> {
    let http = probe.get("httpGet")?;
    let plain = http.word("scheme").is_none_or(|scheme| scheme == "HTTP")
        && http.get("host").is_none()
        && http.get("httpHeaders").is_none();
    let port = container.port(http.word("port")?).filter(|_| plain)?;
    let path = http.word("path").unwrap_or("/");
    Some(format!("http://127.0.0.1:{port}{}{path}", if path.starts_with('/') { "" } else { "/" }))
}

fn redirected(place: Text<'_>, probe: Value<'_>, admin: i64) -> Result<Vec<Edit>, String> {
    let (key, http) = probe.own("httpGet").ok_or("its probe comes from a merge key; write it out")?;
    let spot = Spot { place, map: http, key: Some(key) };
    let path = spot.value("path", text("/readyz"))?;
    Ok(path.into_iter().chain(spot.value("port", New::Number(admin))?).collect())
}

/// `lameduck drain` as the hook.
fn hooked(place: Text<'_>, workload: &Workload<'_>, container: &Container<'_>, wish: &Wish<'_>) -> Result<Vec<Edit>, String> {
    let spot = Spot { place, map: container.value, key: None };
    let grace = format!("{}s", wish.grace);
    let words = ["drain", "--grace-period", &grace].map(str::to_owned);
    let command = New::Line([&[BINARY.to_owned()], &words[..]].concat());
    let hook = New::Map(vec![("exec", New::Map(vec![("command", command)]))]);
    let mut edits = Vec::new();
    match spot.present("lifecycle")? {
        Some(lifecycle) if !lifecycle.is_null() => {
            let (key, _) = container.value.own("lifecycle").ok_or("its lifecycle stands nowhere")?;
            match lifecycle.own("preStop") {
                Some((_, old)) if !only_sleeps(old) => {
                    return Err("it has a preStop hook of its own; make lameduck drain a part of that".to_owned());
                }
                Some((hook_key, old)) => edits.push(place.put(lifecycle, hook_key, old, "preStop", &hook)?),
                None => edits.push(place.add_key(lifecycle, Some(key), "preStop", &hook)?),
            }
        }
        _ => edits.extend(spot.value("lifecycle", New::Map(vec![("preStop", hook)]))?),
    }
    edits.push(spot.items("volumeMounts", &[mount(NAME, DIRECTORY)])?);
    fits(workload, container, wish, words.to_vec())?;
    Ok(edits)
}
