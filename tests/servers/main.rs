//! Rehearsals: real servers of Debian as the command of a real PID 1, under load, told to stop while the balancer goes on
//! sending, as balancers do. With lameduck no request is lost; with tini beside it most are, which proves that loss is seen.
//!
//! `cargo test --test servers -- --nocapture` prints what each server measured.

#[path = "../support/serving.rs"]
mod serving;
#[path = "../support/mod.rs"]
mod support;

mod load;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use load::{Load, Request, Tally, Target, ask};
use serving::{State, matching, program, slow_backend};
use support::{LAMEDUCK, Pid1, eventually, in_own_network, signal_to};

const USR1: i32 = 10;
const QUIT: i32 = 3;
const KILL: i32 = 9;
const TERM: i32 = 15;
const WINCH: i32 = 28;

/// After the stop signal the balancer sends for this long.
const BALANCER_LAG: Duration = Duration::from_millis(2500);

const GRACE_PERIOD: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_secs(3);

/// An app with nothing left to do is told to stop within this.
const PROMPT: Duration = Duration::from_millis(2500);

const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

#[test]
fn apache_prefork_with_mod_php() {
    rehearse("apache prefork + mod_php", |state| {
        let module = matching("/usr/lib/apache2/modules", "libphp", ".so", "libapache2-mod-php");
        state.file("www/index.php", include_str!("app.php"));
        let config = state.file("apache.conf", &include_str!("apache.conf").replace("@LIBPHP@", &module));
        Server { stop_signal: WINCH, ..Server::new([&program("apache2", "apache2"), "-DFOREGROUND", "-f", &config]) }
    });
}

#[test]
fn nginx_in_front_of_a_slow_backend() {
    rehearse("nginx -> slow backend", |state| {
        slow_backend();
        let config = state.file("nginx.conf", include_str!("nginx.conf"));
        Server { stop_signal: QUIT, ..Server::new([&program("nginx", "nginx-light"), "-c", &config]) }
    });
}

#[test]
fn nginx_and_php_fpm_in_one_container() {
    rehearse("nginx + php-fpm, sh -c", |state| {
        state.file("www/index.php", include_str!("app.php"));
        let (nginx, fpm) = (program("nginx", "nginx-light"), matching("/usr/sbin", "php-fpm", "", "php-fpm"));
        let config = state.file("nginx.conf", include_str!("nginx.conf"));
        let pool = state.file("php-fpm.conf", include_str!("php-fpm.conf"));
        let start = format!("{fpm} -y {pool} & exec {nginx} -c {config}");
        Server { target: Target::Thinks("/php"), ..Server::new(["/bin/sh", "-c", &start]) }
    });
}

/// Two services, by --with: nginx is stopped first, php-fpm when nginx has ended.
fn nginx_with_php_fpm(state: &State, socket: &str, wait_for: &str) -> Server {
    state.file("www/index.php", include_str!("app.php"));
    let (nginx, fpm) = (program("nginx", "nginx-light"), matching("/usr/sbin", "php-fpm", "", "php-fpm"));
    let config = state.file("nginx.conf", &include_str!("nginx.conf").replace("127.0.0.1:9001", socket));
    let listen = socket.trim_start_matches("unix:");
    let pool =
        include_str!("php-fpm.conf").replace("listen = 127.0.0.1:9001", &format!("listen = {listen}\nlisten.owner = www-data"));
    let pool = state.file("php-fpm.conf", &pool);
    let directory = state.directory.to_str().expect("a plain path");
    Server {
        target: Target::Thinks("/php"),
        settings: ["--with", &format!("{fpm} -F -y {pool}"), "--wait-for", &wait_for.replace("@STATE@", directory)]
            .map(str::to_owned)
            .to_vec(),
        stop_signal: QUIT,
        behind_tini: ["/bin/sh", "-c", &format!("{fpm} -y {pool} & exec {nginx} -c {config}")].map(str::to_owned).to_vec(),
        companions: "php-fpm exited with 0",
        ..Server::new([&nginx, "-c", &config])
    }
}

