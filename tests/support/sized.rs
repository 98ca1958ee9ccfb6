//! Real servers that run as many workers as lameduck computes: their files, below a directory that ends in a slash, and how they are
//! started there on port 8080.

use std::fs;

pub struct Server {
    pub files: Vec<(&'static str, String)>,
    /// lameduck's options, and the command.
    pub command: Vec<String>,
    pub listens: bool,
}

impl Server {
    fn new(directory: &str, files: &[(&'static str, &str)], command: &[&str]) -> Server {
        let here = |text: &str| text.replace('@', directory);
        let files = files.iter().map(|(name, text)| (*name, here(text))).collect();
        Server { files, command: words(command).iter().map(|word| here(word)).collect(), listens: true }
    }
}

pub fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// The children of the server's main process, which is PID 1's only child.
pub fn workers_of(pid1: i32) -> usize {
    let children = |pid: &str| -> Vec<String> {
        let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().map(str::to_owned).collect()
    };
    children(&pid1.to_string()).iter().map(|main| children(main).len()).sum()
}

pub fn php_fpm(directory: &str) -> Server {
    // Debian's name of it has a version.
    let entries = fs::read_dir("/usr/sbin").expect("/usr/sbin");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let program = names.filter(|name| name.starts_with("php-fpm")).max().expect("no php-fpm: tests/run installs it");
    let text = "[global]\ndaemonize = no\nerror_log = /dev/stderr\n[www]\nuser = www-data\nlisten = 127.0.0.1:8080\n\
                pm = static\npm.max_children = ${LAMEDUCK_WORKERS}\n";
    Server::new(directory, &[("fpm.tmpl", text)], &["--template", "@fpm.tmpl:@fpm.conf", "--", &program, "-y", "@fpm.conf"])
}

pub fn apache(directory: &str) -> Server {
    let text = "ServerRoot @\nServerName localhost\nDefaultRuntimeDir @\nPidFile @pid\nMutex file:@\nErrorLog /dev/stderr\n\
                LoadModule mpm_prefork_module /usr/lib/apache2/modules/mod_mpm_prefork.so\n\
                LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n\
                User www-data\nGroup www-data\nListen 127.0.0.1:8080\n\
                ServerLimit ${LAMEDUCK_WORKERS}\nMaxRequestWorkers ${LAMEDUCK_WORKERS}\nStartServers 30\nMinSpareServers 30\n";
    let command = ["--template", "@in:@", "--", "apache2", "-DFOREGROUND", "-f", "@apache.conf"];
    Server::new(directory, &[("in/apache.conf.tmpl", text)], &command)
}

pub fn nginx(directory: &str) -> Server {
    let text = "daemon off;\nworker_processes ${LAMEDUCK_WORKERS};\npid @pid;\nerror_log stderr;\nevents {}\nhttp {\n\
                access_log off;\nclient_body_temp_path @1;\nproxy_temp_path @2;\nfastcgi_temp_path @3;\nuwsgi_temp_path @4;\n\
                scgi_temp_path @5;\nserver { listen 8080; return 200 \"$host $${scheme}\"; }\n}\n";
    let command = ["--template", "@nginx.tmpl:@nginx.conf", "--", "nginx", "-c", "@nginx.conf"];
    Server::new(directory, &[("nginx.tmpl", text)], &command)
}

const WSGI: (&str, &str) =
    ("app.py", "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'']\n");

pub fn gunicorn(directory: &str) -> Server {
    let command = ["gunicorn", "--chdir", "@", "--worker-tmp-dir", "@", "--bind", "127.0.0.1:8080", "app:application"];
    Server::new(directory, &[WSGI], &command)
}

pub fn uwsgi(directory: &str) -> Server {
    let command = ["uwsgi", "--plugin", "python3", "--master", "--http-socket", "127.0.0.1:8080", "--wsgi-file", "@app.py"];
    Server::new(directory, &[WSGI], &command)
}

const RACK: (&str, &str) = ("app.ru", "run(lambda { |env| [200, {}, []] })\n");

pub fn puma(directory: &str) -> Server {
    Server::new(directory, &[RACK], &["puma", "-C", "-", "-e", "production", "-b", "tcp://127.0.0.1:8080", "@app.ru"])
}

pub fn unicorn(directory: &str) -> Server {
    let text = "worker_processes Integer(ENV[\"WEB_CONCURRENCY\"] || 1)\nlisten \"127.0.0.1:8080\"\n";
    Server::new(directory, &[RACK, ("unicorn.rb", text)], &["unicorn", "-E", "none", "-c", "@unicorn.rb", "@app.ru"])
}
