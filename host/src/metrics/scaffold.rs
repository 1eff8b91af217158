//! `metrics new`: a metric that works, to be changed into one's own.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::component::{WIT, bindings_for_c};
use super::scoring::Description;
use crate::plugins::scaffold::write_files;

/// Languages that there is a beginning for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Language {
    /// Compiled by zig's or LLVM's clang
    C,
    /// Built by componentize-js
    Javascript,
    /// Built by componentize-py
    Python,
    /// Needs rustc's target wasm32-unknown-unknown
    Rust,
}

/// What stands for the metric's name in templates, and in names of their files.
const NAME: &str = "@NAME@";

impl Language {
    fn files(self) -> &'static [(&'static str, &'static str)] {
        macro_rules! files {
            ($($file:literal from $template:literal),*) => {
                &[$(($file, include_str!(concat!("../../templates/metric/", $template)))),*]
            };
        }
        match self {
            Language::C => {
                files!("@NAME@.c" from "c/metric.c", "build.sh" from "c/build.sh", "README.md" from "c/README.md")
            }
            Language::Javascript => files!(
                "@NAME@.js" from "javascript/metric.js",
                "build.mjs" from "javascript/build.mjs",
                "package.json" from "javascript/package.json",
                "build.sh" from "javascript/build.sh",
                "README.md" from "javascript/README.md"
            ),
            Language::Python => {
                files!("@NAME@.py" from "python/metric.py", "build.sh" from "python/build.sh", "README.md" from "python/README.md")
            }
            Language::Rust => files!(
                "src/lib.rs" from "rust/lib.rs",
                "Cargo.toml" from "rust/Cargo.toml.in",
                "build.sh" from "rust/build.sh",
                "README.md" from "rust/README.md"
            ),
        }
    }
}

/// Writes a metric into a folder that is not there or is empty; the files that were written.
///
/// # Errors
/// A name that no metric can have, a folder that holds something already, or what the file system says; in a line.
pub fn scaffold(name: &str, language: Language, folder: &Path) -> Result<Vec<PathBuf>, String> {
    let sketch = Description {
        name: name.to_owned(),
        summary: String::new(),
        unit: String::new(),
        higher_is_better: true,
        fields: vec!["target".to_owned()],
    };
    sketch.fields()?;
    let mut files: Vec<(PathBuf, Vec<u8>)> = language
        .files()
        .iter()
        .map(|(file, text)| (PathBuf::from(file.replace(NAME, name)), text.replace(NAME, name).into_bytes()))
        .collect();
    files.push(("metric.wit".into(), WIT.as_bytes().to_vec()));
    if language == Language::C {
        let bindings = bindings_for_c().map_err(|e| e.to_string())?;
        files.extend(bindings.into_iter().map(|(file, bytes)| (Path::new("bindings").join(file), bytes)));
    }
    write_files(folder, &files).map_err(|e| e.to_string())?;
    Ok(files.into_iter().map(|(file, _)| folder.join(file)).collect())
}