#[test]
fn nginx_with_php_fpm_by_a_unix_socket() {
    rehearse("nginx --with php-fpm, unix", |state| {
        let server = nginx_with_php_fpm(state, "unix:@STATE@/fpm.sock", "unix://@STATE@/fpm.sock");
        // nginx runs as www-data and must reach the socket.
        fs::set_permissions(&state.directory, fs::Permissions::from_mode(0o755)).expect("a directory that others may enter");
        server
    });
}

#[test]
fn nginx_with_php_fpm_by_tcp() {
    rehearse("nginx --with php-fpm, TCP", |state| nginx_with_php_fpm(state, "127.0.0.1:9001", "tcp://127.0.0.1:9001"));
}

/// The master is killed, as when memory runs out: its workers go on answering while lame duck.
#[test]
fn php_fpm_s_master_is_killed_beside_nginx() {
    rehearse("nginx --with php-fpm, whose master is killed", |state| Server {
        kills: Some("php-fpm: master"),
        companions: "php-fpm died of KILL",
        code: 137,
        ..nginx_with_php_fpm(state, "127.0.0.1:9001", "tcp://127.0.0.1:9001")
    });
}

#[test]
fn haproxy_in_front_of_a_slow_backend() {
    rehearse("haproxy -> slow backend", |state| {
        slow_backend();
        let config = state.file("haproxy.cfg", include_str!("haproxy.cfg"));
        Server { stop_signal: USR1, ..Server::new([&program("haproxy", "haproxy"), "-W", "-db", "-f", &config]) }
    });
}

/// Fewer workers than clients: requests wait in the accept queue, late ones too.
#[test]
fn gunicorn_sync() {
    rehearse("gunicorn sync", |state| gunicorn(state, &["--workers", "4"]));
}

#[test]
fn gunicorn_gthread() {
    rehearse("gunicorn gthread", |state| {
        gunicorn(state, &["--workers", "2", "--worker-class", "gthread", "--threads", "10", "--keep-alive", "30"])
    });
}

fn gunicorn(state: &State, settings: &[&str]) -> Server {
    let directory = state.file("app.py", include_str!("app.py")).replace("/app.py", "");
    let program = program("gunicorn", "gunicorn");
    let server = [&program, "--chdir", &directory, "--worker-tmp-dir", &directory, "--bind", "0.0.0.0:8080", "app:app"];
    Server::new(server.iter().chain(settings).copied())
}

#[test]
fn uwsgi_http_socket() {
    rehearse("uwsgi http-socket", |state| {
        let app = state.file("app.py", include_str!("app.py"));
        matching("/usr/lib/uwsgi/plugins", "python3_plugin", ".so", "uwsgi-plugin-python3");
        let program = program("uwsgi", "uwsgi-core");
        let server = [&program, "--plugin", "python3", "--master", "--processes", "8", "--http-socket", ":8080"];
        // It closes after each answer, but says so only if told to: a pool could not know. And there is no --die-on-term: as it
        // comes, TERM is a reload.
        let settings = ["--add-header", "Connection: close", "--wsgi-file", &app];
        Server { tini_loses: Loss::Some, ..Server::new(server.into_iter().chain(settings)) }
    });
}

#[test]
fn unicorn() {
    rehearse("unicorn", |state| {
        let app = state.file("app.ru", include_str!("app.ru"));
        let config = state.file("unicorn.rb", include_str!("unicorn.rb"));
        Server::new([&program("unicorn", "unicorn"), "-E", "none", "-c", &config, &app])
    });
}

#[test]
fn puma() {
    rehearse("puma", |state| {
        let app = state.file("app.ru", include_str!("app.ru"));
        let program = program("puma", "puma");
        Server::new([&program, "-C", "-", "-e", "production", "-t", "12:12", "-b", "tcp://0.0.0.0:8080", &app])
    });
}

