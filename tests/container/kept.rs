//! Clients that keep their connections, and what a container is permitted to do about them.

use super::*;
use crate::pinned::{Clients, USUAL};

/// podman's own profile, without the one call: as Docker's and containerd's are.
fn without_pidfd_getfd() -> String {
    let profile = ["/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok());
    let profile = profile.expect("podman's seccomp profile: Debian's golang-github-containers-common brings it");
    assert!(profile.contains("\"pidfd_getfd\""), "the profile does not name the call at all");
    let file = cache("without_pidfd_getfd.json");
    fs::write(&file, profile.replace("\"pidfd_getfd\"", "\"pidfd_open\"")).expect("a profile");
    file.to_str().expect("a plain path").to_owned()
}

/// Stops a container while five clients keep their connections and go on asking; returns its log.
fn stopped(profile: Option<&str>) -> String {
    let security = profile.map(|profile| format!("seccomp={profile}"));
    let options: Vec<&str> =
        HARDENED.iter().copied().chain(security.iter().flat_map(|security| ["--security-opt", security])).collect();
    let command = ["/lameduck", "--grace-period", "14s", "--delay", "2s", "--stop-timeout", "4s", "--", "/server", "serve"];
    let container = Container::run(&scratch_image(), &options, &command);
    container.wait_until_it_listens();
    let clients = Clients::connect(container.address, 5, USUAL);
    container.stop_in_background(14).join().unwrap_or_else(|panic| resume_unwind(panic));
    let tally = clients.finish();
    let log = container.logs();
    assert_eq!((tally.cut, container.exit_code()), (0, 0), "{tally:?}\n{log}");
    // At most one each, by the server's own end: it has no graceful stop.
    assert!(tally.left + tally.lost <= 5, "{tally:?}\n{log}");
    log
}

#[test]
fn without_any_capability_and_with_the_profile_of_the_examples() {
    let example = source("examples/seccomp/lameduck.json").to_str().unwrap().to_owned();
    for profile in [None, Some(example.as_str())] {
        let log = stopped(profile);
        assert!(log.contains(" keep-alive closed=5 left=0 way=close"), "{profile:?}: {log}");
        assert!(!log.contains(" warn "), "{profile:?}: {log}");
    }
}

#[test]
fn where_the_profile_refuses_it() {
    let log = stopped(Some(&without_pidfd_getfd()));
    assert!(log.contains(" keep-alive closed=0 ") && log.contains(" way=fewest"), "{log}");
    assert_eq!(log.matches("cannot close kept-alive connections").count(), 1, "{log}");
    assert!(log.contains("a seccomp profile that allows pidfd_getfd"), "{log}");
}
