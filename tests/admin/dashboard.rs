//! What the examples ask of lameduck's metrics, the dashboard's panels and the autoscaler's figure, asked by promtool of metrics that were recorded here,
//! over a shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network};
use crate::{ADMIN, APP, TERM, USR1, USR2, get, get_from, jq, run};

const DASHBOARD: &str = include_str!("../../examples/grafana.json");
const ADAPTER: &str = include_str!("../../examples/prometheus-adapter.yaml");
/// What Prometheus adds to every series of a pod.
const POD: &str = "namespace=\"default\",pod=\"shop-1\"";

/// Pages of `/metrics`: while it serves, with a request in flight, then after the stop signal, draining with another one, and stopping.
fn recorded() -> Vec<String> {
    in_own_network(|| {
        let gunicorn = ["bash", "-c", "exec -a gunicorn \"$0\" \"$@\"", PYTHON, "-u", APP, "stays"];
        let options = [LAMEDUCK, "--admin", ADMIN, "--delay", "2s", "--cpu-request", "1500m", "--"];
        let mut init = Pid1::start(&[&options[..], &gunicorn].concat());
        init.app_line("ready");
        let ask = || thread::spawn(|| get_from("127.0.0.1:8080", "/gate").map(|answer| answer.body));
        let page = || get("/metrics").body;
        let busy = || eventually("it is in flight", || Some(page()).filter(|page| page.contains("\nlameduck_in_flight 1\n")));
        let mut pages = vec![page()];
        let request = ask();
        pages.push(busy());
        init.signal(USR1);
        assert_eq!(request.join().unwrap().unwrap(), "answer\n");
        init.signal(TERM);
        init.line("lame-duck");
        pages.push(page());
        let request = ask();
        init.line(" draining ");
        pages.push(busy());
        init.signal(USR1);
        assert_eq!(request.join().unwrap().unwrap(), "answer\n");
        init.app_line("told");
        pages.push(page());
        init.signal(USR2);
        assert_eq!(init.exit(), 0);
        pages
    })
}

/// Which of the pages is that of the drain.
const DRAINING: usize = 3;

/// The pages as promtool's input, scraped each 5 s from a pod.
fn series(pages: &[String]) -> String {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (number, page) in pages.iter().enumerate() {
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect(line);
            let name = match name.strip_suffix('}') {
                Some(name) => format!("{name},{POD}}}"),
                None => format!("{name}{{{POD}}}"),
            };
            all.entry(name).or_insert_with(|| vec!["_".to_owned(); pages.len()])[number] = value.to_owned();
        }
    }
    let row =
        |(name, values): (&String, &Vec<String>)| format!("      - {{ series: '{name}', values: '{}' }}\n", values.join(" "));
    all.iter().map(row).collect()
}

/// Answers that promtool must find at the page of the drain: (question, samples as (labels, value)).
fn promtool_finds(name: &str, pages: &[String], answers: &[(String, Vec<(String, f64)>)]) {
    let test = |(question, samples): &(String, Vec<(String, f64)>)| {
        let sample = |(labels, value): &(String, f64)| format!("{{ labels: '{labels}', value: {value} }}");
        let samples = samples.iter().map(sample).collect::<Vec<_>>().join(", ");
        let question = question.replace('\'', "''");
        format!("      - {{ expr: '{question}', eval_time: {}s, exp_samples: [ {samples} ] }}\n", 5 * DRAINING)
    };
    let tests: String = answers.iter().map(test).collect();
    let text = format!(
        "evaluation_interval: 5s\ntests:\n  - interval: 5s\n    input_series:\n{}    promql_expr_test:\n{tests}",
        series(pages)
    );
    let path = std::env::temp_dir().join(format!("lameduck-test-{}-{name}.yaml", std::process::id()));
    fs::write(&path, &text).unwrap();
    let (code, said) = run(&["promtool", "test", "rules", path.to_str().unwrap()], "");
    let _ = fs::remove_file(path);
    assert_eq!(code, 0, "{said}\n{text}");
}

/// As Grafana asks, all namespaces and pods chosen.
fn as_asked(expression: &str) -> String {
    let mut question = expression.to_owned();
    for (variable, value) in [("$namespace", ".*"), ("$pod", ".*"), ("$__rate_interval", "1m"), ("$__range", "5m")] {
        question = question.replace(variable, value);
    }
    assert!(!question.contains('$'), "{expression}");
    question
}

/// (panel, question) of the dashboard, by another program's parser.
fn questions() -> Vec<(String, String)> {
    let rows = jq(".panels[] | .title as $title | .targets[]? | [$title, .expr] | @tsv", DASHBOARD);
    let rows = rows.lines().map(|row| row.split_once('\t').expect("a title and a question"));
    rows.map(|(title, question)| (title.to_owned(), question.replace("\\\\", "\\"))).collect()
}

