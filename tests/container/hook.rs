//! `lameduck drain` as a preStop hook: exec in a container whose PID 1 is not lameduck, that has no shell, and nothing to write to.

use super::*;

/// Waits for 1 s at least, and is out of time after 16 s.
const DRAIN: [&str; 6] = ["/hook/lameduck", "drain", "--delay", "1s", "--grace-period", "28s"];
/// Out of time after 3 s.
const HASTY: [&str; 8] = ["/hook/lameduck", "drain", "--delay", "1s", "--grace-period", "20s", "--stop-timeout", "15s"];

/// The binary comes by a volume, as from an emptyDir that an init container filled.
fn hardened() -> Vec<String> {
    let volume = format!("{}:/hook:ro", context().display());
    HARDENED.into_iter().map(str::to_owned).chain(["--volume".to_owned(), volume]).collect()
}

fn run(command: &[&str]) -> Container {
    let options = hardened();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Container::run(&scratch_image(), &options, command)
}

/// Another container of the same pod: the network is shared, pids and cgroup are not.
fn beside(other: &Container, port: u16) -> Container {
    let options = hardened();
    let network = format!("container:{}", other.name);
    let options: Vec<&str> = options.iter().map(String::as_str).chain(["--network", &network]).collect();
    let mut container = Container::start(&scratch_image(), &options, &["/server", "serve", &port.to_string()]);
    container.address = SocketAddr::new(other.address.ip(), port);
    container
}

/// A request that the server works on for so long.
fn ask(container: &Container, milliseconds: u64) -> JoinHandle<Result<(), String>> {
    container.wait_until_it_listens();
    let mut connection = TcpStream::connect(container.address).expect("connect");
    connection.write_all(format!("GET /?ms={milliseconds} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).expect("write");
    thread::spawn(move || {
        let mut answer = [0; 64];
        let length = connection.read(&mut answer).map_err(|error| error.to_string())?;
        let answer = String::from_utf8_lossy(&answer[..length]);
        if answer.starts_with("HTTP/1.1 200 OK\r\n") { Ok(()) } else { Err(format!("answered {answer:?}")) }
    })
}

#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

fn end(mut hook: Command) -> Ended {
    let output = hook.output().expect("podman");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ended { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

impl Ended {
    #[track_caller]
    fn only_line(&self) -> &str {
        assert!(self.out.lines().count() == 1 && self.out.ends_with('\n') && self.err.is_empty(), "{self:#?}");
        self.out.trim_end()
    }
}

#[test]
fn a_hook_in_a_from_scratch_image() {
    let container = run(&["/server", "serve"]);
    let request = ask(&container, 4000);
    let ended = end(container.exec(&[], &DRAIN));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let line = ended.only_line();
    assert!(line.starts_with("lameduck: drained after ") && line.ends_with(" on port 8080 (found by descriptors)"), "{line}");
    request.join().expect("the client").expect("an answer");
    assert!(alive(container.pid1));

    let request = ask(&container, 60_000);
    for (strict, code) in [(&[][..], 0), (&["--strict"], 3)] {
        let ended = end(container.exec(&[], &[&HASTY[..], strict].concat()));
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.only_line().contains("not drained: ") && ended.out.contains(", 1 busy, "), "{ended:?}");
    }
    let ended = end(container.exec(&[], &[&DRAIN[..], &["--delya"]].concat()));
    assert_eq!((ended.code, ended.err.lines().count()), (Some(64), 1), "{ended:?}");
    drop(container);
    let _ = request.join();
}

/// First the hook, then the stop signal, as the kubelet does it.
#[test]
fn with_a_hook_nothing_is_lost_where_it_is_without() {
    let command = ["/tini", "--", "/server", "serve"];
    let mut hooked = run(&command);
    hooked.pre_stop = ["/hook/lameduck", "drain", "--delay", "3s"].map(str::to_owned).to_vec();
    // The server knows no stop signal, and dies of TERM.
    hooked.code = 143;
    compare(&hooked, &run(&command));
}

/// The pod's other container is busy: its own hook waits, ours does not.
#[test]
fn the_pods_other_container_is_not_waited_for() {
    let ours = run(&["/server", "serve"]);
    let theirs = beside(&ours, 9090);
    let busy = ask(&theirs, 60_000);
    let request = ask(&ours, 3000);
    let control = theirs.exec(&[], &[&HASTY[..], &["--strict"]].concat());
    let control = thread::spawn(move || end(control));
    let ended = end(ours.exec(&[], &[&DRAIN[..], &["--strict"]].concat()));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.only_line().ends_with(" on port 8080 (found by descriptors)"), "{ended:?}");
    request.join().expect("the client").expect("an answer");
    let control = control.join().expect("the other hook");
    assert_eq!(control.code, Some(3), "{control:?}");
    assert!(control.only_line().contains(", 1 busy, ") && control.out.contains(" on port 9090 (found by "), "{control:?}");

    // Another user's hook is shown no descriptors. A node with cgroups of version 2 alone tells the two apart all the same; on
    // another the other container is waited for too, which the hook says.
    let own_cgroup = fs::read_to_string(format!("/proc/{}/cgroup", ours.pid1)).expect("its cgroup");
    let is_known = own_cgroup.lines().any(|line| line.starts_with("0::/") && line != "0::/");
    let ended = end(ours.exec(&["--user", "2000"], &[&HASTY[..], &["--strict"]].concat()));
    if is_known {
        assert!(ended.code == Some(0) && ended.only_line().ends_with(" on port 8080 (found by cgroup)"), "{ended:?}");
    } else {
        assert!(ended.code == Some(3) && ended.out.contains(" on port 8080, 9090 (found by all)"), "{ended:?}");
        assert!(ended.err.contains("sidecars too"), "{ended:?}");
    }
    drop(theirs);
    let _ = busy.join();
}

/// The hook ends PID 1, and PID 1's end the hook: 137, as the documents say.
#[test]
fn stop_ends_the_hook_too() {
    let container = run(&["/tini", "--", "/server", "serve"]);
    container.wait_until_it_answers();
    let ended = end(container.exec(&[], &[&DRAIN[..], &["--stop"]].concat()));
    assert_eq!(ended.code, Some(137), "{ended:?}");
    assert!(ended.out.starts_with("lameduck: drained after "), "{ended:?}");
    container.wait_until_exited();
    assert_eq!(container.exit_code(), 143, "the server died of TERM; the log:\n{}", container.logs());
}
