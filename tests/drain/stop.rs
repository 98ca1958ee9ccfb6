//! `--stop`: PID 1 gets its graceful signal at the end, and ends; the kernel then ends the hook.

use super::*;
use support::{Sidecar, script};

/// Writes `text` with `@STATE@` replaced by a directory that is the test's own, and returns where.
fn config(name: &str, text: &str) -> String {
    let marker = script(&format!("{name}.state"), "");
    let state = marker.replace(".state", ".d");
    std::fs::create_dir_all(format!("{state}/www")).expect("a directory for the server");
    std::fs::write(format!("{state}/www/index.html"), "answer\n").expect("a page");
    script(name, &text.replace("@STATE@", &state))
}

fn nginx(name: &str) -> String {
    config(name, include_str!("../servers/nginx.conf"))
}

/// What nginx passes requests on to, in another container.
fn backend() -> Sidecar {
    Sidecar::start(&[PYTHON, "-u", SERVER, "127.0.0.1", "9000"])
}

/// nginx finishes requests on QUIT and cuts them on TERM, which is what the kubelet sends where it does not know the image's STOPSIGNAL.
/// Time is up while one is in flight. Two hooks at once send it twice, which changes nothing.
#[test]
fn nginx_gets_quit_and_finishes_its_request() {
    in_own_network(|| {
        let _backend = backend();
        let mut pod = Pid1::start(&["nginx", "-c", &nginx("quit.conf")]);
        listening(8080);
        let request = ask(8080, "/8");
        let stop = [&HASTY[..], &["--stop", "--log-level", "info"]].concat();
        let mut hooks = [Hook::start(&pod, &stop), Hook::start(&pod, &stop)];
        for hook in &mut hooks {
            assert!(hook.begun().contains(" ports=8080 "));
        }
        let whole = answered(request, "answer\n");
        assert_eq!(pod.exit(), 0, "{:#?}", pod.seen);
        assert!(whole <= Instant::now());
        for hook in hooks {
            let ended = hook.ends();
            assert_eq!(ended.code, 137, "{ended:?}");
            assert!(ended.line().starts_with("lameduck: not drained: ") && ended.line().contains(", 1 busy, "), "{ended:?}");
            assert!((3.0..4.5).contains(&ended.after()), "{ended:?}");
        }
    });
}

/// The same hook, told to send TERM: the request is cut, so the test above can see the difference.
#[test]
fn another_stop_signal_would_have_cut_it() {
    in_own_network(|| {
        let _backend = backend();
        let mut pod = Pid1::start(&["nginx", "-c", &nginx("term.conf")]);
        listening(8080);
        let request = ask(8080, "/8");
        let ended = Hook::start(&pod, &[&HASTY[..], &["--stop", "--stop-signal", "TERM"]].concat()).ends();
        assert_eq!((ended.code, pod.exit()), (137, 0), "{ended:?}");
        let (answer, _) = request.join().unwrap();
        assert!(!answer.is_ok_and(|answer| answer.ends_with("answer\n")), "nginx finishes requests on TERM: this proves nothing");
    });
}

/// httpd has two: on WINCH alone it would wait for its clients' idle connections, here for a minute. On the second, TERM, it sends TERM
/// to its process group, which for PID 1 is everybody: the hook too ends of it.
#[test]
fn httpd_gets_its_second_signal_too() {
    const CONFIG: &str = "
        ServerName localhost\nDefaultRuntimeDir @STATE@\nPidFile @STATE@/apache.pid\nMutex file:@STATE@\nErrorLog /dev/stderr\n
        LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so\n
        LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n
        User www-data\nGroup www-data\nListen 8080\nKeepAliveTimeout 60\nDocumentRoot @STATE@/www\n";
    in_own_network(|| {
        // It signals its process group, as PID 1 of a container a group of its own.
        let mut pod = Pid1::start(&["setsid", "apache2", "-DFOREGROUND", "-f", &config("apache.conf", CONFIG)]);
        listening(8080);
        let mut idle = TcpStream::connect(("127.0.0.1", 8080)).unwrap();
        idle.write_all(b"GET /index.html HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 15];
        idle.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
        let ended = Hook::start(&pod, &[&PATIENT[..], &["--stop"]].concat()).ends();
        assert_eq!((ended.code, pod.exit()), (143, 0), "{ended:?}, {:#?}", pod.seen);
        assert!(ended.only_line().contains("drained after ") && ended.line().contains(", 1 idle on port 8080"), "{ended:?}");
    });
}

/// An init takes its signals by sigwait, without a handler, and passes them on.
#[test]
fn an_init_passes_it_on() {
    in_own_network(|| {
        let app = script("app.py", include_str!("../servers/app.py"));
        let directory = app.strip_suffix("/app.py").unwrap();
        let gunicorn = ["gunicorn", "--chdir", directory, "--worker-class", "gthread", "--bind", "127.0.0.1:8080", "app:app"];
        let mut pod = Pid1::start(&[&["tini", "--"], &gunicorn[..]].concat());
        listening(8080);
        let request = ask(8080, "/?ms=8000");
        let ended = Hook::start(&pod, &[&HASTY[..], &["--stop"]].concat()).ends();
        assert_eq!((ended.code, pod.exit()), (137, 0), "{ended:?}, {:#?}", pod.seen);
        assert!(ended.only_line().contains(", 1 busy, "), "{ended:?}");
        answered(request, "whole\n");
    });
}

/// Behind a shell the server is told. The shell may outlive it, and the hook then ends by itself.
#[test]
fn a_server_behind_a_shell() {
    in_own_network(|| {
        let _backend = backend();
        let start = format!("nginx -c {}; echo over $?; exec sleep 600", nginx("shell.conf"));
        let mut pod = Pid1::start(&["sh", "-c", &start]);
        listening(8080);
        let began = Instant::now();
        let ended = Hook::start(&pod, &[&PATIENT[..], &["--stop"]].concat()).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().starts_with("lameduck: drained after "), "{ended:?}");
        // Not only when its time is up, after 26 s.
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        pod.line("over 0");
        assert!(pod.is_running());
    });
}

