//! `--user`, `--chdir`, `--umask`, `--nofile`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::Stage;
use crate::support::{LAMEDUCK, report};

const TERM: i32 = 15;

/// Users and groups of our own over the machine's.
const TABLES: [&str; 4] = ["sh", "-c", "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$@\"", "sh"];

fn stage() -> Stage {
    let stage = Stage::new();
    stage.file(
        "passwd",
        "root:x:0:0:root:/root:/bin/sh\nshop:x:4321:4322::/home/shop:/bin/sh\nhomeless:x:4330:4330:::\nodd:x:many:1::/:\n",
    );
    stage.file("group", "root:x:0:\nshop:x:4322:\nadm:x:4323:root,shop\nstaff:x:4324:shop\nother:x:4325:root\n");
    stage
}

/// Uid, gid, all groups, HOME, and whether /dev/stdout and /dev/stderr can be opened.
const WHO: &str = "id -u; id -g; id -G; echo $HOME; echo opened > /dev/stdout; echo opened > /dev/stderr";

#[test]
fn the_app_is_who_was_named() {
    let stage = stage();
    // As id(1) has it, by the same tables.
    let known = stage.run(&[], &[&TABLES[..], &["id", "-G", "shop"]].concat());
    known.is(0, &["4322 4323 4324"]);
    for (user, uid, gid, groups, home) in [
        ("shop", "4321", "4322", "4322 4323 4324", "/home/shop"),
        ("4321", "4321", "4322", "4322 4323 4324", "/home/shop"),
        ("shop:staff", "4321", "4324", "4324", "/home/shop"),
        ("shop:7", "4321", "7", "7", "/home/shop"),
        ("4711", "4711", "0", "0", "/"),
        ("4711:4712", "4711", "4712", "4712", "/"),
        ("homeless", "4330", "4330", "4330", "/"),
        ("root", "0", "0", "0 4323 4325", "/root"),
    ] {
        for verb in [&[][..], &["exec"]] {
            let expected = [uid, gid, groups, home, "opened", "opened"];
            let option = [&TABLES[..], &[LAMEDUCK], verb, &["--user", user, "--", "sh", "-c", WHO]].concat();
            let mut ended = stage.run(&[("HOME", "/elsewhere")], &option);
            let sorted = |ended: &mut crate::Ended| ended.lines.sort_by_key(|line| line == "opened");
            sorted(&mut ended);
            ended.is(0, &expected);
            let variable = [&TABLES[..], &[LAMEDUCK], verb, &["--", "sh", "-c", WHO]].concat();
            let mut ended = stage.run(&[("HOME", "/elsewhere"), ("LAMEDUCK_USER", user)], &variable);
            sorted(&mut ended);
            ended.is(0, &expected);
        }
    }
}

/// Real, effective, saved and for files; and no capability is left.
#[test]
fn nothing_of_root_is_left() {
    let stage = stage();
    for verb in [&[][..], &["exec"]] {
        let command = ["--user", "4321:4322", "grep", "-E", "^(Uid|Gid|Groups|CapPrm|CapEff|CapAmb):", "/proc/self/status"];
        let ended = stage.run(&[], &[&[LAMEDUCK], verb, &command].concat());
        let none = "0000000000000000";
        let said: Vec<String> = ended.said().iter().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        let caps = ["CapPrm", "CapEff", "CapAmb"].map(|name| format!("{name}: {none}"));
        let ids = ["Uid: 4321 4321 4321 4321", "Gid: 4322 4322 4322 4322", "Groups: 4322"].map(str::to_owned);
        assert_eq!((ended.code, said), (0, [ids, caps].concat()));
    }
}