#[test]
fn node() {
    rehearse("node", |state| {
        let app = state.file("server.js", include_str!("server.js"));
        Server::new([program("node", "nodejs").as_str(), &app])
    });
}

/// Nothing slow but the reader: the answer is in the kernel's hands when the server has done with it.
#[test]
fn python_http_server_with_slow_readers() {
    rehearse("python http.server, slow readers", |state| {
        const LARGE: usize = 16 << 20;
        let small = state.file("www/small", "small\n");
        fs::write(small.replace("/small", "/large"), vec![b'.'; LARGE]).expect("a large file");
        let program = program("python3", "python3");
        Server {
            target: Target::Reads { small: ("/small", 6), large: ("/large", LARGE) },
            ..Server::new([&program, "-m", "http.server", "--directory", &small.replace("/small", ""), "8080"])
        }
    });
}

/// Its status line goes out before the script thinks: the setting for servers that do so is `--idle-after`.
#[test]
fn python_http_server_with_cgi() {
    rehearse("python http.server --cgi", |state| {
        let script = state.file("www/cgi-bin/app.py", include_str!("cgi.py"));
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("an executable script");
        let directory = script.replace("/cgi-bin/app.py", "");
        Server {
            target: Target::Thinks("/cgi-bin/app.py"),
            settings: vec!["--idle-after".to_owned(), "2500ms".to_owned()],
            ..Server::new([&program("python3", "python3"), "-m", "http.server", "--cgi", "--directory", &directory, "8080"])
        }
    });
}

/// What stands behind the init, and how to ask it.
struct Server {
    command: Vec<String>,
    target: Target,
    /// lameduck's, beside the ones that all rehearsals share.
    settings: Vec<String>,
    /// What lameduck is sent: the image's own STOPSIGNAL, which stays when the ENTRYPOINT changes.
    stop_signal: i32,
    /// In place of a stop signal, a process with this in its title is killed.
    kills: Option<&'static str>,
    tini_loses: Loss,
    /// What tini runs, if that is another command.
    behind_tini: Vec<String>,
    /// What the exit event says of the companions.
    companions: &'static str,
    /// lameduck's exit code.
    code: i32,
}

impl Server {
    fn new<'a>(command: impl IntoIterator<Item = &'a str>) -> Server {
        let command = command.into_iter().map(str::to_owned).collect();
        Server {
            command,
            target: Target::Thinks("/"),
            settings: Vec::new(),
            stop_signal: TERM,
            kills: None,
            tini_loses: Loss::Most,
            behind_tini: Vec::new(),
            companions: "",
            code: 0,
        }
    }
}

/// What tini loses of the requests in flight at the stop signal or sent after it.
#[derive(Clone, Copy)]
enum Loss {
    Most,
    /// The server restarts in place of stopping.
    Some,
}

#[derive(Clone, Copy)]
enum Init {
    Tini,
    Lameduck,
}

/// What was seen of one server under one init.
struct Rehearsal {
    /// When the stop signal was sent.
    asked: SystemTime,
    requests: Vec<Request>,
    /// Not waited for behind tini: some servers never end.
    code: Option<i32>,
    log: Vec<String>,
    tini_loses: Loss,
    expected_code: i32,
    companions: &'static str,
}

/// The same server under the same load, behind tini and behind lameduck, at the same time.
fn rehearse(name: &str, serve: fn(&State) -> Server) {
    let both =
        [Init::Tini, Init::Lameduck].map(|init| thread::spawn(move || in_own_network(move || Rehearsal::hold(serve, init))));
    // Both are joined before either may fail: a thread that the test left behind would leave its server behind.
    let [tini, lameduck] = both.map(thread::JoinHandle::join).map(|end| end.unwrap_or_else(|panic| resume_unwind(panic)));

    let (without, with) = (tini.after_stop(), lameduck.after_stop());
    println!("{name}: from the stop signal on\n  tini      {without}\n  lameduck  {with}");
    tini.assert_lossy();
    lameduck.assert_lossless();
    println!("{name}: {}", lameduck.timeline());
}

