//! `/status`, `lameduck status` and `lameduck health`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use crate::support::{LAMEDUCK, PYTHON, code, eventually, in_own_network};
use crate::{Client, HUP, TERM, USR1, USR2, get, get_from, jq, run, seconds, start};

/// docs/admin.md: key → its keys, by the table; those of the document itself by "".
fn described() -> BTreeMap<String, BTreeSet<String>> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).unwrap();
    let (_, section) = text.split_once("## The document of /status").unwrap();
    let rows = section.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| `"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<String>>();
    let mut keys: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in rows {
        let cells: Vec<&str> = row.split('|').collect();
        let (own, below) = (names(cells[1]), names(cells[2]));
        if let (Some(name), true) = (own.first().filter(|_| own.len() == 1), !below.is_empty()) {
            keys.insert(name.clone(), below);
        }
        keys.entry(String::new()).or_default().extend(own);
    }
    keys
}

fn keys(filter: &str, json: &str) -> BTreeSet<String> {
    jq(&format!("{filter} | keys[]"), json).lines().map(str::to_owned).collect()
}

/// The document is as docs/admin.md says, before, during and after the telling, by key and by type.
#[test]
fn the_document_has_the_shape_that_is_described() {
    in_own_network(|| {
        let described = described();
        let mut init = start(&["--delay", "1s", "--quiet-period", "0s"], &["stays"]);
        init.app_line("ready");
        let check = |json: &str| {
            // Where there is one service, it is the app.
            let expected: BTreeSet<String> = described[""].iter().filter(|key| *key != "services").cloned().collect();
            assert_eq!(keys(".", json), expected, "{json}");
            for name in ["app", "budget", "stop"] {
                if jq(&format!(".{name}"), json) != "null" {
                    assert_eq!(keys(&format!(".{name}"), json), described[name], "{name}: {json}");
                }
            }
            let traffic: BTreeSet<String> = keys(".traffic", json).into_iter().chain(keys(".traffic.ports[0]", json)).collect();
            assert_eq!(traffic, described["traffic"], "{json}");
            const TYPES: &str = r#"
                ([.version, .phase, .app.command, .traffic.source, .traffic.ports[].port] | all(type == "string")) and
                ([.phase_seconds, .uptime_seconds, .app.pid, .app.processes, .app.resident_memory_bytes, .app.cpu_seconds,
                  .app.open_files, .budget[], .traffic.in_flight, (.traffic.ports[] | .busy, .cooling, .idle, .queued, .accepted),
                  .workers, .cpu_millicores, .oom_kills, .reaped, .dropped_log_lines, .signals[]] | all(type == "number")) and
                (.app.listening == true) and (.app.server == null) and (.stop == null or (.stop |
                  (.signal == "TERM") and ([.seconds_ago, .accepted, .accepted_or_more, .finished, .closed] | all(type == "number")) and
                  ([.last_accept_seconds, .stop_signal_because] | all(. == null or type == "number" or type == "string"))))"#;
            assert_eq!(jq(TYPES, json), "true", "{json}");
        };
        let document = get("/status").body;
        check(&document);
        assert_eq!(
            jq("[.phase, .stop, .budget.grace_period_seconds, .budget.delay_seconds]", &document),
            "[\"serving\",null,30,1]"
        );
        let request = thread::spawn(|| get_from("127.0.0.1:8080", "/gate").map(|answer| answer.body));
        init.app_line("asked /gate");
        init.signal(TERM);
        init.line(" draining ");
        let document = get("/status").body;
        check(&document);
        assert_eq!(
            jq("[.phase, .traffic.in_flight, .stop.stop_signal_because, .signals.TERM]", &document),
            "[\"draining\",1,null,1]"
        );
        assert_eq!(jq(".traffic.ports | map([.port, .busy, .accepted])", &document), "[[\"8080\",1,0]]");
        init.signal(USR1);
        request.join().unwrap().unwrap();
        init.app_line("told");
        let document = get("/status").body;
        check(&document);
        assert_eq!(jq("[.phase, .stop.stop_signal_because, .stop.finished]", &document), "[\"stopping\",\"drained\",1]");
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
    });
}

/// (exit code, stdout, stderr)
fn lameduck(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new("timeout");
    command.args(["50", LAMEDUCK]).args(arguments).env_remove("LAMEDUCK_ADMIN").envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (code(output.status), text(output.stdout), text(output.stderr))
}

fn drawn() -> String {
    let (code, drawn, said) = lameduck(&["status"], &[]);
    assert_eq!((code, said.as_str()), (0, ""));
    assert!(!drawn.contains('\x1b') && drawn.is_ascii(), "plain where there is no terminal: {drawn:?}");
    drawn
}

/// As under `kubectl exec` during a rollout.
#[test]
fn status_is_drawn() {
    in_own_network(|| {
        let mut init = start(&["--grace-period", "40s", "--delay", "5s", "--quiet-period", "0s"], &["stays", "twice"]);
        init.app_line("ready");
        let text = drawn();
        assert!(text.starts_with("serving  for ") && text.contains("\nbudget     40s grace period, not begun\n"), "{text}");
        assert!(text.contains(&format!("\napp        {PYTHON} -u ")) && text.contains(", pid 2\n"), "{text}");
        let ask = |port: u16| thread::spawn(move || get_from(&format!("127.0.0.1:{port}"), "/gate").map(|answer| answer.status));
        let requests = [ask(8080), ask(8080), ask(8081)];
        (0..3).for_each(|_| _ = init.next_app_line("asked /gate"));
        init.signal(TERM);
        init.line(" draining ");
        let mut idle = Client::open("127.0.0.1:8081").unwrap();
        idle.send("GET /").unwrap();
        // Port, busy, cooling, idle, queued: half a request is busy, too.
        let row = |text: &str, port: &str| -> Vec<String> {
            let mut rows = text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
            rows.find(|row| row.first().is_some_and(|first| first == port)).unwrap_or_default()
        };
        let text = eventually("it is seen", || {
            let text = drawn();
            (row(&text, "8081") == ["8081", "2", "0", "0", "0"]).then_some(text)
        });
        assert_eq!(row(&text, "8080"), ["8080", "2", "0", "0", "0"], "{text}");
        assert!(text.starts_with("draining  for ") && text.contains("\ntraffic    4 in flight, seen by sock_diag\n"), "{text}");
        assert!(text.contains("\nsince then 1 new connection, the last after "), "{text}");
        // The bar: as much of it as of the budget, and two marks, at 28 and 38 of 40 seconds.
        let bar = text.lines().find_map(|line| line.strip_prefix("budget     ")).unwrap();
        let (bar, rest) = bar.split_once(' ').unwrap();
        let used = seconds(rest.split(' ').next().unwrap());
        assert!(bar.len() == 40 && rest.ends_with(" of 40s by TERM"), "{text}");
        assert!((bar.matches('#').count() as f64 - used).abs() < 1.5, "{used}: {text}");
        assert_eq!(bar.match_indices('|').map(|(at, _)| at).collect::<Vec<_>>(), [28, 38], "{text}");
        drop(idle);
        for done in 1..=3 {
            // Signals that are pending together come once.
            init.signal(USR1);
            eventually("one is answered", || {
                (requests.iter().filter(|request| request.is_finished()).count() == done).then_some(())
            });
        }
        requests.into_iter().for_each(|request| assert_eq!(request.join().unwrap().unwrap(), 200));
        init.app_line("told");
        let text = drawn();
        assert!(text.starts_with("stopping  for ") && text.contains("\nstop       signal sent because drained\n"), "{text}");
        assert!(text.contains("; 3 finished their work") || text.contains("; 4 finished their work"), "{text}");
        // On a terminal in colour.
        let (code, said) = run(&["script", "-qec", &format!("{LAMEDUCK} status"), "/dev/null"], "");
        assert!(code == 0 && said.starts_with("\x1b[1;31mstopping\x1b[0m  for "), "{said:?}");
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
        let (code, drawn, said) = lameduck(&["status"], &[]);
        assert!(code == 69 && drawn.is_empty() && said.contains("is lameduck running there with --admin?"), "{said}");
    });
}

/// As HEALTHCHECK runs it.
#[test]
fn health_is_an_exit_code() {
    in_own_network(|| {
        let healthy = |body: &str| (0, format!("{body}\n"), String::new());
        let sick = |why: &str| (1, String::new(), format!("lameduck: {why}\n"));
        let (code, _, said) = lameduck(&["health"], &[]);
        assert!(code == 1 && said.contains("cannot ask 127.0.0.1:9102: Connection refused"), "{code} {said}");
        let mut init = start(&["--delay", "1s", "--quiet-period", "0s"], &["stays", "later"]);
        init.app_line("begun");
        assert_eq!(lameduck(&["health"], &[]), sick("readyz: starting: the app does not listen (503)"));
        assert_eq!(lameduck(&["health", "--live"], &[]), healthy("alive"));
        init.signal(HUP);
        init.app_line("ready");
        eventually("a new check", || (lameduck(&["health"], &[]) == healthy("ready")).then_some(()));
        assert_eq!(lameduck(&["health"], &[("LAMEDUCK_LIVE", "true")]), healthy("alive"));
        // By the option, by the variable that the container has anyway, and where another container would be asked.
        for (option, variable) in [("127.0.0.1:9102", "127.0.0.1:1"), (":9102", ""), ("", ":9102"), ("", "127.0.0.1:9102")] {
            let option = if option.is_empty() { vec![] } else { vec!["--admin", option] };
            assert_eq!(lameduck(&[&["health"], &option[..]].concat(), &[("LAMEDUCK_ADMIN", variable)]), healthy("ready"));
        }
        assert_eq!(lameduck(&["health"], &[("LAMEDUCK_ADMIN", "127.0.0.1:1")]).0, 1);
        assert_eq!(lameduck(&["health", "--admin", "nonsense"], &[]).0, 64);
        init.signal(TERM);
        init.line("lame-duck");
        assert_eq!(lameduck(&["health", "--live"], &[]), healthy("alive"));
        init.app_line("told");
        assert_eq!(lameduck(&["health"], &[]), sick("readyz: stopping (503)"));
        assert_eq!(lameduck(&["health", "--live"], &[]), healthy("alive"));
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
    });
}

/// Whoever else listens there: 1, and not for ever.
#[test]
fn health_of_somebody_else() {
    in_own_network(|| {
        let silent = TcpListener::bind("127.0.0.1:9102").unwrap();
        let (code, _, said) = lameduck(&["health"], &[]);
        assert!(code == 1 && said.contains("no answer in time"), "{said}");
        drop(silent);
        let app = [PYTHON, "-u", crate::APP];
        let mut other = crate::Pid1::start(&app);
        other.app_line("ready");
        let (code, _, said) = lameduck(&["health", "--admin", "127.0.0.1:8080"], &[]);
        assert_eq!((code, said.as_str()), (0, ""), "200 is 200");
        let (code, _, said) = lameduck(&["status", "--admin", "127.0.0.1:8080"], &[]);
        assert_eq!((code, said.as_str()), (0, ""));
    });
}
