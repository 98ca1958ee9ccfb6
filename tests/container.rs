//! Real containers: the static binary as PID 1 under podman and runc, loaded over the bridge network, stopped by `podman stop`.
//! Images and layers stay in a store of their own below the target directory: nobody's images get new names, and only the
//! first run fetches packages.
#[path = "container/hook.rs"]
mod hook;
#[path = "container/injected.rs"]
mod injected;
#[path = "container/kept.rs"]
mod kept;
#[path = "keepalive/pinned.rs"]
mod pinned;
#[path = "container/services.rs"]
mod services;
#[path = "container/size.rs"]
mod size;
#[path = "support/sized.rs"]
mod sized;
mod support;

use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};
use support::{PATIENCE, alive};

/// What Kubernetes' restricted policy asks for, and more.
const HARDENED: [&str; 7] = ["--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges", "--user", "1000"];
/// Clients go on this long after the stop signal, as a balancer does that has not heard of it.
const LAG: Duration = Duration::from_secs(2);
/// The answer of tests/container/server.rs.
const LARGE: usize = 300_000;

#[test]
fn a_from_scratch_image_loses_no_request_where_tini_does() {
    let image = scratch_image();
    compare(
        &Container::run(&image, &HARDENED, &["/lameduck", "--delay", "3s", "--", "/server", "serve"]),
        &Container::run(&image, &HARDENED, &["/tini", "--", "/server", "serve"]),
    );
}

/// PHP's own server: TERM ends its main process alone, and the workers that hold the requests become orphans.
#[test]
fn a_debian_image_loses_no_request_where_tini_does() {
    let image = debian_image();
    let options = [&HARDENED[..], &["--env", "PHP_CLI_SERVER_WORKERS=8"]].concat();
    let server = ["--", "php", "-S", "0.0.0.0:8080", "-t", "/srv", "/srv/index.php"];
    compare(
        &Container::run(&image, &options, &[&["lameduck", "--delay", "3s"], &server[..]].concat()),
        &Container::run(&image, &options, &[&["tini"], &server[..]].concat()),
    );
}

#[test]
fn the_example_dockerfile_loses_no_request_where_the_bare_image_does() {
    let image = example_image();
    let inherited = inspect("image", &image, "{{.Config.StopSignal}}");
    assert!(inherited == "SIGWINCH" || inherited == "28", "the image's STOPSIGNAL is {inherited:?}, not Apache's own");
    // As examples/kubernetes runs it: the image's own uid, a read-only root, and /tmp.
    let options = ["--cap-drop", "ALL", "--read-only", "--security-opt", "no-new-privileges", "--tmpfs", "/tmp"];
    let bare = [&options[..], &["--env", "LAMEDUCK_WORKERS=20", "--entrypoint", "docker-php-entrypoint"]].concat();
    compare(&Container::run(&image, &options, &[]), &Container::run(&image, &bare, &["apache2-foreground"]));
}

#[test]
fn an_answer_written_on_the_stop_signal_arrives_whole() {
    let container = Container::run(
        &scratch_image(),
        &HARDENED,
        &["/lameduck", "--delay", "0s", "--drain", "off", "--", "/server", "on-term"],
    );
    let mut reader = SlowReader::ask(&container);
    let stop = container.stop_in_background(30);
    container.wait_until_app_is_gone();
    container.stays_for(Duration::from_secs(2));
    assert_eq!(reader.read_all(), LARGE, "cut; the log:\n{}", container.logs());
    stop.join().unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(container.exit_code(), 0, "the log:\n{}", container.logs());
}

#[test]
fn an_answer_written_before_the_apps_own_exit_arrives_whole() {
    let container = Container::run(&scratch_image(), &HARDENED, &["/lameduck", "--", "/server", "at-once"]);
    let mut reader = SlowReader::ask(&container);
    container.wait_until_app_is_gone();
    // It waits for no more than 2 s here.
    container.stays_for(Duration::from_millis(500));
    assert_eq!(reader.read_all(), LARGE, "cut; the log:\n{}", container.logs());
    container.wait_until_exited();
    assert_eq!(container.exit_code(), 0, "the log:\n{}", container.logs());
}

