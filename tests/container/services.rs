//! nginx and php-fpm in one container, as examples/one-container has them, under load and stopped by `podman stop`.

use std::os::unix::fs::PermissionsExt;

use super::size::image;
use super::*;

/// This machine's own nginx and php-fpm behind an init, with the example's files, and php-fpm listening on `socket`.
fn container(socket: &str, init: &[&str], command: &[&str]) -> Container {
    let files = context().join(format!("one-container-{}", if socket.starts_with('/') { "unix" } else { "tcp" }));
    fs::create_dir_all(&files).expect("a directory");
    fs::set_permissions(&files, fs::Permissions::from_mode(0o755)).expect("open to all users");
    for name in ["nginx.conf", "php-fpm.conf.tmpl", "index.php"] {
        let text = fs::read_to_string(source("examples/one-container").join(name)).expect("the example's file");
        let fastcgi = if socket.starts_with('/') { format!("unix:{socket}") } else { socket.to_owned() };
        let text =
            text.replace("unix:/tmp/php-fpm.sock", &fastcgi).replace("listen = /tmp/php-fpm.sock", &format!("listen = {socket}"));
        fs::write(files.join(name), text).expect("a file");
    }
    let mut options: Vec<String> = ["/usr", "/etc", "/var"].map(|path| format!("--volume={path}:{path}:ro")).into();
    options.extend(["lameduck", "tini"].map(|init| format!("--volume={}:/{init}:ro", context().join(init).display())));
    options.push(format!("--volume={}:/app:ro", files.display()));
    options.extend(["--read-only-tmpfs=false".to_owned(), "--tmpfs=/tmp".to_owned(), "--env=LAMEDUCK_CPU_REQUEST=12".to_owned()]);
    let options: Vec<&str> = options.iter().map(String::as_str).chain(HARDENED).collect();
    Container::run(&image(), &options, &[init, command].concat())
}

/// What `podman run` of the example does, and the same by a shell script behind tini.
fn loses_nothing(socket: &str, wait_for: &str) {
    let fpm =
        fs::read_dir("/usr/sbin").expect("/usr/sbin").flatten().map(|entry| entry.file_name().into_string().unwrap_or_default());
    let fpm = fpm.into_iter().find(|name| name.starts_with("php-fpm")).expect("php-fpm is missing: apt-get install php-fpm");
    let template = ["/lameduck", "--template", "/app/php-fpm.conf.tmpl:/tmp/php-fpm.conf"];
    let with = format!("{fpm} -F -y /tmp/php-fpm.conf");
    let nginx = ["nginx", "-c", "/app/nginx.conf"];
    let services = ["--delay", "3s", "--with", &with, "--wait-for", wait_for, "--"];
    let lameduck = container(socket, &template, &[&services[..], &nginx].concat());
    let script = format!("/lameduck exec --template {} -- true && {with} & sleep 1; exec {}", template[2], nginx.join(" "));
    let tini = container(socket, &["/tini", "-g", "--"], &["sh", "-c", &script]);
    compare(&lameduck, &tini);
    let log = lameduck.logs();
    let place = |text: &str| log.find(text).unwrap_or_else(|| panic!("no {text:?} in the log:\n{log}"));
    assert!(place(" stopping service=nginx ") < place(" stopping service=php-fpm "), "{log}");
    assert!(log.contains("companions=\"php-fpm exited with 0\""), "{log}");
}

#[test]
fn nginx_with_php_fpm_by_a_unix_socket_loses_no_request() {
    loses_nothing("/tmp/php-fpm.sock", "unix:///tmp/php-fpm.sock");
}

#[test]
fn nginx_with_php_fpm_by_tcp_loses_no_request() {
    loses_nothing("127.0.0.1:9000", "tcp://127.0.0.1:9000");
}
