//! The show: who loses, and who does not, on the embedded server and on real ones.

use super::*;

/// Quicker than by default. Clients that never learn have tests of their own.
const QUICK: [&str; 6] = ["--load-for", "1s", "--propagate", "1s..3s", "--pinned", "0"];

/// As README has it: lameduck closes the connections of clients that never learn, each between two requests.
#[test]
fn alone_it_shows_three_deaths() {
    let rehearsed = rehearse(&[]);
    assert!(rehearsed.lost_in_all(0) > rehearsed.lost_in_all(1), "{rehearsed:#?}");
    assert!(rehearsed.lost_in_all(1) > rehearsed.lost_in_all(2), "{rehearsed:#?}");
    let [refused, reset, others @ ..] = rehearsed.lost(2);
    assert_eq!((refused, others), (0, [0; 3]), "{rehearsed:#?}");
    // One may be on its way when its connection ends.
    assert!(reset <= 1, "{rehearsed:#?}");
    assert_eq!(rehearsed.code, i32::from(reset > 0), "{rehearsed:#?}");
    let stopped = |column| rehearsed.figure(column, "/stop/stop_signal_ms");
    assert!(stopped(0) < 1000 && stopped(1) >= 2000 && stopped(2) < 9000, "{rehearsed:#?}");
    assert_eq!(rehearsed.report["settings"]["pinned"], 20);
}

#[test]
fn where_all_clients_learn_only_lameduck_loses_nothing() {
    let rehearsed = rehearse(&["--pinned", "0"]);
    let names: Vec<_> = (0..3).map(|column| rehearsed.report["contenders"][column]["name"].as_str().unwrap_or("")).collect();
    assert_eq!(names, ["none", "sleep:2s", "lameduck --delay 2s"], "{rehearsed:#?}");
    assert!(rehearsed.lost_in_all(0) > rehearsed.lost_in_all(1), "{rehearsed:#?}");
    assert!(rehearsed.lost_in_all(1) > 0, "the sleep is too short: {rehearsed:#?}");
    assert_eq!((rehearsed.lost(2), rehearsed.code), ([0; 5], 0), "{rehearsed:#?}");
    assert!(rehearsed.figure(2, "/tally/answered") > 200, "{rehearsed:#?}");
    // What the table says is what the report says.
    let row = |name| -> Vec<u64> { rehearsed.cells(name).iter().map(|cell| cell.parse().expect("a number")).collect() };
    assert_eq!(row("answered"), [0, 1, 2].map(|column| rehearsed.figure(column, "/tally/answered")));
    assert_eq!(row("lost"), [0, 1, 2].map(|column| rehearsed.lost_in_all(column)));
    assert_eq!(row("  refused"), [0, 1, 2].map(|column| rehearsed.lost(column)[0]));
    // Bare, it is gone at once; the hook sleeps its time.
    let took = |column| rehearsed.figure(column, "/stop/took_ms");
    assert!(took(0) < 1000 && took(1) >= 2000 && took(2) >= 3000, "{rehearsed:#?}");
}

#[test]
fn a_plain_user_sees_the_same() {
    let place = Place::new();
    // Where cargo builds may be closed to others.
    let program = place.path("rehearse");
    fs::copy(REHEARSE, &program).expect("a copy");
    let json = place.path("report.json");
    let words = ["--reuid=65534", "--regid=65534", "--clear-groups", &program, "--json", &json, "--against", "none,lameduck"];
    let output = Command::new("setpriv").args(words).args(QUICK).current_dir("/").stdin(Stdio::null()).output().expect("setpriv");
    let report = fs::read(&json).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
    let rehearsed = rehearsed(output, report);
    assert!(rehearsed.lost_in_all(0) > 0, "{rehearsed:#?}");
    assert_eq!((rehearsed.lost(1), rehearsed.code), ([0; 5], 0), "{rehearsed:#?}");
}

#[test]
fn the_last_contender_decides() {
    let against = |contenders, more: &[&str]| {
        let rehearsed = rehearse(&[&QUICK[..], &["--against", contenders], more].concat());
        (rehearsed.code, rehearsed.report["verdict"]["lost"].as_u64())
    };
    assert_eq!(against("none,lameduck", &[]), (0, Some(0)));
    let (code, lost) = against("lameduck,none", &[]);
    assert!(code == 1 && lost > Some(0), "{code} {lost:?}");
    assert_eq!(against("none", &["--max-lost", "100000"]).0, 0);
}