#[test]
fn an_answer_still_on_its_way_holds_the_stop_back() {
    let container = Container::run(&scratch_image(), &HARDENED, &["/lameduck", "--delay", "1s", "--", "/server", "large"]);
    let mut reader = SlowReader::ask(&container);
    let stop = container.stop_in_background(30);
    // Longer than the delay and the quiet period: only the unread answer is in the way.
    thread::sleep(Duration::from_secs(4));
    assert!(!container.app_is_gone(), "stopped while it was sending; the log:\n{}", container.logs());
    assert_eq!(reader.read_all(), LARGE, "cut; the log:\n{}", container.logs());
    stop.join().unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(container.exit_code(), 0, "the log:\n{}", container.logs());
}

/// Nothing but the time being up ends a wait for a client that never reads: before the runtime's KILL.
#[test]
fn a_client_that_never_reads_does_not_use_up_the_grace_period() {
    let command = ["/lameduck", "--grace-period", "6s", "--delay", "0s", "--drain", "off", "--", "/server", "on-term"];
    let container = Container::run(&scratch_image(), &HARDENED, &command);
    let _reader = SlowReader::ask(&container);
    let stop = container.stop_in_background(6);
    container.wait_until_app_is_gone();
    container.stays_for(Duration::from_secs(2));
    stop.join().unwrap_or_else(|panic| resume_unwind(panic));
    assert_eq!(container.exit_code(), 0, "the log:\n{}", container.logs());
}

