//! `cargo xtask guests`: builds the metric components of the tests into target/guests, each as an author would: `metrics new`, one's own source in place
//! of the one that comes with it, `build.sh`.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::environment;
use crate::process::{Result, host, root, run, target_folder};

/// A compiler for C and one for Python.
const PACKAGES: [&str; 2] = ["ziglang==0.17.1", "componentize-py==0.25.1"];

/// The chapter of the author's guide whose example is built like the other metrics.
const GUIDE: &str = "../../plugin-api/guide/4-metric.md";

/// The ways in which `misbehave.c` misbehaves.
const MISBEHAVIOURS: [&str; 23] = [
    "OK",
    "TRAP",
    "TRAP_DESCRIBE",
    "ENDLESS",
    "ENDLESS_DESCRIBE",
    "MEMORY",
    "RECURSION",
    "NOT_A_NUMBER",
    "NOT_A_NUMBER_PER_ITEM",
    "TOO_FEW",
    "NOT_THE_MEAN",
    "REFUSES",
    "UNKNOWN_FIELD",
    "BAD_NAME",
    "TAKEN_NAME",
    "TWO_LINES",
    "ORDER",
    "CLOCK",
    "CHATTER",
    "FORGETS",
    "NEEDS_TWO",
    "NEEDS_NUMBERS",
    "QUADRATIC",
];

/// What a metric is built from.
struct Guest {
    name: String,
    language: &'static str,
    /// Files, from `tests/guests` on, each with its name in the metric's folder.
    sources: Vec<(&'static str, String)>,
    /// Further words of the C compiler's command line.
    flags: String,
    /// Whether the module is left as it is, because no component can be made of it.
    module_only: bool,
}

impl Guest {
    fn new(name: &str, language: &'static str, sources: Vec<(&'static str, String)>) -> Self {
        Guest { name: name.to_owned(), language, sources, flags: String::new(), module_only: false }
    }
}

fn guests() -> Vec<Guest> {
    let c = |name: &'static str, file: &'static str| {
        Guest::new(name, "c", vec![(file, format!("{name}.c")), ("answers.h", "answers.h".to_owned())])
    };
    let mut all = vec![
        Guest::new("new_in_c", "c", Vec::new()),
        Guest::new("new_in_javascript", "javascript", Vec::new()),
        Guest::new("new_in_python", "python", Vec::new()),
        c("brier_score", "brier_score.c"),
        c("expected_calibration_error", "expected_calibration_error.c"),
        Guest::new("token_f1", "javascript", vec![("token_f1.js", "token_f1.js".to_owned())]),
        Guest::new("in_the_guide", "javascript", vec![(GUIDE, "in_the_guide.js".to_owned())]),
        Guest::new("exact_match", "python", vec![("exact_match.py", "exact_match.py".to_owned())]),
    ];
    all.extend(MISBEHAVIOURS.iter().map(|mode| {
        let name = format!("does_{}", mode.to_lowercase());
        let sources = vec![("misbehave.c", format!("{name}.c"))];
        let flags = format!(" -DMODE={mode}");
        Guest { flags, module_only: *mode == "CLOCK", ..Guest::new(&name, "c", sources) }
    }));
    all
}

/// The example in JavaScript of a chapter.
fn example(chapter: &str) -> Option<&str> {
    let (_, rest) = chapter.split_once("```js\n")?;
    rest.split_once("```").map(|(code, _)| code)
}

/// Where they are.
pub fn folder() -> PathBuf {
    target_folder().join("guests")
}

/// Builds what is not built already.
pub fn build() -> Result {
    let folder = folder();
    let tools = folder.join("tools");
    std::fs::create_dir_all(&tools).map_err(|e| format!("{}: {e}", tools.display()))?;
    let tools = tools.canonicalize().map_err(|e| format!("{}: {e}", tools.display()))?;
    environment::python(&tools, &PACKAGES)?;
    crate::process::output(Command::new("npm").arg("--version"))
        .map_err(|e| format!("{e}; metrics in JavaScript are built with Node.js 20 or newer and npm"))?;
    for guest in guests() {
        guest.build(&folder, &tools)?;
    }
    Ok(())
}

impl Guest {
    fn build(&self, folder: &Path, tools: &Path) -> Result {
        let fault = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
        let place = folder.join("sources").join(&self.name);
        if place.exists() {
            std::fs::remove_dir_all(&place).map_err(|e| fault(&place, e))?;
        }
        let mut new = Command::new(host());
        new.args(["metrics", "new", &self.name, "--language", self.language, "--quiet", "--path"])
            .arg(&place);
        crate::process::output(&mut new)?;
        for (source, file) in &self.sources {
            let from = root().join("tests/guests").join(source);
            let mut text = std::fs::read_to_string(&from).map_err(|e| fault(&from, e))?;
            if *source == GUIDE {
                text =
                    example(&text).ok_or_else(|| format!("{}: no example in it", from.display()))?.to_owned();
            }
            std::fs::write(place.join(file), text).map_err(|e| fault(&from, e))?;
        }
        let extension = if self.module_only { "core.wasm" } else { "wasm" };
        let built = folder.join(format!("{}.{extension}", self.name));
        let stamp = folder.join(format!("{}.built-from", self.name));
        let from = self.fingerprint(&place)?;
        if built.is_file() && std::fs::read_to_string(&stamp).is_ok_and(|known| known == from) {
            return Ok(());
        }
        self.share_tools(&place, tools).map_err(|e| fault(&place, e))?;
        let compiler = format!(
            "{} -m ziglang cc -target wasm32-wasi -mexec-model=reactor{}",
            tools.join("venv/bin/python").display(),
            self.flags
        );
        let mut script = Command::new("sh");
        script.arg("build.sh").current_dir(&place).env("CC", compiler).env("LLMCB_HOST", host());
        match self.module_only {
            // The script ends with the error that is wanted, which a test looks at.
            true => drop(script.output().map_err(|e| format!("sh: {e}"))?),
            false => run(&mut script)?,
        }
        if self.language == "javascript" && !tools.join("node_modules").exists() {
            std::fs::rename(place.join("node_modules"), tools.join("node_modules"))
                .map_err(|e| fault(tools, e))?;
        }
        let made = place.join(format!("{}.{extension}", self.name));
        std::fs::copy(&made, &built).map_err(|e| fault(&made, e))?;
        std::fs::write(&stamp, from).map_err(|e| fault(&stamp, e))
    }

    /// Installs nothing twice: the scripts find their tools where they would have put them.
    fn share_tools(&self, place: &Path, tools: &Path) -> std::io::Result<()> {
        use std::os::unix::fs::symlink;
        match self.language {
            "python" => symlink(tools.join("venv"), place.join(".venv")),
            "javascript" if tools.join("node_modules").exists() => {
                symlink(tools.join("node_modules"), place.join("node_modules"))
            }
            _ => Ok(()),
        }
    }

    /// What the metric is built from, in a word.
    fn fingerprint(&self, place: &Path) -> Result<String> {
        let mut files = BTreeMap::new();
        let mut folders: Vec<PathBuf> = vec![place.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in
                std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?.flatten()
            {
                let path = entry.path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(files.insert(path.clone(), std::fs::read(&path).unwrap_or_default())),
                }
            }
        }
        let mut hasher = DefaultHasher::new();
        (files, &self.flags, PACKAGES).hash(&mut hasher);
        Ok(format!("{:016x}", hasher.finish()))
    }
}
