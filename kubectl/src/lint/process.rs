//! What runs in a container: who gets the signal, who sees what, and what is missing.

use lameduck::core::servers;
use lameduck::core::signals::Signal;
use lameduck::core::start::script::background;

use super::{Check, Hit, Place, Rule, Scene, Severity};
use crate::manifest::{Container, Workload, base_name};
use crate::wrap::Role;

pub const RULES: &[Rule] = &[
    Rule {
        code: "nothing-waits",
        severity: Severity::Warning,
        when: "a container that serves has neither lameduck nor a preStop hook",
        why: "Kubernetes sends the stop signal and takes the pod out of its endpoints at the same time: requests come to a server that has \
              stopped already",
        fix: "kubectl lameduck inject; where the image has lameduck already, LAMEDUCK_GRACE_PERIOD in the manifest says so",
        check: Check::Container(nothing_waits),
    },
    Rule {
        code: "lameduck-without-command",
        severity: Severity::Error,
        when: "`command` is lameduck without the app's words, and there are no `args`",
        why: "`command` replaces the image's CMD too: lameduck would have nothing to run, and exit with 64",
        fix: "repeat the image's command in `args`",
        check: Check::Container(lameduck_without_command),
    },
    Rule {
        code: "unknown-setting",
        severity: Severity::Warning,
        when: "a variable LAMEDUCK_… is no setting",
        why: "lameduck ignores it, but for a warning in its log",
        fix: "correct the name; lameduck --help lists them",
        check: Check::Container(unknown_setting),
    },
    Rule {
        code: "shell-entrypoint",
        severity: Severity::Warning,
        when: "`sh -c` runs several commands, the last one without exec, and without lameduck around it",
        why: "the stop signal ends at the shell: the server never hears of it, and is killed when the grace period is over",
        fix: "write exec before the last command, or wrap it: kubectl lameduck inject",
        check: Check::Container(shell_entrypoint),
    },
    Rule {
        code: "several-processes",
        severity: Severity::Warning,
        when: "a shell script starts something in the background, and then something else",
        why: "only one of them gets the stop signal, and nobody notices when the other has died",
        fix: "give each a container of its own, or start the others by lameduck's --with: it stops them in order, and the end of one ends the container",
        check: Check::Container(several_processes),
    },
    Rule {
        code: "stop-signal",
        severity: Severity::Warning,
        when: "lifecycle.stopSignal is KILL, or does not begin lameduck's shutdown, or stands there without spec.os.name",
        why: "another signal is passed on to the app at once, without a drain; without spec.os.name the API server refuses it",
        fix: "leave it out, or add it to --stop-on; set spec.os.name: linux",
        check: Check::Container(stop_signal),
    },
    Rule {
        code: "prestop-missing-binary",
        severity: Severity::Warning,
        when: "a preStop hook runs a shell or sleep in an image that has none (distroless, scratch)",
        why: "the hook fails at once (FailedPreStopHook), and the stop signal follows without any wait",
        fix: "use the sleep action (Kubernetes 1.30), or kubectl lameduck inject --how prestop",
        check: Check::Container(prestop_missing_binary),
    },
    Rule {
        code: "share-process-namespace",
        severity: Severity::Warning,
        when: "shareProcessNamespace is true, and lameduck is in the pod",
        why: "lameduck is not PID 1 there: it reaps its own descendants alone, and what the app leaves behind outlives it",
        fix: "leave shareProcessNamespace out",
        check: Check::Workload(share_process_namespace),
    },
    Rule {
        code: "host-pid",
        severity: Severity::Warning,
        when: "hostPID is true, and lameduck is in the pod",
        why: "it sees the whole node's processes, and is not PID 1",
        fix: "leave hostPID out",
        check: Check::Workload(host_pid),
    },
    Rule {
        code: "host-network",
        severity: Severity::Warning,
        when: "hostNetwork is true, and lameduck is not told its ports",
        why: "the socket tables are the node's: where descriptors cannot be seen, other programs' connections count as the app's",
        fix: "name the app's ports with --port (LAMEDUCK_PORT)",
        check: Check::Container(host_network),
    },
    Rule {
        code: "keep-alive-forbidden",
        severity: Severity::Info,
        when: "lameduck would close kept-alive connections between two requests, and its container has seccomp RuntimeDefault without the capability \
               SYS_PTRACE",
        why: "that profile forbids pidfd_getfd, by which it is done: the app gets its stop signal while clients that keep their connection still \
              use it, and some of their requests are lost",
        fix: "allow pidfd_getfd by a Localhost profile (examples/seccomp), or add the capability SYS_PTRACE",
        check: Check::Container(keep_alive_forbidden),
    },
    Rule {
        code: "job-sidecar",
        severity: Severity::Error,
        when: "a Job or CronJob has a proxy or helper as an ordinary container",
        why: "it never ends by itself, so the Job is never complete",
        fix: "make it a native sidecar: an init container with restartPolicy: Always (Kubernetes 1.29)",
        check: Check::Workload(job_sidecar),
    },
    Rule {
        code: "image-volume-subpath",
        severity: Severity::Warning,
        when: "an image volume is mounted with subPath",
        why: "containerd 2.1 ignores it and mounts the image's root without a word; others need Kubernetes 1.33",
        fix: "mount the whole image in a directory of its own",
        check: Check::Container(image_volume_subpath),
    },
];