/// The harness can see the loss: the same answers under tini, which exits with its child and takes the network along.
#[test]
fn under_tini_the_answer_is_cut() {
    for mode in ["on-term", "at-once"] {
        let container = Container::run(&scratch_image(), &HARDENED, &["/tini", "--", "/server", mode]);
        let mut reader = SlowReader::ask(&container);
        if mode == "on-term" {
            container.stop_in_background(30).join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        container.wait_until_exited();
        let read = reader.read_all();
        assert!(read < LARGE, "{mode}: tini delivered all {read} bytes: this test proves nothing");
    }
}

// ---- Load ----

/// The same load on both at the same time: `lossless` must lose nothing, and `other` must, or the load could not see a loss.
fn compare(lossless: &Container, other: &Container) {
    let (tally, control) = thread::scope(|scope| {
        let control = scope.spawn(|| stop_under_load(other));
        (stop_under_load(lossless), control.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let Tally { sent, lost } = &tally;
    let first = &lost[..lost.len().min(5)];
    assert!(lost.is_empty(), "lost {} of {sent}, first {first:#?}; the log:\n{}", lost.len(), lossless.logs());
    assert_eq!(lossless.exit_code(), lossless.code, "the log:\n{}", lossless.logs());
    assert!(!control.lost.is_empty(), "the other lost none of {}: the load sees no loss", control.sent);
}

#[derive(Default)]
struct Tally {
    sent: usize,
    lost: Vec<String>,
}

/// Fresh connections and keep-alive ones, two seconds before and two after the stop; then one slow request at the last moment.
fn stop_under_load(container: &Container) -> Tally {
    container.wait_until_it_answers();
    let enough = Arc::new(AtomicBool::new(false));
    let address = container.address;
    let clients: Vec<JoinHandle<Tally>> = (0..9)
        .map(|number| {
            let enough = enough.clone();
            thread::spawn(move || {
                let mut tally = Tally::default();
                let mut client = Client { address, connection: None, keep_alive: number % 3 == 0 };
                while !enough.load(Ordering::Relaxed) {
                    tally.sent += 1;
                    if let Err(why) = client.get(200 + 40 * number) {
                        tally.lost.push(why);
                        thread::sleep(Duration::from_millis(100));
                    }
                    if client.keep_alive {
                        thread::sleep(Duration::from_millis(100));
                    }
                }
                tally
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(2));
    let stop = container.stop_in_background(30);
    thread::sleep(LAG);
    let late = Client { address, connection: None, keep_alive: false }.get(1500);
    enough.store(true, Ordering::Relaxed);
    let mut sum = Tally { sent: 1, lost: late.err().map(|why| format!("the late one: {why}")).into_iter().collect() };
    for client in clients {
        let tally = client.join().unwrap_or_else(|panic| resume_unwind(panic));
        sum.sent += tally.sent;
        sum.lost.extend(tally.lost);
    }
    stop.join().unwrap_or_else(|panic| resume_unwind(panic));
    sum
}

struct Client {
    address: SocketAddr,
    connection: Option<TcpStream>,
    keep_alive: bool,
}

impl Client {
    fn get(&mut self, milliseconds: u64) -> Result<(), String> {
        let fresh = self.connection.is_none();
        self.try_get(milliseconds).map_err(|why| {
            self.connection = None;
            format!("{why} ({} connection, {milliseconds} ms)", if fresh { "fresh" } else { "kept" })
        })
    }

    fn try_get(&mut self, milliseconds: u64) -> Result<(), String> {
        let mut connection = match self.connection.take() {
            Some(kept) => kept,
            None => TcpStream::connect_timeout(&self.address, Duration::from_secs(5)).map_err(|e| format!("connect: {e}"))?,
        };
        // Longer than a loaded machine needs, shorter than a lost connection would last.
        connection.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let keep_alive = if self.keep_alive { "keep-alive" } else { "close" };
        let request = format!("GET /?ms={milliseconds} HTTP/1.1\r\nHost: test\r\nConnection: {keep_alive}\r\n\r\n");
        connection.write_all(request.as_bytes()).map_err(|e| format!("write: {e}"))?;
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        while !answer.ends_with(b"\r\n\r\ndone\n") {
            match connection.read(&mut buffer) {
                Ok(0) => return Err(format!("end of file after {:?}", String::from_utf8_lossy(&answer))),
                Ok(n) => answer.extend_from_slice(&buffer[..n]),
                Err(e) => return Err(format!("read: {e} after {:?}", String::from_utf8_lossy(&answer))),
            }
        }
        let answer = String::from_utf8_lossy(&answer).to_ascii_lowercase();
        if !answer.starts_with("http/1.1 200") && !answer.starts_with("http/1.0 200") {
            return Err(format!("answered {answer:?}"));
        }
        if self.keep_alive && answer.starts_with("http/1.1") && !answer.contains("connection: close") {
            self.connection = Some(connection);
        }
        Ok(())
    }
}

/// A client that has asked, and reads nothing until it is told to: its window is 64 KB until then.
struct SlowReader(TcpStream);

impl SlowReader {
    fn ask(container: &Container) -> SlowReader {
        container.wait_until_it_listens();
        assert!(!container.app_is_gone(), "PID 1 has no child: the app runs in its place");
        let mut connection = TcpStream::connect(container.address).expect("connect");
        connection.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("write");
        SlowReader(connection)
    }

    /// Reads until the end, or until nothing has come for a while; returns how much it was.
    fn read_all(&mut self) -> usize {
        self.0.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut sum = 0;
        let mut buffer = [0; 4096];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) | Err(_) => return sum,
                Ok(n) => sum += n,
            }
        }
    }
}

// ---- Containers ----

struct Container {
    name: String,
    address: SocketAddr,
    pid1: i32,
    /// What is run in it before it is stopped.
    pre_stop: Vec<String>,
    /// With which code an orderly stop ends.
    code: i32,
}

impl Container {
    fn run(image: &str, options: &[&str], command: &[&str]) -> Container {
        let mut container = Container::start(image, &[&["--network", "podman"], options].concat(), command);
        let address = inspect("container", &container.name, "{{.NetworkSettings.IPAddress}}");
        let address = address.parse().unwrap_or_else(|_| panic!("no address; the log:\n{}", container.logs()));
        container.address = SocketAddr::new(address, 8080);
        container
    }

    fn start(image: &str, options: &[&str], command: &[&str]) -> Container {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lameduck-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let address = ([0, 0, 0, 0], 8080).into();
        let mut container = Container { name: name.clone(), address, pid1: 0, pre_stop: Vec::new(), code: 0 };
        let mut run = podman(&["run", "--detach", "--name", &name, "--log-driver", "k8s-file"]);
        succeeds(run.args(ulimits()).args(options).arg(image).args(command));
        container.pid1 = inspect("container", &name, "{{.State.Pid}}").parse().expect("a pid");
        container
    }

    fn wait_until_it_answers(&self) {
        self.patiently("it answers", || Client { address: self.address, connection: None, keep_alive: false }.get(0).ok());
    }

    /// By its socket table: a connection would be taken for the one client.
    fn wait_until_it_listens(&self) {
        let table = format!("/proc/{}/net/tcp", self.pid1);
        let row = format!(":{:04X} 00000000:0000 0A", self.address.port());
        self.patiently("it listens", || fs::read_to_string(&table).ok()?.contains(&row).then_some(()));
    }

    fn app_is_gone(&self) -> bool {
        let pid = self.pid1;
        fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).map_or(true, |children| children.trim().is_empty())
    }

    fn wait_until_app_is_gone(&self) {
        self.patiently("the app is gone", || self.app_is_gone().then_some(()));
    }

    /// Gone with its network: podman's clean-up has come to its end.
    fn wait_until_exited(&self) {
        self.patiently("the container exits", || (!alive(self.pid1)).then_some(()));
        succeeds(&mut podman(&["wait", &self.name]));
        succeeds(&mut podman(&["container", "cleanup", &self.name]));
    }

    fn patiently<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}; the log:\n{}", self.logs());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The app has gone; PID 1, and with it the network, has not.
    fn stays_for(&self, time: Duration) {
        thread::sleep(time);
        assert!(alive(self.pid1), "PID 1 went before the answer did; the log:\n{}", self.logs());
    }

    /// An orderly stop, then KILL after so many seconds: the exit code tells the two apart.
    fn stop_in_background(&self, seconds: u32) -> JoinHandle<()> {
        let mut stop = podman(&["stop", "--time", &seconds.to_string(), &self.name]);
        let pre_stop = if self.pre_stop.is_empty() { None } else { Some(self.exec(&[], &self.pre_stop)) };
        thread::spawn(move || {
            if let Some(mut hook) = pre_stop {
                succeeds(&mut hook);
            }
            succeeds(&mut stop);
        })
    }

    /// As `kubectl exec` and the kubelet's hooks do.
    fn exec<S: AsRef<std::ffi::OsStr>>(&self, options: &[&str], command: &[S]) -> Command {
        let mut exec = podman(&["exec"]);
        exec.args(options).arg(&self.name).args(command);
        exec
    }

    fn exit_code(&self) -> i32 {
        inspect("container", &self.name, "{{.State.ExitCode}}").parse().expect("an exit code")
    }

    /// Without what servers say of each connection.
    fn logs(&self) -> String {
        let output = podman(&["logs", &self.name]).output().expect("podman");
        let log = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let lines = log.lines().filter(|line| !["GET /", " Accepted", " Closing"].iter().any(|noise| line.contains(noise)));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = podman(&["rm", "--force", "--time", "0", &self.name]).output();
    }
}

fn inspect(what: &str, name: &str, format: &str) -> String {
    let output = succeeds(&mut podman(&[what, "inspect", "--format", format, name]));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

/// The default limits of podman may be above this machine's own, and raising one takes a capability.
fn ulimits() -> Vec<String> {
    let limits = fs::read_to_string("/proc/self/limits").expect("/proc/self/limits");
    let option = |option: &str, row: &str| {
        let hard = limits.lines().find_map(|line| line.strip_prefix(row)?.split_whitespace().nth(1)?.parse().ok());
        let limit: u64 = hard.unwrap_or(u64::MAX).min(16384);
        ["--ulimit".to_owned(), format!("{option}={limit}:{limit}")]
    };
    [option("nofile", "Max open files"), option("nproc", "Max processes")].concat()
}

/// podman on a store of our own, by runc, without systemd.
fn podman(arguments: &[&str]) -> Command {
    static STATE: OnceLock<String> = OnceLock::new();
    // Sockets' paths must be short, and all this is void after a reboot: not below the target directory.
    let state = STATE.get_or_init(|| {
        let mut hasher = DefaultHasher::new();
        cache("").hash(&mut hasher);
        format!("/run/lameduck-test-{:08x}", hasher.finish() as u32)
    });
    let mut command = Command::new("podman");
    command.arg("--root").arg(cache("storage")).args(["--runroot", state, "--tmpdir", &format!("{state}/libpod")]);
    command.args(["--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "file"]).args(arguments);
    command.stdin(Stdio::null());
    command
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| match error.kind() {
        ErrorKind::NotFound => panic!("{:?} is not there: tests/run installs it", command.get_program()),
        _ => panic!("{command:?}: {error}"),
    });
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    assert!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&said));
    output
}

// ---- Images ----

fn cache(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("container").join(name)
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The target that the product is built for.
fn musl() -> String {
    format!("{}-unknown-linux-musl", std::env::consts::ARCH)
}

/// One at a time, in all test processes of this target directory.
fn locked() -> Flock<File> {
    fs::create_dir_all(cache("")).expect("a cache below the target directory");
    let file = File::create(cache("lock")).expect("a lock file");
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("flock")
}

/// What all tests need, once in a process: the tools, a tidy store, and the binaries in a directory to build images from.
fn context() -> &'static Path {
    static CONTEXT: OnceLock<PathBuf> = OnceLock::new();
    CONTEXT.get_or_init(|| {
        for (file, package) in [
            ("/usr/bin/podman", "podman"),
            ("/usr/sbin/runc", "runc"),
            ("/usr/lib/cni/bridge", "containernetworking-plugins"),
            ("/usr/sbin/iptables", "iptables"),
            ("/usr/bin/mmdebstrap", "mmdebstrap"),
            ("/usr/bin/tini-static", "tini"),
        ] {
            assert!(Path::new(file).exists(), "no {file}: install Debian's {package} (tests/run does)");
        }
        let _lock = locked();
        remove_leftovers();
        let context = cache("context");
        fs::create_dir_all(&context).expect("a build context");
        let target = musl();
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
        let help = format!("this needs `rustup target add {target}` (tests/run does that)");
        let built = Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--bin", "lameduck", "--target", &target, "--target-dir"])
            .arg(directory)
            .current_dir(source(""))
            .output()
            .expect("cargo");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "cannot build the static binary: {help}\n{said}");
        succeeds(
            Command::new("rustc")
                .args(["--edition", "2024", "-O", "--target", &target, "-o"])
                .args([context.join("server"), source("tests/container/server.rs")]),
        );
        fs::copy(directory.join(&target).join("release/lameduck"), context.join("lameduck")).expect("the static binary");
        fs::copy("/usr/bin/tini-static", context.join("tini")).expect("tini-static, from tini");
        for file in ["examples/apache/index.php", "tests/container/apache2-foreground", "tests/container/docker-php-entrypoint"] {
            let name = Path::new(file).file_name().expect("a name");
            fs::copy(source(file), context.join(name)).expect("a source file");
        }
        context
    })
}

/// Containers of test processes that are no more, and images that no name points to.
fn remove_leftovers() {
    let names = succeeds(&mut podman(&["ps", "--all", "--format", "{{.Names}}"]));
    for name in String::from_utf8_lossy(&names.stdout).lines() {
        if name.split('-').nth(1).and_then(|pid| pid.parse().ok()).is_none_or(|pid| !alive(pid)) {
            succeeds(&mut podman(&["rm", "--force", "--time", "0", name]));
        }
    }
    succeeds(&mut podman(&["image", "prune", "--force", "--filter", "until=24h"]));
}

fn build(name: &str, dockerfile: &Path, context: &Path, options: &[&str]) {
    let mut build = podman(&["build", "--quiet", "--pull=never", "--layers", "--tag", name]);
    succeeds(build.args(ulimits()).args(options).arg("--file").arg(dockerfile).arg(context));
}

fn build_text(name: &str, dockerfile: &str) {
    let file = cache(&format!("{}.Dockerfile", name.replace(['/', ':'], "-")));
    fs::write(&file, dockerfile).expect("a Dockerfile");
    build(name, &file, context(), &[]);
}

fn scratch_image() -> String {
    static IMAGE: OnceLock<String> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        context();
        let _lock = locked();
        build_text("localhost/scratch", "FROM scratch\nCOPY lameduck tini server /\n");
        "localhost/scratch".to_owned()
    });
    image.clone()
}

