//! Real servers, counted: as many workers run as were computed, for two CPU requests each.

use crate::sized::{self, Server};
use crate::support::{LAMEDUCK, eventually, listening};
use crate::{Stage, in_own_network};

/// A CPU request, and the workers that it makes.
const REQUESTS: [(&str, usize); 2] = [("1500", 2), ("4400", 4)];

/// Starts the server twice in a network of its own.
fn count(server: fn(&str) -> Server) {
    in_own_network(move || {
        for (request, workers) in REQUESTS {
            let stage = Stage::new();
            let directory = stage.path("");
            let server = server(&directory);
            server.files.iter().for_each(|(name, text)| _ = stage.file(name, text));
            let argv: Vec<&str> = [LAMEDUCK].into_iter().chain(server.command.iter().map(String::as_str)).collect();
            let variables =
                [("LAMEDUCK_CPU_REQUEST_MILLIS", request), ("HOME", directory.as_str()), ("TMPDIR", directory.as_str())];
            let mut pid1 = stage.start(&variables, &argv);
            pid1.line(" start ");
            if server.listens {
                listening(8080);
            }
            eventually(&format!("{workers} workers of {argv:?} run"), || {
                assert!(pid1.is_running(), "ended at once:\n{}", pid1.rest().join("\n"));
                let now = sized::workers_of(pid1.pid);
                assert!(now <= workers, "{now} workers run, not {workers}:\n{}", pid1.rest().join("\n"));
                (now == workers).then_some(())
            });
            // Nor do more come.
            for _ in 0..20 {
                std::thread::sleep(std::time::Duration::from_millis(25));
                let now = sized::workers_of(pid1.pid);
                assert_eq!(now, workers, "for {request}m:\n{}", pid1.rest().join("\n"));
            }
        }
    });
}

#[test]
fn php_fpm_by_template() {
    count(sized::php_fpm);
}

/// It starts as many as it is allowed, were it to start more.
#[test]
fn apache_prefork_by_template() {
    count(sized::apache);
}

/// `$host` is nginx's own.
#[test]
fn nginx_by_template() {
    count(sized::nginx);
}

#[test]
fn nginx_by_expanded_words() {
    count(|directory| {
        let directives = format!("daemon off; worker_processes ${{LAMEDUCK_WORKERS}}; pid {directory}pid; error_log stderr;");
        let command = ["--expand-args", "--", "nginx", "-c", &format!("{directory}nginx.conf"), "-g", &directives];
        Server { files: vec![("nginx.conf", "events {}\n".to_owned())], command: sized::words(&command), listens: false }
    });
}

#[test]
fn gunicorn_by_its_variable() {
    count(sized::gunicorn);
}

#[test]
fn uwsgi_by_its_variable() {
    count(sized::uwsgi);
}

#[test]
fn puma_by_its_variable() {
    count(sized::puma);
}

/// Its config is Ruby, and by custom reads the variable.
#[test]
fn unicorn_by_its_variable() {
    count(sized::unicorn);
}

/// Whatever the figure, what the user set stays.
#[test]
fn a_variable_that_is_set_wins() {
    in_own_network(|| {
        let stage = Stage::new();
        let files = sized::gunicorn(&stage.path("")).files;
        files.iter().for_each(|(name, text)| _ = stage.file(name, text));
        let variables = [("LAMEDUCK_CPU_REQUEST_MILLIS", "4400"), ("WEB_CONCURRENCY", "1"), ("HOME", "/")];
        let directory = stage.path("");
        let command = ["gunicorn", "--worker-tmp-dir", &directory, "--bind", "127.0.0.1:8080", "app:application"];
        let mut pid1 = stage.start(&variables, &[&[LAMEDUCK, "--"], &command[..]].concat());
        pid1.line("Booting worker");
        listening(8080);
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(25));
            assert_eq!(sized::workers_of(pid1.pid), 1, "{:#?}", pid1.seen);
        }
    });
}
