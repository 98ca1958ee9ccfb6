//! Whose a connection is: the app's own and a neighbour's on the same port are no traffic; a neighbour's over loopback is.

use super::*;
use std::path::PathBuf;

/// Debian's own configuration: 5 to 10 spare children, the surplus ones woken by a request of Apache's parent, one a second.
fn stock_apache(name: &str) -> Vec<String> {
    let state = std::env::temp_dir().join(format!("lameduck-{name}-{}", std::process::id()));
    fs::create_dir_all(&state).unwrap();
    let set = |variable: &str, value: &str| format!("APACHE_{variable}={value}");
    let here = state.to_str().unwrap();
    let directories = ["RUN_DIR", "LOCK_DIR", "LOG_DIR"].map(|variable| set(variable, here));
    let rest = [set("PID_FILE", &format!("{here}/pid")), set("RUN_USER", "www-data"), set("RUN_GROUP", "www-data")];
    let command = ["apache2", "-DFOREGROUND"].map(str::to_owned);
    ["env".to_owned()].into_iter().chain(directories).chain(rest).chain(command).collect()
}

/// Sends a request on a new connection and returns the answer's first line.
fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\nUser-Agent: a client whose request is not short\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer.lines().next().unwrap_or_default().to_owned()
}

/// Makes Apache start more children than it wants to keep.
fn load_and_leave() {
    let ask = |stream: &mut TcpStream| stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    let mut clients: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect("127.0.0.1:80").unwrap()).collect();
    // Apache forks at most twice as many each second as in the second before.
    for _ in 0..12 {
        clients.iter_mut().for_each(|client| _ = ask(client));
        thread::sleep(Duration::from_millis(500));
    }
}

#[test]
fn what_apache_says_to_itself_is_no_traffic_and_what_others_say_is() {
    in_own_network(|| {
        let apache = stock_apache("stock");
        let apache: Vec<&str> = apache.iter().map(String::as_str).collect();
        let mut init = Pid1::start(&[&[LAMEDUCK, "--delay", "4s", "--"], &apache[..]].concat());
        listening(80);
        load_and_leave();
        init.signal(TERM);
        assert_eq!(field(&init.line("lame-duck"), "ports"), "80");
        // Too short to be seen but by their ends, and between two wake-ups of a surplus child.
        let begun = Instant::now();
        for _ in 0..10 {
            assert_eq!(get(80), "HTTP/1.1 200 OK");
            thread::sleep(Duration::from_millis(500));
        }
        let asked_for = begun.elapsed().as_secs_f64();
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=drained"), "{stopping}");
        assert!(seconds(field(&stopping, "after")) > asked_for, "{asked_for} {stopping}");
        assert_eq!(init.exit(), 0);
        let exit = init.line(" exit ");
        // On a busy machine one of Apache's own may be over before anybody can ask whose it was: rather one too many than a client's missed.
        let accepted: u32 = field(&exit, "accepted").parse().unwrap();
        assert!((10..=12).contains(&accepted), "{exit}");
        assert_eq!((field(&exit, "finished"), field(&exit, "cut")), (field(&exit, "accepted"), "0"), "{exit}");
        let last = seconds(field(&exit, "last_accept"));
        assert!(last < asked_for, "{last} {asked_for}");
    });
}

