//! The machine that results were measured on.

use super::result::Machine;

fn line<'a>(text: &'a str, field: &str, separator: char) -> Option<&'a str> {
    text.lines().find_map(|l| {
        let (name, value) = l.split_once(separator)?;
        (name.trim() == field).then(|| value.trim().trim_matches('"'))
    })
}

/// What the operating system says of the machine; what it does not say stays empty.
pub fn describe() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (cpu, memory, os) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
    let kernel = rustix::system::uname();
    let text = |part: &std::ffi::CStr| part.to_string_lossy().into_owned();
    Machine {
        cpu: line(&cpu, "model name", ':')
            .or_else(|| line(&cpu, "Model", ':'))
            .unwrap_or_default()
            .to_owned(),
        cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        memory_bytes: line(&memory, "MemTotal", ':')
            .and_then(|v| v.trim_end_matches("kB").trim().parse::<u64>().ok())
            .map_or(0, |kib| kib * 1024),
        os: line(&os, "PRETTY_NAME", '=').unwrap_or_default().to_owned(),
        kernel: format!("{} {}", text(kernel.sysname()), text(kernel.release())),
        architecture: std::env::consts::ARCH.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_cores_memory_and_a_kernel() {
        let machine = describe();
        assert!(machine.cores >= 1);
        assert!(machine.memory_bytes > 1 << 20);
        assert!(machine.kernel.starts_with("Linux "));
    }

    #[test]
    fn values_are_found_by_their_whole_name() {
        assert_eq!(line("VERSION=\"1\"\nPRETTY_NAME=\"X 2\"\n", "PRETTY_NAME", '='), Some("X 2"));
        assert_eq!(line("model\t: 7\nmodel name\t: Fast 3000\n", "model name", ':'), Some("Fast 3000"));
        assert_eq!(line("", "a", ':'), None);
    }
}
