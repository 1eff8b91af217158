//! What is installed in an environment of Python, without starting it: that takes long.

use std::path::{Path, PathBuf};

/// The folder of an environment that a program in its `bin` belongs to. The program itself may be a link out of it, as interpreters are.
pub fn environment_of(program: &Path) -> Option<PathBuf> {
    Some(program.parent()?.canonicalize().ok()?.parent()?.to_owned())
}

/// The program of this name, or at this place: a bare name is looked for in the folders of `PATH`.
pub fn program(name: &str) -> Option<PathBuf> {
    let named = Path::new(name);
    if name.contains('/') {
        return named.is_file().then(|| named.to_owned());
    }
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).map(|folder| folder.join(named)).find(|program| program.is_file())
}

/// The folders of packages of an environment. Debian's own interpreter has other ones than those of environments.
pub fn site_packages(environment: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for lib in ["lib", "local/lib"] {
        let pythons = std::fs::read_dir(environment.join(lib)).into_iter().flatten().flatten();
        let is_python = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("python");
        for python in pythons.filter(|entry| is_python(&entry.file_name())) {
            for folder in ["site-packages", "dist-packages"] {
                found.push(python.path().join(folder));
            }
        }
    }
    found
}

/// What is installed in an environment, `name-version` each, in order.
pub fn distributions(environment: &Path) -> Vec<String> {
    let folders = site_packages(environment).into_iter();
    let entries = folders.flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut all: Vec<String> =
        names.filter_map(|name| Some(name.strip_suffix(".dist-info")?.to_owned())).collect();
    all.sort();
    all
}

/// The version of a package (`tensorrt_llm`) among distributions.
pub fn version_of(distributions: &[String], package: &str) -> Option<String> {
    let of = |one: &String| {
        let (name, version) = one.rsplit_once('-')?;
        (name == package).then(|| version.to_owned())
    };
    distributions.iter().find_map(of)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_found_beside_an_interpreter_that_is_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for made in ["env/lib/python3.12/site-packages/torch-2.9.0.dist-info", "env/bin"] {
            std::fs::create_dir_all(root.join(made)).unwrap();
        }
        std::fs::create_dir_all(root.join("env/local/lib/python3.12/dist-packages/vllm-1.0.dist-info"))
            .unwrap();
        std::os::unix::fs::symlink("/bin/sh", root.join("env/bin/python3")).unwrap();
        let python = program(root.join("env/bin/python3").to_str().unwrap()).unwrap();
        let environment = environment_of(&python).unwrap();
        assert_eq!(environment, root.join("env"));
        let all = distributions(&environment);
        assert_eq!(all, ["torch-2.9.0", "vllm-1.0"]);
        assert_eq!(version_of(&all, "torch").as_deref(), Some("2.9.0"));
        assert_eq!(version_of(&all, "tor"), None);
        assert!(
            program("sh").is_some() && program("no such program").is_none() && program("./nowhere").is_none()
        );
    }
}
