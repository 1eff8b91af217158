//! How much memory a model may take here.

use std::path::Path;

/// Bytes that can be had now without swapping: what the system has left, within the limits of the control groups of this process. None
/// where the system does not say.
pub(crate) fn available() -> Option<u64> {
    let system = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| of_system(&text));
    [system, of_groups()].into_iter().flatten().min()
}

fn of_system(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().trim_end_matches("kB").trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// What is left within the limit of this process's control group and of those above it, in either version of the interface.
fn of_groups() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let left = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
        let (root, names) = match controllers {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current", "inactive_file"]),
            _ if controllers.split(',').any(|c| c == "memory") => (
                "/sys/fs/cgroup/memory",
                ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"],
            ),
            _ => return None,
        };
        let root = Path::new(root);
        let folder = root.join(path);
        let all = folder.ancestors().take_while(|folder| folder.starts_with(root));
        all.filter_map(|folder| of_group(folder, names)).min()
    });
    left.min()
}

/// What is left in one group; pages of files that nobody uses now are given back when they are needed.
fn of_group(folder: &Path, [limit, usage, inactive]: [&str; 3]) -> Option<u64> {
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
    // Without a limit the file says `max`, or a number that no machine has.
    let limit: u64 = read(limit)?.trim().parse().ok()?;
    let usage: u64 = read(usage)?.trim().parse().ok()?;
    let given_back = read("memory.stat").and_then(|stat| {
        stat.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok())
    });
    Some(limit.saturating_sub(usage.saturating_sub(given_back.unwrap_or_default())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_has_left_is_read() {
        let text = "MemTotal:       24576000 kB\nMemFree:          102400 kB\nMemAvailable:   20480000 kB\n";
        assert_eq!(of_system(text), Some(20_480_000 * 1024));
        assert_eq!(of_system("MemTotal: 1 kB\n"), None);
        assert_eq!(of_system("MemAvailable: many kB\n"), None);
    }

    #[test]
    fn what_a_group_has_left_is_read() {
        let folder = tempfile::tempdir().expect("folder");
        let write = |file: &str, text: &str| std::fs::write(folder.path().join(file), text).expect("file");
        let names = ["memory.max", "memory.current", "inactive_file"];
        assert_eq!(of_group(folder.path(), names), None);
        write("memory.max", "max\n");
        write("memory.current", "700\n");
        assert_eq!(of_group(folder.path(), names), None);
        write("memory.max", "1000\n");
        assert_eq!(of_group(folder.path(), names), Some(300));
        write("memory.stat", "anon 500\ninactive_file 150\n");
        assert_eq!(of_group(folder.path(), names), Some(450));
    }
}