fn debian_image() -> String {
    static IMAGE: OnceLock<String> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        context();
        let _lock = locked();
        let text = format!("FROM {}\nCOPY lameduck tini /usr/local/bin/\nCOPY index.php /srv/\n", base_image());
        build_text("localhost/debian", &text);
        "localhost/debian".to_owned()
    });
    image.clone()
}

/// A small Debian with what the images need, from the packages this machine is set up to use.
fn base_image() -> String {
    let packages = "apache2,gcc,libapache2-mod-php,libc6-dev,php-cli";
    let format = "$(REPO_URI) $(RELEASE) $(COMPONENT) $(ORIGIN)";
    let sources = succeeds(Command::new("apt-get").args(["indextargets", "--format", format, "Created-By: Packages"]));
    let sources: Vec<String> = String::from_utf8_lossy(&sources.stdout)
        .lines()
        .filter_map(|line| line.strip_suffix(" Debian"))
        .map(|source| format!("deb {source}"))
        .collect();
    // bookworm, rather than bookworm-updates or bookworm-security.
    let suite = sources.iter().filter_map(|source| source.split(' ').nth(2)).min_by_key(|suite| suite.len());
    let suite = suite.expect("apt knows no Debian archive: apt-get update");
    let mut hasher = DefaultHasher::new();
    (packages, &sources).hash(&mut hasher);
    let image = format!("localhost/base:{suite}-{:08x}", hasher.finish() as u32);
    if !podman(&["image", "exists", &image]).status().expect("podman").success() {
        let tar = cache("base.tar");
        let mut bootstrap = Command::new("mmdebstrap");
        bootstrap.args(["--quiet", "--variant=minbase", &format!("--include={packages}"), suite]).arg(&tar).args(&sources);
        succeeds(&mut bootstrap);
        succeeds(podman(&["import", "--quiet"]).arg(&tar).arg(&image));
        fs::remove_file(&tar).expect("remove the tar file");
    }
    image
}

