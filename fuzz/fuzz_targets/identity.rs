//! `--user`, /etc/passwd and /etc/group.
#![no_main]

use lameduck::core::start::identity::identify;
use libfuzzer_sys::fuzz_target;

// The user in the first line, then passwd, an empty line, and group.
fuzz_target!(|text: &str| {
    let (user, files) = text.split_once('\n').unwrap_or((text, ""));
    let (passwd, group) = files.split_once("\n\n").unwrap_or((files, ""));
    match identify(user, passwd, group) {
        Ok(identity) => {
            assert!(identity.uid != u32::MAX && identity.gid != u32::MAX);
            assert!(identity.groups.contains(&identity.gid) && !identity.home.is_empty());
            // Root is only who is asked for as such: by number, or by a line that says so.
            let (name, _) = user.split_once(':').unwrap_or((user, ""));
            let asked = name.parse::<u32>() == Ok(0) || passwd.lines().any(|line| line.starts_with(&format!("{name}:")));
            assert!(identity.uid != 0 || asked, "{user} is root");
        }
        Err(why) => assert!(!why.is_empty()),
    }
});