#[test]
fn who_is_unknown_is_refused() {
    let stage = stage();
    for (user, part) in [
        ("nobodyness", "there is no user nobodyness in /etc/passwd"),
        ("shop:none", "there is no group none in /etc/group"),
        ("odd", "the line of odd in /etc/passwd has no number"),
        (":shop", "not USER or USER:GROUP"),
        ("shop:", "not USER or USER:GROUP"),
        ("-1", "there is no user -1"),
        ("4294967295", "is no user"),
        ("4294967296", "there is no user"),
    ] {
        stage.refuses_in(&TABLES, &[("--user", user)], 64, &[&format!("cannot become {user:?} (--user): "), part]);
    }
    // An image without names: numbers do.
    let scene = ["sh", "-c", "mount -t tmpfs none /etc && exec \"$@\"", "sh"];
    stage.refuses_in(&scene, &[("--user", "shop")], 64, &["there is no user shop"]);
    stage
        .run(&[], &[&scene[..], &[LAMEDUCK, "--user", "4321:4322", "sh", "-c", "id -u; id -g"]].concat())
        .is(0, &["4321", "4322"]);
}

/// Templates are written before the app's process exists: who is unknown is found out first.
#[test]
fn an_unknown_user_leaves_no_file() {
    let stage = stage();
    stage.file("app.tmpl", "text\n");
    stage.refuses(&[("--template", "app.tmpl:app.conf"), ("--user", "nobodyness")], 64, &["nobodyness"]);
}

#[test]
fn without_the_capability_it_is_said_plainly() {
    let stage = stage();
    for missing in ["-setuid", "-setgid"] {
        let scene = ["setpriv", "--bounding-set", missing];
        let said =
            "cannot become \"4321:4322\" (--user): Operation not permitted (os error 1); add the capabilities SETUID and SETGID";
        stage.refuses_in(&scene, &[("--user", "4321:4322")], 64, &[said]);
    }
    let scene = ["setpriv", "--reuid", "4000", "--regid", "4000", "--clear-groups"];
    for user in ["4321:4322", "0", "4000:4001"] {
        // It must be able to write, to show that it was not started.
        let trace = fs::Permissions::from_mode(0o777);
        fs::set_permissions(stage.path(""), trace).unwrap();
        stage.refuses_in(&scene, &[("--user", user)], 64, &["Operation not permitted", "SETUID"]);
    }
}

#[test]
fn being_that_user_already_needs_nothing() {
    let stage = stage();
    let scene = ["setpriv", "--reuid", "4321", "--regid", "4322", "--clear-groups", "--inh-caps=-all", "--no-new-privs"];
    for verb in [&[][..], &["exec"]] {
        let command = [&scene[..], &[LAMEDUCK], verb, &["--user", "4321:4322", "sh", "-c", "id -u; id -g; echo $HOME"]].concat();
        stage.run(&[], &command).is(0, &["4321", "4322", "/"]);
    }
    // Root without capabilities, as --cap-drop ALL leaves it.
    let scene = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
    let ended = stage.run(&[], &[&scene[..], &[LAMEDUCK, "--user", "0:0", "id", "-u"]].concat());
    assert_eq!((ended.code, ended.said()), (0, vec!["0"]), "{:#?}", ended.lines);
}

/// lameduck stays root, and signals him.
#[test]
fn a_stop_signal_reaches_the_other_user() {
    let stage = stage();
    let mut pid1 = stage.start(&[], &[LAMEDUCK, "--user", "4321:4322", "--", report()]);
    assert!(pid1.app_line("ready ").contains(" uid=4321 "), "{:#?}", pid1.seen);
    pid1.signal(TERM);
    pid1.app_line("got TERM");
    assert_eq!(pid1.exit(), 0);
}

