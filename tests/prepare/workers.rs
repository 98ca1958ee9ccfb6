//! Real servers, counted: as many workers run as were computed, for two CPU requests each.

use std::fs;

use crate::support::{LAMEDUCK, Pid1, eventually, listening};
use crate::{Stage, in_own_network};

/// A CPU request, and the workers that it makes.
const REQUESTS: [(&str, usize); 2] = [("1500", 2), ("4400", 4)];

/// Starts the server twice in a network of its own: `prepare` writes files and says options and command.
fn count(prepare: impl Fn(&Stage) -> Vec<String> + Send + 'static, port: bool) {
    in_own_network(move || {
        for (request, workers) in REQUESTS {
            let stage = Stage::new();
            let command = prepare(&stage);
            let argv: Vec<&str> = [LAMEDUCK].into_iter().chain(command.iter().map(String::as_str)).collect();
            let directory = stage.path("");
            let variables =
                [("LAMEDUCK_CPU_REQUEST_MILLIS", request), ("HOME", directory.as_str()), ("TMPDIR", directory.as_str())];
            let mut pid1 = stage.start(&variables, &argv);
            pid1.line(" start ");
            if port {
                listening(8080);
            }
            let mut least = usize::MAX;
            eventually(&format!("{workers} workers of {command:?} run"), || {
                assert!(pid1.is_running(), "ended at once:\n{}", pid1.rest().join("\n"));
                let now = workers_of(&pid1);
                assert!(now <= workers, "{now} workers run, not {workers}:\n{}", pid1.rest().join("\n"));
                least = now;
                (now == workers).then_some(())
            });
            // Nor do more come.
            for _ in 0..20 {
                std::thread::sleep(std::time::Duration::from_millis(25));
                let now = workers_of(&pid1);
                assert_eq!(now, workers, "for {request}m:\n{}", pid1.rest().join("\n"));
            }
        }
    });
}

/// The children of the server's main process, which is PID 1's only child.
fn workers_of(pid1: &Pid1) -> usize {
    let children = |pid: &str| -> Vec<String> {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().map(str::to_owned).collect()
    };
    children(&pid1.pid.to_string()).iter().map(|main| children(main).len()).sum()
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Debian's name of it.
fn program(directory: &str, prefix: &str) -> String {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let name = names.filter(|name| name.starts_with(prefix)).max();
    format!("{directory}/{}", name.unwrap_or_else(|| panic!("no {prefix} in {directory}: tests/run installs it")))
}

#[test]
fn php_fpm_by_template() {
    count(
        |stage| {
            let text = "[global]\ndaemonize = no\nerror_log = /dev/stderr\n[www]\nuser = www-data\nlisten = 127.0.0.1:8080\n\
                        pm = static\npm.max_children = ${LAMEDUCK_WORKERS}\n";
            stage.file("fpm.tmpl", text);
            words(&["--template", "fpm.tmpl:fpm.conf", "--", &program("/usr/sbin", "php-fpm"), "-y", &stage.path("fpm.conf")])
        },
        true,
    );
}

/// It starts as many as it is allowed, were it to start more.
#[test]
fn apache_prefork_by_template() {
    count(
        |stage| {
            let text = "ServerRoot .\nServerName localhost\nDefaultRuntimeDir @\nPidFile @/pid\nMutex file:@\nErrorLog /dev/stderr\n\
                        LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so\n\
                        LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
                        User www-data\nGroup www-data\nListen 8080\n\
                        ServerLimit ${LAMEDUCK_WORKERS}\nMaxRequestWorkers ${LAMEDUCK_WORKERS}\nStartServers 30\nMinSpareServers 30\n";
            stage.file("in/apache.conf.tmpl", text.replace('@', &stage.path("")));
            words(&["--template", "in:.", "--", "apache2", "-DFOREGROUND", "-f", &stage.path("apache.conf")])
        },
        true,
    );
}

/// `$host` is nginx's own.
#[test]
fn nginx_by_template() {
    count(
        |stage| {
            let text = "daemon off;\nworker_processes ${LAMEDUCK_WORKERS};\npid @/pid;\nerror_log stderr;\nevents {}\nhttp {\n\
                        access_log off;\nclient_body_temp_path @/1;\nproxy_temp_path @/2;\nfastcgi_temp_path @/3;\nuwsgi_temp_path @/4;\n\
                        scgi_temp_path @/5;\nserver { listen 8080; return 200 \"$host $${scheme}\"; }\n}\n";
            stage.file("nginx.tmpl", text.replace('@', &stage.path("")));
            words(&["--template", "nginx.tmpl:nginx.conf", "--", "nginx", "-c", &stage.path("nginx.conf")])
        },
        true,
    );
}

#[test]
fn nginx_by_expanded_words() {
    count(
        |stage| {
            let config = stage.file("nginx.conf", "events {}\n");
            let directives =
                format!("daemon off; worker_processes ${{LAMEDUCK_WORKERS}}; pid {}; error_log stderr;", stage.path("pid"));
            words(&["--expand-args", "--", "nginx", "-c", &config, "-g", &directives])
        },
        false,
    );
}

const WSGI: &str = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n";

#[test]
fn gunicorn_by_its_variable() {
    count(
        |stage| {
            stage.file("app.py", WSGI);
            words(&["gunicorn", "--worker-tmp-dir", &stage.path(""), "--bind", "127.0.0.1:8080", "app:application"])
        },
        true,
    );
}

#[test]
fn uwsgi_by_its_variable() {
    count(
        |stage| {
            let app = stage.file("app.py", WSGI);
            words(&["uwsgi", "--plugin", "python3", "--master", "--http-socket", "127.0.0.1:8080", "--wsgi-file", &app])
        },
        true,
    );
}

const RACK: &str = "run(lambda { |env| [200, {}, []] })\n";

#[test]
fn puma_by_its_variable() {
    count(
        |stage| {
            let app = stage.file("app.ru", RACK);
            words(&["puma", "-C", "-", "-e", "production", "-b", "tcp://127.0.0.1:8080", &app])
        },
        true,
    );
}

/// Its config is Ruby, and by custom reads the variable.
#[test]
fn unicorn_by_its_variable() {
    count(
        |stage| {
            let app = stage.file("app.ru", RACK);
            let text = "worker_processes Integer(ENV[\"WEB_CONCURRENCY\"] || 1)\nlisten \"127.0.0.1:8080\"\n";
            let config = stage.file("unicorn.rb", text);
            words(&["unicorn", "-E", "none", "-c", &config, &app])
        },
        true,
    );
}

/// Whatever the figure, what the user set stays.
#[test]
fn a_variable_that_is_set_wins() {
    in_own_network(|| {
        let stage = Stage::new();
        stage.file("app.py", WSGI);
        let variables = [("LAMEDUCK_CPU_REQUEST_MILLIS", "4400"), ("WEB_CONCURRENCY", "1"), ("HOME", "/")];
        let directory = stage.path("");
        let command = ["gunicorn", "--worker-tmp-dir", &directory, "--bind", "127.0.0.1:8080", "app:application"];
        let mut pid1 = stage.start(&variables, &[&[LAMEDUCK, "--"], &command[..]].concat());
        pid1.line("Booting worker");
        listening(8080);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(25));
            assert_eq!(workers_of(&pid1), 1, "{:#?}", pid1.seen);
        }
    });
}
