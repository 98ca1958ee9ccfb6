//! A cluster of the tests' own, in this process: an API server that speaks plain HTTP, a Deployment's controller, pods that are small
//! servers and count what they did, and a Service that forwards connections to them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::*;

const NAMESPACE: &str = "shop";
const NAME: &str = "web";
const NODES: [&str; 2] = ["n1", "n2"];
/// So long do nodes send to a real pod that is going.
const PROPAGATION: Duration = Duration::from_millis(500);
/// Serves http on the address and port of its words, with connections that are kept.
const REAL: &str = "import sys, time, http.server as h
class Handler(h.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def log_message(self, *words): pass
    def do_GET(self):
        time.sleep(0.03)
        self.send_response(200)
        self.send_header('Content-Length', '7')
        self.end_headers()
        self.wfile.write(b'served\\n')
h.ThreadingHTTPServer.request_queue_size = 128
h.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()";
/// A look at whether a server is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// What is to go wrong.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// So many first requests of a connection does this pod, while it is terminating, close without an answer.
    pub faults: BTreeMap<&'static str, u32>,
    /// New pods wait for their image for ever.
    pub never_ready: bool,
    /// Watches lose their place (410) when a pod goes: only the next list shows it.
    pub expire: bool,
    /// So many evictions of all are refused with 429.
    pub refused_evictions: u32,
    /// Rights that the account has not, as `patch deployments.apps`.
    pub denied: BTreeSet<&'static str>,
    /// A terminating pod is held until `release`.
    pub hold: bool,
    /// Pods are processes of a real server that ends at once on TERM, behind this PID 1: `lameduck` with its options, or nobody.
    pub real: Option<&'static [&'static str]>,
}

/// A pod's server, and what it did.
#[derive(Debug, Default)]
struct Server {
    answered: AtomicU64,
    faults_left: AtomicU32,
    faults: AtomicU64,
    stopping: AtomicBool,
    connections: AtomicU32,
    asked_status: AtomicU64,
    process: Mutex<Option<Child>>,
}

impl Server {
    /// TERM to its process, if it has one. None: it has none any more.
    fn terminate(&self) -> Option<Child> {
        let child = self.process.lock().expect("no test panics with it").take()?;
        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGTERM).expect("it is there");
        Some(child)
    }
}

impl Server {
    /// Whether this request is one of those that are to fail.
    fn takes_a_fault(&self) -> bool {
        let taken = self.faults_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        self.faults.fetch_add(u64::from(taken), Ordering::SeqCst);
        taken
    }
}

struct Change {
    version: u64,
    resource: String,
    what: &'static str,
    object: Value,
}

