//! The CPU request and the memory limit by all their sources, with the texts that Kubernetes and the kernel write: `lameduck plan` and the
//! app agree on them. A tree of files stands in for /sys/fs/cgroup, in a mount namespace of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::Stage;
use crate::support::LAMEDUCK;

const KUBERNETES: (&str, &str) = ("KUBERNETES_SERVICE_HOST", "10.0.0.1");

/// The stage's `cgroup` in the place of the kernel's, and its `table`, if there is one, in that of /proc/self/cgroup.
const SCENE: &str = "mount --bind cgroup /sys/fs/cgroup\n\
    # Where the path is that of a process: ours, which stays the same over the exec.\n\
    if [ -e table ]; then mount --bind table /proc/$$/cgroup; fi\n\
    exec \"$@\"";

struct Cgroup(Stage);

impl Cgroup {
    fn new(table: &str, files: &[(&str, &str)]) -> Cgroup {
        let stage = Stage::new();
        fs::create_dir(stage.path("cgroup")).expect("a directory");
        stage.file("table", table);
        for (path, text) in files {
            stage.file(&format!("cgroup/{path}"), text);
        }
        Cgroup(stage)
    }

    /// What `plan` says that it took, and what the app then finds: both must agree.
    #[track_caller]
    fn finds(&self, variables: &[(&str, &str)], options: &[&str], taken: &[&str], workers: &str) {
        let plan = self.0.run(variables, &[&["sh", "-c", SCENE, "sh", LAMEDUCK, "plan"], options, &["--", "gunicorn"]].concat());
        assert_eq!(plan.code, 0, "{:#?}", plan.lines);
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let said: Vec<String> = plan.lines.iter().filter_map(|line| line.strip_prefix("> ")).map(squeezed).collect();
        assert_eq!(said, taken, "{:#?}", plan.lines);
        let echo = ["sh", "-c", "echo \"$LAMEDUCK_WORKERS $WEB_CONCURRENCY\""];
        for verb in [&[][..], &["exec"]] {
            let command =
                [&["sh", "-c", SCENE, "sh", LAMEDUCK], verb, options, &["--workers-env", "WEB_CONCURRENCY", "--"], &echo]
                    .concat();
            self.0.run(variables, &command).is(0, &[workers]);
        }
    }
}

#[test]
fn requests_in_the_contracts_order() {
    let v2 = Cgroup::new("0::/\n", &[("cpu.max", "350000 100000\n"), ("cpu.weight", "35\n"), ("memory.max", "max\n")]);
    v2.0.file("podinfo/cpu_request", "2600");
    let podinfo = v2.0.path("podinfo");
    let file = format!("cpu {podinfo}/cpu_request");
    let all = [("LAMEDUCK_PODINFO", podinfo.as_str()), ("LAMEDUCK_CPU_REQUEST_MILLIS", "1500"), ("LAMEDUCK_CPU_REQUEST", "5")];
    v2.finds(&all, &["--cpu-request", "500m"], &["cpu --cpu-request \"500m\" 500m"], "1 1");
    v2.finds(&all, &[], &["cpu LAMEDUCK_CPU_REQUEST \"5\" 5000m"], "5 5");
    let note = "5000m (rounded up to whole cores, if by the Downward API with divisor 1; 1m is exact)";
    let rounded = format!("cpu LAMEDUCK_CPU_REQUEST \"5\" {note}");
    v2.finds(&[&all[..], &[KUBERNETES]].concat(), &[], &[&rounded], "5 5");
    v2.finds(&all[..2], &[], &["cpu LAMEDUCK_CPU_REQUEST_MILLIS \"1500\" 1500m"], "2 2");
    v2.finds(&all[..1], &[], &[&format!("{file} \"2600\" 2600m")], "3 3");
    v2.finds(&[], &[], &["cpu /sys/fs/cgroup/cpu.max \"350000 100000\" limit 3500m"], "4 4");
    // Not set: the Downward API writes 0, at each place.
    let zero = [all[0], ("LAMEDUCK_CPU_REQUEST_MILLIS", "0"), ("LAMEDUCK_CPU_REQUEST", "0")];
    v2.finds(&zero, &[], &[&format!("{file} \"2600\" 2600m")], "3 3");
    v2.finds(&zero, &["--cpu-request", "0"], &[&format!("{file} \"2600\" 2600m")], "3 3");
    v2.0.file("podinfo/cpu_request", "0");
    v2.finds(&zero, &[], &["cpu /sys/fs/cgroup/cpu.max \"350000 100000\" limit 3500m"], "4 4");
}

