//! Memory on NVIDIA's GPUs, as `nvidia-smi` tells it of each process.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::tree::descendants;

const TELLS: &str = "nvidia-smi";

/// Looks every second, with an empty line after each look, until nobody reads any more. It is put into the background and so is no child of the
/// process that is looked at: what it takes is not that one's.
const SCRIPT: &str = "(while \"$0\" --query-compute-apps=pid,used_gpu_memory --format=csv,noheader,nounits; echo; do sleep 1; done) \
                      2>/dev/null &";

/// The most memory on GPUs, in bytes, since the count began; looked at by a thread for as long as the process lives.
static PEAK: AtomicU64 = AtomicU64::new(0);

/// Begins the count again from nothing. The first time, it begins to look, where there is a GPU to look at.
pub(super) fn count_anew() {
    static STARTED: OnceLock<()> = OnceLock::new();
    PEAK.store(0, Ordering::Relaxed);
    STARTED.get_or_init(|| {
        if let Some(program) = program() {
            watch(&program, &PEAK);
        }
    });
}

/// The most bytes since then, of this process and all that it has started, on all GPUs together; 0 where there are none, or where the driver does
/// not tell them by the numbers that processes have here, as in some containers.
pub(super) fn peak_bytes() -> u64 {
    PEAK.load(Ordering::Relaxed)
}

fn program() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(TELLS)).find(|file| file.is_file())
}

/// Without the program or the thread, memory on GPUs is not known.
fn watch(program: &Path, peak: &'static AtomicU64) {
    let mut command = Command::new("sh");
    command.args(["-c", SCRIPT]).arg(program);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut shell) = command.spawn() else { return };
    let Some(output) = shell.stdout.take() else { return };
    let _ = shell.wait();
    let _ = std::thread::Builder::new().name("gpu".into()).spawn(move || look(output, peak));
}

fn look(output: impl Read, peak: &AtomicU64) {
    let mut found: Vec<(u32, u64)> = Vec::new();
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        if !line.trim().is_empty() {
            found.extend(process_of(&line));
            continue;
        }
        let own = std::process::id();
        let ours: HashSet<u32> = descendants(own).into_iter().chain([own]).collect();
        let sum = found.drain(..).filter(|(pid, _)| ours.contains(pid)).map(|(_, bytes)| bytes).sum();
        peak.fetch_max(sum, Ordering::Relaxed);
    }
}

/// The process and its bytes of a line `pid, MiB`.
fn process_of(line: &str) -> Option<(u32, u64)> {
    let (pid, mib) = line.split_once(',')?;
    Some((pid.trim().parse().ok()?, mib.trim().parse::<u64>().ok()?.checked_mul(1 << 20)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    #[test]
    fn memory_of_this_process_and_its_children_counts_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(TELLS);
        let own = std::process::id();
        let script = format!(
            "#!/bin/sh\necho '1, 4000'\necho '{own}, 1500'\necho '{own}, 500'\necho '{own}, [N/A]'\n"
        );
        std::fs::write(&file, script).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        static SEEN: AtomicU64 = AtomicU64::new(0);
        watch(&file, &SEEN);
        let told = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(20));
            SEEN.load(Ordering::Relaxed) > 0
        });
        assert!(told);
        assert_eq!(SEEN.load(Ordering::Relaxed), 2000 << 20, "on two GPUs");
    }
}