/// What is typed is a column's title, and what lameduck gets.
#[test]
fn a_command_line_is_a_contender() {
    let place = Place::new();
    let html = place.path("report.html");
    let words = ["--against", "lameduck --delay 300ms --admin :9102,lameduck --delay 4s", "--html", &html];
    let rehearsed = rehearse(&[&words[..], &["--load-for", "500ms", "--propagate", "100ms..200ms", "--pinned", "0"]].concat());
    let titles = ["lameduck --delay 300ms --admin :9102", "lameduck --delay 4s"];
    for (column, title) in titles.iter().enumerate() {
        assert_eq!(rehearsed.report["contenders"][column]["name"], *title, "{rehearsed:#?}");
    }
    let head: Vec<&str> = rehearsed.table.lines().skip(1).take(2).map(str::trim).collect();
    assert_eq!(head, ["lameduck --delay 300ms", "--admin :9102   lameduck --delay 4s"], "{}", rehearsed.table);
    let page = fs::read_to_string(&html).expect("a page");
    let plain = page.replace("<span class=\"option\">", "").replace("</span>", "");
    assert!(plain.contains(&titles.map(|title| format!("<th scope=\"col\">{title}</th>")).concat()), "{page}");
    let took = |column| rehearsed.figure(column, "/stop/stop_signal_ms");
    assert!((300..4000).contains(&took(0)) && took(1) >= 4000, "{rehearsed:#?}");
    // An option that this lameduck does not have is its own to refuse.
    let unknown = rehearse(&["--against", "lameduck --no-such-option wait"]);
    assert_eq!(unknown.code, 64, "{unknown:#?}");
    assert!(unknown.said.contains("(lameduck --no-such-option wait): the server ended with code 64"), "{unknown:#?}");
}

/// Real servers, as one types them, beside real inits.
#[test]
fn gunicorn() {
    let place = Place::new();
    let app = "def application(environ, start):\n    start('200 OK', [('Content-Length', '3')])\n    return [b'ok\\n']\n";
    fs::write(place.path("app.py"), app).expect("a file");
    let at = ["gunicorn", "--chdir", &place.path(""), "--worker-tmp-dir", &place.path(""), "--bind", "127.0.0.1:8081"];
    compare("http://127.0.0.1:8081/", &[&at[..], &["--workers", "2", "app:application"]].concat());
}

#[test]
fn nginx() {
    let place = Place::new();
    let text = format!(
        "daemon off;\nworker_processes 1;\npid {0}/pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {0}/1;\nproxy_temp_path {0}/2;\nfastcgi_temp_path {0}/3;\nuwsgi_temp_path {0}/4;\n\
         scgi_temp_path {0}/5;\nserver {{ listen 8082; location / {{ return 200 \"ok\"; }} }}\n}}\n",
        place.path("")
    );
    fs::write(place.path("nginx.conf"), text).expect("a file");
    compare("http://localhost:8082/", &["nginx", "-c", &place.path("nginx.conf")]);
}

#[track_caller]
fn compare(url: &str, command: &[&str]) {
    let words = ["--url", url, "--against", "none,tini,dumb-init,lameduck --delay 2s", "--"];
    let rehearsed = rehearse(&[&QUICK[..], &words, command].concat());
    for bystander in 0..3 {
        assert!(rehearsed.lost_in_all(bystander) > 20, "{rehearsed:#?}");
    }
    assert_eq!((rehearsed.lost(3), rehearsed.code), ([0; 5], 0), "{rehearsed:#?}");
}

/// What the kubelet gives: the hook's time is taken from the grace period, and then comes KILL.
#[test]
fn the_grace_period_ends_in_kill() {
    let deaf = "import signal, http.server as h\nsignal.signal(15, signal.SIG_IGN)\nh.ThreadingHTTPServer(('127.0.0.1', 8083), \
                h.SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--url", "http://127.0.0.1:8083/", "--grace-period", "4s", "--against", "none,sleep:2,lameduck", "--"];
    let quick = ["--load-for", "500ms", "--propagate", "300ms..600ms"];
    let place = Place::new();
    // It lists the directory that it is in.
    let shell = format!("cd {} && exec {PYTHON} -c \"$1\"", place.path(""));
    let rehearsed = rehearse(&[&quick[..], &words, &["sh", "-c", &shell, "sh", deaf]].concat());
    for (column, killed) in [(0, true), (1, true), (2, false)] {
        let pointer = format!("/contenders/{column}/rounds/0/stop/killed");
        assert_eq!(rehearsed.report.pointer(&pointer), Some(&Value::Bool(killed)), "{rehearsed:#?}");
    }
    let took = |column| rehearsed.figure(column, "/stop/took_ms");
    assert!((4000..5500).contains(&took(0)) && (4000..5500).contains(&took(1)), "{rehearsed:#?}");
    // lameduck is done before.
    assert!(took(2) < 4000, "{rehearsed:#?}");
    assert_eq!(rehearsed.figure(0, "/stop/code"), 137, "{rehearsed:#?}");
    // No stop signal came too early: nobody listened to it.
    let asked = "it asked the kernel to drop it";
    assert_eq!(rehearsed.cells("stopped too early by"), ["ignored"; 3], "{}", rehearsed.table);
    let note = format!("none: the app ignored the stop signal, and was killed: {asked}\n");
    assert!(rehearsed.table.contains(&note), "{}", rehearsed.table);
    let note = format!("lameduck: the app ignored the stop signal, and lameduck killed it: {asked}\n");
    assert!(rehearsed.table.contains(&note), "{}", rehearsed.table);
}

