//! What known servers take as "finish, then stop", where they read their number of workers, and how to recognise them.

use super::signals::Signal;

/// One row of what is known. Adding a server is adding a row (and its line in docs/servers.md, or a test fails).
#[derive(Debug, Eq, PartialEq)]
pub struct Server {
    pub name: &'static str,
    /// Names of its program, without path and version.
    pub programs: &'static [&'static str],
    /// What it is sent, in this order. The second one is for servers whose first waits for idle keep-alive connections too.
    pub stop: &'static [Signal],
    pub workers: Workers,
    /// Its parent process wakes its children by connections to itself.
    pub connects_to_itself: bool,
    pub kept_alive: KeptAlive,
    pub why: &'static str,
    pub source: &'static str,
}

/// What a server does with kept-alive connections that clients go on using. Measured: docs/keepalive.md.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeptAlive {
    pub own_stop: OwnStop,
    /// It finishes a request in flight even after it has read end-of-file.
    pub finishes: bool,
    /// Each is a session with a state of its own, and must not be closed before the app ends.
    pub is_session: bool,
}

/// How a server's own stop serves them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnStop {
    /// It loses no request: better than closing them from outside.
    Lossless,
    /// It loses few.
    Good,
    /// It cuts them, or does not end, or nobody has measured it.
    Poor,
}

impl KeptAlive {
    /// Nothing was measured.
    pub const UNKNOWN: KeptAlive = KeptAlive { own_stop: OwnStop::Poor, finishes: false, is_session: false };
    const FINISHES: KeptAlive = KeptAlive { finishes: true, ..KeptAlive::UNKNOWN };
    const GOOD: KeptAlive = KeptAlive { own_stop: OwnStop::Good, ..KeptAlive::UNKNOWN };
    const GOOD_FINISHES: KeptAlive = KeptAlive { finishes: true, ..KeptAlive::GOOD };
    const LOSSLESS: KeptAlive = KeptAlive { own_stop: OwnStop::Lossless, finishes: true, is_session: false };
    const SESSION: KeptAlive = KeptAlive { is_session: true, ..KeptAlive::UNKNOWN };
}

/// Where a server takes its number of workers from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Workers {
    /// From its config or its command line: `--template` and `--expand-args` reach those.
    Elsewhere,
    /// The first of these variables is set, unless the user set any of them.
    Variables(&'static [&'static str]),
    /// `-XX:ActiveProcessorCount`, appended to JAVA_TOOL_OPTIONS.
    JavaOption,
}

impl Server {
    /// The signal that its own image names as STOPSIGNAL, or would.
    pub fn stop_signal(&self) -> Signal {
        self.stop[0]
    }
}

const TERM: &[Signal] = &[Signal::TERM];
const QUIT: &[Signal] = &[Signal::QUIT];
const INT: &[Signal] = &[Signal::INT];

