//! A rollout in a cluster of the tests' own: what was lost there is known, and reported exactly.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cluster::{Cluster, Script};
use super::*;

impl Rehearsed {
    #[track_caller]
    fn round(&self) -> &Value {
        self.report.pointer("/contenders/0/rounds/0").unwrap_or_else(|| panic!("no round in {self:#?}"))
    }

    /// Names of the pods of which this holds.
    fn pods(&self, which: impl Fn(&Value) -> bool) -> Vec<&str> {
        let pods = self.round()["pods"].as_array().into_iter().flatten();
        pods.filter(|pod| which(pod)).filter_map(|pod| pod["name"].as_str()).collect()
    }

    fn happened(&self, what: &str) -> usize {
        self.round()["events"].as_array().into_iter().flatten().filter(|event| event["what"] == what).count()
    }
}

/// Has phases, in this order.
fn phases(pod: &Value) -> Vec<&str> {
    pod["phases"].as_array().into_iter().flatten().filter_map(|phase| phase["name"].as_str()).collect()
}

#[test]
fn a_rollout_that_loses_nothing_passes_and_changes_one_annotation() {
    let cluster = Cluster::new(2, Script::default());
    let rehearsed = cluster.rehearse(&[]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (0, [0; 5]), "{rehearsed:#?}");
    assert_eq!(rehearsed.figure(0, "/tally/answered"), cluster.answered(), "{rehearsed:#?}");
    assert!(rehearsed.table.contains("passed: restart of shop/deployment/web lost 0 requests"), "{}", rehearsed.table);

    let patches = cluster.patches();
    let [patch] = &patches[..] else { panic!("{patches:?}") };
    let at = patch["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"].as_str();
    let expected =
        serde_json::json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}}});
    assert_eq!(*patch, expected);
    assert!(at.is_some_and(|at| at.len() == "2026-11-21T12:00:00Z".len() && at.ends_with('Z')), "{at:?}");

    assert_eq!(rehearsed.pods(|pod| pod["old"] == true), ["web-1", "web-2"], "{rehearsed:#?}");
    assert_eq!(rehearsed.pods(|pod| pod["old"] == false), ["web-3", "web-4"]);
    assert_eq!(rehearsed.pods(|pod| phases(pod) == ["ready", "terminating"] && pod["gone_ms"].is_u64()), ["web-1", "web-2"]);
    assert_eq!(rehearsed.pods(|pod| phases(pod).ends_with(&["ready"]) && pod["gone_ms"].is_null()), ["web-3", "web-4"]);
    // What the EndpointSlices said, and lameduck's own word.
    let states = |pod: &Value| -> Vec<String> {
        let endpoints = pod["endpoints"].as_array().into_iter().flatten();
        endpoints.filter_map(|endpoint| endpoint["state"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(rehearsed.pods(|pod| states(pod) == ["ready", "serving", "absent"]), ["web-1", "web-2"], "{rehearsed:#?}");
    let drains = |pod: &Value| pod["status"][0]["phase"] == "draining" && pod["status"][0]["in_flight"] == 3;
    assert_eq!(rehearsed.pods(drains), ["web-1", "web-2"], "{rehearsed:#?}");
    assert_eq!((rehearsed.happened("restarted"), rehearsed.happened("complete")), (1, 1));
    let bar = rehearsed.table.lines().find(|line| line.starts_with("  web-1")).unwrap_or_default();
    assert!(bar.contains("=-") || bar.contains("= -"), "{}", rehearsed.table);
}

#[test]
fn losses_are_reported_exactly_and_beside_the_pod_that_was_going() {
    let cluster = Cluster::new(2, Script { faults: [("web-2", 7)].into(), ..Script::default() });
    let rehearsed = cluster.rehearse(&["--pinned", "0"]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (1, [0, 7, 0, 0, 0]), "{rehearsed:#?}");
    assert_eq!((rehearsed.figure(0, "/tally/answered"), cluster.faults()), (cluster.answered(), 7), "{rehearsed:#?}");
    docs::documents_every_field_of(&rehearsed.report);
    let losses = rehearsed.round()["losses"].as_array().cloned().unwrap_or_default();
    let total: u64 = losses.iter().filter_map(|loss| loss["lost"]["reset"].as_u64()).sum();
    assert_eq!(total, 7, "{rehearsed:#?}");
    assert!(losses.iter().all(|loss| loss["terminating"] == serde_json::json!(["web-2"])), "{losses:#?}");
    assert!(rehearsed.table.contains("7 reset; then terminating: web-2; just gone: web-1"), "{}", rehearsed.table);
    assert!(rehearsed.table.contains("web-2: Unhealthy: Readiness probe failed"), "{}", rehearsed.table);
    assert!(rehearsed.table.contains("failed: restart of shop/deployment/web lost 7 requests"), "{}", rehearsed.table);
}

#[test]
fn what_goes_while_a_watch_has_lost_its_place_is_seen_in_the_next_list() {
    let cluster = Cluster::new(2, Script { expire: true, ..Script::default() });
    let rehearsed = cluster.rehearse(&[]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (0, [0; 5]), "{rehearsed:#?}");
    let (expired, refused) = cluster.expired();
    assert!(expired >= 6 && refused >= 3, "{expired} {refused}");
    assert_eq!(rehearsed.pods(|pod| pod["gone_ms"].is_u64()), ["web-1", "web-2"], "{rehearsed:#?}");
    // It is no trouble that a reader should know of.
    assert!(!rehearsed.table.contains("broke"), "{}", rehearsed.table);
}

#[test]
fn one_pod_is_deleted_and_the_others_stay() {
    let cluster = Cluster::new(2, Script { faults: [("web-2", 3)].into(), ..Script::default() });
    let rehearsed = cluster.rehearse(&["--pinned", "0", "--delete-pod", "web-2"]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (1, [0, 3, 0, 0, 0]), "{rehearsed:#?}");
    assert_eq!(rehearsed.figure(0, "/tally/answered"), cluster.answered());
    assert_eq!(rehearsed.pods(|pod| pod["old"] == true), ["web-2"]);
    assert_eq!(cluster.pods(), [("web-1".to_owned(), false), ("web-3".to_owned(), false)]);
    assert!(cluster.patches().is_empty());
}

#[test]
fn a_refused_eviction_is_tried_again_and_other_nodes_are_left_alone() {
    let cluster = Cluster::new(3, Script { refused_evictions: 2, ..Script::default() });
    let rehearsed = cluster.rehearse(&["--drain-node", "n1"]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (0, [0; 5]), "{rehearsed:#?}");
    assert_eq!((rehearsed.pods(|pod| pod["old"] == true), cluster.evictions()), (vec!["web-2"], 3));
    assert_eq!(rehearsed.happened("eviction_refused"), 2, "{rehearsed:#?}");
    assert!(rehearsed.table.contains("disruption budget. (2 times)"), "{}", rehearsed.table);
    assert!(cluster.patches().is_empty());
}

/// What was seen is said, and the report is there.
#[test]
fn a_rollout_that_is_never_complete_ends_at_the_deadline() {
    let cluster = Cluster::new(2, Script { never_ready: true, ..Script::default() });
    let rehearsed = cluster.rehearse(&["--deadline", "3s"]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (69, [0; 5]), "{rehearsed:#?}");
    let line = "lameduck-rehearse: cannot see the restart of shop/deployment/web to its end: not complete after 3s: web-1 was not \
                deleted; web-2 was not deleted; 0 of 2 pods that are to stay are ready; web-3: web: ImagePullBackOff; it goes on by \
                itself, see kubectl rollout status and --deadline\n";
    assert!(rehearsed.said.ends_with(line), "{rehearsed:#?}");
    assert!(rehearsed.table.contains("nothing judged of restart"), "{}", rehearsed.table);
    // Why there are no more pods says their ReplicaSet, and no pod.
    assert!(rehearsed.table.contains("web-5d9f8b7c6d: FailedCreate: exceeded quota: pods"), "{}", rehearsed.table);
    assert!(!rehearsed.table.contains("another workload's"), "{}", rehearsed.table);
}

#[test]
fn an_interrupt_ends_the_load_and_not_the_rollout() {
    let cluster = Cluster::new(2, Script { hold: true, ..Script::default() });
    // timeout(1) would keep the signal from it.
    let mut command = Command::new(REHEARSE);
    let words = ["--rollout", "shop/deployment/web", "--url", &cluster.url, "--load-for", "500ms"];
    command.args(words).env("KUBECONFIG", &cluster.kubeconfig).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().expect("it runs");
    eventually("a pod is going", || cluster.pods().iter().any(|(_, going)| *going).then_some(()));
    eventually("it is seen", || (cluster.asked_status() > 0).then_some(()));
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("it is there");
    let output = child.wait_with_output().expect("its end");
    assert_eq!(output.status.signal(), None);
    let rehearsed = rehearsed(output, Value::Null);
    assert_eq!(rehearsed.code, 2, "{rehearsed:#?}");
    assert!(rehearsed.table.contains("interrupted: the load was stopped"), "{}", rehearsed.table);
    assert!(rehearsed.table.contains("nothing judged of restart"), "{}", rehearsed.table);
    // It had no hand in the rest but one patch.
    assert_eq!(cluster.patches().len(), 1);
    let first = || cluster.pods().into_iter().find(|(name, _)| name == "web-1");
    assert_eq!(first(), Some(("web-1".to_owned(), true)));
    cluster.release();
    eventually("the rollout goes on", || first().is_none().then_some(()));
}

#[track_caller]
fn refuses(cluster: &Cluster, words: &[&str], begins: &str) {
    let rehearsed = cluster.rehearse(words);
    assert_eq!((rehearsed.code, rehearsed.table.as_str()), (69, ""), "{rehearsed:#?}");
    assert!(rehearsed.said.starts_with(&format!("lameduck-rehearse: {begins}")), "{rehearsed:#?}");
    assert_eq!(rehearsed.said.lines().count(), 1, "{rehearsed:#?}");
    assert!(cluster.patches().is_empty());
}

#[test]
fn what_cannot_be_rehearsed_is_one_line_and_nothing_is_done() {
    let denied = ["patch deployments.apps", "watch endpointslices.discovery.k8s.io"].into();
    let may_not = Cluster::new(1, Script { denied, ..Script::default() });
    let what = "cannot rehearse shop/deployment/web: this account may not watch endpointslices.discovery.k8s.io, patch deployments.apps in \
                namespace shop; grant that";
    refuses(&may_not, &[], what);

    let cluster = Cluster::new(1, Script::default());
    let nobody = ["--delete-pod", "web-9"];
    refuses(&cluster, &nobody, "cannot rehearse shop/deployment/web: none of its ready pods is web-9");
    refuses(&cluster, &["--drain-node", "n9"], "cannot rehearse shop/deployment/web: none of its ready pods is on n9");
    refuses(&cluster, &["--html", "/no/such/place/x"], "cannot write /no/such/place/x");
}

#[test]
fn a_cluster_that_is_not_there_is_one_line() {
    let place = Place::new();
    let refused = |kubeconfig: &str, words: &[&str]| {
        let all = ["--rollout", "shop/deployment/web", "--url", "http://127.0.0.1:9/"];
        let mut command = rehearsal(&[&all[..], words].concat());
        let output = command.env("KUBECONFIG", kubeconfig).env_remove("KUBERNETES_SERVICE_HOST").output().expect("it runs");
        let rehearsed = rehearsed(output, Value::Null);
        assert_eq!((rehearsed.code, rehearsed.said.lines().count()), (69, 1), "{rehearsed:#?}");
        rehearsed.said
    };
    let said = refused(&place.path("none"), &[]);
    assert!(said.starts_with("lameduck-rehearse: cannot find a cluster: failed to read kubeconfig from"), "{said}");
    // Nobody listens at that port any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
    let cluster = Cluster::new(1, Script::default());
    let text = fs::read_to_string(&cluster.kubeconfig).expect("a kubeconfig");
    let (before, after) = text.split_once("http://").expect("a server");
    let after = after.split_once('\n').expect("a line").1;
    let dead = place.path("dead");
    fs::write(&dead, format!("{before}http://127.0.0.1:{port}\n{after}")).expect("a kubeconfig");
    let said = refused(&dead, &[]);
    assert!(said.starts_with("lameduck-rehearse: cannot read shop/deployment/web: ") && said.contains("refused"), "{said}");
    let said = {
        let output = rehearsal(&["--rollout", "shop/deployment/none", "--url", &cluster.url])
            .env("KUBECONFIG", &cluster.kubeconfig)
            .output();
        rehearsed(output.expect("it runs"), Value::Null).said
    };
    assert!(said.starts_with("lameduck-rehearse: cannot read shop/deployment/none: deployments \"none\" not found"), "{said}");
}

/// examples/kubernetes-rehearsal grants what is asked for, and no more.
#[test]
fn the_example_s_role_is_the_least() {
    let cluster = Cluster::new(1, Script::default());
    assert_eq!(cluster.rehearse(&[]).code, 0);
    let asked = cluster.asked_rights();
    let role = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kubernetes-rehearsal/role.yaml");
    let reader = "import json, sys, yaml\nfor document in yaml.safe_load_all(open(sys.argv[1])):\n    \
                  if document['kind'] == 'Role': print(json.dumps(document['rules']))";
    let output = Command::new(PYTHON).args(["-c", reader]).arg(role).output().expect("python3-yaml (tests/run installs it)");
    let rules: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    let words = |rule: &Value, name: &str| -> Vec<String> {
        rule[name].as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
    };
    let mut granted = std::collections::BTreeSet::new();
    for rule in rules.as_array().into_iter().flatten() {
        for group in words(rule, "apiGroups") {
            let dot = if group.is_empty() { "" } else { "." };
            for resource in words(rule, "resources") {
                granted.extend(words(rule, "verbs").iter().map(|verb| format!("{verb} {resource}{dot}{group}")));
            }
        }
    }
    assert_eq!(granted, asked);
}

/// Its port is in the manifest, its answer in the report; nobody told its clients that it goes.
#[test]
fn real_lameducks_lose_nothing_while_nodes_learn_late_and_say_what_they_do() {
    let real = Some(&["lameduck", "--delay", "1s", "--grace-period", "20s"][..]);
    let cluster = Cluster::new(2, Script { real, ..Script::default() });
    let rehearsed = cluster.rehearse(&[]);
    assert_eq!((rehearsed.code, rehearsed.lost(0)), (0, [0; 5]), "{rehearsed:#?}");
    let says = |pod: &Value| pod["status"].as_array().into_iter().flatten().any(|status| status["phase"] == "lame-duck");
    assert_eq!(rehearsed.pods(says), ["web-1", "web-2"], "{rehearsed:#?}");
}

/// The same without it.
#[test]
fn a_server_that_ends_at_once_loses_what_nodes_still_send_to_it() {
    let cluster = Cluster::new(2, Script { real: Some(&[]), ..Script::default() });
    let rehearsed = cluster.rehearse(&[]);
    let lost = rehearsed.lost_in_all(0);
    assert!(lost > 5 && rehearsed.code == 1, "{rehearsed:#?}");
    let losses = rehearsed.round()["losses"].as_array().cloned().unwrap_or_default();
    let beside = |loss: &&Value| loss["terminating"].as_array().is_some_and(|pods| !pods.is_empty());
    let total: u64 = losses
        .iter()
        .filter(beside)
        .filter_map(|loss| loss["lost"].as_object())
        .flat_map(|lost| lost.values())
        .filter_map(Value::as_u64)
        .sum();
    assert_eq!(total, lost, "{losses:#?}");
}

/// As every real cluster wants it. A certificate of somebody else is refused.
#[test]
fn the_api_server_is_asked_by_tls_with_the_account_s_token() {
    use std::io::{BufRead, BufReader};

    let cluster = Cluster::new(1, Script::default());
    let place = Place::new();
    let make = |name: &str| {
        let [key, certificate] = ["key", "crt"].map(|what| place.path(&format!("{name}.{what}")));
        let words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"];
        let subject = [
            "-subj",
            "/CN=127.0.0.1",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-addext",
            "basicConstraints=CA:FALSE",
            "-keyout",
            &key,
            "-out",
            &certificate,
        ];
        let output = Command::new("openssl").args(words).args(subject).output().expect("openssl (tests/run installs it)");
        assert!(output.status.success(), "{output:?}");
        (key, certificate)
    };
    let (key, certificate) = make("server");
    let (_, other) = make("other");
    let mut proxy = Command::new(PYTHON);
    let proxy = proxy.arg(source("tls.py")).args([&certificate, &key, &cluster.api.port().to_string()]).stdout(Stdio::piped());
    let mut proxy = proxy.spawn().expect("python3");
    let mut port = String::new();
    BufReader::new(proxy.stdout.take().expect("a pipe")).read_line(&mut port).expect("its port");
    let run = |authority: &str| {
        let text = fs::read_to_string(&cluster.kubeconfig).expect("a kubeconfig");
        let text = text.replace(&format!("http://{}", cluster.api), &format!("https://127.0.0.1:{}", port.trim()));
        let text = text.replace("user: {}", "user: {token: known-to-us}");
        let text = text.replace("  cluster:\n", &format!("  cluster:\n    certificate-authority: {authority}\n"));
        let kubeconfig = place.path("kubeconfig");
        fs::write(&kubeconfig, text).expect("a kubeconfig");
        let mut command = cluster.command(&[]);
        rehearsed(command.env("KUBECONFIG", kubeconfig).output().expect("it runs"), Value::Null)
    };
    let (good, bad) = (run(&certificate), run(&other));
    let _ = proxy.kill();
    let _ = proxy.wait();
    assert_eq!(good.code, 0, "{good:#?}");
    assert_eq!(cluster.credentials(), ["bearer known-to-us".to_owned()].into());
    assert_eq!((bad.code, bad.said.lines().count()), (69, 1), "{bad:#?}");
    assert!(bad.said.contains("cannot read shop/deployment/web: invalid peer certificate"), "{bad:#?}");
}
