//! A control group with little memory, where this machine lets us make one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A control group, removed with this.
pub struct SmallMemory {
    folder: PathBuf,
}

/// The folder of this process's group for memory, and the names of its two limits: of memory and, if it exists, of swap.
fn place() -> Result<(PathBuf, &'static str, &'static str), String> {
    let groups =
        std::fs::read_to_string("/proc/self/cgroup").map_err(|e| format!("/proc/self/cgroup: {e}"))?;
    let own = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?);
            controllers.split(',').any(|c| c == wanted).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    if let Some(path) = own("memory") {
        let folder = Path::new("/sys/fs/cgroup/memory").join(path);
        return Ok((folder, "memory.limit_in_bytes", "memory.memsw.limit_in_bytes"));
    }
    let path = own("").ok_or("this process is in no control group")?;
    Ok((Path::new("/sys/fs/cgroup").join(path), "memory.max", "memory.swap.max"))
}

impl SmallMemory {
    /// A group below this process's own with at most `bytes` of memory.
    ///
    /// # Errors
    /// Why there can be none here: it takes the right to write to this process's control group.
    pub fn new(bytes: u64) -> Result<SmallMemory, String> {
        let (parent, limit, swap) = place()?;
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let folder = parent.join(format!("llmcb-test-{}-{number}", std::process::id()));
        std::fs::create_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let group = SmallMemory { folder };
        let file = group.folder.join(limit);
        std::fs::write(&file, bytes.to_string()).map_err(|e| format!("{}: {e}", file.display()))?;
        // Without swap there is no such limit, and no need for it.
        let most = if limit == "memory.max" { 0 } else { bytes };
        let _ = std::fs::write(group.folder.join(swap), most.to_string());
        Ok(group)
    }

    /// File into which a process writes its id to join.
    pub fn door(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }
}

impl Drop for SmallMemory {
    fn drop(&mut self) {
        // The kernel may take a moment to see that the last process has gone.
        for _ in 0..100 {
            if std::fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