impl Rehearsal {
    fn hold(serve: fn(&State) -> Server, init: Init) -> Rehearsal {
        let state = State::new();
        let server = serve(&state);
        let tini = program("tini", "tini");
        let mut argv = match init {
            Init::Tini => vec![tini.as_str()],
            Init::Lameduck => vec![LAMEDUCK, "--grace-period", "30s", "--delay", "3s"],
        };
        if let Init::Lameduck = init {
            argv.extend(server.settings.iter().map(String::as_str));
        }
        argv.push("--");
        let own = matches!(init, Init::Tini) && !server.behind_tini.is_empty();
        argv.extend(if own { &server.behind_tini } else { &server.command }.iter().map(String::as_str));
        let mut pid1 = Pid1::spawn(&argv, |command| {
            command.env("HOME", &state.directory).env("TMPDIR", &state.directory).current_dir(&state.directory);
        });
        eventually("the server answers", || {
            assert!(pid1.is_running(), "the server ended at once:\n{}", pid1.rest().join("\n"));
            ask(ADDRESS, server.target, Duration::ZERO, &mut None, false).ok()
        });

        let load = Load::start(ADDRESS, server.target);
        eventually("all clients have been answered", || load.is_under_way().then_some(()));
        let asked = SystemTime::now();
        match (init, server.kills) {
            (Init::Tini, _) => pid1.signal(TERM),
            (Init::Lameduck, None) => pid1.signal(server.stop_signal),
            (Init::Lameduck, Some(title)) => kill(pid1.pid, title),
        }
        load.last_call(Instant::now() + BALANCER_LAG);
        let (requests, pool) = load.finish();

        // The pool's idle connections stay until the end: they are not work, and nobody may wait for them.
        let code = match init {
            Init::Tini => None,
            Init::Lameduck => Some(pid1.exit()),
        };
        drop(pool);
        Rehearsal {
            asked,
            requests,
            code,
            log: pid1.rest().to_vec(),
            tini_loses: server.tini_loses,
            expected_code: server.code,
            companions: server.companions,
        }
    }

    fn after_stop(&self) -> Tally {
        Tally::of(self.requests.iter().filter(|request| request.ended > self.asked))
    }

    fn assert_lossy(&self) {
        let before = self.requests.iter().filter(|request| request.ended < self.asked && request.outcome.is_err()).count();
        assert_eq!(before, 0, "tini: lost while serving:\n{self}");
        let after = self.after_stop();
        let enough = match self.tini_loses {
            Loss::Most => after.answered + 1,
            Loss::Some => 1,
        };
        assert!(after.lost() >= enough, "tini is expected to lose requests, else the harness is blind: {after}\n{self}");
    }

    fn assert_lossless(&self) {
        let tally = Tally::of(&self.requests);
        assert_eq!(tally.lost(), 0, "{tally}\n{self}");
        assert_eq!(self.code, Some(self.expected_code), "exit code\n{self}");
        let exit = self.log.iter().find(|line| line.contains(" exit code=")).expect("an exit event");
        assert!(self.companions.is_empty() || exit.contains(&format!("companions=\"{}\"", self.companions)), "{exit}\n{self}");
        let after = self.after_stop();
        assert!(after.answered >= 30, "too little load to mean anything: {after}\n{self}");

        let stopping = self.logged("stopping");
        let told = format!("stop signal sent {}", since(self.asked, stopping));
        let earliest = self.asked + DELAY;
        assert!(stopping >= earliest, "{told}, before the delay had passed\n{self}");
        for Request { client, thinks, sent, .. } in &self.requests {
            let sent_after = since(self.asked, *sent);
            assert!(stopping >= *sent + *thinks, "{told}, with {client}'s {thinks:?} of {sent_after} in flight\n{self}");
        }
        assert!(stopping <= earliest.max(self.last_answer()) + PROMPT, "{told}, too late\n{self}");
        assert!(self.logged("exit") < self.asked + GRACE_PERIOD, "exit after the grace period\n{self}");
    }

