//! `--template` and `--expand-args`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::process::Command;

use crate::Stage;

const CPU: (&str, &str) = ("LAMEDUCK_CPU_REQUEST_MILLIS", "2600");

fn template(from: &str, to: &str) -> (&'static str, String) {
    ("--template", format!("{from}:{to}"))
}

fn refs<'a>(settings: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    settings.iter().map(|(option, value)| (*option, value.as_str())).collect()
}

#[test]
fn a_file_is_rendered_with_all_that_is_known() {
    let stage = Stage::new();
    let text = "\
workers ${LAMEDUCK_WORKERS}\ncpu ${LAMEDUCK_CPU_MILLIS}\nmemory ${LAMEDUCK_MEMORY_BYTES}\nown ${OWN} ${EMPTY}|${EMPTY:-full}\n\
none ${NONE:-default}\nlog $remote_addr $${scheme} $1\n";
    stage.file("app.tmpl", text);
    let variables = [CPU, ("LAMEDUCK_MEMORY_LIMIT", "256Mi"), ("OWN", "a ${b} $c"), ("EMPTY", "")];
    let rendered =
        ["workers 3", "cpu 2600", "memory 268435456", "own a ${b} $c |full", "none default", "log $remote_addr ${scheme} $1"];
    for arguments in [
        &["--template", "app.tmpl:app.conf", "cat", "app.conf"][..],
        &["exec", "--template", "app.tmpl:app.conf", "cat", "app.conf"],
    ] {
        stage.lameduck(&variables, arguments).is(0, &rendered);
        fs::remove_file(stage.path("app.conf")).expect("rendered");
    }
    let variables = [&variables[..], &[("LAMEDUCK_TEMPLATE", "app.tmpl:app.conf")]].concat();
    stage.lameduck(&variables, &["cat", "app.conf"]).is(0, &rendered);
    assert_eq!(stage.read("app.tmpl"), text);
}

/// Bytes, not text: a config need not be UTF-8, and neither need a value.
#[test]
fn bytes_stay_bytes() {
    let stage = Stage::new();
    stage.file("app.tmpl", b"\xff\0${LAMEDUCK_WORKERS}\xfe\r\n");
    let ended = stage.lameduck(&[CPU], &["--template", "app.tmpl:app.conf", "true"]);
    ended.is(0, &[]);
    assert_eq!(fs::read(stage.path("app.conf")).unwrap(), b"\xff\x003\xfe\r\n");
}

#[test]
fn mode_and_owner_are_the_sources_and_set_user_id_is_not_kept() {
    let stage = Stage::new();
    let source = stage.file("app.tmpl", "secret ${LAMEDUCK_WORKERS}\n");
    chown(&source, Some(33), Some(44)).expect("as root");
    for (mode, kept) in [(0o640, 0o640), (0o400, 0o400), (0o4755, 0o755)] {
        fs::set_permissions(&source, fs::Permissions::from_mode(mode)).unwrap();
        // A file that is there is replaced, whatever it was.
        let target = stage.file("app.conf", "old");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o666)).unwrap();
        let settings = [("--template", "app.tmpl:app.conf"), ("--umask", "077")];
        stage.both_ways(&[&settings[..], &[("--cpu-request", "3")]].concat(), &["cat", "app.conf"], |ended| {
            ended.is(0, &["secret 3"]);
            let metadata = fs::metadata(&target).unwrap();
            assert_eq!((metadata.mode() & 0o7777, metadata.uid(), metadata.gid()), (kept, 33, 44), "{mode:o}");
        });
    }
}

#[test]
fn of_a_directory_every_tmpl_is_rendered_and_nothing_else() {
    let stage = Stage::new();
    stage.file("in/a.conf.tmpl", "a ${LAMEDUCK_WORKERS}\n");
    stage.file("in/b.tmpl", "b ${LAMEDUCK_WORKERS}\n");
    for other in ["in/.tmpl", "in/c.conf", "in/d.tmpl.bak", "in/sub/e.tmpl"] {
        stage.file(other, "${NOBODY_KNOWS}\n");
    }
    fs::create_dir(stage.path("out")).unwrap();
    stage.both_ways(&[("--template", "in:out"), ("--cpu-request", "2")], &["sh", "-c", "ls -A out; cat out/*"], |ended| {
        ended.is(0, &["a.conf", "b", "a 2", "b 2"]);
    });
}

