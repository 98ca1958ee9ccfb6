//! `/metrics` as Prometheus sees it, and what it costs while nobody looks.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network};
use crate::{ADMIN, APP, Client, TERM, USR1, USR2, field, get, get_from, jq, run, start};

const RULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/prometheus.rules.yaml");

/// The contract: names, types and labels.
const FAMILIES: &[(&str, &str, &[&str])] = &[
    ("lameduck_app_cpu_seconds_total", "counter", &[]),
    ("lameduck_app_open_files", "gauge", &[]),
    ("lameduck_app_processes", "gauge", &[]),
    ("lameduck_app_resident_memory_bytes", "gauge", &[]),
    ("lameduck_app_server_children", "gauge", &["server"]),
    ("lameduck_build_info", "gauge", &["version"]),
    ("lameduck_connections", "gauge", &["port", "state"]),
    ("lameduck_cpu_request_cores", "gauge", &[]),
    ("lameduck_dropped_log_lines_total", "counter", &[]),
    ("lameduck_in_flight", "gauge", &[]),
    ("lameduck_oom_kills_total", "counter", &[]),
    ("lameduck_phase", "gauge", &["phase"]),
    ("lameduck_reaped_total", "counter", &[]),
    ("lameduck_shutdown_connections_accepted_total", "counter", &["port"]),
    ("lameduck_shutdown_connections_closed_total", "counter", &[]),
    ("lameduck_shutdown_last_accept_seconds", "gauge", &[]),
    ("lameduck_signals_total", "counter", &["signal"]),
    ("lameduck_traffic_source", "gauge", &["source"]),
    ("lameduck_workers", "gauge", &[]),
];

/// Value of a sample by its name and labels.
fn sample(page: &str, name: &str) -> f64 {
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name} in\n{page}")).parse().unwrap()
}

/// What promtool has to say, which is nothing.
fn is_fine(page: &str) {
    assert_eq!(run(&["promtool", "check", "metrics"], page), (0, String::new()), "{page}");
}

/// (name, type, labels) of what is exposed.
fn families(page: &str) -> BTreeSet<(String, String, Vec<String>)> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types
        .map(|(name, kind)| {
            let labels = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('{')).unwrap_or_default();
            let labels = labels.split('}').next().unwrap().split(',').filter_map(|label| label.split_once('='));
            (name.to_owned(), kind.to_owned(), labels.map(|(label, _)| label.to_owned()).collect())
        })
        .collect()
}