    fn last_answer(&self) -> SystemTime {
        self.requests.iter().filter(|request| request.outcome.is_ok()).map(|request| request.ended).max().expect("an answer")
    }

    /// When lameduck first logged `event`, by its own stamp: the moment it acted, whoever else had the processor then.
    fn logged(&self, event: &str) -> SystemTime {
        let stamp = self.log.iter().find_map(|line| {
            let mut words = line.split_whitespace();
            let stamp = words.next()?;
            (words.next() == Some("lameduck") && words.nth(1) == Some(event)).then_some(stamp)
        });
        let stamp = stamp.unwrap_or_else(|| panic!("no event {event:?} in lameduck's log\n{self}"));
        instant(stamp).unwrap_or_else(|| panic!("not a time: {stamp:?}"))
    }

    fn timeline(&self) -> String {
        let since = |time| since(self.asked, time);
        let (answer, stopping, exit) = (self.last_answer(), self.logged("stopping"), self.logged("exit"));
        format!("last answer {}, stop signal sent {}, exit {}", since(answer), since(stopping), since(exit))
    }
}

/// Everything needed to see why a rehearsal failed.
impl std::fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let epoch = self.asked.duration_since(UNIX_EPOCH).expect("after 1970");
        writeln!(
            f,
            "stop signal at {:02}.{:03} s of the minute; times below are since then; exit code {:?}",
            epoch.as_secs() % 60,
            epoch.subsec_millis(),
            self.code
        )?;
        let lost = self.requests.iter().filter_map(|request| Some((request, request.outcome.err()?)));
        for (Request { client, thinks, sent, ended, .. }, how) in lost.take(30) {
            let [sent, ended] = [sent, ended].map(|time| since(self.asked, *time));
            writeln!(f, "  {client}, {thinks:?}: sent {sent}, {how} {ended}")?;
        }
        writeln!(f, "last answer {}; output:\n  {}", since(self.asked, self.last_answer()), self.log.join("\n  "))
    }
}

/// Kills the child of `init` with this in its command line.
fn kill(init: i32, title: &str) {
    let children = fs::read_to_string(format!("/proc/{init}/task/{init}/children")).expect("its children");
    let is_it = |pid: &&str| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(title));
    let pid = children.split_whitespace().find(is_it).unwrap_or_else(|| panic!("no {title:?} among {children}"));
    signal_to(pid.parse().expect("a pid"), KILL);
}

/// `+4.512 s`, or `-0.100 s`.
fn since(start: SystemTime, time: SystemTime) -> String {
    match time.duration_since(start) {
        Ok(after) => format!("{:+.3} s", after.as_secs_f64()),
        Err(before) => format!("{:+.3} s", -before.duration().as_secs_f64()),
    }
}

/// Parses `2026-11-20T20:47:27.123Z`. Rounded up to the next millisecond, as the log rounds down.
fn instant(stamp: &str) -> Option<SystemTime> {
    let numbers: Vec<i64> =
        stamp.strip_suffix('Z')?.split(['-', 'T', ':', '.']).map(str::parse).collect::<Result<_, _>>().ok()?;
    let &[year, month, day, hour, minute, second, millisecond] = numbers.as_slice() else { return None };
    // Days since 1970-01-01, with years that begin in March: leap days come last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1 - 719_468;
    let milliseconds = (((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millisecond + 1;
    Some(UNIX_EPOCH + Duration::from_millis(milliseconds.try_into().ok()?))
}

#[test]
fn log_stamps_are_read() {
    assert_eq!(instant("1970-01-01T00:00:00.000Z"), Some(UNIX_EPOCH + Duration::from_millis(1)));
    assert_eq!(instant("2026-11-20T20:47:27.123Z"), Some(UNIX_EPOCH + Duration::from_millis(1_795_207_647_124)));
    assert_eq!(instant("2028-02-29T23:59:59.999Z"), Some(UNIX_EPOCH + Duration::from_millis(1_835_481_600_000)));
    assert_eq!(instant("yesterday"), None);
}
