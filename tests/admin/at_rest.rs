//! Connections that clients keep at rest are not at work, whoever asks first.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use crate::support::{LAMEDUCK, PYTHON, Pid1, eventually, in_own_network, listening};
use crate::{ADMIN, get};

const SERVED: &str = "127.0.0.1:8080";
const KEPT: usize = 50;

/// A connection that was answered `turns` times and is kept.
fn kept(turns: u32) -> TcpStream {
    let mut stream = TcpStream::connect(SERVED).unwrap();
    for _ in 0..turns {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut answer = [0; 4096];
        assert!(stream.read(&mut answer).unwrap() > 0);
    }
    stream
}

fn in_flight() -> f64 {
    let page = get("/metrics").body;
    page.lines().find_map(|line| line.strip_prefix("lameduck_in_flight ")).unwrap().parse().unwrap()
}

fn at_rest(name: &str, files: &[(&str, String)], command: &[&str]) {
    let state = std::env::temp_dir().join(format!("lameduck-at-rest-{name}-{}", std::process::id()));
    fs::create_dir_all(&state).unwrap();
    let state = state.to_str().unwrap().to_owned();
    for (file, text) in files {
        fs::write(format!("{state}/{file}"), text.replace("@STATE@", &state)).unwrap();
    }
    let command: Vec<String> = command.iter().map(|word| word.replace("@STATE@", &state)).collect();
    in_own_network(move || {
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        let init = Pid1::start(&[&[LAMEDUCK, "--admin", ADMIN, "--"], &command[..]].concat());
        listening(8080);
        // One turn and several: the last byte either way has the same stamp, or not.
        let kept: Vec<TcpStream> = (0..KEPT).map(|number| kept(1 + number as u32 % 3)).collect();
        thread::sleep(Duration::from_secs(3)); // longer than a tie is held: what this is about
        assert_eq!(in_flight(), 0.0);
        assert_eq!(in_flight(), 0.0, "and again");
        let page = get("/metrics").body;
        let idle = format!("lameduck_connections{{port=\"8080\",state=\"idle\"}} {KEPT}");
        assert!(page.lines().any(|line| line == idle), "{page}");
        // One that works stands out.
        let mut slow = TcpStream::connect(SERVED).unwrap();
        slow.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        eventually("it is seen", || (in_flight() == 1.0).then_some(()));
        drop((slow, kept, init));
    });
}

#[test]
fn of_nginx() {
    let config = "daemon off; worker_processes 2; pid @STATE@/pid; error_log @STATE@/log; events { }
        http { access_log off; keepalive_timeout 60s; client_body_temp_path @STATE@/b; proxy_temp_path @STATE@/p;
        fastcgi_temp_path @STATE@/f; uwsgi_temp_path @STATE@/u; scgi_temp_path @STATE@/s;
        server { listen 127.0.0.1:8080; location / { return 200 x; } location /slow { proxy_pass http://127.0.0.1:9; } } }"
        .replace("proxy_pass http://127.0.0.1:9;", "proxy_pass http://unix:@STATE@/backend.sock;");
    // A back end that takes the request and says nothing.
    let silent = "import os, socket, sys, time; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); os.chmod(sys.argv[1], 0o777); s.listen(); time.sleep(1000)";
    let start = format!("{PYTHON} -c '{silent}' @STATE@/backend.sock & exec nginx -c @STATE@/nginx.conf");
    at_rest("nginx", &[("nginx.conf", config)], &["sh", "-c", &start]);
}

#[test]
fn of_gunicorn() {
    let app = "import time\ndef app(environ, start_response):\n    if environ['PATH_INFO'] == '/slow': time.sleep(60)\n    start_response('200 OK', [('Content-Length', '1')])\n    return [b'x']\n";
    let settings = ["--worker-class", "gthread", "--threads", "60", "--keep-alive", "60", "--bind", SERVED, "app:app"];
    let command = [&["gunicorn", "--chdir", "@STATE@", "--worker-tmp-dir", "@STATE@"], &settings[..]].concat();
    at_rest("gunicorn", &[("app.py", app.to_owned())], &command);
}

#[test]
fn of_node() {
    let app = "require('http').createServer((q, a) => { if (q.url !== '/slow') a.end('x'); }).listen({ port: 8080, host: '127.0.0.1' }).keepAliveTimeout = 60000";
    at_rest("node", &[], &["node", "-e", app]);
}