/// All of it, at a time when there is something of everything: gunicorn by name, draining, with a request in flight.
#[test]
fn the_contract_in_every_phase() {
    in_own_network(|| {
        let gunicorn = ["bash", "-c", "exec -a gunicorn \"$0\" \"$@\"", PYTHON, "-u", APP, "stays"];
        let options = [LAMEDUCK, "--admin", ADMIN, "--delay", "2s", "--cpu-request", "1500m", "--"];
        let mut init = Pid1::start(&[&options[..], &gunicorn].concat());
        init.app_line("ready");
        let page = get("/metrics").body;
        is_fine(&page);
        assert_eq!(sample(&page, "lameduck_phase{phase=\"serving\"}"), 1.0);
        assert_eq!(sample(&page, "lameduck_traffic_source{source=\"sock_diag\"}"), 1.0, "looked at for this scrape");
        let request = thread::spawn(|| get_from("127.0.0.1:8080", "/gate").map(|answer| answer.body));
        init.app_line("asked /gate");
        eventually("it is seen", || {
            (sample(&get("/metrics").body, "lameduck_connections{port=\"8080\",state=\"busy\"}") == 1.0).then_some(())
        });
        init.signal(USR1);
        assert_eq!(request.join().unwrap().unwrap(), "answer\n");

        init.signal(TERM);
        init.line("lame-duck");
        let request = thread::spawn(|| get_from("127.0.0.1:8080", "/gate").map(|answer| answer.body));
        init.next_app_line("asked /gate");
        init.line(" draining ");
        let page = get("/metrics").body;
        is_fine(&page);
        let expected: BTreeSet<_> = FAMILIES
            .iter()
            .map(|(name, kind, labels)| {
                (name.to_string(), kind.to_string(), labels.iter().map(ToString::to_string).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(families(&page), expected);
        for (name, value) in [
            ("lameduck_phase{phase=\"draining\"}", 1.0),
            ("lameduck_phase{phase=\"serving\"}", 0.0),
            ("lameduck_connections{port=\"8080\",state=\"busy\"}", 1.0),
            ("lameduck_connections{port=\"8080\",state=\"queued\"}", 0.0),
            ("lameduck_in_flight", 1.0),
            ("lameduck_traffic_source{source=\"sock_diag\"}", 1.0),
            ("lameduck_shutdown_connections_accepted_total{port=\"8080\"}", 1.0),
            ("lameduck_signals_total{signal=\"TERM\"}", 1.0),
            ("lameduck_signals_total{signal=\"USR1\"}", 1.0),
            ("lameduck_workers", 2.0),
            ("lameduck_cpu_request_cores", 1.5),
            ("lameduck_app_processes", 1.0),
            ("lameduck_app_server_children{server=\"gunicorn\"}", 0.0),
            ("lameduck_dropped_log_lines_total", 0.0),
        ] {
            assert_eq!(sample(&page, name), value, "{name} in\n{page}");
        }
        let last = sample(&page, "lameduck_shutdown_last_accept_seconds");
        assert!(last > 0.0 && last < 2.0, "{last}");
        init.signal(USR1);
        assert_eq!(request.join().unwrap().unwrap(), "answer\n");
        init.app_line("told");
        let page = get("/metrics").body;
        is_fine(&page);
        assert_eq!(sample(&page, "lameduck_phase{phase=\"stopping\"}"), 1.0);
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
    });
}

/// docs/admin.md describes what there is, and nothing else.
#[test]
fn the_page_and_its_description_agree() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/admin.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `lameduck_"));
    let described: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|name| name.split('{').next().unwrap().to_owned())
        .collect();
    // Where there are several services: tests/services.
    let several = ["lameduck_service_up".to_owned()];
    assert_eq!(described, FAMILIES.iter().map(|(name, _, _)| name.to_string()).chain(several).collect());
}

/// tests/admin/tree.py
const TREE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/admin/tree.py");

/// All below PID 1, by the kernel's own lists of children.
fn tree(pid: i32) -> Vec<i32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = list.split_whitespace().map(|child| child.parse().unwrap());
    children.flat_map(|child: i32| [vec![child], tree(child)].concat()).collect()
}

/// Processes, memory, CPU and open files of a tree, at the time of the scrape, as the kernel has them; its ended ones, too.
#[test]
fn figures_are_the_tree_s() {
    in_own_network(|| {
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", ADMIN, "--", PYTHON, "-u", TREE]);
        let burned: f64 = field(&init.app_line("ready "), "burned").parse().unwrap();
        eventually("the orphan is reaped", || (sample(&get("/metrics").body, "lameduck_reaped_total") == 2.0).then_some(()));
        let state = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/stat")).unwrap().rsplit(") ").next().unwrap().to_owned();
        let all = tree(init.pid);
        let (dead, living): (Vec<i32>, Vec<i32>) = all.iter().partition(|pid| state(pid).starts_with('Z'));
        assert_eq!((dead.len(), living.len()), (1, 3));
        let page = get("/metrics").body;
        assert_eq!(sample(&page, "lameduck_app_processes"), 3.0);
        let open: usize = living.iter().map(|pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()).sum();
        assert!(open > 3 * 7, "{open}");
        assert_eq!(sample(&page, "lameduck_app_open_files"), open as f64);
        let resident = living.iter().map(|pid| {
            let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
            line.split_whitespace().next().unwrap().parse::<f64>().unwrap() * 1024.0
        });
        // The kernel's own counts differ by some pages for each CPU.
        let (resident, told) = (resident.sum::<f64>(), sample(&page, "lameduck_app_resident_memory_bytes"));
        assert!(resident > 40e6 && (resident - told).abs() < 4e6, "{told} of {resident}");
        // The tree burns half a second in each of six; Python itself takes a little.
        let cpu = sample(&page, "lameduck_app_cpu_seconds_total");
        assert!((burned - 0.1..burned + 1.5).contains(&cpu), "{cpu} of {burned}");
        // In the document too.
        let document = get("/status").body;
        assert_eq!(jq("[.app.processes, .app.open_files]", &document), format!("[3,{open}]"));
        // What an app that is gone had is not asked any more.
        init.signal(USR2);
        init.next_app_line("opened");
        eventually("the scrape sees it", || {
            (sample(&get("/metrics").body, "lameduck_app_open_files") == open as f64 + 5.0).then_some(())
        });
    });
}

/// A counter does not go back, though a process takes its time with it: the kernel keeps it nowhere if its parent ignores CHLD.
#[test]
fn cpu_time_never_goes_back() {
    in_own_network(|| {
        let app = "import os, signal, time
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
child = os.fork()
if child == 0:
    while time.process_time() < 1:
        pass
    os.write(1, b'burned\\n')
    signal.sigwait([signal.SIGUSR2])
    os._exit(0)
signal.sigwait([signal.SIGUSR2])
os.kill(child, signal.SIGUSR2)
try:
    os.waitpid(child, 0)
except ChildProcessError:
    os.write(1, b'gone\\n')
signal.pause()";
        let mut init = Pid1::start(&[LAMEDUCK, "--admin", ADMIN, "--", PYTHON, "-c", app]);
        let cpu = |processes: f64| {
            let page = get("/metrics").body;
            (sample(&page, "lameduck_app_processes") == processes).then(|| sample(&page, "lameduck_app_cpu_seconds_total"))
        };
        init.app_line("burned");
        let before = eventually("both run", || cpu(2.0));
        assert!(before > 0.9, "{before}");
        init.signal(USR2);
        init.app_line("gone");
        let after = eventually("one is gone", || cpu(1.0));
        assert!(after >= before, "{after} after {before}");
    });
}

/// A known server, even behind a shell that stays: its workers, not the shell's one child.
#[test]
fn a_known_server_s_workers() {
    in_own_network(|| {
        let directory = std::env::temp_dir().join(format!("lameduck-test-{}-gunicorn", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("app.py"), "def app(env, start):\n    start('200 OK', [])\n    return [b'ok']\n").unwrap();
        let gunicorn = "/usr/bin/gunicorn --chdir \"$0\" --worker-tmp-dir \"$0\" --workers 3 --bind 127.0.0.1:8080 app:app";
        let path = directory.to_str().unwrap();
        for shell in [format!("exec {gunicorn}"), format!("{gunicorn}; true")] {
            let _init = Pid1::start(&[LAMEDUCK, "--admin", ADMIN, "--", "sh", "-c", &shell, path]);
            eventually(&format!("{shell}: three workers"), || {
                let page = get_from(ADMIN, "/metrics").ok()?.body;
                page.contains("\nlameduck_app_server_children{server=\"gunicorn\"} 3\n").then_some(())
            });
            assert_eq!(jq(".app.server", &get("/status").body), "gunicorn");
        }
        let _ = fs::remove_dir_all(&directory);
    });
}

/// Ended processes count; so does what was reaped, and the orphan's end.
#[test]
fn what_has_ended_is_counted() {
    in_own_network(|| {
        let mut init = start(&[], &[]);
        init.app_line("ready");
        assert_eq!(sample(&get("/metrics").body, "lameduck_reaped_total"), 0.0);
        for _ in 0..3 {
            init.signal(28);
            init.next_app_line("orphaned");
        }
        eventually("they are reaped", || (sample(&get("/metrics").body, "lameduck_reaped_total") == 3.0).then_some(()));
        assert_eq!(sample(&get("/metrics").body, "lameduck_signals_total{signal=\"WINCH\"}"), 3.0);
    });
}

/// Allocates more than its cgroup may have: a child of its own at USR1, itself at USR2.
const GREEDY: &str = "import os, signal, sys, time
def too_much(*_):
    held = []
    while True: held.append(bytearray(b'x' * (8 << 20)))
def child(*_):
    pid = os.fork()
    if pid == 0: too_much()
    print('child', os.waitpid(pid, 0)[1], flush=True)
signal.signal(10, child)
signal.signal(12, too_much)
print('ready', flush=True)
while True: time.sleep(1)";

/// Whoever reaps it, and whether the pod lives on: the kernel's kills are said and counted.
#[test]
fn what_was_killed_for_memory() {
    in_own_network(|| {
        let group = MemoryGroup::new(64 << 20);
        let message = std::env::temp_dir().join(format!("lameduck-test-{}-oom", std::process::id()));
        let path = message.to_str().unwrap();
        let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0);
        let options = ["--admin", ADMIN, "--termination-log", path, "--"];
        let mut init = Pid1::start(&[&["sh", "-c", &join, "sh", LAMEDUCK][..], &options, &[PYTHON, "-c", GREEDY]].concat());
        init.app_line("ready");
        assert_eq!(sample(&get("/metrics").body, "lameduck_oom_kills_total"), 0.0);
        init.signal(USR1);
        init.app_line("child 9");
        assert_eq!(sample(&get("/metrics").body, "lameduck_oom_kills_total"), 1.0);
        let line = init.line(" oom-kill ");
        assert!(line.contains(" warning ") || line.contains(" warn "), "{line}");
        assert_eq!(field(&line, "processes"), "1");
        init.signal(USR2);
        assert_eq!(init.exit(), 137, "{:#?}", init.seen);
        assert_eq!(init.seen.iter().filter(|line| line.contains(" oom-kill ")).count(), 2, "{:#?}", init.seen);
        let exit = init.line(" exit ");
        assert!(exit.contains("memory ran out") && field(&exit, "oom_kills") == "2", "{exit}");
        let message = fs::read_to_string(&message).unwrap();
        assert!(message.contains("the app died of KILL: memory ran out"), "{message}");
    });
}

/// A cgroup with a limit of memory, of version 1 or 2, that ends with the test.
struct MemoryGroup(String);

impl MemoryGroup {
    fn new(bytes: u64) -> MemoryGroup {
        let name = format!("lameduck-test-{}", std::process::id());
        let made = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].iter().find_map(
            |(mount, file)| {
                let group = MemoryGroup(format!("{mount}/{name}"));
                fs::create_dir(&group.0).ok()?;
                fs::write(format!("{}/{file}", group.0), bytes.to_string()).ok()?;
                // Where there is swap, that would be filled first.
                let _ = fs::write(format!("{}/memory.swap.max", group.0), "0");
                let _ = fs::write(format!("{}/memory.memsw.limit_in_bytes", group.0), bytes.to_string());
                Some(group)
            },
        );
        made.expect("a cgroup for memory: run the tests as root (tests/run does)")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // Its processes have been killed, and leave it soon.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// A server that ends with the test, and its directory with it.
struct Prometheus {
    child: Child,
    directory: PathBuf,
}

const PROMETHEUS: &str = "127.0.0.1:9090";

impl Prometheus {
    fn start() -> Prometheus {
        let directory = std::env::temp_dir().join(format!("lameduck-test-{}-prometheus", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: [ {RULES} ]
scrape_configs:
  - job_name: lameduck
    static_configs: [ {{ targets: [ \"{ADMIN}\" ] }} ]
"
        );
        let path = directory.join("prometheus.yml");
        fs::write(&path, config).unwrap();
        let log = fs::File::create(directory.join("log")).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", path.display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("prometheus: tests/run installs it");
        Prometheus { child, directory }
    }

    /// The value of an instant query that has one result.
    fn ask(&self, query: &str) -> Option<f64> {
        let answer = http("/api/v1/query", &["--data-urlencode", &format!("query={query}")])?;
        jq("if .data.result|length == 1 then .data.result[0].value[1] else empty end", &answer).parse().ok()
    }

    fn until(&self, query: &str, value: f64) {
        eventually(&format!("{query} is {value}; now {:?}", self.ask(query)), || (self.ask(query) == Some(value)).then_some(()));
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Its API answers in chunks: asked by curl.
fn http(path: &str, query: &[&str]) -> Option<String> {
    let (code, said) = run(&[&["curl", "-fsS", "-m", "20", "--get", &format!("http://{PROMETHEUS}{path}")], query].concat(), "");
    (code == 0).then_some(said)
}

/// A rollout, seen by a real Prometheus that scrapes, evaluates the example's rules, and answers over HTTP.
#[test]
fn a_real_prometheus_sees_the_shutdown() {
    in_own_network(|| {
        let mut init = start(&["--grace-period", "300s", "--delay", "5s", "--stop-timeout", "200s"], &["stays"]);
        init.app_line("ready");
        let prometheus = Prometheus::start();
        prometheus.until("up{job=\"lameduck\"}", 1.0);
        prometheus.until("lameduck_phase{phase=\"serving\"}", 1.0);
        prometheus.until("count(lameduck_build_info)", 1.0);
        prometheus.until("lameduck_app_processes", 1.0);
        init.signal(TERM);
        // A client that had not heard of it, four seconds late.
        init.line("lame-duck");
        eventually("four seconds are over", || {
            let ago: f64 = jq(".stop.seconds_ago", &get("/status").body).parse().unwrap();
            (ago > 4.2).then_some(())
        });
        assert_eq!(get_from("127.0.0.1:8080", "/ok").unwrap().status, 200);
        prometheus.until("lameduck_phase{phase=\"stopping\"}", 1.0);
        prometheus.until("sum(lameduck_shutdown_connections_accepted_total)", 1.0);
        assert!(prometheus.ask("lameduck_shutdown_last_accept_seconds").unwrap() > 4.0);
        // And the alert that says so fires.
        prometheus.until("ALERTS{alertname=\"LameduckDelayTooShort\",alertstate=\"firing\"}", 1.0);
        let rules = http("/api/v1/rules", &[]).unwrap();
        assert_eq!(jq("[.data.groups[].rules[].health] | unique", &rules), "[\"ok\"]", "{rules}");
        let names = jq("[.data.groups[].rules[].lastError // \"\"] | unique", &rules);
        assert_eq!(names, "[\"\"]", "{rules}");
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
        prometheus.until("up{job=\"lameduck\"}", 0.0);
    });
}

/// promtool takes the rules, and every metric and label in them exists.
#[test]
fn the_rules_name_what_there_is() {
    let (code, said) = run(&["promtool", "check", "rules", RULES], "");
    assert!(code == 0 && said.contains("rules found"), "{said}");
    let rules = fs::read_to_string(RULES).unwrap();
    let expressions: Vec<&str> = rules.lines().filter_map(|line| line.trim_start().strip_prefix("expr:")).collect();
    assert!(expressions.len() >= 5);
    for expression in expressions {
        let mut named = 0;
        for (start, _) in expression.match_indices("lameduck_") {
            let word = &expression[start..];
            let end = word.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(word.len());
            let family = FAMILIES.iter().find(|(name, _, _)| *name == &word[..end]);
            let (_, kind, labels) = family.unwrap_or_else(|| panic!("no {} in {expression}", &word[..end]));
            named += 1;
            if let Some(matchers) = word[end..].strip_prefix('{') {
                for matcher in matchers.split('}').next().unwrap().split(',') {
                    let label = matcher.split(['=', '!']).next().unwrap();
                    assert!(labels.contains(&label), "no label {label} in {expression}");
                    // Of what value, is fixed.
                    let values = matcher.split('"').nth(1).unwrap();
                    assert!(values.split('|').all(|value| KNOWN.contains(&value)), "no {values} in {expression}");
                }
            }
            let is_rate = expression[..start].trim_end().ends_with("increase(") || expression[..start].ends_with("rate(");
            assert_eq!(is_rate, *kind == "counter", "{expression}");
        }
        assert!(named > 0, "{expression}");
    }
}

/// Phases and sources that there are.
const KNOWN: &[&str] = &[
    "serving",
    "lame-duck",
    "draining",
    "stopping",
    "sweeping",
    "flushing",
    "killing",
    "done",
    "sock_diag",
    "proc_net",
    "metric",
    "none",
];

/// Context switches of all its threads so far.
fn switches(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let status = tasks.filter_map(|task| fs::read_to_string(task.path().join("status")).ok());
    let counts = status.flat_map(|status| {
        let lines = status.lines().filter(|line| line.contains("ctxt_switches:"));
        lines.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).collect::<Vec<_>>()
    });
    counts.sum()
}

/// Between scrapes nothing runs: no timer, no thread, whatever was asked before and whoever is still connected.
#[test]
fn nothing_wakes_up_between_scrapes() {
    in_own_network(|| {
        let options = ["--ready", "http://127.0.0.1:8080/ok", "--warm-up", "http://127.0.0.1:8080/ok*3"];
        let mut init = start(&options, &[]);
        init.line("requests=3");
        let mut scraper = Client::open(ADMIN).unwrap();
        for path in ["/metrics", "/readyz", "/status", "/livez", "/nothing"] {
            scraper.send(&format!("GET {path} HTTP/1.1\r\n\r\n")).unwrap();
            scraper.answer(false).unwrap().expect("an answer");
        }
        // One whose time for a request runs out, and one that leaves.
        let _half = Client::open(ADMIN).unwrap().send("GET /");
        drop(Client::open(ADMIN).unwrap());
        // What these started comes to rest.
        let mut last = switches(init.pid);
        eventually("it rests", || {
            thread::sleep(Duration::from_secs(1));
            let before = std::mem::replace(&mut last, switches(init.pid));
            (before == last).then_some(())
        });
        thread::sleep(Duration::from_secs(6));
        assert_eq!(switches(init.pid), last, "it woke up though nobody asked");
        scraper.send("GET /metrics HTTP/1.1\r\n\r\n").unwrap();
        assert_eq!(scraper.answer(false).unwrap().unwrap().status, 200);
        assert!(switches(init.pid) > last, "the count counts");
        // The one that looked may end a moment after its answer.
        let threads = || fs::read_dir(format!("/proc/{}/task", init.pid)).unwrap().count();
        eventually("no thread stays", || (threads() == 1).then_some(()));
    });
}