/// Whether this is a container that takes requests.
pub fn serves(container: &Container<'_>) -> bool {
    let probe = |name: &str| container.value.get(name).is_some_and(|probe| probe.get("exec").is_none() && !probe.is_null());
    !container.is_helper() && (!container.value.list("ports").is_empty() || probe("readinessProbe") || probe("livenessProbe"))
}

fn nothing_waits(place: &Place<'_>) -> Vec<Hit> {
    let waits = place.wrap.is_some() || place.container.value.at(&["lifecycle", "preStop"]).is_some_and(|hook| !hook.is_null());
    if waits || place.workload.is_job() || !serves(&place.container) {
        return Vec::new();
    }
    vec![place.hit("no lameduck, no preStop hook")]
}

fn lameduck_without_command(place: &Place<'_>) -> Vec<Hit> {
    let Some((wrap, foreseen)) = place.wrap.as_ref().zip(place.decided()) else { return Vec::new() };
    const ALONE: &[&str] = &["drain", "health", "help", "install", "plan", "status", "version", "--help", "--version"];
    let is_alone = wrap.words.first().is_some_and(|word| ALONE.contains(&word.as_str()));
    if wrap.role != Role::Command || is_alone || !foreseen.command.is_empty() {
        return Vec::new();
    }
    vec![place.hit("lameduck has no command to run")]
}

fn unknown_setting(place: &Place<'_>) -> Vec<Hit> {
    let Some(foreseen) = place.decided() else { return Vec::new() };
    let unknown = foreseen.warnings.iter().filter(|warning| warning.contains(" is no setting"));
    let hit = |warning: &String| {
        let name = warning.split(' ').next().unwrap_or_default();
        let said = warning.replace(" and was ignored", "");
        place.container.variable(name).map_or_else(|| place.hit(said.clone()), |entry| Hit::at(entry, said.clone()))
    };
    unknown.map(hit).collect()
}

/// The commands of a script, comments and blanks left out.
fn commands(script: &str) -> Vec<String> {
    let lines = script.lines().map(|line| line.trim()).filter(|line| !line.starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ").replace("&&", ";").replace("||", ";");
    joined.split(['\n', ';']).map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

fn shell_entrypoint(place: &Place<'_>) -> Vec<Hit> {
    let Some(script) = place.container.shell_script() else { return Vec::new() };
    let wrapped = place.wrap.as_ref().is_some_and(|wrap| wrap.role != Role::Hook);
    let commands = commands(&script);
    // A shell that is given one command becomes it by itself.
    let Some(last) = commands.last().filter(|_| commands.len() > 1 && !wrapped && !place.workload.is_job()) else {
        return Vec::new();
    };
    if last.starts_with("exec ") || script.contains("trap ") {
        return Vec::new();
    }
    let is_block = ["done", "fi", "esac", "}"].contains(&last.as_str());
    vec![place.hit(if is_block {
        "sh -c ends with a loop or a block, and nothing traps the signal".to_owned()
    } else {
        format!("sh -c ends with {:?}, without exec", shortened(last))
    })]
}

fn several_processes(place: &Place<'_>) -> Vec<Hit> {
    let Some(script) = place.container.shell_script() else { return Vec::new() };
    let first = background(&script);
    first.into_iter().map(|first| place.hit(format!("a script runs {:?} in the background", shortened(first)))).collect()
}

fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    let first = text.lines().next().unwrap_or_default();
    if first.chars().count() <= MOST { first.to_owned() } else { format!("{}…", first.chars().take(MOST).collect::<String>()) }
}

fn stop_signal(place: &Place<'_>) -> Vec<Hit> {
    let Some(value) = place.container.value.at(&["lifecycle", "stopSignal"]) else { return Vec::new() };
    let Some(text) = value.text() else { return Vec::new() };
    let mut hits = Vec::new();
    if place.workload.spec.at(&["os", "name"]).is_none() {
        hits.push(Hit::at(value, format!("stopSignal {text} without spec.os.name")));
    }
    let Ok(signal) = Signal::parse(text) else { return hits };
    if signal.to_string() == "KILL" {
        hits.push(Hit::at(value, "stopSignal is KILL: nothing can drain").of(Severity::Error));
    } else if let Some(foreseen) = place.decided().filter(|_| place.wrap.as_ref().is_some_and(|wrap| wrap.role != Role::Hook)) {
        let own = foreseen.server.is_some_and(|server| server.stop_signal() == signal);
        let begins = match foreseen.stop_on {
            Some(signals) => signals.contains(signal),
            None => own || signal == Signal::TERM || signal == Signal::QUIT,
        };
        if !begins {
            hits.push(Hit::at(value, format!("stopSignal {text} does not begin the shutdown")));
        }
    }
    hits
}

fn prestop_missing_binary(place: &Place<'_>) -> Vec<Hit> {
    let Some(exec) = place.container.value.at(&["lifecycle", "preStop", "exec"]) else { return Vec::new() };
    let image = place.container.image();
    let bare = image.contains("distroless")
        || image.starts_with("cgr.dev/chainguard/")
        || image.split([':', '@']).next() == Some("scratch");
    let words = exec.words("command");
    let program = words.first().map(|word| base_name(word)).unwrap_or_default();
    if !bare || !["sh", "bash", "sleep", "ash", "dash"].contains(&program) {
        return Vec::new();
    }
    vec![Hit::at(exec, format!("preStop runs {program}, and {image} most likely has none"))]
}

fn has_lameduck<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> bool {
    scene.places(workload).iter().any(|place| place.wrap.is_some())
}

fn share_process_namespace<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    pod_flag(scene, workload, "shareProcessNamespace")
}

