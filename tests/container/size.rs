//! The limits of real containers: podman's `--cpus`, `--cpu-shares` and `--memory`, and as many workers of real servers as follow from them.

use super::sized::{self, Server};
use super::*;

/// This machine's own programs, in a container of their own, and a directory of the test's.
fn run(stage: &Path, limits: &[&str], command: &[String]) -> Container {
    let mut options: Vec<String> = ["/usr", "/etc", "/var"].map(|path| format!("--volume={path}:{path}:ro")).into();
    options.push(format!("--volume={}:/lameduck:ro", context().join("lameduck").display()));
    options.push(format!("--volume={0}:{0}", stage.display()));
    options.push(format!("--env=HOME={}", stage.display()));
    let options: Vec<&str> =
        options.iter().map(String::as_str).chain(["--network", "none"]).chain(limits.iter().copied()).collect();
    let command: Vec<&str> = ["/lameduck"].into_iter().chain(command.iter().map(String::as_str)).collect();
    Container::start(&image(), &options, &command)
}

/// Places to put this machine's programs in.
pub fn image() -> String {
    static IMAGE: OnceLock<String> = OnceLock::new();
    let image = IMAGE.get_or_init(|| {
        let tree = context().join("tree");
        let _lock = locked();
        for directory in ["usr", "etc", "var", "tmp"] {
            fs::create_dir_all(tree.join(directory)).expect("a directory");
        }
        let all = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o1777);
        fs::set_permissions(tree.join("tmp"), all).expect("open to all users");
        for link in ["bin", "sbin", "lib", "lib64"] {
            let _ = fs::remove_file(tree.join(link));
            std::os::unix::fs::symlink(format!("usr/{link}"), tree.join(link)).expect("a link");
        }
        build_text("localhost/host", "FROM scratch\nCOPY tree/ /\n");
        "localhost/host".to_owned()
    });
    image.clone()
}

struct Stage(PathBuf);

impl Stage {
    fn new(server: fn(&str) -> Server) -> (Stage, Server) {
        use std::os::unix::fs::PermissionsExt;
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let name = format!("lameduck-sized-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let stage = Stage(std::env::temp_dir().join(name));
        let server = server(&format!("{}/", stage.0.display()));
        for (name, text) in &server.files {
            let path = stage.0.join(name);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        fs::set_permissions(&stage.0, fs::Permissions::from_mode(0o755)).expect("open to all users");
        (stage, server)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// With these limits and options so many workers run, and no more come.
fn runs(server: fn(&str) -> Server, limits: &[&str], options: &[&str], workers: usize) {
    let (stage, server) = Stage::new(server);
    let command: Vec<String> = options.iter().map(|word| (*word).to_owned()).chain(server.command).collect();
    let container = run(&stage.0, limits, &command);
    if server.listens {
        container.wait_until_it_listens();
    }
    let now = || sized::workers_of(container.pid1);
    let log = || container.logs();
    container.patiently(&format!("{workers} workers run"), || {
        assert!(alive(container.pid1), "ended at once; the log:\n{}", log());
        assert!(now() <= workers, "{} workers run, not {workers}; the log:\n{}", now(), log());
        (now() == workers).then_some(())
    });
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(25));
        assert_eq!(now(), workers, "{limits:?}; the log:\n{}", log());
    }
}

/// Each server by the CPU limit, and by memory where that is less.
fn runs_as_limited(server: fn(&str) -> Server) {
    runs(server, &["--cpus", "2.6", "--memory", "1g"], &[], 3);
    runs(server, &["--cpus", "2.6", "--memory", "500m"], &["--worker-memory", "200Mi", "--memory-reserve", "64Mi"], 2);
}

#[test]
fn php_fpm_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::php_fpm);
}

#[test]
fn apache_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::apache);
}

#[test]
fn nginx_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::nginx);
}

#[test]
fn gunicorn_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::gunicorn);
}

#[test]
fn uwsgi_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::uwsgi);
}

#[test]
fn puma_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::puma);
}

#[test]
fn unicorn_runs_as_many_workers_as_its_container_may() {
    runs_as_limited(sized::unicorn);
}

/// Shares are a request only in Kubernetes, and then a guess: templates get it, the server's own variable does not.
#[test]
fn shares_are_a_guess() {
    let kubernetes = ["--cpu-shares", "3072", "--env", "KUBERNETES_SERVICE_HOST=10.0.0.1"];
    runs(sized::nginx, &kubernetes, &[], 3);
    runs(sized::gunicorn, &kubernetes, &[], 1);
    // Not available_parallelism, which knows limits: this container has none.
    let cpus = String::from_utf8(succeeds(&mut Command::new("nproc")).stdout).expect("UTF-8").trim().parse().expect("a number");
    runs(sized::nginx, &["--cpu-shares", "30720"], &[], cpus);
}
