//! The servers: as they come with Debian, and as their documentation says how to stop them.

use std::path::Path;

use crate::serving::{State, matching, program, slow_backend};

pub struct Server {
    pub name: &'static str,
    pub command: fn(&State) -> Vec<String>,
    /// It keeps connections open.
    pub keeps: bool,
    /// Its stop by TERM alone loses requests of pinned clients nearly always.
    pub tini_loses: bool,
}

const fn server(name: &'static str, command: fn(&State) -> Vec<String>) -> Server {
    Server { name, command, keeps: true, tini_loses: true }
}

pub const HTTP_SERVER: Server = server("http.server", |state| {
    let script = state.file("http.server", include_str!("threads.py"));
    words(&[&program("python3", "python3"), &script])
});

pub const GUNICORN: Server = server("gunicorn gthread", |state| {
    let app = state.file("app.py", include_str!("../servers/app.py"));
    let directory = Path::new(&app).parent().unwrap().to_str().unwrap().to_owned();
    let place = ["--chdir", &directory, "--worker-tmp-dir", &directory, "--bind", "0.0.0.0:8080", "app:app"];
    let threads = ["--workers", "2", "--worker-class", "gthread", "--threads", "30", "--keep-alive", "30"];
    words(&[&[program("gunicorn", "gunicorn").as_str()][..], &place, &threads].concat())
});

pub const UVICORN: Server = Server {
    tini_loses: false,
    ..server("uvicorn", |state| {
        let app = state.file("asgi.py", include_str!("asgi.py"));
        let directory = Path::new(&app).parent().unwrap().to_str().unwrap().to_owned();
        let options =
            ["--host", "0.0.0.0", "--port", "8080", "--timeout-keep-alive", "30", "--no-access-log", "--log-level", "warning"];
        words(&[&[program("uvicorn", "uvicorn").as_str(), "--app-dir", &directory][..], &options, &["asgi:app"]].concat())
    })
};

pub const NODE: Server = server("node, no handler", |state| {
    let app = state.file("server.js", include_str!("../servers/server.js"));
    words(&[&program("node", "nodejs"), &app])
});

pub const NODE_CLOSE: Server = Server {
    tini_loses: false,
    ..server("node, close()", |state| {
        let app = state.file("close.js", include_str!("close.js"));
        words(&[&program("node", "nodejs"), &app])
    })
};

pub const NGINX_FILES: Server = Server {
    tini_loses: false,
    ..server("nginx static", |state| {
        let config = state.file("files.conf", include_str!("files.conf"));
        words(&[&program("nginx", "nginx-light"), "-c", &config])
    })
};

pub const NGINX_PROXY: Server = server("nginx proxy", |state| {
    slow_backend();
    let config = state.file("nginx.conf", include_str!("../servers/nginx.conf"));
    words(&[&program("nginx", "nginx-light"), "-c", &config])
});

pub const APACHE: Server = server("apache prefork", |state| {
    let module = matching("/usr/lib/apache2/modules", "libphp", ".so", "libapache2-mod-php");
    state.file("www/index.php", include_str!("../servers/app.php"));
    let text = include_str!("../servers/apache.conf").replace("@LIBPHP@", &module);
    let text = text.replace("StartServers 12", "StartServers 60").replace("MaxRequestWorkers 24", "MaxRequestWorkers 100");
    let config = state.file("apache.conf", &text);
    words(&[&program("apache2", "apache2"), "-DFOREGROUND", "-f", &config])
});

pub const PUMA: Server = Server {
    tini_loses: false,
    ..server("puma", |state| {
        let app = state.file("app.ru", include_str!("../servers/app.ru"));
        words(&[&program("puma", "puma"), "-C", "-", "-e", "production", "-t", "60:60", "-b", "tcp://0.0.0.0:8080", &app])
    })
};

/// It keeps no connection: each answer closes its own.
pub const UNICORN: Server = Server {
    keeps: false,
    tini_loses: false,
    ..server("unicorn", |state| {
        let app = state.file("app.ru", include_str!("../servers/app.ru"));
        let config = state.file("unicorn.rb", include_str!("../servers/unicorn.rb"));
        words(&[&program("unicorn", "unicorn"), "-E", "none", "-c", &config, &app])
    })
};

pub const HAPROXY: Server = server("haproxy", |state| {
    slow_backend();
    let config = state.file("haproxy.cfg", include_str!("../servers/haproxy.cfg"));
    words(&[&program("haproxy", "haproxy"), "-W", "-db", "-f", &config])
});

pub const LIGHTTPD: Server = server("lighttpd proxy", |state| {
    slow_backend();
    let config = state.file("lighttpd.conf", include_str!("lighttpd.conf"));
    words(&[&program("lighttpd", "lighttpd"), "-D", "-f", &config])
});

pub const JAVA: Server = Server {
    tini_loses: false,
    ..server("java HttpServer", |state| {
        let source = state.file("Server.java", include_str!("Server.java"));
        words(&[&program("java", "openjdk-17-jdk-headless"), "-XX:TieredStopAtLevel=1", &source])
    })
};

pub const ALL: &[Server] =
    &[HTTP_SERVER, GUNICORN, UVICORN, NODE, NODE_CLOSE, NGINX_FILES, NGINX_PROXY, APACHE, PUMA, UNICORN, HAPROXY, LIGHTTPD, JAVA];

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| word.to_string()).collect()
}