#[test]
fn several_templates_each_to_its_place() {
    let stage = Stage::new();
    stage.file("one.tmpl", "one ${LAMEDUCK_WORKERS}\n");
    stage.file("in/two.tmpl", "two ${LAMEDUCK_WORKERS}\n");
    let settings = [("--template", "one.tmpl:one"), ("--template", "in:."), ("--cpu-request", "2")];
    stage.both_ways(&settings, &["cat", "one", "two"], |ended| ended.is(0, &["one 2", "two 2"]));
}

#[test]
fn a_link_at_the_destination_is_followed() {
    let stage = Stage::new();
    stage.file("app.tmpl", "new ${LAMEDUCK_WORKERS}\n");
    for there in [true, false] {
        // A link that leads to nothing yet too: from a read-only /etc into an empty /run, say.
        let real = stage.path("run/app.conf");
        let _ = fs::remove_dir_all(stage.path("run"));
        let _ = fs::remove_dir_all(stage.path("etc"));
        fs::create_dir(stage.path("run")).unwrap();
        fs::create_dir(stage.path("etc")).unwrap();
        if there {
            stage.file("run/app.conf", "old");
        }
        symlink("../run/link", stage.path("etc/app.conf")).unwrap();
        symlink(&real, stage.path("run/link")).unwrap();
        stage.both_ways(&[("--template", "app.tmpl:etc/app.conf"), ("--cpu-request", "2")], &["cat", "etc/app.conf"], |ended| {
            ended.is(0, &["new 2"]);
            for link in ["etc/app.conf", "run/link"] {
                assert!(
                    fs::symlink_metadata(stage.path(link)).unwrap().is_symlink(),
                    "{link} was replaced (file there: {there})"
                );
            }
            assert_eq!(stage.read("run/app.conf"), "new 2\n");
        });
    }
    symlink("loop", stage.path("loop")).unwrap();
    stage.refuses(&[("--template", "app.tmpl:loop")], 64, &["cannot write loop: ", "symbolic links", "--template"]);
}

#[test]
fn relative_paths_are_from_where_lameduck_starts() {
    let stage = Stage::new();
    stage.file("in/app.tmpl", "${LAMEDUCK_WORKERS}\n");
    fs::create_dir(stage.path("elsewhere")).unwrap();
    let settings = [("--template", "in/app.tmpl:out.conf"), ("--chdir", "elsewhere"), ("--cpu-request", "2")];
    stage.both_ways(&settings, &["sh", "-c", "pwd; cat ../out.conf"], |ended| {
        ended.is(0, &[&stage.path("elsewhere"), "2"]);
    });
}

#[test]
fn an_unknown_name_is_refused_by_file_and_line() {
    let stage = Stage::new();
    let source = stage.file("app.tmpl", "first\n  second ${LAMEDUCK_WORKER}\n");
    let settings = [template(&source, &stage.path("app.conf"))];
    let place = format!("cannot render {source}:2: LAMEDUCK_WORKER is not set");
    stage.refuses(&refs(&settings), 78, &[&place]);
    for (text, part) in [
        ("a\nb\n${", ":3: ${ without }"),
        ("${A\n}", ":1: ${ without }"),
        ("\n${A B}", ":2: ${A B} is neither ${NAME} nor ${NAME:-default}"),
        ("${LAMEDUCK_WORKERS:+x}", ":1: ${LAMEDUCK_WORKERS:+x} is neither"),
    ] {
        stage.file("app.tmpl", text);
        stage.refuses(&refs(&settings), 78, &[part]);
    }
}