/// A server that has no handler dies of TERM below an init, and as PID 1 it does not even notice.
#[test]
fn pid_1_without_a_handler_ignores_the_stop_signal() {
    let server =
        "import http.server as h\nh.ThreadingHTTPServer(('127.0.0.1', 8088), h.SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--url", "http://127.0.0.1:8088/", "--grace-period", "3s", "--against", "none,tini", "--", PYTHON, "-c", server];
    let mut command = rehearsal(&[&QUICK[..], &words].concat());
    let rehearsed = rehearsed(command.current_dir("/").output().expect("timeout, from coreutils"), Value::Null);
    let [none, tini] = &rehearsed.cells("stopped too early by")[..] else { panic!("{}", rehearsed.table) };
    assert!(none == "ignored" && tini.ends_with('s'), "{}", rehearsed.table);
    let why = "it has no handler for it, and as PID 1 it is not ended without one";
    let note = format!("none: the app ignored the stop signal, and was killed: {why}\n");
    assert!(rehearsed.table.contains(&note) && !rehearsed.table.contains("tini: the app ignored"), "{}", rehearsed.table);
}

/// Some block all signals for a moment now and then, as while they make a thread: that is not yet an answer.
#[test]
fn a_signal_that_is_blocked_for_a_moment_is_looked_at_again() {
    let server = "import signal, threading, time, http.server as h\nsignal.signal(15, signal.SIG_IGN)\n\
                  server = h.ThreadingHTTPServer(('127.0.0.1', 8089), h.SimpleHTTPRequestHandler)\n\
                  threading.Thread(target=server.serve_forever).start()\nwhile True:\n \
                  signal.pthread_sigmask(signal.SIG_BLOCK, [15]); time.sleep(0.3)\n \
                  signal.pthread_sigmask(signal.SIG_UNBLOCK, [15]); time.sleep(0.1)";
    let words =
        ["--url", "http://127.0.0.1:8089/", "--grace-period", "3s", "--against", "none,sleep:1", "--", PYTHON, "-c", server];
    let mut command = rehearsal(&[&QUICK[..], &words].concat());
    let rehearsed = rehearsed(command.current_dir("/").output().expect("timeout, from coreutils"), Value::Null);
    for column in ["none", "sleep:1s"] {
        let note = format!("{column}: the app ignored the stop signal, and was killed: it asked the kernel to drop it\n");
        assert!(rehearsed.table.contains(&note), "{}", rehearsed.table);
    }
}

/// `--stop-signal` is what the contender gets.
#[test]
fn the_stop_signal_is_the_images() {
    let server = "import os, signal, http.server as h\nsignal.signal(10, lambda *_: os._exit(7))\n\
                  signal.signal(15, lambda *_: os._exit(8))\nh.ThreadingHTTPServer(('127.0.0.1', 8084), \
                  h.SimpleHTTPRequestHandler).serve_forever()";
    let words = ["--url", "http://127.0.0.1:8084/", "--stop-signal", "USR1", "--against", "none", "--", PYTHON, "-c", server];
    let rehearsed = rehearse(&[&QUICK[..], &words].concat());
    assert_eq!(rehearsed.figure(0, "/stop/code"), 7, "{rehearsed:#?}");
}

/// A client that is late says so, and does not blame the server.
#[test]
fn a_client_that_cannot_keep_up_says_so() {
    let words = ["--rate", "50000", "--against", "none", "--timeout", "2s", "--load-for", "1s", "--propagate", "300ms..600ms"];
    let rehearsed = rehearse(&words);
    let kept_up = rehearsed.report.pointer("/contenders/0/rounds/0/client/kept_up");
    assert_eq!(kept_up, Some(&Value::Bool(false)), "{rehearsed:#?}");
    assert!(rehearsed.table.contains("none: the client did not keep up"), "{}", rehearsed.table);
}