/// Dockerfile.example, as a user builds it, on base images of the names it uses.
fn example_image() -> String {
    let context = context();
    let _lock = locked();
    let base = format!("BASE={}", base_image());
    let sysroot = succeeds(Command::new("rustc").args(["--print", "sysroot"]));
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout).expect("UTF-8").trim());
    let toolchain = sysroot.file_name().expect("a toolchain").to_str().expect("UTF-8").to_owned();
    build("docker.io/library/php:8.2-apache", &source("tests/container/php-apache.Dockerfile"), context, &["--build-arg", &base]);
    let arguments = ["--build-arg", &base, "--build-arg", &format!("TOOLCHAIN={toolchain}")];
    build("docker.io/library/rust:1-bookworm", &source("tests/container/rust.Dockerfile"), context, &arguments);

    // This machine's toolchain and downloaded crates, in overlays: the build cannot change them, and needs no network.
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME")).join(".cargo"));
    assert!(home.join("bin/rustup").exists(), "no rustup in {}: needs a toolchain by rustup", home.display());
    succeeds(Command::new(env!("CARGO")).args(["fetch", "--locked"]).current_dir(source("")));
    let objects = cache("objects");
    fs::create_dir_all(&objects).expect("a directory for the container's target");
    let volumes = [
        format!("{}:/usr/local/rustup/toolchains/{toolchain}:O", sysroot.display()),
        format!("{}:/usr/local/cargo/bin/rustup:ro", home.join("bin/rustup").display()),
        format!("{}:/usr/local/cargo/registry:O", home.join("registry").display()),
        format!("{}:/src/target", objects.display()),
    ];
    let mut options = vec!["--network=none"];
    options.extend(volumes.iter().flat_map(|volume| ["--volume", volume]));
    build("localhost/example", &source("Dockerfile.example"), &source(""), &options);
    "localhost/example".to_owned()
}