/// The machine's CPUs are not the test's to say.
fn cpus() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).expect("the CPUs").trim().to_owned();
    let range = |part: &str| -> usize {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        last.parse::<usize>().expect("a number") - first.parse::<usize>().expect("a number") + 1
    };
    list.split(',').map(range).sum()
}

#[test]
fn a_guess_only_in_kubernetes_and_only_for_templates() {
    let cpus = cpus();
    let node = format!("cpu the CPUs it may run on \"{cpus}\" {cpus}000m");
    let by_node = format!("{cpus} ");
    // By the quadratic formula, and by the linear one: 300m was nobody's 40 there, nor 500m anybody's 20 here.
    let v2 = Cgroup::new("0::/\n", &[("cpu.max", "max 100000\n"), ("cpu.weight", "40\n"), ("memory.max", "max\n")]);
    v2.finds(&[KUBERNETES], &["--workers-per-cpu", "10"], &["cpu /sys/fs/cgroup/cpu.weight \"40\" a guess: 300m"], "3 ");
    v2.0.file("cgroup/cpu.weight", "20\n");
    v2.finds(&[KUBERNETES], &["--workers-per-cpu", "10"], &["cpu /sys/fs/cgroup/cpu.weight \"20\" a guess: 500m"], "5 ");
    v2.finds(&[], &[], &[&node], &by_node);
    for weight in ["100", "1"] {
        v2.0.file("cgroup/cpu.weight", weight);
        v2.finds(&[KUBERNETES], &[], &[&node], &by_node);
    }
    let table = "4:cpu,cpuacct:/kubepods/pod1/c1\n3:memory:/kubepods/pod1/c1\n";
    let unlimited = [("cpu/cpu.cfs_quota_us", "-1\n"), ("cpu/cpu.cfs_period_us", "100000\n")];
    for (shares, guess, workers) in
        [("1536", Some("1500m"), "2 "), ("512", Some("500m"), "1 "), ("1024", None, ""), ("2", None, "")]
    {
        let v1 = Cgroup::new(table, &[&unlimited[..], &[("cpu/cpu.shares", shares)]].concat());
        match guess {
            Some(guess) => {
                let taken = format!("cpu /sys/fs/cgroup/cpu/cpu.shares \"{shares}\" a guess: {guess}");
                v1.finds(&[KUBERNETES], &[], &[&taken], workers);
            }
            None => v1.finds(&[KUBERNETES], &[], &[&node], &by_node),
        }
        v1.finds(&[], &[], &[&node], &by_node);
    }
}

