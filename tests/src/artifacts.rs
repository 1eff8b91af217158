//! Finds what cargo built: the program, the plugins, the hostile plugins.

use std::path::{Path, PathBuf};

/// The plugins that come with the host and need nothing besides themselves.
pub const PRODUCT: [&str; 10] = [
    "rtn",
    "magnitude",
    "wanda",
    "gptq",
    "sparsegpt",
    "awq",
    "smoothquant",
    "omniquant",
    "llm-pruner",
    "candle",
];

/// The folder with the program and the plugins, `target/release` or `target/debug`.
///
/// # Panics
/// When the test does not run from a target folder of cargo's.
pub fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("path of the test program");
    test.parent().and_then(Path::parent).expect("tests lie in target/PROFILE/deps").to_owned()
}

fn existing(path: PathBuf) -> PathBuf {
    assert!(
        path.is_file(),
        "{} is missing; these tests run what was built before: `cargo build --release --workspace`, or `cargo xtask test`",
        path.display()
    );
    path
}

/// The program.
pub fn host() -> PathBuf {
    existing(profile_folder().join("llmcb-host"))
}

/// The program of development tasks.
pub fn xtask() -> PathBuf {
    existing(profile_folder().join("xtask"))
}

/// A plugin that belongs to the product: `gptq`, `candle`, ...
pub fn plugin(name: &str) -> PathBuf {
    existing(profile_folder().join(format!("lib{}.so", name.replace('-', "_"))))
}

/// A plugin that misbehaves on purpose; cargo builds it with the tests.
pub fn hostile(name: &str) -> PathBuf {
    existing(profile_folder().join("examples").join(format!("lib{name}.so")))
}

/// A metric component of the tests; `cargo xtask guests` builds them.
pub fn guest(name: &str) -> PathBuf {
    let folder = profile_folder();
    let path = folder.parent().unwrap_or(&folder).join("guests").join(name);
    assert!(
        path.is_file(),
        "{} is missing; `cargo xtask guests` builds it, as `cargo xtask test` does",
        path.display()
    );
    path
}

/// A file of the repository, by its path from the root.
pub fn repository_file(path: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace lies above this crate");
    root.join(path)
}