#[derive(Default)]
struct State {
    version: u64,
    /// Watches of an older epoch have lost their place.
    epoch: u64,
    /// No watch can begin before this version.
    forgotten: u64,
    log: Vec<Change>,
    /// By resource and name.
    objects: BTreeMap<(String, String), Value>,
    servers: BTreeMap<String, (SocketAddr, Arc<Server>)>,
    /// Pods to which the Service forwards: what a node's tables say.
    routes: Vec<String>,
    next_route: usize,
    pods: u32,
    script: Script,
    released: bool,
    patches: Vec<Value>,
    evictions: u32,
    expired: u32,
    refused_watches: u32,
    /// Rights that were asked for.
    asked: BTreeSet<String>,
    /// How callers said who they are.
    credentials: BTreeSet<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

pub struct Cluster {
    shared: Arc<Shared>,
    pub kubeconfig: String,
    pub url: String,
    pub api: SocketAddr,
    _place: Place,
}

impl Cluster {
    /// With so many pods of one Deployment.
    pub fn new(replicas: u32, script: Script) -> Cluster {
        let shared = Arc::new(Shared::default());
        {
            let mut state = shared.lock();
            state.script = script;
            let selector = json!({"matchLabels": {"app": NAME}});
            let spec = json!({"replicas": replicas, "selector": selector, "template": {"metadata": {"labels": {"app": NAME}}}});
            state.put("deployments", NAME, json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": spec}));
        }
        for _ in 0..replicas {
            let pod = start_pod(&shared);
            make_ready(&shared, &pod);
        }
        let api = listen({
            let shared = shared.clone();
            move |stream| serve_api(&shared, stream)
        });
        let service = listen({
            let shared = shared.clone();
            move |stream| forward(&shared, stream)
        });
        let place = Place::new();
        let kubeconfig = place.path("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: test\nclusters:\n- name: test\n  cluster:\n    server: http://{api}\n\
             contexts:\n- name: test\n  context: {{cluster: test, user: test}}\nusers:\n- name: test\n  user: {{}}\n"
        );
        fs::write(&kubeconfig, text).expect("a kubeconfig");
        Cluster { shared, kubeconfig, url: format!("http://{service}/"), api, _place: place }
    }

    /// A rehearsal of a rollout here.
    pub fn command(&self, words: &[&str]) -> Command {
        let all = ["--rollout", "shop/deployment/web", "--url", &self.url, "--rate", "150", "--load-for", "500ms"];
        let mut command = rehearsal(&[&all[..], words].concat());
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    pub fn rehearse(&self, words: &[&str]) -> Rehearsed {
        let place = Place::new();
        let json = place.path("report.json");
        let output = self.command(&[&["--json", &json], words].concat()).output().expect("it runs");
        let text = fs::read_to_string(&json).unwrap_or_default();
        rehearsed(output, serde_json::from_str(&text).unwrap_or_default())
    }

    /// Answers of all pods, without the one before the load.
    pub fn answered(&self) -> u64 {
        let state = self.shared.lock();
        state.servers.values().map(|(_, server)| server.answered.load(Ordering::SeqCst)).sum::<u64>() - 1
    }

    pub fn faults(&self) -> u64 {
        let state = self.shared.lock();
        state.servers.values().map(|(_, server)| server.faults.load(Ordering::SeqCst)).sum()
    }

    pub fn patches(&self) -> Vec<Value> {
        self.shared.lock().patches.clone()
    }

    pub fn evictions(&self) -> u32 {
        self.shared.lock().evictions
    }

    /// Watches that lost their place, and those that could not begin.
    pub fn expired(&self) -> (u32, u32) {
        let state = self.shared.lock();
        (state.expired, state.refused_watches)
    }

    /// Names of the pods that are there, and whether each is going.
    pub fn pods(&self) -> Vec<(String, bool)> {
        let state = self.shared.lock();
        let pods = state.objects.iter().filter(|((resource, _), _)| resource == "pods");
        pods.map(|((_, name), pod)| (name.clone(), pod["metadata"]["deletionTimestamp"].is_string())).collect()
    }

    pub fn credentials(&self) -> BTreeSet<String> {
        self.shared.lock().credentials.clone()
    }

    pub fn asked_rights(&self) -> BTreeSet<String> {
        self.shared.lock().asked.clone()
    }

    pub fn asked_status(&self) -> u64 {
        self.shared.lock().servers.values().map(|(_, server)| server.asked_status.load(Ordering::SeqCst)).sum()
    }

    /// Pods that are held may go.
    pub fn release(&self) {
        self.shared.lock().released = true;
        self.shared.changed.notify_all();
    }
}

/// No process is left behind.
impl Drop for Cluster {
    fn drop(&mut self) {
        let servers: Vec<_> = self.shared.lock().servers.values().map(|(_, server)| server.clone()).collect();
        let ending: Vec<Child> = servers.iter().filter_map(|server| server.terminate()).collect();
        for mut child in ending {
            let _ = child.wait();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panics with it")
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    fn wait_for(&self, enough: impl Fn(&State) -> bool) {
        let state = self.lock();
        drop(self.changed.wait_timeout_while(state, PATIENCE, |state| !enough(state)).expect("no test panics with it"));
    }
}

impl State {
    fn put(&mut self, resource: &str, name: &str, mut object: Value) {
        self.version += 1;
        let key = (resource.to_owned(), name.to_owned());
        let what = if self.objects.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        metadata["namespace"] = json!(NAMESPACE);
        metadata["resourceVersion"] = json!(self.version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("uid-{name}"));
        }
        self.log.push(Change { version: self.version, resource: resource.to_owned(), what, object: object.clone() });
        self.objects.insert(key, object);
    }

    fn remove(&mut self, resource: &str, name: &str) {
        if let Some(mut object) = self.objects.remove(&(resource.to_owned(), name.to_owned())) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.log.push(Change { version: self.version, resource: resource.to_owned(), what: "DELETED", object });
        }
    }

    fn edit(&mut self, resource: &str, name: &str, edit: impl FnOnce(&mut Value)) {
        if let Some(mut object) = self.objects.get(&(resource.to_owned(), name.to_owned())).cloned() {
            edit(&mut object);
            self.put(resource, name, object);
        }
    }

    /// The EndpointSlice as its controller writes it.
    fn write_slice(&mut self) {
        let pods = self.objects.iter().filter(|((resource, _), _)| resource == "pods").map(|(_, pod)| pod);
        let endpoint = |pod: &Value| {
            let ready = pod["status"]["conditions"][0]["status"] == "True";
            let terminating = pod["metadata"]["deletionTimestamp"].is_string();
            json!({
                "addresses": [pod["status"]["podIP"]],
                "conditions": {"ready": ready && !terminating, "serving": ready, "terminating": terminating},
                "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"], "namespace": NAMESPACE},
            })
        };
        let endpoints: Vec<Value> = pods.map(endpoint).collect();
        let slice = json!({"addressType": "IPv4", "endpoints": endpoints, "ports": [{"port": 8080}]});
        self.put("endpointslices", "web-abc", slice);
    }