/// Versions 1 and 2, in a namespace, without one, and with a mount that starts at the group itself.
#[test]
fn limits_of_either_version_namespaced_or_not() {
    let v2 = "/kubepods/pod1/c1";
    let v2_host = Cgroup::new(
        &format!("0::{v2}\n"),
        &[
            ("kubepods/pod1/c1/cpu.max", "max 100000\n"),
            ("kubepods/pod1/c1/memory.max", "536870912\n"),
            ("kubepods/pod1/cpu.max", "250000 100000\n"),
            ("kubepods/pod1/memory.max", "max\n"),
            ("kubepods/memory.max", "1073741824\n"),
        ],
    );
    let memory = ["--worker-memory", "200Mi"];
    v2_host.finds(
        &[],
        &memory,
        &[
            "cpu /sys/fs/cgroup/kubepods/pod1/cpu.max \"250000 100000\" limit 2500m",
            "memory /sys/fs/cgroup/kubepods/pod1/c1/memory.max \"536870912\" 536870912 bytes",
        ],
        "2 2",
    );
    let v1_files = [
        ("cpu.shares", "1024\n"),
        ("cpu.cfs_quota_us", "250000\n"),
        ("cpu.cfs_period_us", "100000\n"),
        ("memory.limit_in_bytes", "734003200\n"),
    ];
    let table =
        "9:name=systemd:/kubepods/pod1/c1\n4:cpu,cpuacct:/kubepods/pod1/c1\n3:memory:/kubepods/pod1/c1\n0::/system.slice\n";
    for (below, cpu_mount) in [("", "cpu"), ("/kubepods/pod1/c1", "cpu,cpuacct")] {
        let place = |file: &str| {
            let mount = if file.starts_with("memory") { "memory" } else { cpu_mount };
            format!("{mount}{below}/{file}")
        };
        let files: Vec<(String, &str)> = v1_files.iter().map(|(file, text)| (place(file), *text)).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        Cgroup::new(table, &files).finds(
            &[],
            &memory,
            &[
                &format!("cpu /sys/fs/cgroup/{} \"250000 100000\" limit 2500m", place("cpu.cfs_quota_us")),
                &format!("memory /sys/fs/cgroup/{} \"734003200\" 734003200 bytes", place("memory.limit_in_bytes")),
            ],
            "3 3",
        );
    }
}

#[test]
fn memory_limits_in_the_contracts_order() {
    let v2 = Cgroup::new("0::/\n", &[("cpu.max", "max 100000\n"), ("memory.max", "1073741824\n")]);
    v2.0.file("podinfo/memory_limit", "536870912");
    let podinfo = v2.0.path("podinfo");
    let cpu = ("LAMEDUCK_CPU_REQUEST_MILLIS", "64000");
    let taken = "cpu LAMEDUCK_CPU_REQUEST_MILLIS \"64000\" 64000m";
    let options = ["--worker-memory", "100Mi", "--memory-reserve", "50Mi"];
    let all = [cpu, ("LAMEDUCK_PODINFO", podinfo.as_str()), ("LAMEDUCK_MEMORY_LIMIT", "268435456")];
    v2.finds(&all, &options, &[taken, "memory LAMEDUCK_MEMORY_LIMIT \"268435456\" 268435456 bytes"], "2 2");
    v2.finds(&all[..2], &options, &[taken, &format!("memory {podinfo}/memory_limit \"536870912\" 536870912 bytes")], "4 4");
    v2.finds(&all[..1], &options, &[taken, "memory /sys/fs/cgroup/memory.max \"1073741824\" 1073741824 bytes"], "9 9");
    // A limit that is not set reads as the node's own memory, or 0.
    v2.0.file("cgroup/memory.max", "max\n");
    let meminfo = fs::read_to_string("/proc/meminfo").expect("/proc/meminfo");
    let total: u64 = meminfo.split_whitespace().nth(1).expect("MemTotal").parse().expect("kB");
    let allocatable = (total * 1024 / 10 * 9).to_string();
    for unset in [allocatable.as_str(), "0"] {
        v2.0.file("podinfo/memory_limit", unset);
        v2.finds(&[all[0], all[1], ("LAMEDUCK_MEMORY_LIMIT", unset)], &options, &[taken], "64 64");
    }
}

