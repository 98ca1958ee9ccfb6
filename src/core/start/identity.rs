//! Who the app is to be: `name|uid[:group|gid]`, by the texts of /etc/passwd and /etc/group. No NSS: the binary is static.

/// What is set in the kernel, and where the user is at home.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    pub home: String,
}

/// Reads `--user`. A name must be in its file; a number need not. Without a group it is the user's own, with his supplementary ones;
/// a group that is named is the only one.
pub fn identify(text: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, wanted) = match text.split_once(':') {
        Some((user, wanted)) => (user, Some(wanted)),
        None => (text, None),
    };
    if user.is_empty() || wanted == Some("") {
        return Err("not USER or USER:GROUP".to_owned());
    }
    let entry = entry(passwd, user);
    let uid = match (&entry, user.parse::<u32>()) {
        (Some(fields), _) => number(fields.get(2)).ok_or_else(|| format!("the line of {user} in /etc/passwd has no number"))?,
        (None, Ok(uid)) => uid,
        (None, Err(_)) => return Err(format!("there is no user {user} in /etc/passwd")),
    };
    let field = |index: usize| entry.as_ref().and_then(|fields| fields.get(index).copied());
    let home = field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_owned();
    let (gid, groups) = match wanted {
        Some(wanted) => {
            let gid = match (self::entry(group, wanted), wanted.parse::<u32>()) {
                (Some(fields), _) => {
                    number(fields.get(2)).ok_or_else(|| format!("the line of {wanted} in /etc/group has no number"))?
                }
                (None, Ok(gid)) => gid,
                (None, Err(_)) => return Err(format!("there is no group {wanted} in /etc/group")),
            };
            (gid, vec![gid])
        }
        // A number without a line has no group of its own: root's, as everywhere.
        None => {
            let gid = number(field(3).as_ref()).unwrap_or(0);
            (gid, memberships(field(0), gid, group))
        }
    };
    // The kernel's "leave it as it is".
    if uid == u32::MAX || gid == u32::MAX {
        return Err("4294967295 is no user and no group".to_owned());
    }
    Ok(Identity { uid, gid, groups, home })
}

/// The line of a name, or else of a number.
fn entry<'a>(file: &'a str, wanted: &str) -> Option<Vec<&'a str>> {
    let lines = || file.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    lines().find(|fields| fields[0] == wanted).or_else(|| {
        let id: u32 = wanted.parse().ok()?;
        lines().find(|fields| number(fields.get(2)) == Some(id))
    })
}

fn number(field: Option<&&str>) -> Option<u32> {
    field?.parse().ok()
}

fn memberships(user: Option<&str>, own: u32, group: &str) -> Vec<u32> {
    let mut groups = vec![own];
    let Some(user) = user else { return groups };
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let is_member = fields.get(3).is_some_and(|members| members.split(',').any(|member| member == user));
        groups.extend(number(fields.get(2)).filter(|_| is_member));
    }
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\nwww-data:x:33:33::/var/www:/usr/sbin/nologin\n\
                          odd:x:many:1::/:\n1000:x:1234:1234::/home/digits:/bin/sh\nhomeless:x:40:40:::\n";
    const GROUP: &str =
        "root:x:0:\nwww-data:x:33:\nssl-cert:x:110:postgres,www-data\nadm:x:4:syslog,www-data\nstaff:x:50:\nodd:x::\n";

    fn ids(text: &str) -> Result<(u32, u32, Vec<u32>, String), String> {
        identify(text, PASSWD, GROUP).map(|id| (id.uid, id.gid, id.groups, id.home))
    }

    #[test]
    fn users_and_groups() {
        for (text, uid, gid, groups, home) in [
            ("www-data", 33, 33, &[4, 33, 110][..], "/var/www"),
            ("33", 33, 33, &[4, 33, 110], "/var/www"),
            ("www-data:staff", 33, 50, &[50], "/var/www"),
            ("www-data:7", 33, 7, &[7], "/var/www"),
            ("4711", 4711, 0, &[0], "/"),
            ("4711:4712", 4711, 4712, &[4712], "/"),
            ("root", 0, 0, &[0], "/root"),
            ("1000", 1234, 1234, &[1234], "/home/digits"),
            ("homeless", 40, 40, &[40], "/"),
        ] {
            assert_eq!(ids(text), Ok((uid, gid, groups.to_vec(), home.to_owned())), "{text}");
        }
    }

    #[test]
    fn what_nobody_is() {
        for (text, part) in [
            ("nobodyness", "no user nobodyness in /etc/passwd"),
            ("www-data:none", "no group none in /etc/group"),
            ("", "not USER"),
            (":33", "not USER"),
            ("root:", "not USER"),
            ("odd", "no number"),
            ("root:odd", "no number"),
            ("-1", "no user -1"),
            ("4294967295", "no user and no group"),
            ("4294967296", "no user"),
        ] {
            let error = ids(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
