//! Where the cgroup's files are: version 1 or 2, with or without a cgroup namespace.

use std::fs;

use crate::core::size::cgroup::{self, Cgroup, Figure};

const MOUNT: &str = "/sys/fs/cgroup";

pub fn read() -> Cgroup {
    read_under(MOUNT, &table())
}

fn table() -> String {
    fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
}

/// How many processes of our group the kernel has killed because memory ran out. None: no cgroup counts them.
pub fn oom_kills() -> Option<u64> {
    oom_kills_under(MOUNT, &table())
}

fn oom_kills_under(mount: &str, table: &str) -> Option<u64> {
    let count = |directory: String, file: &str| cgroup::oom_kills(&fs::read_to_string(format!("{directory}/{file}")).ok()?);
    let version_2 = upwards(mount, table, str::is_empty).into_iter().find_map(|directory| count(directory, "memory.events"));
    version_2.or_else(|| {
        let groups = upwards(&format!("{mount}/memory"), table, is_memory);
        groups.into_iter().find_map(|directory| count(directory, "memory.oom_control"))
    })
}

fn is_memory(controllers: &str) -> bool {
    controllers.split(',').any(|one| one == "memory")
}

/// Reads the group's files. `table` is the text of /proc/self/cgroup. With a cgroup namespace its path is /, and the mount is our group.
/// Without one it is a path on the host. That path may exist below the mount; or a container's mount starts at its own group, the path does
/// not exist, and the mount itself is the group. So every directory on the path is tried.
fn read_under(mount: &str, table: &str) -> Cgroup {
    let mut found = Cgroup::default();
    for directory in upwards(mount, table, |controllers| controllers.is_empty()) {
        found.cpu_max.extend(figure(&directory, "cpu.max"));
        found.cpu_weight = found.cpu_weight.or_else(|| figure(&directory, "cpu.weight"));
        found.memory_max.extend(figure(&directory, "memory.max"));
    }
    for name in ["cpu", "cpu,cpuacct", "cpuacct,cpu"] {
        let is_cpu = |controllers: &str| controllers.split(',').any(|one| one == "cpu");
        for directory in upwards(&format!("{mount}/{name}"), table, is_cpu) {
            found.cpu_shares = found.cpu_shares.or_else(|| figure(&directory, "cpu.shares"));
            let quota = figure(&directory, "cpu.cfs_quota_us").zip(figure(&directory, "cpu.cfs_period_us"));
            found.cpu_max.extend(quota.map(|(quota, period)| Figure {
                text: format!("{} {}", if quota.text.starts_with('-') { "max" } else { quota.text.trim() }, period.text.trim()),
                path: quota.path,
            }));
        }
        if found.cpu_shares.is_some() {
            break;
        }
    }
    for directory in upwards(&format!("{mount}/memory"), table, is_memory) {
        found.memory_max.extend(figure(&directory, "memory.limit_in_bytes"));
    }
    found
}

/// The group's own directory, and those above it up to the mount.
pub fn upwards(mount: &str, table: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let lines = table.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let path = lines.filter(|(controllers, _)| wanted(controllers)).map(|(_, path)| path).next().unwrap_or_default();
    // The path of a group outside of our namespace has `..` in it; what is no path is skipped too.
    let is_inside = path.starts_with('/') && path.split('/').all(|part| part != "..");
    let path = if is_inside { path.trim_end_matches('/') } else { "" };
    let mut directories = vec![format!("{mount}{path}")];
    directories.extend(path.rmatch_indices('/').map(|(end, _)| format!("{mount}{}", &path[..end])));
    directories
}