/// A front end and its back end over TCP, in one container: a request is one, at the front.
#[test]
fn a_hop_between_two_processes_of_the_app_is_no_traffic() {
    in_own_network(|| {
        let state = std::env::temp_dir().join(format!("lameduck-hop-{}", std::process::id()));
        fs::create_dir_all(&state).unwrap();
        let config: PathBuf = state.join("nginx.conf");
        let text = include_str!("nginx.conf").replace("@STATE@", state.to_str().unwrap());
        fs::write(&config, text).unwrap();
        let start = format!("{PYTHON} -u {SERVER} 127.0.0.1 9000 & exec nginx -c {}", config.display());
        let mut init = Pid1::start(&[LAMEDUCK, "--delay", "1s", "--", "sh", "-c", &start]);
        init.line("ready");
        listening(8080);
        let requests: Vec<_> = (0..5).map(|_| ask("127.0.0.1:8080", 3.0)).collect();
        for _ in 0..5 {
            init.next_line("asked /3");
        }
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!((field(&begun, "ports"), field(&begun, "busy"), field(&begun, "idle")), ("8080,9000", "5", "0"), "{begun}");
        // Too short for most looks, at either place: of the back end's own nothing is counted.
        let short: Vec<_> = (0..40).map(|_| ask("127.0.0.1:8080", 0.01)).collect();
        short.into_iter().for_each(answered);
        requests.into_iter().for_each(answered);
        init.exit();
        let exit = init.line(" exit ");
        assert_eq!((field(&exit, "accepted"), field(&exit, "cut")), ("40", "0"), "{exit}");
    });
}

/// The kernel shares a port out between the app and a neighbour's listener. What the neighbour got is not ours: neither to wait for nor cut.
#[test]
fn a_neighbour_on_the_same_port_is_told_by_its_cgroup() {
    in_own_network(|| {
        let groups = Cgroups::new();
        let join = groups.join("app");
        let server = [PYTHON, "-u", SERVER, "127.0.0.1", "8080", "shares"];
        let mut init = Pid1::start(&[&["sh", "-c", &join, "sh", LAMEDUCK, "--delay", "1s", "--"], &server[..]].concat());
        init.line("ready");
        // Its requests last longer than the stop may.
        let neighbour = groups.spawn("sidecar", &server);
        let requests: Vec<_> = (0..40).map(|_| ask("127.0.0.1:8080", 15.0)).collect();
        let (mut ours, mut theirs) = (0, 0);
        support::eventually("all were taken by one or the other", || {
            ours = init.rest().iter().filter(|line| line.contains("asked /15")).count();
            theirs += neighbour.lines().filter(|line| line.contains("asked /15")).count();
            (ours + theirs == 40).then_some(())
        });
        assert!(theirs > 0, "the neighbour got none");
        init.signal(TERM);
        let begun = init.line("lame-duck");
        assert_eq!(field(&begun, "busy"), ours.to_string(), "{begun}");
        init.signal(2); // time is not what this is about
        init.exit();
        assert_eq!(field(&init.line(" exit "), "cut"), ours.to_string());
        drop(requests);
    });
}

// Who listens on nothing.

/// Told at once: the app holds sockets, and none of them is a server's.
fn listens_on_nothing(program: &'static str, before: &'static [&'static str]) {
    in_own_network(move || {
        let mut init = Pid1::start(&[before, &[LAMEDUCK, "--"], before_app(before), &[PYTHON, "-c", program]].concat());
        init.app_line("ready");
        init.signal(TERM);
        let stopping = init.line(" stopping ");
        assert!(stopping.contains("because=\"it listens on nothing\""), "{stopping}");
        init.exit();
    });
}

/// Where the descriptors of others are hidden, the app is another's.
fn before_app(before: &[&str]) -> &'static [&'static str] {
    if before.is_empty() { &[] } else { &["setpriv", "--reuid", "33", "--clear-groups"] }
}

const NO_PTRACE: &[&str] = &["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace"];

#[test]
fn a_udp_client_is_no_server() {
    // Unconnected, as of statsd and syslog: the kernel chose its port.
    let program = "import socket, time; s = socket.socket(type=socket.SOCK_DGRAM); s.sendto(b'x', ('127.0.0.1', 8125)); print('ready', flush=True); time.sleep(60)";
    listens_on_nothing(program, &[]);
}

#[test]
fn python_s_multiprocessing_listens_to_itself() {
    let program = "import multiprocessing, time; m = multiprocessing.Manager(); d = m.dict(); d[1] = 2; print('ready', flush=True); time.sleep(60)";
    listens_on_nothing(program, &[]);
}

#[test]
fn a_job_of_another_user_listens_on_nothing_where_nothing_does() {
    listens_on_nothing("import time; print('ready', flush=True); time.sleep(60)", NO_PTRACE);
}