#[test]
fn the_directory_is_entered_as_the_user() {
    let stage = stage();
    for (name, owner) in [("his", 4321), ("roots", 0)] {
        fs::create_dir(stage.path(name)).unwrap();
        fs::set_permissions(stage.path(name), fs::Permissions::from_mode(0o700)).unwrap();
        chown(stage.path(name), Some(owner), Some(owner)).unwrap();
    }
    stage.file("plain", "");
    stage.both_ways(&[("--chdir", "his"), ("--user", "4321:4322")], &["pwd"], |ended| ended.is(0, &[&stage.path("his")]));
    stage.both_ways(&[("--chdir", "/usr")], &["pwd"], |ended| ended.is(0, &["/usr"]));
    for (settings, part) in [
        (&[("--chdir", "none")][..], "cannot change to \"none\" (--chdir): No such file"),
        (&[("--chdir", "plain")], "cannot change to \"plain\" (--chdir): Not a directory"),
        (&[("--chdir", "roots"), ("--user", "4321:4322")], "cannot change to \"roots\" (--chdir): Permission denied"),
    ] {
        stage.refuses(settings, 64, &[part]);
    }
    // A command with a relative path is looked for there.
    stage.file("his/app", "#!/bin/sh\necho his\n");
    fs::set_permissions(stage.path("his/app"), fs::Permissions::from_mode(0o755)).unwrap();
    stage.both_ways(&[("--chdir", "his")], &["./app"], |ended| ended.is(0, &["his"]));
}

#[test]
fn the_mask_of_new_files() {
    let stage = stage();
    for (mask, shown) in [("022", "0022"), ("0027", "0027"), ("777", "0777"), ("0", "0000")] {
        stage.both_ways(&[("--umask", mask)], &["sh", "-c", "umask"], |ended| ended.is(0, &[shown]));
    }
    for mask in ["888", "1000", "-1", "+22", "u=rwx", "0x12", "022 "] {
        stage.refuses(&[("--umask", mask)], 64, &[&format!("cannot read umask {mask:?} from "), "not an octal mask"]);
    }
}

#[test]
fn the_limit_of_open_files() {
    let stage = stage();
    let limited = ["sh", "-c", "ulimit -Sn 500 && ulimit -Hn 1000 && exec \"$@\"", "sh"];
    let unprivileged =
        ["sh", "-c", "ulimit -Sn 500 && ulimit -Hn 1000 && exec setpriv --bounding-set=-sys_resource \"$@\"", "sh"];
    let show = ["sh", "-c", "ulimit -Sn; ulimit -Hn"];
    for (scene, count, soft, hard) in
        [(limited, "100", "100", "1000"), (limited, "1000", "1000", "1000"), (unprivileged, "1000", "1000", "1000")]
    {
        for verb in [&[][..], &["exec"]] {
            let option = [&scene[..], &[LAMEDUCK], verb, &["--nofile", count], &show].concat();
            stage.run(&[], &option).is(0, &[soft, hard]);
            let variable = [&scene[..], &[LAMEDUCK], verb, &show].concat();
            stage.run(&[("LAMEDUCK_NOFILE", count)], &variable).is(0, &[soft, hard]);
        }
    }
    // Above the hard limit, as another user too: it is raised before privileges go. In a sandbox root may lack the capability.
    let status = fs::read_to_string("/proc/self/status").expect("/proc");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).expect("CapEff");
    let may_raise = u64::from_str_radix(effective, 16).expect("hex") >> 24 & 1 == 1;
    let ended = stage.run(&[], &[&limited[..], &[LAMEDUCK, "--nofile", "1500", "--user", "4321:4322"], &show].concat());
    match may_raise {
        true => ended.is(0, &["1500", "1500"]),
        false => assert!(ended.code == 64 && ended.complaints()[0].contains("SYS_RESOURCE"), "{:#?}", ended.lines),
    }
    let said = "cannot allow 1001 open files (--nofile): Operation not permitted (os error 1); raise the container's own limit";
    stage.refuses_in(&unprivileged, &[("--nofile", "1001")], 64, &[said, "SYS_RESOURCE"]);
    stage.refuses(&[("--nofile", "0")], 64, &["--nofile is 0"]);
    for count in ["many", "-1", "1.5", "18446744073709551616"] {
        stage.refuses(&[("--nofile", count)], 64, &[&format!("cannot read nofile {count:?} from ")]);
    }
}