#[test]
fn a_bad_figure_is_refused_by_its_place() {
    let stage = Stage::new();
    for (settings, part) in [
        (&[("--cpu-request", "1.5.0")][..], "cannot read CPU request \"1.5.0\" from "),
        (&[("--cpu-request", "1500 m")], "cannot read CPU request \"1500 m\" from "),
        (&[("--worker-memory", "many")], "cannot read worker memory \"many\" from "),
        (&[("--memory-reserve", "-1")], "cannot read memory reserve \"-1\" from "),
        (&[("--workers-per-cpu", "-1")], "cannot read workers per CPU \"-1\" from "),
        (&[("--workers-extra", "x")], "cannot read workers extra \"x\" from "),
        (&[("--workers-min", "-1")], "cannot read workers min \"-1\" from "),
        (&[("--workers-max", "0")], "cannot run 0 workers: --workers-max is 0"),
        (&[("--workers-min", "3"), ("--workers-max", "2")], "--workers-min 3 > --workers-max 2"),
        (&[("--workers-env", "A B")], "cannot read variable name \"A B\" from "),
    ] {
        stage.refuses(settings, 64, &[part]);
    }
    let before = stage.listing();
    for (variables, part) in [
        (("LAMEDUCK_CPU_REQUEST_MILLIS", "1500m"), "cannot read CPU request \"1500m\" from LAMEDUCK_CPU_REQUEST_MILLIS: "),
        (("LAMEDUCK_MEMORY_LIMIT", "1 GB"), "cannot read memory limit \"1 GB\" from LAMEDUCK_MEMORY_LIMIT: "),
        (("LAMEDUCK_MEMORY_LIMIT", "100Mi"), "--memory-reserve 209715200 > memory limit 104857600 (LAMEDUCK_MEMORY_LIMIT)"),
    ] {
        let ended = stage.lameduck(&[variables], &["--memory-reserve", "200Mi", "touch", "started"]);
        let complaints = ended.complaints();
        assert!(ended.code == 64 && complaints.len() == 1 && complaints[0].contains(part), "{variables:?}: {:#?}", ended.lines);
        assert_eq!(stage.listing(), before);
    }
}

/// 78, by its path; but a file that is not there is none.
#[test]
fn a_bad_file_of_the_downward_api_is_refused() {
    let stage = Stage::new();
    for (name, what) in [("cpu_request", "CPU request"), ("memory_limit", "memory limit")] {
        let path = stage.file(&format!("podinfo/{name}"), "");
        let podinfo = stage.path("podinfo");
        let refused = |part: &str| {
            let before = stage.listing();
            for verb in [&[][..], &["exec"]] {
                let ended = stage.lameduck(&[("LAMEDUCK_PODINFO", &podinfo)], &[verb, &["touch", "started"]].concat());
                let complaints = ended.complaints();
                assert!(ended.code == 78 && complaints.len() == 1 && complaints[0].contains(part), "{part}: {:#?}", ended.lines);
                assert_eq!(stage.listing(), before);
            }
        };
        for text in [&b"1.5.0"[..], b"", b"many\n", b"-1", b"\xff\xfe", b"1 2"] {
            fs::write(&path, text).unwrap();
            let shown = String::from_utf8_lossy(text).trim().to_owned();
            refused(&format!("cannot read {what} {shown:?} from {path}: "));
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused(&format!("cannot read {what} from {path}: Is a directory"));
        fs::remove_dir(&path).unwrap();
        stage.lameduck(&[("LAMEDUCK_PODINFO", &podinfo)], &["true"]).is(0, &[]);
        // Not for this user's eyes: better said than passed over.
        fs::write(&path, "1500").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let scene = ["setpriv", "--reuid", "4000", "--regid", "4000", "--clear-groups"];
        let ended = stage.run(&[("LAMEDUCK_PODINFO", &podinfo)], &[&scene[..], &[LAMEDUCK, "true"]].concat());
        let part = format!("cannot read {what} from {path}: Permission denied");
        assert!(ended.code == 78 && ended.complaints().iter().any(|line| line.contains(&part)), "{:#?}", ended.lines);
        fs::remove_file(&path).unwrap();
    }
}