    fn event(&mut self, kind: &str, of: &str, reason: &str, message: &str) {
        let name = format!("{of}.{}", self.version);
        let object = json!({"kind": kind, "name": of, "uid": format!("uid-{of}"), "namespace": NAMESPACE});
        self.put("events", &name, json!({"involvedObject": object, "reason": reason, "message": message, "type": "Warning"}));
    }
}

/// Accepts for as long as the tests run, a thread each.
fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    listen_on(Ipv4Addr::LOCALHOST, serve)
}

fn listen_on(address: Ipv4Addr, serve: impl Fn(TcpStream) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind((address, 0)).expect("a port");
    let at = listener.local_addr().expect("its address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let serve = serve.clone();
            let _ = stream.set_nodelay(true);
            thread::spawn(move || serve(stream));
        }
    });
    at
}

/// A new pod that is not ready yet; returns its name.
fn start_pod(shared: &Arc<Shared>) -> String {
    let server = Arc::new(Server::default());
    let (number, waits) = {
        let mut state = shared.lock();
        state.pods += 1;
        // The first ones, before anything was rolled out, can start.
        (state.pods, state.script.never_ready && !state.patches.is_empty())
    };
    let ip = Ipv4Addr::new(127, 88, 0, u8::try_from(number).expect("few pods"));
    let real = shared.lock().script.real;
    let (address, admin) = match real {
        Some(init) => start_process(&server, ip, init),
        None => {
            let (pod, admin) = (server.clone(), server.clone());
            (listen_on(ip, move |stream| serve_pod(&pod, stream)), listen_on(ip, move |stream| serve_status(&admin, stream)))
        }
    };
    let name = format!("web-{number}");
    let waiting = if waits { json!([{"name": "web", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]) } else { json!([]) };
    let environment = json!([{"name": "LAMEDUCK_ADMIN", "value": format!(":{}", admin.port())}]);
    let pod = json!({
        "metadata": {"labels": {"app": NAME}},
        "spec": {
            "nodeName": NODES[number as usize % 2],
            "terminationGracePeriodSeconds": 30,
            "containers": [{"name": "web", "env": environment}],
        },
        "status": {
            "phase": "Running",
            "podIP": ip.to_string(),
            "conditions": [{"type": "Ready", "status": "False"}],
            "containerStatuses": waiting,
        },
    });
    shared.change(|state| {
        state.servers.insert(name.clone(), (address, server));
        state.put("pods", &name, pod);
        state.write_slice();
    });
    name
}

/// Addresses of the server, and of its lameduck. Without one the status is this process's, for `end_process` to know that it was asked.
fn start_process(server: &Arc<Server>, ip: Ipv4Addr, init: &[&str]) -> (SocketAddr, SocketAddr) {
    let free = || TcpListener::bind((ip, 0)).expect("a port");
    let [address, free] = [free(), free()].map(|listener| listener.local_addr().expect("its address"));
    let app = [PYTHON, "-c", REAL, &ip.to_string(), &address.port().to_string()].map(str::to_owned);
    let (mut command, admin) = match init {
        [] => {
            let server = server.clone();
            (Command::new(&app[0]), listen_on(ip, move |stream| serve_status(&server, stream)))
        }
        [name, options @ ..] => {
            let mut command = Command::new(REHEARSE);
            command.arg0(name).args(options).args(["--admin", &free.to_string(), "--", &app[0]]);
            (command, free)
        }
    };
    let child = command.args(&app[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    *server.process.lock().expect("no test panics with it") = Some(child.expect("it starts"));
    eventually("the server listens", || TcpStream::connect(address).ok());
    (address, admin)
}

/// As a kubelet does it, while nodes do not know yet.
fn end_process(shared: &Shared, server: &Server, name: &str) {
    let mut child = server.terminate().expect("it runs");
    thread::sleep(PROPAGATION);
    shared.change(|state| state.routes.retain(|route| route != name));
    child.wait().expect("its end");
}

fn make_ready(shared: &Arc<Shared>, name: &str) {
    shared.change(|state| {
        state.edit("pods", name, |pod| pod["status"]["conditions"][0]["status"] = json!("True"));
        state.write_slice();
        state.routes.push(name.to_owned());
    });
}

/// A pod's end: its endpoint goes first; nodes learn of it when it has done all the harm that it is to do; then its server ends.
fn end_pod(shared: &Arc<Shared>, name: &str) {
    let (server, script) = {
        let mut state = shared.lock();
        let server = state.servers[name].1.clone();
        state.edit("pods", name, |pod| pod["metadata"]["deletionTimestamp"] = json!("2026-11-21T12:00:00Z"));
        state.write_slice();
        (server, state.script.clone())
    };
    shared.changed.notify_all();
    if let Some(init) = script.real {
        // The server without an init loses at once: whoever watches has to know before.
        if init.is_empty() {
            eventually("its status is asked for", || (server.asked_status.load(Ordering::SeqCst) > 0).then_some(()));
        }
        end_process(shared, &server, name);
        return shared.change(|state| {
            state.remove("pods", name);
            state.write_slice();
        });
    }
    // Here too: a fault before is no fault of a pod that is going.
    eventually("its status is asked for", || (server.asked_status.load(Ordering::SeqCst) > 0).then_some(()));
    server.faults_left.store(script.faults.get(name).copied().unwrap_or(0), Ordering::SeqCst);
    eventually("all faults", || (server.faults_left.load(Ordering::SeqCst) == 0).then_some(()));
    if server.faults.load(Ordering::SeqCst) > 0 {
        shared.change(|state| state.event("Pod", name, "Unhealthy", "Readiness probe failed"));
    }
    if script.hold {
        shared.wait_for(|state| state.released);
    }
    shared.change(|state| state.routes.retain(|route| route != name));
    server.stopping.store(true, Ordering::SeqCst);
    eventually("its connections end", || (server.connections.load(Ordering::SeqCst) == 0).then_some(()));
    shared.change(|state| {
        state.remove("pods", name);
        state.write_slice();
        if script.expire {
            state.epoch += 1;
            state.forgotten = state.version;
        }
    });
}

/// The Deployment's controller after a new template: one new pod for one old pod.
fn roll_out(shared: &Arc<Shared>, old: Vec<String>) {
    for name in old {
        let new = start_pod(shared);
        if shared.lock().script.never_ready {
            return shared.change(|state| {
                state.event("ReplicaSet", "web-5d9f8b7c6d", "FailedCreate", "exceeded quota: pods");
                state.event("ReplicaSet", "web-api-5d9f8b7c6d", "FailedCreate", "another workload's");
            });
        }
        make_ready(shared, &new);
        end_pod(shared, &name);
    }
}

/// The same after a pod was deleted.
fn replace(shared: &Arc<Shared>, name: &str) {
    let going = {
        let shared = shared.clone();
        let name = name.to_owned();
        thread::spawn(move || end_pod(&shared, &name))
    };
    let new = start_pod(shared);
    make_ready(shared, &new);
    going.join().expect("its end");
}

/// A connection of a client, to the next pod.
fn forward(shared: &Arc<Shared>, client: TcpStream) {
    let address = {
        let mut state = shared.lock();
        state.next_route += 1;
        let route = state.routes[state.next_route % state.routes.len()].clone();
        let (address, server) = state.servers[&route].clone();
        // Counted before anybody may find that there is none.
        server.connections.fetch_add(1, Ordering::SeqCst);
        address
    };
    let Ok(server) = TcpStream::connect(address) else { return };
    let _ = server.set_nodelay(true);
    let pump = |mut from: TcpStream, mut to: TcpStream| {
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write);
    };
    let (from, to) = (client.try_clone().expect("a descriptor"), server.try_clone().expect("a descriptor"));
    thread::spawn(move || pump(from, to));
    pump(server, client);
}

/// The head of one request, and its body. None: there is none.
fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

/// Answers each request; where faults are left and it is going, closes without a word instead, if nothing was asked before.
fn serve_pod(server: &Server, stream: TcpStream) {
    let _ = stream.set_read_timeout(Some(LOOK));
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    let mut first = true;
    loop {
        match reader.fill_buf() {
            Ok([]) => break,
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                // A new one has its request on the way.
                if !first && server.stopping.load(Ordering::SeqCst) {
                    break;
                }
                continue;
            }
            Err(_) => break,
        }
        let Some((head, _)) = request(&mut reader) else { break };
        if first && server.takes_a_fault() {
            break;
        }
        first = false;
        let closes = head.to_ascii_lowercase().contains("connection: close");
        let close = if closes { "Connection: close\r\n" } else { "" };
        server.answered.fetch_add(1, Ordering::SeqCst);
        if writer.write_all(format!("HTTP/1.1 200 OK\r\n{close}Content-Length: 7\r\n\r\nserved\n").as_bytes()).is_err() || closes
        {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
    server.connections.fetch_sub(1, Ordering::SeqCst);
}

/// A lameduck's admin port.
fn serve_status(server: &Server, stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    while let Some((head, _)) = request(&mut reader) {
        assert!(head.starts_with("GET /status "), "{head}");
        let body = json!({"phase": "draining", "traffic": {"in_flight": 3}}).to_string();
        let _ = write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        server.asked_status.fetch_add(1, Ordering::SeqCst);
    }
}

/// A connection to the API server.
fn serve_api(shared: &Arc<Shared>, stream: TcpStream) {
    let mut writer = stream.try_clone().expect("a descriptor");
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = request(&mut reader) {
        let mut words = head.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts: Vec<&str> = path.split('/').collect();
        if query.contains("watch=true") {
            return watch(shared, parts[parts.len() - 1], query, &mut writer);
        }
        let credential =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("authorization: ").map(str::to_owned));
        shared.lock().credentials.extend(credential);
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (code, answer) = answer(shared, method, &parts, &body);
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {code} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", text.len());
        if writer.write_all((head + &text).as_bytes()).is_err() {
            return;
        }
    }
}

fn failure(code: u16, reason: &str, message: &str) -> (u16, Value) {
    (code, json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}))
}