#[test]
fn when_the_second_fails_the_first_is_not_written() {
    let stage = Stage::new();
    stage.file("one.tmpl", "new\n");
    stage.file("one.conf", "old\n");
    stage.file("bad.tmpl", "${NOBODY_KNOWS}\n");
    stage.file("in/a.tmpl", "fine\n");
    stage.file("in/b.tmpl", "fine\n${NOBODY_KNOWS}\n");
    fs::create_dir(stage.path("out")).unwrap();
    let one = ("--template", "one.tmpl:one.conf");
    for (second, code, part) in [
        ("bad.tmpl:two.conf", 78, "cannot render bad.tmpl:1: "),
        ("in:out", 78, "cannot render in/b.tmpl:2: "),
        ("one.tmpl:no/such/directory", 64, "cannot write no/such/directory: No such file"),
        ("none.tmpl:two.conf", 64, "cannot read template none.tmpl: No such file"),
        ("one.tmpl:out", 64, "cannot write out: "),
    ] {
        stage.refuses(&[one, ("--template", second)], code, &[part]);
        assert_eq!(stage.read("one.conf"), "old\n", "{second}");
    }
}

#[test]
fn a_destination_that_is_no_file_of_its_own_is_refused() {
    let stage = Stage::new();
    let source = stage.file("app.tmpl", "text\n");
    let made = Command::new("mknod").args([&stage.path("device"), "c", "1", "3"]).status().expect("mknod, from coreutils");
    assert!(made.success());
    fs::create_dir(stage.path("directory")).unwrap();
    symlink("app.tmpl", stage.path("link")).unwrap();
    fs::hard_link(&source, stage.path("hard")).unwrap();
    for (to, part) in [
        ("device", "there is something that is not a plain file"),
        ("directory", "there is something that is not a plain file"),
        ("app.tmpl", "that is the template itself"),
        ("./directory/../app.tmpl", "that is the template itself"),
        ("link", "that is the template itself"),
        ("hard", "that is the template itself"),
        ("app.tmpl/x", "Not a directory"),
        ("..", "not a plain file"),
        ("directory/", "not a plain file"),
    ] {
        stage.refuses(&refs(&[template("app.tmpl", to)]), 64, &[&format!("cannot write {to}: "), part, "--template"]);
    }
    assert_eq!(stage.read("app.tmpl"), "text\n");
    assert!(!fs::metadata(stage.path("device")).unwrap().is_file());
}

#[test]
fn a_read_only_destination_is_refused() {
    let stage = Stage::new();
    stage.file("app.tmpl", "text\n");
    stage.file("etc/app.conf", "old\n");
    let scene = ["sh", "-c", "mount --bind etc etc && mount -o remount,bind,ro etc && exec \"$@\"", "sh"];
    for to in ["etc/app.conf", "etc/new.conf"] {
        stage.refuses_in(&scene, &refs(&[template("app.tmpl", to)]), 64, &[&format!("cannot write {to}: Read-only file system")]);
    }
    assert_eq!(stage.read("etc/app.conf"), "old\n");
}

#[test]
fn a_source_that_is_no_file_is_refused_and_never_waited_for() {
    let stage = Stage::new();
    fs::create_dir(stage.path("empty")).unwrap();
    stage.file("deep/dir.tmpl/x", "");
    assert!(Command::new("mkfifo").arg(stage.path("pipe")).status().expect("mkfifo, from coreutils").success());
    for (from, part) in [
        ("none", "cannot read template none: No such file"),
        ("empty", "cannot read template empty: the directory has no *.tmpl"),
        ("deep", "cannot read template deep/dir.tmpl: not a plain file"),
        ("pipe", "cannot read template pipe: not a plain file"),
        ("/dev/zero", "cannot read template /dev/zero: not a plain file"),
    ] {
        stage.refuses(&refs(&[template(from, "out")]), 64, &[part, "--template"]);
    }
    for text in ["a", ":b", "a:", ""] {
        if !text.is_empty() {
            stage.refuses(&[("--template", text)], 64, &[&format!("cannot read template {text:?} from "), "not SRC:DST"]);
        }
    }
}

/// A container that was killed while it wrote starts again, with the same pid.
#[test]
fn what_a_killed_start_left_behind_is_in_nobodys_way() {
    let stage = Stage::new();
    stage.file("app.tmpl", "new\n");
    stage.file(".app.conf.lameduck-1", "half");
    stage.both_ways(&[("--template", "app.tmpl:app.conf")], &["cat", "app.conf"], |ended| ended.is(0, &["new"]));
}

