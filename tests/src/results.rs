//! Reads what a run left behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::artifacts;

/// A JSON file.
///
/// # Panics
/// When it is missing or not JSON.
#[track_caller]
pub fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Checks a document against one of the repository's JSON Schemas (`run-result`, `stage-result`, `check-result`).
///
/// # Panics
/// With every difference.
#[track_caller]
pub fn validate(schema: &str, document: &Value) {
    let schema = json(&artifacts::repository_file(&format!("host/schema/{schema}.json")));
    let validator = jsonschema::validator_for(&schema).expect("a sound schema");
    let errors: Vec<String> =
        validator.iter_errors(document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}

/// A result directory.
#[derive(Clone, Debug)]
pub struct Results {
    /// The directory.
    pub folder: PathBuf,
    /// `run.json`.
    pub run: Value,
}

/// A stage as `run.json` sums it up.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Label of the method, or `dense`.
    pub method: String,
    /// `compress`, `evaluate`, `score`, `profile` or `diverge`.
    pub kind: String,
    /// The task, or empty.
    pub task: String,
    /// The metric, or empty.
    pub metric: String,
    /// How it ended, or empty when it was not reached.
    pub status: String,
    /// Why.
    pub reason: String,
    /// Whether an earlier run had done it.
    pub reused: bool,
    /// Its directory.
    pub folder: PathBuf,
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

impl Results {
    /// Reads a result directory.
    ///
    /// # Panics
    /// When there is no `run.json`.
    #[track_caller]
    pub fn read(folder: &Path) -> Self {
        Results { folder: folder.to_owned(), run: json(&folder.join("run.json")) }
    }

    /// All stages of all cells.
    pub fn stages(&self) -> Vec<Stage> {
        let mut stages = Vec::new();
        for cell in self.run["cells"].as_array().into_iter().flatten() {
            for stage in cell["stages"].as_array().into_iter().flatten() {
                stages.push(Stage {
                    method: text(&cell["method"]),
                    kind: text(&stage["kind"]),
                    task: text(&stage["task"]),
                    metric: text(&stage["metric"]),
                    status: text(&stage["status"]),
                    reason: text(&stage["reason"]),
                    reused: stage["reused"].as_bool().unwrap_or_default(),
                    folder: self.folder.join(text(&stage["directory"])),
                });
            }
        }
        stages
    }

    /// The log-likelihood of every choice and window that was scored, in order.
    ///
    /// # Panics
    /// When nothing was.
    #[track_caller]
    pub fn log_likelihoods(&self) -> Vec<f64> {
        let mut all = Vec::new();
        for stage in self.stages().iter().filter(|stage| stage.kind == "evaluate") {
            for item in Self::items(stage) {
                match item["answered"]["log_likelihoods"].as_array() {
                    Some(choices) => all.extend(choices.iter().filter_map(Value::as_f64)),
                    None => all.push(-item["nll"].as_f64().unwrap_or_else(|| panic!("no score: {item}"))),
                }
            }
        }
        assert!(!all.is_empty(), "nothing was scored: {:#}", self.run);
        all
    }

    /// The stages of a method of a kind.
    pub fn of(&self, method: &str, kind: &str) -> Vec<Stage> {
        self.stages().into_iter().filter(|s| s.method == method && s.kind == kind).collect()
    }

    /// The one compress stage of a method.
    ///
    /// # Panics
    /// When there is none, or more than one.
    #[track_caller]
    pub fn compression(&self, method: &str) -> Stage {
        let mut stages = self.of(method, "compress");
        assert_eq!(stages.len(), 1, "compress stages of {method} in {:#}", self.run);
        stages.remove(0)
    }

    /// Every number of the run that must not depend on when or how often it was started, by what it is.
    pub fn numbers(&self) -> BTreeMap<String, String> {
        let mut numbers = BTreeMap::new();
        for cell in self.run["cells"].as_array().into_iter().flatten() {
            let place = format!("{}/{}", text(&cell["method"]), text(&cell["backend"]));
            for metric in cell["metrics"].as_array().into_iter().flatten() {
                let name =
                    metric["name"].as_str().unwrap_or_else(|| panic!("a metric without name: {metric}"));
                numbers.insert(format!("{place}/{}/{name}", text(&metric["task"])), metric.to_string());
            }
            numbers.insert(format!("{place}/weight_bytes"), cell["weight_bytes"].to_string());
        }
        // Tracks of times, memory and speeds are never the same twice.
        let repeats = |overall: &&Value| !(3..=5).contains(&overall["track"].as_u64().unwrap_or_default());
        for overall in self.run["overall"].as_array().into_iter().flatten().filter(repeats) {
            numbers.insert(
                format!(
                    "om/{}/{}/{}",
                    text(&overall["name"]),
                    text(&overall["method"]),
                    text(&overall["backend"])
                ),
                overall.to_string(),
            );
        }
        numbers
    }

    /// Every file of the checkpoint that a method made, with its bytes.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn checkpoint(&self, method: &str) -> BTreeMap<String, Vec<u8>> {
        let folder = self.checkpoint_folder(method);
        files_below(&folder)
            .into_iter()
            .map(|path| {
                let name = path.strip_prefix(&folder).expect("below").display().to_string();
                (name, std::fs::read(&path).expect("file of a checkpoint"))
            })
            .collect()
    }

    /// The folder of the checkpoint that a method made.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    pub fn checkpoint_folder(&self, method: &str) -> PathBuf {
        let stage = self.compression(method);
        let result = json(&stage.folder.join("result.json"));
        let path = result["checkpoint"]["path"].as_str();
        stage.folder.join(path.unwrap_or_else(|| panic!("{method} left no checkpoint: {result:#}")))
    }

    /// The lines of `items.jsonl` of a stage.
    ///
    /// # Panics
    /// When the file is missing or a line is not JSON.
    #[track_caller]
    pub fn items(stage: &Stage) -> Vec<Value> {
        let path = stage.folder.join("items.jsonl");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
            .collect()
    }
}

/// All files below a folder, sorted; none when it does not exist.
pub fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

/// Fails the test when a result directory holds a finished stage that is not whole, or a result that is not JSON.
///
/// # Panics
/// With the file at fault.
#[track_caller]
pub fn assert_nothing_half_written(folder: &Path) {
    if folder.join("run.json").exists() {
        json(&folder.join("run.json"));
    }
    for entry in std::fs::read_dir(folder.join("stages")).into_iter().flatten().flatten() {
        let stage = entry.path();
        if stage.extension().is_some_and(|extension| extension == "partial") {
            // Unfinished, and called so.
            continue;
        }
        let result = json(&stage.join("result.json"));
        assert_eq!(result["status"], "done", "{}", stage.display());
        let checkpoint = &result["checkpoint"];
        for file in checkpoint["info"]["files"].as_array().into_iter().flatten() {
            let name = file[0].as_str().expect("a name");
            let path = stage.join(checkpoint["path"].as_str().expect("a path")).join(name);
            let found = std::fs::metadata(&path).map(|data| data.len()).ok();
            assert_eq!(found, file[1].as_u64(), "size of {}", path.display());
        }
    }
}
