//! What the hook may do and see: any uid, no capability, nothing to write to; its own container, and not the pod's others.

use super::*;
use support::Cgroups;

/// A uid without a name and without any privilege.
pub const NOBODY: [&str; 8] = [
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--",
];

const WITHOUT_NETLINK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/traffic/without_netlink.py");

/// Its arguments in a mount namespace where nothing can be written to.
const READ_ONLY: &str = "
    while read -r _ at _; do mount -o remount,bind,ro \"$at\" 2>/dev/null; done < /proc/self/mounts
    for at in / /tmp /var/tmp /dev/shm /run; do ! touch \"$at/written\" 2>/dev/null || exit 99; done
    exec \"$@\"";

/// The binary where any user can run it: the target directory may be below a closed home.
pub fn for_anybody(name: &str) -> String {
    let copy = support::script(&format!("lameduck-{name}"), "");
    // By another process, as `script` says.
    let installed = std::process::Command::new("install").args(["-m", "755", LAMEDUCK, &copy]).status();
    assert!(installed.expect("install, from coreutils").success());
    copy
}

/// PID 1 has the same uid: its descriptors are seen.
#[test]
fn any_uid_no_capability_and_a_read_only_file_system() {
    in_own_network(|| {
        let server = include_str!("../traffic/server.py");
        let mut pod = Pid1::start(&[&NOBODY[..], &[PYTHON, "-u", "-c", server, "127.0.0.1", "8080"]].concat());
        pod.line("ready");
        let request = ask(8080, "/4");
        pod.line("asked /4");
        let by = [&["unshare", "--mount", "sh", "-c", READ_ONLY, "sh"], &NOBODY[..]].concat();
        let ended = Hook::start_by(&pod, &by, &for_anybody("nobody"), &PATIENT).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().starts_with("lameduck: drained after "), "{ended:?}");
        assert!(ended.line().ends_with(" on port 8080 (found by descriptors)"), "{ended:?}");
        assert!(ended.after() > 2.0, "{ended:?}");
        answered(request, "answer\n");
        serves_on(&mut pod);
    });
}

/// PID 1 is another user's: the kernel hides its descriptors, and the cgroup tells its listeners from those of the pod's other
/// container, which is busy.
#[test]
fn where_descriptors_are_hidden_the_cgroup_tells() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let _sidecar = groups.spawn("sidecar", &[PYTHON, "-u", SERVER, "127.0.0.1", "9090"]);
        let join = groups.join("app");
        let mut pod = Pid1::start(&["sh", "-c", &join, "sh", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        pod.line("ready");
        let busy = ask(9090, "/60");
        let request = ask(8080, "/3");
        pod.line("asked /3");
        let by = [&["sh", "-c", &join, "sh"], &NOBODY[..]].concat();
        let ended = Hook::start_by(&pod, &by, &for_anybody("cgroup"), &[&PATIENT[..], &["--strict"]].concat()).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().ends_with(" on port 8080 (found by cgroup)"), "{ended:?}");
        answered(request, "answer\n");
        assert!(!busy.is_finished(), "the other container was not busy: this proves nothing");
    });
}

