//! Whether the kernel killed something for lack of memory.

use std::path::{Path, PathBuf};

/// Counts of kills for lack of memory, as far as this process may read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OomKills(Option<u64>);

impl OomKills {
    /// The present count: of this process's control group, else of the whole machine.
    pub(crate) fn now() -> Self {
        let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let count = candidates(&groups)
            .into_iter()
            .find_map(|file| counter(&std::fs::read_to_string(file).ok()?))
            .or_else(|| counter(&std::fs::read_to_string("/proc/vmstat").ok()?));
        OomKills(count)
    }

    /// Whether the count rose since `earlier`.
    pub(crate) fn rose_since(self, earlier: OomKills) -> bool {
        matches!((earlier.0, self.0), (Some(before), Some(after)) if after > before)
    }
}

/// Files that may hold the count, the most specific first: control groups version 2, then version 1. Inside a container the group's path is
/// often the host's, and the mount shows the group itself at its root.
fn candidates(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, name) = match controllers {
            "" => (Path::new("/sys/fs/cgroup"), "memory.events"),
            c if c.split(',').any(|c| c == "memory") => {
                (Path::new("/sys/fs/cgroup/memory"), "memory.oom_control")
            }
            _ => continue,
        };
        files.push(root.join(path.trim_start_matches('/')).join(name));
        files.push(root.join(name));
    }
    files
}

fn counter(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_either_version() {
        assert_eq!(counter("low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n"), Some(2));
        assert_eq!(counter("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n"), Some(7));
        assert_eq!(counter("nothing here"), None);
    }

    #[test]
    fn groups_name_their_files_and_fall_back_to_the_mount() {
        let files = candidates("9:memory:/a/b\n3:cpu,cpuacct:/a\n0::/c\n");
        let expected = [
            "/sys/fs/cgroup/memory/a/b/memory.oom_control",
            "/sys/fs/cgroup/memory/memory.oom_control",
            "/sys/fs/cgroup/c/memory.events",
            "/sys/fs/cgroup/memory.events",
        ];
        assert_eq!(files, expected.map(PathBuf::from));
    }

    #[test]
    fn unknown_counts_never_accuse() {
        assert!(!OomKills(None).rose_since(OomKills(Some(0))));
        assert!(!OomKills(Some(1)).rose_since(OomKills(None)));
        assert!(!OomKills(Some(1)).rose_since(OomKills(Some(1))));
        assert!(OomKills(Some(2)).rose_since(OomKills(Some(1))));
    }
}