fn answer(shared: &Arc<Shared>, method: &str, parts: &[&str], body: &Value) -> (u16, Value) {
    match (method, parts) {
        ("POST", [.., "selfsubjectaccessreviews"]) => {
            let asked = &body["spec"]["resourceAttributes"];
            let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
            let mut right = format!("{} {}", text("verb"), text("resource"));
            for (mark, part) in [("/", text("subresource")), (".", text("group"))] {
                if !part.is_empty() {
                    right += &format!("{mark}{part}");
                }
            }
            assert_eq!(text("namespace"), NAMESPACE);
            if ["get", "patch"].contains(&text("verb").as_str()) {
                assert_eq!(text("name"), NAME);
            }
            shared.lock().asked.insert(right.clone());
            let allowed = !shared.lock().script.denied.contains(right.as_str());
            (201, json!({"metadata": {}, "spec": body["spec"], "status": {"allowed": allowed}}))
        }
        ("GET", [.., "namespaces", NAMESPACE, resource]) => {
            let state = shared.lock();
            let items: Vec<&Value> =
                state.objects.iter().filter(|((of, _), _)| of == resource).map(|(_, object)| object).collect();
            (200, json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}))
        }
        ("GET", [.., "namespaces", NAMESPACE, resource, name]) => {
            match shared.lock().objects.get(&((*resource).to_owned(), (*name).to_owned())) {
                Some(object) => (200, object.clone()),
                None => failure(404, "NotFound", &format!("{resource} \"{name}\" not found")),
            }
        }
        ("PATCH", [.., "deployments", NAME]) => {
            let mut state = shared.lock();
            state.patches.push(body.clone());
            let old: Vec<String> = state.routes.clone();
            let annotations = body["spec"]["template"]["metadata"]["annotations"].clone();
            state.edit("deployments", NAME, |object| object["spec"]["template"]["metadata"]["annotations"] = annotations);
            let object = state.objects[&("deployments".to_owned(), NAME.to_owned())].clone();
            drop(state);
            shared.changed.notify_all();
            let shared = shared.clone();
            thread::spawn(move || roll_out(&shared, old));
            (200, object)
        }
        ("DELETE", [.., "pods", name]) => {
            let uid = format!("uid-{name}");
            if body["preconditions"]["uid"] != uid.as_str() {
                return failure(409, "Conflict", "another pod of that name");
            }
            go(shared, name)
        }
        ("POST", [.., "pods", name, "eviction"]) => {
            let mut state = shared.lock();
            state.evictions += 1;
            if state.script.refused_evictions > 0 {
                state.script.refused_evictions -= 1;
                let message = "Cannot evict pod as it would violate the pod's disruption budget.";
                return failure(429, "TooManyRequests", message);
            }
            drop(state);
            go(shared, name);
            (201, json!({"kind": "Status", "status": "Success"}))
        }
        _ => failure(404, "NotFound", "the server could not find the requested resource"),
    }
}

