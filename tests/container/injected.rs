//! What `kubectl lameduck inject` makes of a Deployment, played as a kubelet would: Apache's stock image, unchanged, with the binary from an init
//! container's volume, or from an image volume.

use super::*;

/// Apache and PHP as the image has them: no command in the manifest.
const BARE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: shop}
spec:
  selector: {matchLabels: {app: shop}}
  template:
    metadata: {labels: {app: shop}}
    spec:
      containers:
        - name: web
          image: docker.io/library/php:8.2-apache
          ports: [{containerPort: 80}]
          resources: {requests: {cpu: 1500m}}
";

/// Each container in a line: its name, its preStop hook, and words for `podman run`. Volumes are a directory of the test, or images.
const KUBELET: &str = "
import json, sys, yaml
pod = yaml.safe_load(sys.stdin)['spec']['template']['spec']
volumes = {v['name']: v for v in pod['volumes']}
for c in pod.get('initContainers', []) + pod['containers']:
    words = ['--stop-timeout', str(pod['terminationGracePeriodSeconds'])]
    security = c.get('securityContext', {})
    if 'runAsUser' in security: words += ['--user', str(security['runAsUser'])]
    if security.get('readOnlyRootFilesystem'): words += ['--read-only']
    for drop in security.get('capabilities', {}).get('drop', []): words += ['--cap-drop', drop]
    for m in c.get('volumeMounts', []):
        v, to, mode = volumes[m['name']], m['mountPath'], ':ro' if m.get('readOnly') else ''
        if 'emptyDir' in v: words += ['--volume', sys.argv[1] + ':' + to + mode]
        elif 'image' in v: words += ['--mount', 'type=image,source=' + v['image']['reference'] + ',destination=' + to]
    for e in c.get('env', []):
        value = e['value'] if 'value' in e else {'requests.cpu': '1500'}[e['valueFrom']['resourceFieldRef']['resource']]
        words += ['--env', e['name'] + '=' + value]
    if 'command' in c: words += ['--entrypoint', json.dumps(c['command'])]
    hook = c.get('lifecycle', {}).get('preStop', {}).get('exec', {}).get('command', [])
    print('\\t'.join([c['name'], ' '.join(hook)] + words + [c['image']] + c.get('args', [])))
";

/// `kubectl lameduck inject`, asking our own store what the image runs.
fn inject(how: &str) -> String {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the target directory");
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--locked", "--package", "kubectl-lameduck", "--target-dir"])
        .arg(target)
        .current_dir(source(""));
    succeeds(&mut build);
    let programs = cache("programs");
    fs::create_dir_all(&programs).expect("a directory");
    let real = podman(&[]);
    let words: Vec<String> = real.get_args().map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let shim = programs.join("podman");
    let draft = programs.join(format!("podman-{}", std::process::id()));
    fs::write(&draft, format!("#!/bin/sh\nexec /usr/bin/podman {} \"$@\"\n", words.join(" "))).expect("a script");
    succeeds(Command::new("chmod").arg("+x").arg(&draft));
    fs::rename(&draft, shim).expect("a script");
    let path = format!("{}:/usr/bin:/bin:/usr/sbin", programs.display());
    let mut command = Command::new(target.join("debug/kubectl-lameduck"));
    command.args(["inject", "--image", "localhost/lameduck", "--how", how, "-"]).env("PATH", path);
    fed(&mut command, BARE)
}

/// What a command prints when it is given this.
fn fed(command: &mut Command, input: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The stock image, and one that has nothing but lameduck.
fn images() {
    static IMAGES: OnceLock<()> = OnceLock::new();
    IMAGES.get_or_init(|| {
        let context = context();
        let _lock = locked();
        let base = format!("BASE={}", base_image());
        let dockerfile = source("tests/container/php-apache.Dockerfile");
        build("docker.io/library/php:8.2-apache", &dockerfile, context, &["--build-arg", &base]);
        build_text("localhost/lameduck", "FROM scratch\nCOPY lameduck /lameduck\n");
    });
}

/// The page comes by a volume: nothing of the image is ours.
fn page() -> String {
    format!("{}:/var/www/html/index.php:ro", context().join("index.php").display())
}

/// As the kubelet makes an emptyDir: for whatever user. Those of test processes that are no more are removed.
fn volume() -> PathBuf {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let all = cache("volumes");
    fs::create_dir_all(&all).expect("a directory for volumes");
    for entry in fs::read_dir(&all).expect("volumes").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.split('-').next().and_then(|pid| pid.parse().ok()).is_none_or(|pid| !alive(pid)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    let volume = all.join(format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&volume).expect("a volume");
    volume
}

/// Runs the pod's containers in their order, and returns the app's.
fn play(manifest: &str) -> Container {
    let volume = volume();
    succeeds(Command::new("chmod").arg("0777").arg(&volume));
    let rows = fed(Command::new("/usr/bin/python3").args(["-c", KUBELET]).arg(&volume), manifest);
    for row in rows.lines() {
        let words: Vec<&str> = row.split('\t').collect();
        let [name, hook, words @ ..] = words.as_slice() else { panic!("no words: {row}") };
        if *name == "lameduck" {
            succeeds(podman(&["run", "--rm", "--network", "none"]).args(ulimits()).args(words));
            continue;
        }
        let page = page();
        let at = words.len() - words.iter().rev().take_while(|word| !word.contains('/')).count() - 1;
        let (options, rest) = words.split_at(at);
        let mut container = Container::run(rest[0], &[options, &["--volume", &page]].concat(), &rest[1..]);
        container.address.set_port(80);
        container.pre_stop = hook.split_whitespace().map(str::to_owned).collect();
        return container;
    }
    panic!("no app: {rows}");
}

fn stock() -> Container {
    let page = page();
    let mut container = Container::run("docker.io/library/php:8.2-apache", &["--volume", &page], &[]);
    container.address.set_port(80);
    container
}

/// The bare image is the other one in the comparison: it loses requests.
#[test]
fn by_an_init_container_the_stock_image_loses_no_request() {
    images();
    let manifest = inject("init");
    assert!(manifest.contains("[\"/lameduck/lameduck\", \"--\", \"docker-php-entrypoint\"]"), "{manifest}");
    assert!(manifest.contains("args: [\"apache2-foreground\"]"), "{manifest}");
    let container = play(&manifest);
    compare(&container, &stock());
    let log = container.logs();
    // It was lameduck that did it, and it knew what it ran.
    assert!(log.contains("lame-duck") && log.contains("server=httpd"), "{log}");
}

#[test]
fn by_an_image_volume_the_stock_image_loses_no_request() {
    images();
    let manifest = inject("image-volume");
    assert!(manifest.contains("image:\n            reference: "), "{manifest}");
    compare(&play(&manifest), &stock());
}

#[test]
fn by_a_hook_the_stock_image_loses_no_request() {
    images();
    let manifest = inject("prestop");
    assert!(!manifest.contains("docker-php-entrypoint"), "the command stays the image's:\n{manifest}");
    let container = play(&manifest);
    assert_eq!(container.pre_stop, ["/lameduck/lameduck", "drain", "--grace-period", "30s"]);
    compare(&container, &stock());
}