fn figure(directory: &str, file: &str) -> Option<Figure> {
    let path = format!("{directory}/{file}");
    let text = fs::read_to_string(&path).ok()?;
    Some(Figure { path, text })
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// A tree of files in a directory of its own.
    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str, files: &[(&str, &str)]) -> Tree {
            let root = std::env::temp_dir().join(format!("lameduck-cgroup-{}-{name}", std::process::id()));
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            Tree(root)
        }

        fn read(&self, table: &str) -> Cgroup {
            read_under(self.0.to_str().unwrap(), table)
        }

        fn texts(&self, figures: &[Figure]) -> Vec<String> {
            let path = |figure: &Figure| Path::new(&figure.path).strip_prefix(&self.0).unwrap().display().to_string();
            figures.iter().map(|figure| format!("{}={}", path(figure), figure.text.trim())).collect()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_in_a_namespace() {
        let files = [("cpu.max", "150000 100000\n"), ("cpu.weight", "59\n"), ("memory.max", "536870912\n")];
        let tree = Tree::new("v2-namespace", &files);
        let found = tree.read("0::/\n");
        assert_eq!(tree.texts(&found.cpu_max), ["cpu.max=150000 100000"]);
        assert_eq!(found.cpu_weight.unwrap().text, "59\n");
        assert_eq!(tree.texts(&found.memory_max), ["memory.max=536870912"]);
        assert_eq!(found.cpu_shares, None);
        // A path from outside of our namespace.
        assert_eq!(tree.read("0::/../other\n").cpu_max.len(), 1);
    }

    #[test]
    fn version_2_without_a_namespace() {
        let files = [
            ("kubepods/pod1/c1/cpu.max", "max 100000\n"),
            ("kubepods/pod1/c1/cpu.weight", "20\n"),
            ("kubepods/pod1/cpu.max", "200000 100000\n"),
            ("kubepods/pod1/cpu.weight", "99\n"),
            ("kubepods/pod1/c1/memory.max", "max\n"),
            ("kubepods/memory.max", "1073741824\n"),
        ];
        let tree = Tree::new("v2-host", &files);
        let found = tree.read("0::/kubepods/pod1/c1\n");
        let limits = ["kubepods/pod1/c1/cpu.max=max 100000", "kubepods/pod1/cpu.max=200000 100000"];
        assert_eq!(tree.texts(&found.cpu_max), limits);
        assert_eq!(found.cpu_weight.unwrap().text, "20\n", "the group's own");
        let limits = ["kubepods/pod1/c1/memory.max=max", "kubepods/memory.max=1073741824"];
        assert_eq!(tree.texts(&found.memory_max), limits);
    }

    #[test]
    fn version_1_and_hybrids() {
        let files = [
            ("cpu,cpuacct/cpu.shares", "1536\n"),
            ("cpu,cpuacct/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ];
        let tree = Tree::new("v1-container", &files);
        let table = "9:name=systemd:/docker/x\n4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/init.scope\n";
        let found = tree.read(table);
        assert_eq!(found.cpu_shares.clone().unwrap().text, "1536\n", "the mount is the group");
        assert_eq!(tree.texts(&found.cpu_max), ["cpu,cpuacct/cpu.cfs_quota_us=max 100000"]);
        assert_eq!(tree.texts(&found.memory_max), ["memory/memory.limit_in_bytes=9223372036854771712"]);
        let files = [
            ("cpu/kubepods/c1/cpu.shares", "512\n"),
            ("cpu/kubepods/c1/cpu.cfs_quota_us", "50000\n"),
            ("cpu/kubepods/c1/cpu.cfs_period_us", "100000\n"),
            ("cpu/cpu.shares", "1024\n"),
        ];
        let tree = Tree::new("v1-host", &files);
        let found = tree.read("4:cpu,cpuacct:/kubepods/c1\n");
        assert_eq!(found.cpu_shares.clone().unwrap().text, "512\n");
        assert_eq!(tree.texts(&found.cpu_max), ["cpu/kubepods/c1/cpu.cfs_quota_us=50000 100000"]);
    }

    #[test]
    fn kills_of_the_nearest_group_that_counts_them() {
        let files = [("pods/a/memory.events", "oom 1\noom_kill 4\n"), ("memory/pods/b/memory.oom_control", "oom_kill 2\n")];
        let tree = Tree::new("oom", &files);
        let count = |table: &str| oom_kills_under(tree.0.to_str().unwrap(), table);
        assert_eq!(count("0::/pods/a/deeper\n"), Some(4));
        assert_eq!(count("0::/\n3:memory:/pods/b\n"), Some(2));
        assert_eq!(count("0::/\n"), None);
    }

    #[test]
    fn no_directory_lies_outside_of_the_mount() {
        let directories = |table: &str| upwards("/mount", table, str::is_empty);
        assert_eq!(directories("0::/a/b..c/\n"), ["/mount/a/b..c", "/mount/a", "/mount"], "two dots in a name");
        for table in ["0::/../other", "0::/a/..", "0::-", "0::..", "0::", ""] {
            assert_eq!(directories(table), ["/mount"], "{table:?}");
        }
    }

    #[test]
    fn no_cgroup_at_all() {
        assert_eq!(read_under("/nonexistent", ""), Cgroup::default());
    }
}