/// shareProcessNamespace: processes of other containers are seen, and are not ours to wait for or to stop.
#[test]
fn a_shared_pid_namespace() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let (ours, theirs) = (groups.join("app"), groups.join("sidecar"));
        // PID 1 is the other container's, as the pause container's is.
        let start = format!("{theirs}; echo ready", theirs = theirs.replace(" && exec \"$@\"", ""));
        let start =
            format!("{start}; sh -c '{ours}' sh {PYTHON} -u {SERVER} 127.0.0.1 8080 & exec {PYTHON} -u {SERVER} 127.0.0.1 9090");
        let mut pod = Pid1::start(&["sh", "-c", &start]);
        listening(8080);
        listening(9090);
        let busy = ask(9090, "/60");
        pod.line("asked /60");
        let request = ask(8080, "/3");
        pod.line("asked /3");
        let flags = [&HASTY[..], &["--strict", "--stop"]].concat();
        let hook = Hook::start_by(&pod, &["sh", "-c", &ours, "sh"], LAMEDUCK, &[&PATIENT[..], &["--strict", "--stop"]].concat());
        let control = Hook::start_by(&pod, &["sh", "-c", &theirs, "sh"], LAMEDUCK, &flags);
        let ended = hook.ends();
        assert_eq!((ended.code, ended.err.len()), (0, 1), "{ended:?}");
        assert!(ended.line().ends_with(" on port 8080 (found by descriptors)"), "{ended:?}");
        assert!(ended.err[0].contains("cannot stop PID 1: it belongs to another container (shareProcessNamespace)"), "{ended:?}");
        answered(request, "answer\n");
        let control = control.ends();
        assert!(
            control.code == 3 && control.line().contains(", 1 busy, ") && control.line().contains(" port 9090 "),
            "{control:?}"
        );
        drop(pod);
        let _ = busy.join();
    });
}

/// No netlink, as some seccomp profiles have it.
#[test]
fn where_netlink_is_refused_proc_serves() {
    in_own_network(|| {
        let mut pod = server();
        let request = ask(8080, "/3");
        pod.line("asked /3");
        let ended = Hook::start_by(&pod, &[PYTHON, WITHOUT_NETLINK], LAMEDUCK, &PATIENT).ends();
        assert!(ended.code == 0 && ended.err.len() == 1 && ended.err[0].contains("/proc/net/tcp serves instead"), "{ended:?}");
        assert!(ended.line().starts_with("lameduck: drained after ") && ended.line().contains(" on port 8080 "), "{ended:?}");
        answered(request, "answer\n");
    });
}

/// What nobody could see is not called drained.
#[test]
fn blind_it_keeps_the_delay() {
    in_own_network(|| {
        let mut pod = server();
        let blindfold =
            ["unshare", "--mount", "sh", "-c", "mount -t tmpfs none /proc && exec \"$@\"", "sh", PYTHON, WITHOUT_NETLINK];
        for (strict, code) in [(&[][..], 0), (&["--strict"], 3)] {
            let ended = Hook::start_by(&pod, &blindfold, LAMEDUCK, &[&["--delay", "2s"], strict].concat()).ends();
            assert_eq!(ended.code, code, "{ended:?}");
            assert!(ended.line().starts_with("lameduck: waited for 2"), "{ended:?}");
            assert!(ended.err.iter().any(|line| line.contains("the delay alone is kept")), "{ended:?}");
        }
        serves_on(&mut pod);
    });
}

/// A runtime that starts the hook in another cgroup than the app's: nobody else is seen there, which is no reason to leave at once.
#[test]
fn alone_in_its_cgroup_it_keeps_the_delay() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let mut pod = Pid1::start(&["sh", "-c", &groups.join("app"), "sh", PYTHON, "-u", SERVER, "127.0.0.1", "8080"]);
        pod.line("ready");
        let ended = Hook::start_by(&pod, &["sh", "-c", &groups.join("sidecar"), "sh"], LAMEDUCK, &[]).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().starts_with("lameduck: waited for 5"), "{ended:?}");
        serves_on(&mut pod);
    });
}

/// A warning for whoever starts an app is none for the hook: its app runs, and nobody is to be signalled.
#[test]
fn root_without_cap_kill() {
    in_own_network(|| {
        let mut pod = server();
        let by = ["setpriv", "--bounding-set=-kill", "--inh-caps=-kill", "--"];
        let ended = Hook::start_by(&pod, &by, LAMEDUCK, &PATIENT).ends();
        assert!(ended.code == 0 && ended.only_line().starts_with("lameduck: drained after "), "{ended:?}");
        serves_on(&mut pod);
    });
}
