//! The services of the container, and the commands that run before and after them.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::size::Size;
use super::{Given, Reader, Refused, Result};
use crate::cli::Args;
use crate::core::servers::{self, Server};
use crate::core::size::heap;
use crate::core::start::words;

/// The main command, or a companion.
#[derive(Clone, Debug)]
pub struct Service {
    /// The name of its known server, otherwise of its program; no other service has it.
    pub name: String,
    pub command: Vec<OsString>,
    /// The server that the command's words name; another one may run in the end.
    pub server: Option<&'static Server>,
    /// The variables that are added to its environment.
    pub child_env: Vec<(String, String)>,
    /// What of it is for its heap, and what is not set.
    pub heap: heap::Settings,
    /// Its end does not end the other services.
    pub expendable: bool,
}

/// A `--before` command.
#[derive(Clone, Debug)]
pub struct Before {
    pub command: Vec<OsString>,
    /// How many of `--wait-for` are waited for before it.
    pub waits: usize,
}

/// Reads the services, the main command first.
pub fn services(
    reader: &mut Reader<'_>,
    args: &Args,
    server: Option<&'static Server>,
    main: &[String],
    size: &Size,
) -> Result<Vec<Service>> {
    let mut services = vec![Service {
        name: String::new(),
        command: args.app.command.clone(),
        server,
        child_env: size.gain(reader.env, server, main, true),
        heap: heap::Settings::default(),
        expendable: false,
    }];
    for given in commands(reader, "with", &args.services.with)? {
        let (expendable, text) = words::expendable(&given.text);
        let words = split(&given, text, "companion")?;
        let server = servers::recognise(&words);
        if let Some(foreground) = foreground(&words, server) {
            return Err(given.cannot("companion", &format!("it would put itself into the background; write {foreground}")));
        }
        services.push(Service {
            name: String::new(),
            child_env: size.gain(reader.env, server, &words, false),
            heap: heap::Settings::default(),
            command: words.into_iter().map(OsString::from).collect(),
            server,
            expendable,
        });
    }
    let count = services.len();
    for service in &mut services {
        let words: Vec<String> = service.command.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        service.heap = size.heap(reader.env, count, &words, &mut service.child_env);
    }
    let mut names = BTreeSet::new();
    for service in &mut services {
        let program = service.command.first().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
        let own = service.server.map_or(program.rsplit('/').next().unwrap_or_default(), |server| server.name);
        let numbered = (2..).map(|number| format!("{own}-{number}"));
        let mut free = [own.to_owned()].into_iter().chain(numbered).filter(|name| !names.contains(name));
        service.name = free.next().unwrap_or_default();
        names.insert(service.name.clone());
    }
    Ok(services)
}

/// Reads `--before`. In a variable nothing stands to the left of it, so `waits` is 0.
pub fn before(reader: &mut Reader<'_>, args: &Args) -> Result<Vec<Before>> {
    let waits = &args.services.waits_before;
    let commands = commands(reader, "before", &args.services.before)?;
    let read = |(index, given): (usize, Given)| {
        let words = split(&given, &given.text, "command")?;
        Ok(Before {
            command: words.into_iter().map(OsString::from).collect(),
            waits: waits.get(index).copied().unwrap_or_default(),
        })
    };
    commands.into_iter().enumerate().map(read).collect()
}

/// Reads `--on-stop`.
pub fn on_stop(reader: &mut Reader<'_>, args: &Args) -> Result<Vec<Vec<OsString>>> {
    let read = |given: Given| Ok(split(&given, &given.text, "command")?.into_iter().map(OsString::from).collect());
    commands(reader, "on-stop", &args.services.on_stop)?.into_iter().map(read).collect()
}

/// The commands as they were typed, or those of the variable, separated by commas outside of quotes.
fn commands(reader: &mut Reader<'_>, name: &'static str, typed: &[String]) -> Result<Vec<Given>> {
    let Some(all) = reader.given(name, typed.first().map(String::as_str))? else { return Ok(Vec::new()) };
    let texts = if typed.is_empty() { split_list(&all.text) } else { typed.to_vec() };
    let given: Vec<Given> = texts.into_iter().map(|text| Given { text, source: all.source.clone() }).collect();
    for given in &given {
        reader.show(name, &given.text, given.source.clone());
    }
    Ok(given)
}

fn split(given: &Given, text: &str, what: &str) -> std::result::Result<Vec<String>, Refused> {
    words::split(text).map_err(|why| given.cannot(what, why))
}

/// Splits at commas that are neither in quotes nor behind a backslash.
fn split_list(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut quote, mut escaped) = (None, false);
    for character in text.chars() {
        let is_end = character == ',' && quote.is_none() && !escaped;
        match character {
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => escaped = true,
            '\'' | '"' if quote.is_none() => quote = Some(character),
            _ if quote == Some(character) => quote = None,
            _ => {}
        }
        match parts.last_mut() {
            Some(last) if !is_end => last.push(character),
            _ => parts.push(String::new()),
        }
    }
    parts
}