fn go(shared: &Arc<Shared>, name: &str) -> (u16, Value) {
    let pod = shared.lock().objects.get(&("pods".to_owned(), name.to_owned())).cloned();
    let Some(pod) = pod else { return failure(404, "NotFound", "no such pod") };
    let (shared, name) = (shared.clone(), name.to_owned());
    thread::spawn(move || replace(&shared, &name));
    (200, pod)
}

/// Changes as they come, until the place in the history is lost. A watch that runs then is told so the first time, and just ends the second
/// time; one that would begin there is refused.
fn watch(shared: &Arc<Shared>, resource: &str, query: &str, writer: &mut TcpStream) {
    let from = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
    let mut from: u64 = from.and_then(|from| from.parse().ok()).unwrap_or(0);
    let (epoch, forgotten) = {
        let mut state = shared.lock();
        let forgotten = from < state.forgotten;
        state.refused_watches += u32::from(forgotten);
        (state.epoch, forgotten)
    };
    let gone = failure(410, "Expired", "too old resource version").1;
    if forgotten {
        let text = gone.to_string();
        let head = format!(
            "HTTP/1.1 410 Gone\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            text.len()
        );
        let _ = writer.write_all((head + &text).as_bytes());
        return;
    }
    let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    if writer.write_all(head).is_err() {
        return;
    }
    let mut say = |what: &str, object: &Value| {
        let text = json!({"type": what, "object": object}).to_string();
        writer.write_all(format!("{:x}\r\n{text}\n\r\n", text.len() + 1).as_bytes())
    };
    loop {
        let mut state = shared.lock();
        if state.epoch != epoch {
            state.expired += 1;
            drop(state);
            if epoch == 0 {
                let _ = say("ERROR", &gone);
            }
            let _ = writer.write_all(b"0\r\n\r\n");
            return;
        }
        let news: Vec<(u64, &str, Value)> = state
            .log
            .iter()
            .filter(|change| change.version > from && change.resource == resource)
            .map(|change| (change.version, change.what, change.object.clone()))
            .collect();
        if news.is_empty() {
            drop(shared.changed.wait_timeout(state, PATIENCE));
            continue;
        }
        drop(state);
        for (version, what, object) in news {
            from = version;
            if say(what, &object).is_err() {
                return;
            }
        }
    }
}