fn host_pid<'a>(scene: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    pod_flag(scene, workload, "hostPID")
}

fn pod_flag<'a>(scene: &Scene<'a>, workload: &Workload<'a>, flag: &str) -> Vec<Hit> {
    let value = workload.spec.get(flag).filter(|_| workload.spec.is_true(flag) && has_lameduck(scene, workload));
    value.map(|value| Hit::at(value, format!("{flag} is true"))).into_iter().collect()
}

fn host_network(place: &Place<'_>) -> Vec<Hit> {
    let told = place.decided().is_none_or(|foreseen| !foreseen.ports.is_empty());
    if told || !place.workload.spec.is_true("hostNetwork") {
        return Vec::new();
    }
    vec![place.hit("hostNetwork is true, and no --port is given")]
}

fn keep_alive_forbidden(place: &Place<'_>) -> Vec<Hit> {
    let container = place.container.value;
    let profile =
        |value: crate::yaml::Value<'_>| value.at(&["securityContext", "seccompProfile", "type"])?.text().map(str::to_owned);
    let profile = profile(container).or_else(|| profile(place.workload.spec));
    let added =
        container.at(&["securityContext", "capabilities"]).map(|capabilities| capabilities.words("add")).unwrap_or_default();
    let may = added.iter().any(|name| matches!(name.trim_start_matches("CAP_"), "SYS_PTRACE" | "ALL"))
        || container.get("securityContext").is_some_and(|context| context.is_true("privileged"));
    let closes = place.decided().is_some_and(|foreseen| foreseen.closes);
    if !closes || may || profile.as_deref() != Some("RuntimeDefault") {
        return Vec::new();
    }
    vec![place.hit("seccomp RuntimeDefault, without SYS_PTRACE")]
}

fn job_sidecar<'a>(_: &Scene<'a>, workload: &Workload<'a>) -> Vec<Hit> {
    let containers = workload.containers();
    if !workload.is_job() || containers.len() < 2 {
        return Vec::new();
    }
    let endless = |container: &&Container<'a>| {
        container.is_helper() || servers::recognise(&[container.command(), container.args()].concat()).is_some()
    };
    let said = |container: &Container<'a>| {
        Hit::at(container.value, format!("containers[{}] runs on when the others have ended", container.name))
    };
    containers.iter().filter(endless).map(said).collect()
}

fn image_volume_subpath(place: &Place<'_>) -> Vec<Hit> {
    let volumes = place.workload.spec.list("volumes");
    let is_image = |name: &str| volumes.iter().any(|volume| volume.word("name") == Some(name) && volume.get("image").is_some());
    let mounts = place.container.value.list("volumeMounts").into_iter();
    let bad = mounts.filter(|mount| mount.get("subPath").is_some() && mount.word("name").is_some_and(is_image));
    bad.map(|mount| {
        Hit::at(mount, format!("the image volume {} is mounted with subPath", mount.word("name").unwrap_or_default()))
    })
    .collect()
}