#[test]
fn a_directory_named_like_our_draft_is_in_nobodys_way_either() {
    let stage = Stage::new();
    stage.file("app.tmpl", "new\n");
    fs::create_dir(stage.path(".app.conf.lameduck-1")).unwrap();
    stage.both_ways(&[("--template", "app.tmpl:app.conf")], &["cat", "app.conf"], |ended| ended.is(0, &["new"]));
}

/// The app's user owns the directory, and we are root: what it put there must not lead us to another place.
#[test]
fn a_link_that_another_user_planted_is_not_followed() {
    let stage = Stage::new();
    stage.file("app.tmpl", "new\n");
    let root_s = stage.file("root/passwd", "old\n");
    for directory in ["app", "tmp"] {
        fs::create_dir(stage.path(directory)).unwrap();
    }
    chown(stage.path("app"), Some(33), Some(33)).expect("as root");
    fs::set_permissions(stage.path("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    // The file itself, a directory on the way, and one in a directory of everybody's.
    for (link, target) in [("app/passwd", &root_s[..]), ("app/etc", "../root"), ("tmp/passwd", "../root/passwd")] {
        symlink(target, stage.path(link)).unwrap();
        std::os::unix::fs::lchown(stage.path(link), Some(33), Some(33)).unwrap();
    }
    for to in ["app/passwd", "app/etc/passwd", "tmp/passwd"] {
        stage.refuses(&refs(&[template("app.tmpl", to)]), 64, &[&format!("cannot write {to}: "), "is not followed"]);
        let settings = [("--termination-log", to)];
        stage.both_ways(&settings, &["true"], |ended| assert_eq!(ended.code, 0));
    }
    assert_eq!(stage.read("root/passwd"), "old\n");
    assert_eq!(fs::metadata(&root_s).unwrap().uid(), 0);
    // Made by root in a directory of root's it is what somebody wanted.
    symlink("root/passwd", stage.path("link")).unwrap();
    stage.both_ways(&[("--template", "app.tmpl:link")], &["cat", "root/passwd"], |ended| ended.is(0, &["new"]));
}

#[test]
fn two_templates_for_one_place_are_refused() {
    let stage = Stage::new();
    stage.file("one.tmpl", "one\n");
    stage.file("two.tmpl", "two\n");
    symlink("app.conf", stage.path("link")).unwrap();
    stage.file("app.conf", "old\n");
    for second in ["two.tmpl:app.conf", "two.tmpl:./app.conf", "two.tmpl:link"] {
        let settings = [("--template", "one.tmpl:app.conf"), ("--template", second)];
        stage.refuses(&settings, 64, &["cannot write ", "two templates would be written there"]);
    }
    assert_eq!(stage.read("app.conf"), "old\n");
}

#[test]
fn words_of_the_command_are_expanded_where_that_is_asked_for() {
    let stage = Stage::new();
    let command = ["printf", "%s\\n", "-w${LAMEDUCK_WORKERS}", "${NONE:-x y}", "$HOME $${HOME}"];
    stage.both_ways(&[("--expand-args", ""), ("--cpu-request", "2600m")], &command, |ended| {
        ended.is(0, &["-w3", "x y", "$HOME ${HOME}"]);
    });
    stage.both_ways(&[("--cpu-request", "2600m")], &command, |ended| ended.is(0, &command[2..]));
    let before = stage.listing();
    for verb in [&[][..], &["exec"]] {
        let ended = stage.lameduck(&[], &[verb, &["--expand-args", "touch", "started", "${NOBODY_KNOWS}"]].concat());
        let parts = ["cannot expand word 3 of the command, \"${NOBODY_KNOWS}\": NOBODY_KNOWS is not set"];
        assert!(
            ended.code == 64 && ended.complaints().len() == 1 && ended.complaints()[0].contains(parts[0]),
            "{:?}",
            ended.lines
        );
        assert_eq!(stage.listing(), before);
    }
    stage.lameduck(&[("LAMEDUCK_EXPAND_ARGS", "perhaps")], &["touch", "started"]).is(64, &[]);
    assert!(!stage.has("started"));
}