/// Every question has an answer, and those whose answer is known here have this one.
#[test]
fn the_dashboard_s_questions_have_answers() {
    let pages = recorded();
    let last = pages[DRAINING].lines().find_map(|line| line.strip_prefix("lameduck_shutdown_last_accept_seconds ")).unwrap();
    let last: f64 = last.parse().unwrap();
    assert!(last > 0.0, "{last}");
    let pod = |value: f64| vec![("{pod=\"shop-1\"}".to_owned(), value)];
    let alone = |value: f64| vec![("{}".to_owned(), value)];
    let by = |label: &str, names: &[&str], one: &str| -> Vec<(String, f64)> {
        names.iter().map(|name| (format!("{{{label}=\"{name}\"}}"), if *name == one { 1.0 } else { 0.0 })).collect()
    };
    let phases = ["serving", "lame-duck", "draining", "stopping", "sweeping", "flushing", "killing", "done"];
    let known = [
        ("In flight for each worker", pod(0.5)),
        ("Connections", by("state", &["busy", "cooling", "idle", "queued"], "busy")),
        ("Pods by phase", by("phase", &phases, "draining")),
        ("Last new connection after the stop signal", pod(last)),
        ("Stops seen", alone(1.0)),
        ("Kills seen", alone(0.0)),
        ("Killed for memory", alone(0.0)),
        ("Pods that cannot see their traffic", alone(0.0)),
        ("Log lines that stderr did not take", pod(0.0)),
        ("Versions", vec![(format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION")), 1.0)]),
    ];
    let questions = questions();
    assert!(questions.len() > 15, "{questions:#?}");
    let mut answers: Vec<(String, Vec<(String, f64)>)> =
        questions.iter().map(|(_, question)| (format!("count({}) > bool 0", as_asked(question)), alone(1.0))).collect();
    for (title, samples) in known {
        let (_, question) = questions.iter().find(|(known, _)| known == title).unwrap_or_else(|| panic!("no panel {title:?}"));
        answers.push((as_asked(question), samples));
    }
    // Two in one panel.
    let mut after = questions.iter().filter(|(title, _)| title == "Connections after the stop signal");
    for count in [1.0, 0.0] {
        answers.push((as_asked(&after.next().expect("new and closed").1), pod(count)));
    }
    promtool_finds("dashboard", &pages, &answers);
    // The variables list what there is.
    for query in jq(".templating.list[] | select(.type == \"query\") | .query.query", DASHBOARD).lines() {
        let metric = query.trim_start_matches("label_values(").split(['{', ',']).next().unwrap();
        assert!(pages[0].contains(&format!("\n{metric}")), "{query}");
    }
}

/// Nothing lies on anything else, and all asks the chosen data source.
#[test]
fn the_dashboard_s_panels_have_their_places() {
    let places = jq(".panels[] | [.id, .gridPos.x, .gridPos.y, .gridPos.w, .gridPos.h] | @tsv", DASHBOARD);
    let (mut ids, mut taken, mut panels) = (BTreeSet::new(), BTreeSet::new(), 0);
    for row in places.lines() {
        let [id, x, y, w, h] = row.split('\t').map(|word| word.parse::<u32>().unwrap()).collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        assert!(ids.insert(id), "two panels have the id {id}");
        assert!(x + w <= 24, "panel {id} is wider than the page");
        for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(place), "panel {id} lies on another one at {place:?}");
        }
        panels += 1;
    }
    assert!(panels > 15);
    let sources = jq("[.panels[] | (.datasource, .targets[]?.datasource) | select(. != null) | .uid] | unique", DASHBOARD);
    assert_eq!(sources, "[\"${datasource}\"]");
}

/// prometheus-adapter fills in the pod and the labels; the figure is a minute's mean for each worker.
#[test]
fn the_autoscaler_s_figure_is_in_flight_for_each_worker() {
    let read = "import sys, yaml; print(yaml.safe_load(sys.stdin)['rules']['custom'][0]['metricsQuery'])";
    let (code, question) = run(&[PYTHON, "-c", read], ADAPTER);
    assert_eq!(code, 0, "{question}");
    let question =
        question.trim_end().replace("<<.GroupBy>>", "pod").replace("<<.LabelMatchers>>", "namespace=\"default\",pod=~\"shop-1\"");
    assert!(!question.contains("<<"), "{question}");
    let pages = recorded();
    let sample = |page: &String| -> f64 {
        page.lines().find_map(|line| line.strip_prefix("lameduck_in_flight ")).unwrap().parse().unwrap()
    };
    let mean = pages[..=DRAINING].iter().map(sample).sum::<f64>() / (DRAINING + 1) as f64;
    assert!(mean < sample(&pages[DRAINING]), "the moment's figure would do as well: {mean}");
    promtool_finds("adapter", &pages, &[(question, vec![("{pod=\"shop-1\"}".to_owned(), mean / 2.0)])]);
}