/// The kernel drops what PID 1 does not handle: so it is said, and not sent.
#[test]
fn pid_1_that_does_not_handle_it_is_left_to_the_kubelet() {
    in_own_network(|| {
        let mut pod = server();
        let ended = Hook::start(&pod, &[&PATIENT[..], &["--stop", "--strict"]].concat()).ends();
        assert_eq!((ended.code, ended.err.len()), (0, 1), "{ended:?}");
        assert!(ended.line().starts_with("lameduck: drained after "), "{ended:?}");
        assert!(
            ended.err[0].ends_with("\"cannot stop PID 1: process 1 does not handle TERM; left to the kubelet\""),
            "{ended:?}"
        );
        serves_on(&mut pod);
        let _request = ask(8080, "/60");
        pod.line("asked /60");
        let ended = Hook::start(&pod, &[&HASTY[..], &["--stop", "--strict"]].concat()).ends();
        assert_eq!((ended.code, ended.err.len()), (3, 1), "{ended:?}");
        serves_on(&mut pod);
    });
}

/// PID 1 that handles the signal and does not end: the hook does, while there is still time for the kubelet's signal and KILL.
#[test]
fn pid_1_that_does_not_end_is_left_to_the_kubelet() {
    in_own_network(|| {
        let ignore = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); ";
        let text = format!("{ignore}\n{}", include_str!("../traffic/server.py"));
        let mut pod = Pid1::start(&[PYTHON, "-u", "-c", &text, "127.0.0.1", "8080"]);
        pod.line("ready");
        let began = Instant::now();
        let ended = Hook::start(&pod, &["--grace-period", "6s", "--delay", "1s", "--stop"]).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        assert!(ended.only_line().starts_with("lameduck: drained after "), "{ended:?}");
        pod.line("told");
        // 6 s without the margin, 0.6 s.
        let took = began.elapsed();
        assert!((Duration::from_secs(5)..Duration::from_secs(9)).contains(&took), "{took:?}");
        serves_on(&mut pod);
        assert_eq!(pod.rest().iter().filter(|line| *line == "told").count(), 1, "told once");
    });
}

/// PID 1's process group has no number to send to: -1 is everybody but PID 1.
#[test]
fn nobody_else_is_told() {
    in_own_network(|| {
        let handle = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); ";
        let text = format!("{handle}\n{}", include_str!("../traffic/server.py"));
        let start = "(trap 'echo hurt; exit' TERM; echo there; while :; do sleep 0.1; done) & exec \"$@\"";
        let mut pod = Pid1::start(&["sh", "-c", start, "sh", PYTHON, "-u", "-c", &text, "127.0.0.1", "8080"]);
        pod.line("there");
        pod.line("ready");
        let ended = Hook::start(&pod, &["--grace-period", "6s", "--delay", "1s", "--stop", "--group"]).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        pod.line("told");
        assert!(!pod.rest().contains(&"hurt".to_owned()), "{:#?}", pod.seen);
    });
}

#[test]
fn another_user_cannot_tell_it() {
    in_own_network(|| {
        let handle = "import signal; signal.signal(signal.SIGTERM, lambda *_: print('told', flush=True)); ";
        let text = format!("{handle}\n{}", include_str!("../traffic/server.py"));
        let mut pod = Pid1::start(&[PYTHON, "-u", "-c", &text, "127.0.0.1", "8080"]);
        pod.line("ready");
        let ended = Hook::start_by(&pod, &pod::NOBODY, &pod::for_anybody("told"), &[&PATIENT[..], &["--stop"]].concat()).ends();
        assert_eq!(ended.code, 0, "{ended:?}");
        let said = ended.err.last().expect("a warning");
        assert!(said.contains("cannot send TERM to process 1: Operation not permitted") && said.contains("left to the kubelet"));
        serves_on(&mut pod);
        assert!(!pod.rest().contains(&"told".to_owned()));
    });
}
