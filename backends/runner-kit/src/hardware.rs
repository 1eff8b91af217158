//! What libraries compute on, as far as it decides what they do.

use crate::install::sha256_of;

/// The models of NVIDIA's GPUs, by the driver's own files.
pub fn gpus() -> Vec<String> {
    let folders = std::fs::read_dir("/proc/driver/nvidia/gpus").into_iter().flatten().flatten();
    let model = |folder: std::fs::DirEntry| {
        let text = std::fs::read_to_string(folder.path().join("information")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Model:"))?;
        Some(line.trim().to_owned())
    };
    let mut models: Vec<String> = folders.filter_map(model).collect();
    models.sort();
    models
}

/// The model of the processor, with a short hash of the instructions that it has.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = |name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    format!("{} {}", line("model name"), &sha256_of(line("flags").as_bytes())[..8]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_is_always_the_same() {
        assert_eq!(processor(), processor());
        assert!(processor().len() >= 8, "{}", processor());
    }
}