#[rustfmt::skip]
pub const KNOWN: &[Server] = &[
    Server { name: "nginx", programs: &["nginx", "openresty"], stop: QUIT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::GOOD,
        why: "TERM cuts requests, QUIT finishes them", source: "https://nginx.org/en/docs/control.html" },
    Server { name: "httpd", programs: &["httpd", "apache2", "httpd-foreground", "apache2-foreground"], stop: &[Signal::WINCH, Signal::TERM], workers: Workers::Elsewhere, connects_to_itself: true, kept_alive: KeptAlive::LOSSLESS,
        why: "TERM cuts requests; WINCH finishes them, but waits for idle keep-alive connections, so TERM follows", source: "https://httpd.apache.org/docs/2.4/stopping.html" },
    Server { name: "php-fpm", programs: &["php-fpm"], stop: QUIT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM cuts requests; QUIT finishes them if process_control_timeout is set", source: "https://www.php.net/manual/en/install.fpm.configuration.php" },
    Server { name: "unicorn", programs: &["unicorn", "unicorn_rails"], stop: QUIT, workers: Workers::Variables(&["WEB_CONCURRENCY"]), connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM and INT kill at once, QUIT finishes requests", source: "https://yhbt.net/unicorn/SIGNALS.html" },
    Server { name: "uwsgi", programs: &["uwsgi", "uwsgi-core"], stop: INT, workers: Workers::Variables(&["UWSGI_PROCESSES", "UWSGI_WORKERS"]), connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM reloads instead of stopping; INT stops at once, when nothing is in flight any more", source: "https://uwsgi-docs.readthedocs.io/en/latest/Management.html" },
    Server { name: "haproxy", programs: &["haproxy"], stop: &[Signal::USR1], workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::LOSSLESS,
        why: "TERM stops hard, USR1 lets connections finish", source: "https://docs.haproxy.org/2.8/management.html#4" },
    Server { name: "lighttpd", programs: &["lighttpd"], stop: INT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM cuts requests, INT finishes them", source: "https://redmine.lighttpd.net/projects/lighttpd/wiki/Docs" },
    Server { name: "postgres", programs: &["postgres"], stop: INT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::SESSION,
        why: "TERM waits for every client to leave, INT ends sessions and shuts down cleanly", source: "https://www.postgresql.org/docs/current/server-shutdown.html" },
    Server { name: "pgbouncer", programs: &["pgbouncer"], stop: INT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::SESSION,
        why: "TERM waits for every client to leave (1.23), INT until servers are released", source: "https://www.pgbouncer.org/usage.html" },
    Server { name: "waitress", programs: &["waitress-serve"], stop: INT, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "has no handler for TERM; INT runs its clean-up", source: "https://docs.pylonsproject.org/projects/waitress/" },
    Server { name: "gunicorn", programs: &["gunicorn"], stop: TERM, workers: Workers::Variables(&["WEB_CONCURRENCY"]), connects_to_itself: false, kept_alive: KeptAlive::FINISHES,
        why: "TERM finishes requests, QUIT and INT do not", source: "https://docs.gunicorn.org/en/stable/signals.html" },
    Server { name: "puma", programs: &["puma"], stop: TERM, workers: Workers::Variables(&["WEB_CONCURRENCY"]), connects_to_itself: false, kept_alive: KeptAlive::GOOD_FINISHES,
        why: "TERM finishes requests", source: "https://puma.io/puma/file.signals.html" },
    Server { name: "uvicorn", programs: &["uvicorn"], stop: TERM, workers: Workers::Variables(&["WEB_CONCURRENCY"]), connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests", source: "https://www.uvicorn.org/server-behavior/" },
    Server { name: "hypercorn", programs: &["hypercorn"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests, for 3 s", source: "https://hypercorn.readthedocs.io/en/latest/how_to_guides/configuring.html" },
    Server { name: "passenger", programs: &["passenger"], stop: TERM, workers: Workers::Variables(&["PASSENGER_MAX_POOL_SIZE"]), connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests, a third one forces", source: "https://www.phusionpassenger.com/docs/references/config_reference/standalone/" },
    Server { name: "node", programs: &["node", "nodejs"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "dies at once unless the app handles TERM", source: "https://nodejs.org/api/process.html#signal-events" },
    Server { name: "java", programs: &["java", "catalina.sh"], stop: TERM, workers: Workers::JavaOption, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM runs the shutdown hooks; the exit code is 143", source: "https://docs.oracle.com/en/java/javase/21/docs/api/java.base/java/lang/Runtime.html" },
    Server { name: "dotnet", programs: &["dotnet"], stop: TERM, workers: Workers::Variables(&["DOTNET_PROCESSOR_COUNT"]), connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM stops the host", source: "https://learn.microsoft.com/en-us/dotnet/core/extensions/generic-host" },
    Server { name: "redis", programs: &["redis-server", "valkey-server"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::SESSION,
        why: "TERM saves, waits for replicas and exits", source: "https://redis.io/docs/latest/operate/oss_and_stack/reference/signals/" },
    Server { name: "memcached", programs: &["memcached"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::SESSION,
        why: "TERM stops at once", source: "https://docs.memcached.org/" },
    Server { name: "mysql", programs: &["mysqld", "mariadbd"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::SESSION,
        why: "TERM is the orderly shutdown", source: "https://dev.mysql.com/doc/refman/8.4/en/server-shutdown.html" },
    Server { name: "varnish", programs: &["varnishd"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "has no graceful stop", source: "https://varnish-cache.org/docs/" },
    Server { name: "squid", programs: &["squid"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests for shutdown_lifetime", source: "https://www.squid-cache.org/Doc/config/shutdown_lifetime/" },
    Server { name: "traefik", programs: &["traefik"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests for graceTimeOut", source: "https://doc.traefik.io/traefik/routing/entrypoints/#lifecycle" },
    Server { name: "caddy", programs: &["caddy"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests, QUIT exits at once", source: "https://caddyserver.com/docs/command-line#signals" },
    Server { name: "envoy", programs: &["envoy"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM exits at once", source: "https://www.envoyproxy.io/docs/envoy/latest/operations/cli" },
    Server { name: "celery", programs: &["celery"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes tasks", source: "https://docs.celeryq.dev/en/stable/userguide/workers.html" },
    Server { name: "sidekiq", programs: &["sidekiq"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes jobs for 25 s, then requeues them", source: "https://github.com/sidekiq/sidekiq/wiki/Signals" },
    Server { name: "thin", programs: &["thin"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "TERM finishes requests, INT forces", source: "https://github.com/macournoyer/thin" },
    Server { name: "http.server", programs: &["http.server"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::FINISHES,
        why: "has no handler for TERM and dies at once", source: "https://docs.python.org/3/library/http.server.html" },
    Server { name: "busybox httpd", programs: &["busybox-httpd"], stop: TERM, workers: Workers::Elsewhere, connects_to_itself: false, kept_alive: KeptAlive::UNKNOWN,
        why: "has no handler for TERM and dies at once; Apache's WINCH it ignores", source: "https://git.busybox.net/busybox/tree/networking/httpd.c" },
];

const SHELLS: &[&str] = &["sh", "bash", "dash", "ash", "ksh", "mksh", "zsh"];

/// Programs that run the command in their arguments, and their options that take a value.
const WRAPPERS: &[(&str, &[&str])] = &[
    ("env", &["-u", "--unset", "-C", "--chdir", "-S", "--split-string"]),
    ("exec", &["-a"]),
    ("command", &[]),
    ("nohup", &[]),
    ("nice", &["-n"]),
    ("stdbuf", &["-i", "-o", "-e"]),
    ("setsid", &[]),
    ("time", &[]),
    ("tini", &["-p", "-e"]),
    ("tini-static", &["-p", "-e"]),
    ("dumb-init", &["-r", "--rewrite"]),
    ("catatonit", &[]),
    (
        "setpriv",
        &["--reuid", "--regid", "--groups", "--inh-caps", "--ambient-caps", "--bounding-set", "--securebits", "--pdeathsig"],
    ),
    ("bundle", &[]),
    ("rbenv", &[]),
    ("poetry", &[]),
    ("pipenv", &[]),
    ("uv", &[]),
    ("opentelemetry-instrument", &[]),
    ("ddtrace-run", &[]),
    ("newrelic-admin", &[]),
];

/// Those of them that take signals without a handler, and pass them on.
const INITS: &[&str] = &["tini", "tini-static", "dumb-init", "catatonit"];

/// Words that stand between a wrapper and its command.
const WRAPPER_VERBS: &[&str] = &["exec", "run", "run-program"];

/// Wrappers whose first argument is a user.
const USER_SWITCHES: &[&str] = &["gosu", "su-exec"];

/// Languages whose first argument that is no option names the program, and their options that take a value.
const INTERPRETERS: &[(&str, &[&str])] = &[
    ("python", &["-W", "-X", "--check-hash-based-pycs"]),
    ("pypy", &["-W", "-X"]),
    ("ruby", &["-I", "-r", "-C"]),
    ("perl", &["-I"]),
];

/// The first known name among the words of a command, past what only leads to it: `env`, `exec`, `sh -c`, `bundle exec`,
/// `python -m` and entrypoint scripts. A known name that is merely an argument of something else does not count.
pub fn recognise<S: AsRef<str>>(words: &[S]) -> Option<&'static Server> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    first(&words, &mut known, 0)
}

/// The names of all programs that a command's words lead to, past the same: `ruby` and `puma` in `env A=1 ruby /usr/bin/puma`, both `node`
/// and `java` in `sh -c 'node a.js & java -jar b.jar'`. Shells and wrappers are among them. Without path and version.
pub fn programs<S: AsRef<str>>(words: &[S]) -> Vec<String> {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    let mut names = Vec::new();
    let mut collect = |name: &str, _: &[&str]| {
        names.push(name.to_owned());
        None
    };
    first(&words, &mut collect, 0);
    names
}

/// As `recognise`, for a running process's command line as /proc shows it, words ended by NUL. A title that a server gave itself is
/// one word with spaces, with NULs behind it perhaps.
pub fn recognise_running(command_line: &str) -> Option<&'static Server> {
    let line = command_line.trim_end_matches('\0');
    if line.contains('\0') {
        first(&line.split('\0').collect::<Vec<_>>(), &mut known, 0)
    } else {
        first(&line.split_whitespace().collect::<Vec<_>>(), &mut known, 0)
    }
}

/// Whether a process with this command line is a shell, running a script or not.
pub fn is_shell(command_line: &str) -> bool {
    SHELLS.contains(&program(command_line.split('\0').next().unwrap_or_default()))
}

/// Whether a process with this command line is an init, which passes on whatever signal it gets.
pub fn is_init(command_line: &str) -> bool {
    INITS.contains(&program(command_line.split('\0').next().unwrap_or_default()))
}

/// Whether a server that stops on `signal` may be behind this command line: a quick look before `recognise_running`.
pub fn may_stop_on(command_line: &str, signal: Signal) -> bool {
    let mut servers = KNOWN.iter().filter(|server| server.stop_signal() == signal);
    servers.any(|server| server.programs.iter().any(|program| command_line.contains(program)))
}

/// The server of this name with these arguments.
fn known(name: &str, arguments: &[&str]) -> Option<&'static Server> {
    let name = if is_busybox_httpd(name, arguments) { "busybox-httpd" } else { name };
    KNOWN.iter().find(|server| server.programs.contains(&name))
}

/// What a program's name, without path and version, and its arguments say.
type Look<'a> = &'a mut dyn FnMut(&str, &[&str]) -> Option<&'static Server>;

/// Looks at each program that the words lead to, in their order, until one is what is looked for.
fn first(mut words: &[&str], look: Look, depth: u8) -> Option<&'static Server> {
    // Nobody nests deeper; a command made to recurse must not.
    if depth > 8 {
        return None;
    }
    let (word, rest) = words.split_first()?;
    if assignment(word) {
        return first(rest, look, depth + 1);
    }
    let name = program(word);
    if let Some(server) = look(name, rest) {
        return Some(server);
    }
    if SHELLS.contains(&name) {
        let script = rest.iter().position(|word| !word.starts_with('-'))?;
        let command_option = rest[..script].iter().any(|word| !word.starts_with("--") && word.contains('c'));
        if !command_option {
            // A script, which by custom runs what its arguments say.
            return first(&rest[script..], look, depth + 1).or_else(|| first(rest.get(script + 1..)?, look, depth + 1));
        }
        return rest[script]
            .split(['\n', ';', '&', '|'])
            .find_map(|part| {
                let part: Vec<&str> = part.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect();
                first(&part, look, depth + 1)
            })
            .or_else(|| first(rest.get(script + 2..)?, look, depth + 1));
    }
    if let Some((_, valued)) = INTERPRETERS.iter().find(|(interpreter, _)| *interpreter == name) {
        words = past_options(rest, valued, &["-m"]);
        return first(words.strip_prefix(&["-m"]).unwrap_or(words), look, depth + 1);
    }
    if USER_SWITCHES.contains(&name) {
        return first(rest.get(1..)?, look, depth + 1);
    }
    if let Some((_, valued)) = WRAPPERS.iter().find(|(wrapper, _)| *wrapper == name) {
        words = past_options(rest, valued, &[]);
        if let Some((verb, after)) = words.split_first()
            && WRAPPER_VERBS.contains(verb)
            && name != "exec"
        {
            words = past_options(after, &[], &[]);
        }
        return first(words, look, depth + 1);
    }
    let entrypoint_script =
        word.contains("entrypoint") || word.ends_with(".sh") || matches!(name, "cd" | "init" | "start" | "run");
    if entrypoint_script {
        return first(past_options(rest, &[], &[]), look, depth + 1);
    }
    None
}

/// busybox's own httpd, by its link or not. Apache's knows neither of these options.
fn is_busybox_httpd(name: &str, arguments: &[&str]) -> bool {
    // `-p 8080`, `-fvp 8080`, `-p8080`
    let is_port = |word: &str| {
        let flags = word.strip_prefix('-').map(|flags| flags.trim_start_matches(['f', 'v', 'i']));
        flags.and_then(|flags| flags.strip_prefix('p')).is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
    };
    match name {
        "busybox" => arguments.first().is_some_and(|applet| program(applet) == "httpd"),
        "httpd" => arguments.iter().any(|word| is_port(word)) || arguments.len() > 1 && arguments.contains(&"-h"),
        _ => false,
    }
}

fn past_options<'a, 'b>(mut words: &'a [&'b str], valued: &[&str], stop_at: &[&str]) -> &'a [&'b str] {
    while let Some((first, rest)) = words.split_first() {
        if *first == "--" {
            return rest;
        }
        if stop_at.contains(first) || !first.starts_with('-') || first.len() < 2 {
            return words;
        }
        words = if valued.contains(first) { rest.get(1..).unwrap_or(&[]) } else { rest };
    }
    words
}

fn assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    })
}

/// `/usr/sbin/php-fpm8.2` → `php-fpm`, `nginx:` → `nginx`, `-bash` → `bash`.
fn program(word: &str) -> &str {
    let name = word.rsplit('/').next().unwrap_or(word).trim_start_matches('-').trim_end_matches(':');
    if KNOWN.iter().any(|server| server.programs.contains(&name)) {
        return name;
    }
    let bare = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    bare.trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(words: &[&str]) -> &'static str {
        recognise(words).map_or("-", |server| server.name)
    }

    #[test]
    fn commands_are_recognised_past_what_leads_to_them() {
        let cases: &[(&[&str], &str)] = &[
            (&["nginx", "-g", "daemon off;"], "nginx"),
            (&["/usr/sbin/php-fpm8.2", "-F"], "php-fpm"),
            (&["/docker-entrypoint.sh", "nginx", "-g", "daemon off;"], "nginx"),
            (&["docker-php-entrypoint", "apache2-foreground"], "httpd"),
            (&["env", "A=1", "gunicorn", "app:app"], "gunicorn"),
            (&["env", "-u", "X", "-i", "gunicorn"], "gunicorn"),
            (&["sh", "-c", "cd /app && exec gunicorn app:app"], "gunicorn"),
            (&["bash", "-lc", "FOO=1 exec bundle exec puma -p 80"], "puma"),
            (&["bundle", "exec", "unicorn", "-c", "x.rb"], "unicorn"),
            (&["python3", "-m", "gunicorn", "app"], "gunicorn"),
            (&["python3.11", "-u", "-W", "ignore", "/usr/bin/gunicorn"], "gunicorn"),
            (&["gosu", "www-data", "uwsgi", "--ini", "x"], "uwsgi"),
            (&["tini", "-s", "--", "node", "server.js"], "node"),
            (&["/usr/bin/ruby", "-rbundler", "/usr/local/bin/puma"], "puma"),
            (&["poetry", "run", "uvicorn", "a:b"], "uvicorn"),
            (&["java", "-jar", "x.jar"], "java"),
            (&["catalina.sh", "run"], "java"),
            (&["sh", "/entrypoint.sh", "redis-server"], "redis"),
            (&["sh", "-c", "exec \"$@\"", "sh", "nginx"], "nginx"),
            (&["python3", "-m", "http.server", "8080"], "http.server"),
            (&["httpd", "-f", "-v", "-p", "8080"], "busybox httpd"),
            (&["httpd", "-f", "-h", "/www"], "busybox httpd"),
            (&["/bin/busybox", "httpd", "-f"], "busybox httpd"),
            (&["busybox", "sh", "-c", "x"], "-"),
            (&["httpd", "-D", "FOREGROUND"], "httpd"),
            (&["httpd", "-X", "-f", "/etc/httpd.conf"], "httpd"),
            (&["httpd", "-Dphp", "-DFOREGROUND"], "httpd"),
            (&["python3", "manage.py", "runserver"], "-"),
            (&["myproxy", "--backend", "nginx"], "-"),
            (&["sleep", "5"], "-"),
            (&["cat", "/etc/nginx"], "-"),
            (&[], "-"),
            (&["sh"], "-"),
            (&["sh", "-c"], "-"),
        ];
        for (words, server) in cases {
            assert_eq!(name(words), *server, "{words:?}");
        }
    }

    #[test]
    fn all_programs_that_a_command_leads_to() {
        for (words, names) in [
            (&["/usr/bin/ruby3.1", "-I", "x", "/usr/local/bin/puma"][..], &["ruby", "puma"][..]),
            (&["env", "A=1", "node", "app.js", "java"], &["env", "node"]),
            (&["sh", "-c", "node a.js & exec java -jar b.jar"], &["sh", "node", "exec", "java"]),
            (&["bundle", "exec", "rails", "server"], &["bundle", "rails"]),
            (&["/entrypoint.sh", "./app", "--node"], &["entrypoint.sh", "app"]),
            (&[], &[]),
        ] {
            assert_eq!(programs(words), names, "{words:?}");
        }
    }

    #[test]
    fn running_servers_are_recognised_by_the_title_they_gave_themselves() {
        let running = |line: &str| recognise_running(line).map_or("-", |server| server.name);
        for (line, server) in [
            ("nginx: master process nginx -g daemon off;", "nginx"),
            ("gunicorn: master [app:app]", "gunicorn"),
            ("php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\0\0\0", "php-fpm"),
            ("unicorn master -c x.rb", "unicorn"),
            ("puma 5.6.5 (tcp://0.0.0.0:9292) [app]", "puma"),
            ("/usr/sbin/apache2\0-DFOREGROUND", "httpd"),
            ("/usr/bin/redis-server 127.0.0.1:6379", "redis"),
            ("/usr/bin/python3\0/usr/bin/gunicorn\0app:app", "gunicorn"),
            ("postgres", "postgres"),
            ("/bin/sh\0/entrypoint\0sleep", "-"),
            ("", "-"),
        ] {
            assert_eq!(running(line), server, "{line:?}");
        }
    }

    #[test]
    fn shells_and_inits() {
        for word in ["/bin/sh", "bash", "-bash", "dash"] {
            assert!(is_shell(&format!("{word}\0-c\0true\0")), "{word}");
        }
        assert!(!is_shell("nginx\0-g") && !is_shell(""));
        assert!(is_init("/usr/bin/tini\0--\0nginx") && is_init("dumb-init\0nginx") && !is_init("nginx") && !is_init(""));
        assert!(INITS.iter().all(|init| WRAPPERS.iter().any(|(wrapper, _)| wrapper == init)));
        assert!(may_stop_on("/usr/sbin/haproxy\0-W", Signal::USR1) && !may_stop_on("sh\0x", Signal::USR1));
    }

    #[test]
    fn no_two_rows_claim_a_program() {
        let mut all: Vec<_> = KNOWN.iter().flat_map(|server| server.programs).collect();
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
    }
}