/// If these words put a server into the background: how to keep it in the foreground. As a companion it would seem to end at once. None:
/// they do not, as far as known.
fn foreground(words: &[String], server: Option<&'static Server>) -> Option<&'static str> {
    let has = |flags: &[&str]| words.iter().any(|word| flags.contains(&word.as_str()));
    let contains = |text: &str| words.iter().any(|word| word.contains(text));
    let program = words.first()?.rsplit('/').next()?;
    match server.map_or(program, |server| server.name) {
        "nginx" if !contains("daemon off") && !has(&["-t", "-T", "-v", "-V", "-h", "-c", "-s"]) => Some("nginx -g 'daemon off;'"),
        "php-fpm" if has(&["-D", "--daemonize"]) => Some("php-fpm -F"),
        _ if program == "apachectl" || program == "apache2ctl" => (!contains("FOREGROUND")).then_some("apachectl -D FOREGROUND"),
        _ if matches!(program, "cron" | "crond") && !has(&["-f", "-n", "-d"]) => Some("cron -f"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::plan::tests::{made, refused};

    fn names(options: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
        made(options, variables).unwrap().services.into_iter().map(|service| service.name).collect()
    }

    #[test]
    fn each_service_has_a_name_of_its_own() {
        let options = ["--with", "php-fpm -F", "--with", "-/usr/bin/tail -F /log", "--with", "php-fpm8.2 -F -y b", "nginx"];
        assert_eq!(names(&options, &[]), ["nginx", "php-fpm", "tail", "php-fpm-2"]);
        let plan = made(&options, &[]).unwrap();
        assert_eq!(plan.services.iter().map(|service| service.expendable).collect::<Vec<_>>(), [false, false, true, false]);
        assert_eq!(plan.services[2].command, ["/usr/bin/tail", "-F", "/log"]);
        assert_eq!(names(&["sleep", "1"], &[("LAMEDUCK_WITH", "a 'b,c',\"d,\"e f\\,g")]), ["sleep", "a", "d,e"]);
    }

    #[test]
    fn the_order_typed_is_the_order_done() {
        let waits = |options: &[&str]| {
            let plan = made(options, &[]).unwrap();
            plan.before_commands.iter().map(|before| before.waits).collect::<Vec<_>>()
        };
        let options = ["--wait-for", "tcp://a:1", "--before", "x", "--wait-for", "tcp://b:1,tcp://c:1", "--before", "y", "z"];
        assert_eq!(waits(&options), [1, 3]);
        assert_eq!(waits(&["--before", "x", "--wait-for", "tcp://a:1", "z"]), [0]);
    }

    #[test]
    fn bad_commands_are_refused_in_one_line() {
        for (options, part) in [
            (["--with", "", "x"], "cannot read companion \"\" from --with: no program is named"),
            (["--with", "a 'b", "x"], "from --with: a quote is not closed"),
            (["--before", "a && b", "x"], "cannot read command \"a && b\" from --before: a word begins or ends with one of"),
            (["--on-stop", "A=1 b", "x"], "from --on-stop: the first word has a =, and is no program"),
            (["--with", "php-fpm -D", "x"], "it would put itself into the background; write php-fpm -F"),
            (["--with", "nginx", "x"], "write nginx -g 'daemon off;'"),
            (["--with", "apachectl start", "x"], "write apachectl -D FOREGROUND"),
        ] {
            let error = refused(&options, &[]);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn workers_go_to_each_server_s_own_variable() {
        let variables = [("LAMEDUCK_CPU_REQUEST", "3")];
        let plan = made(&["--workers-env", "N", "--with", "gunicorn app", "uwsgi"], &variables).unwrap();
        let gained = |place: usize| {
            plan.services[place].child_env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(gained(0), "LAMEDUCK_WORKERS=3 N=3");
        assert_eq!(gained(1), "LAMEDUCK_WORKERS=3 WEB_CONCURRENCY=3");
    }

    #[test]
    fn services_share_the_memory_for_their_heaps() {
        let variables = [("LAMEDUCK_MEMORY_LIMIT", "1Gi"), ("LAMEDUCK_CPU_REQUEST", "2")];
        let options = [
            "--heap",
            "50",
            "--with",
            "java -jar a.jar",
            "--with",
            "nginx -g 'daemon off;'",
            "--with",
            "./worker",
            "node",
            "b.js",
        ];
        let plan = made(&options, &variables).unwrap();
        let gained = |place: usize| {
            let own = plan.services[place].child_env.iter().filter(|(name, _)| name != "LAMEDUCK_WORKERS");
            own.map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(gained(0), "NODE_OPTIONS=--max-old-space-size=128");
        let java = "-XX:ActiveProcessorCount=2 -XX:MaxRAMPercentage=12.5000 -XX:MinRAMPercentage=12.5000";
        assert_eq!(gained(1), format!("JAVA_TOOL_OPTIONS={java}"), "both, and only here");
        assert_eq!(gained(2), "");
        assert_eq!(gained(3), "GOMEMLIMIT=134217728");
        assert!(plan.helper_env.iter().all(|(name, _)| name == "LAMEDUCK_WORKERS"), "{:?}", plan.helper_env);
    }
}
