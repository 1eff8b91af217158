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

/// What is left within the limit of this process's control group and of those above it.
fn of_groups() -> Option<u64> {
    let groups = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let root = Path::new("/sys/fs/cgroup");
    let folder = root.join(own);
    let left = |folder: &Path| {
        let number = |file: &str| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
        // Without a limit the file says `max`.
        Some(number("memory.max")?.saturating_sub(number("memory.current")?))
    };
    folder.ancestors().take_while(|folder| folder.starts_with(root)).filter_map(left).min()
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
}
