//! What is to be run: models, methods, backends and tasks, as flags or a suite file say.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A plugin with its options.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PluginUse {
    /// The plugin's id.
    pub plugin: String,
    /// The shared object.
    pub path: PathBuf,
    /// Options by name, as given: those left out take the plugin's defaults.
    #[serde(default)]
    pub options: Map<String, Value>,
    /// Name in tables, files and folders. Two uses in one suite need two labels.
    pub label: String,
}

impl PluginUse {
    /// A plugin with its default options, labelled by its id.
    pub fn new(plugin: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let plugin = plugin.into();
        PluginUse { label: plugin.clone(), plugin, path: path.into(), options: Map::new() }
    }

    /// Its id and options as people write them, for example `gptq 4-bit g128 act_order`: bits, group size, ratio and pattern in the field's
    /// usual notation, then the other options. Files and folders are named by the label.
    pub fn shown(&self) -> String {
        let mut words = vec![self.plugin.clone()];
        let usual: [(&str, fn(&str) -> String); 4] = [
            ("bits", |n| format!("{n}-bit")),
            ("group_size", |n| format!("g{n}")),
            ("ratio", str::to_owned),
            ("pattern", str::to_owned),
        ];
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        for (name, notation) in usual {
            words.extend(self.options.get(name).map(|value| notation(&text(value))));
        }
        for (name, value) in self.options.iter().filter(|(name, _)| usual.iter().all(|(n, _)| n != name)) {
            words.push(match value {
                Value::Bool(true) => name.clone(),
                value => format!("{name}={}", text(value)),
            });
        }
        words.join(" ")
    }
}

/// Text from which methods learn the statistics of activations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Calibration {
    /// A calibration text by name (`boolq_passages`, `wikitext2`, `wikitext2:validation`) or a file (`text:FILE`).
    pub text: String,
    /// How many windows, taken from the beginning of the text without overlap.
    pub windows: usize,
    /// Tokens in each window.
    pub length: usize,
}

impl Default for Calibration {
    fn default() -> Self {
        Calibration { text: crate::tasks::DEFAULT_CALIBRATION.into(), windows: 16, length: 512 }
    }
}

/// How runners are timed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ProfileSpec {
    /// Prompts at once.
    pub batch: usize,
    /// Tokens in each prompt.
    pub prompt_tokens: usize,
    /// Tokens to generate for each prompt.
    pub new_tokens: usize,
    /// Runs that are not counted.
    pub warm_up: u32,
    /// Runs that are counted.
    pub repetitions: u32,
}

/// As `--workload` takes it.
impl std::fmt::Display for ProfileSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ProfileSpec { batch, prompt_tokens, new_tokens, warm_up, repetitions } = self;
        write!(f, "batch={batch},prompt={prompt_tokens},new={new_tokens}")?;
        let default = ProfileSpec::default();
        if *warm_up != default.warm_up {
            write!(f, ",warm_up={warm_up}")?;
        }
        if *repetitions != default.repetitions {
            write!(f, ",repetitions={repetitions}")?;
        }
        Ok(())
    }
}

/// Reads `batch=8,prompt=512,new=64,warm_up=1,repetitions=5`; what is left out has its default.
impl std::str::FromStr for ProfileSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut spec = ProfileSpec::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let (name, value) = (name.trim(), value.trim());
            let fault = || format!("`{part}`: `{value}` is no whole number from 1 on");
            let number = value.parse::<u32>().map_err(|_| fault())?;
            if number == 0 && name != "warm_up" {
                return Err(fault());
            }
            match name {
                "batch" => spec.batch = number as usize,
                "prompt" => spec.prompt_tokens = number as usize,
                "new" => spec.new_tokens = number as usize,
                "warm_up" => spec.warm_up = number,
                "repetitions" => spec.repetitions = number,
                _ => {
                    return Err(format!(
                        "`{name}`: a workload has batch, prompt, new, warm_up and repetitions"
                    ));
                }
            }
        }
        Ok(spec)
    }
}

impl Default for ProfileSpec {
    fn default() -> Self {
        ProfileSpec { batch: 1, prompt_tokens: 128, new_tokens: 32, warm_up: 1, repetitions: 5 }
    }
}

/// What to run: every model, dense and after every method, on every backend, scored on every task.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Suite {
    /// Models: an asset's id, a path to a directory or a GGUF file, or `org/name[@revision]` on the hub.
    pub models: Vec<String>,
    /// Methods to compress with.
    pub methods: Vec<PluginUse>,
    /// Backends to run models with.
    pub backends: Vec<PluginUse>,
    /// The backend that opens models for methods; without it, the first of `backends` that has an engine.
    pub engine: Option<PluginUse>,
    /// Format of the checkpoints that methods make, for example `gptq`; without it, what each method is known for.
    pub format: Option<String>,
    /// Tasks with their options, for example `arc_easy`, `wikitext2:seqlen=2048` or `text:FILE`. Without any, models are
    /// compressed and not evaluated.
    pub tasks: Vec<String>,
    /// Metrics beside those that tasks have of themselves: names of built-in ones, or files of components (`.wasm`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<String>,
    /// At most so many documents of each task.
    pub limit: Option<usize>,
    /// Solved examples before each question.
    pub shots: usize,
    /// Seeds of all randomness: with several, everything is done with each. The default is lm-evaluation-harness's.
    #[serde(alias = "seed", deserialize_with = "one_or_many")]
    pub seeds: Vec<u64>,
    /// Whether to evaluate the model as it is, too, as the baseline.
    pub dense: bool,
    /// Calibration text.
    pub calibration: Calibration,
    /// Whether to measure speed.
    pub profile: bool,
    /// The workloads on which speed is measured.
    #[serde(alias = "workload", deserialize_with = "one_or_many")]
    pub workloads: Vec<ProfileSpec>,
    /// Where results go.
    pub out: PathBuf,
    /// A folder with data sets in their published layout, searched before anything is fetched.
    pub data_dir: Option<PathBuf>,
    /// Threads of a worker; 0: as many as the machine has cores.
    pub threads: usize,
    /// A worker that shows no sign of progress for so many seconds is taken for hung and killed; 0: never.
    pub hang_limit_seconds: u64,
    /// A worker whose resident memory grows beyond this is killed.
    pub memory_limit_bytes: Option<u64>,
}

impl Default for Suite {
    fn default() -> Self {
        Suite {
            models: Vec::new(),
            methods: Vec::new(),
            backends: Vec::new(),
            engine: None,
            format: None,
            tasks: Vec::new(),
            metrics: Vec::new(),
            limit: None,
            shots: 0,
            seeds: vec![crate::tasks::DEFAULT_SEED],
            dense: true,
            calibration: Calibration::default(),
            profile: false,
            workloads: vec![ProfileSpec::default()],
            out: PathBuf::from("results"),
            data_dir: None,
            threads: 0,
            hang_limit_seconds: 600,
            memory_limit_bytes: None,
        }
    }
}

impl Suite {
    /// Threads that a worker may keep busy, at least 1.
    pub fn thread_budget(&self) -> usize {
        self.thread_budget_on(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// The same on a machine with so many cores.
    pub fn thread_budget_on(&self, cores: usize) -> usize {
        if self.threads == 0 { cores } else { self.threads }
    }

    /// Whether seeds decide what the dense model answers: they choose the solved examples before questions.
    pub fn seeds_matter_to_dense(&self) -> bool {
        let shots =
            |task: &String| crate::stage::parse_task(task, None, self.shots, 0).map(|t| t.options.shots);
        self.tasks.iter().any(|task| shots(task).is_ok_and(|shots| shots > 0))
    }

    /// The seeds with which the dense model is run: one where they decide nothing, none where it is not to be run.
    pub fn dense_seeds(&self) -> &[u64] {
        match self.dense {
            false => &[],
            true if self.seeds_matter_to_dense() => &self.seeds,
            true => &self.seeds[..self.seeds.len().min(1)],
        }
    }

    /// What is wrong with the suite in itself, one line each; empty when it can be planned.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.models.is_empty() {
            faults.push("no model is named; give one with --model".to_owned());
        }
        if self.methods.is_empty() && !self.dense {
            faults.push("there is neither a method nor the dense model to run; give --method".to_owned());
        }
        if self.backends.is_empty() && (!self.tasks.is_empty() || self.profile) {
            faults.push("no backend is named; give one with --backend".to_owned());
        }
        if self.limit == Some(0) {
            faults.push("--limit 0 leaves no document to score; leave it out or give 1 or more".to_owned());
        }
        if self.calibration.windows == 0 || self.calibration.length == 0 {
            faults.push("calibration needs at least 1 window of at least 1 token".to_owned());
        }
        if self.seeds.is_empty() {
            faults.push("no seed is named; give one with --seed".to_owned());
        }
        let empty =
            |w: &ProfileSpec| [w.batch, w.prompt_tokens, w.new_tokens, w.repetitions as usize].contains(&0);
        if self.profile && self.workloads.iter().any(empty) {
            faults.push(
                "a workload for profiling needs at least 1 prompt, prompt token, new token and repetition"
                    .to_owned(),
            );
        }
        if self.profile && self.workloads.is_empty() {
            faults.push("there is no workload to measure speed on; give one with --workload".to_owned());
        }
        for (kind, uses) in [("method", &self.methods), ("backend", &self.backends)] {
            for (at, one) in uses.iter().enumerate() {
                if one.label.is_empty() {
                    faults.push(format!("{kind} {} has an empty label", one.plugin));
                }
                if kind == "method" && one.label == super::plan::DENSE {
                    faults.push(format!(
                        "a method is labelled `{}`, which names the uncompressed model; label it otherwise",
                        super::plan::DENSE
                    ));
                }
                if uses[..at].iter().any(|other| other.label == one.label) {
                    faults.push(format!("two {kind}s are labelled `{}`; label one otherwise", one.label));
                }
            }
        }
        twice("model", &self.models, &mut faults);
        twice("task", &self.tasks, &mut faults);
        twice("metric", &self.metrics, &mut faults);
        twice("seed", &self.seeds, &mut faults);
        let size =
            |w: &ProfileSpec| format!("batch={},prompt={},new={}", w.batch, w.prompt_tokens, w.new_tokens);
        twice("workload", &self.workloads.iter().map(size).collect::<Vec<_>>(), &mut faults);
        faults
    }
}

fn twice<T: PartialEq + std::fmt::Display>(what: &str, list: &[T], faults: &mut Vec<String>) {
    for (at, one) in list.iter().enumerate() {
        if list[..at].contains(one) {
            faults.push(format!("{what} `{one}` is named twice"));
        }
    }
}

/// A list, or one value without brackets.
pub(super) fn one_or_many<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given<T> {
        Many(Vec<T>),
        One(T),
    }
    Ok(match Given::deserialize(deserializer)? {
        Given::Many(list) => list,
        Given::One(value) => vec![value],
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plugins_are_shown_as_people_write_them() {
        for (options, shown) in [
            (json!({}), "gptq"),
            (json!({"act_order": true, "bits": 4, "group_size": 128}), "gptq 4-bit g128 act_order"),
            (json!({"ratio": 0.5}), "gptq 0.5"),
            (json!({"pattern": "2:4", "true_sequential": false}), "gptq 2:4 true_sequential=false"),
            (json!({"bits": 3, "damping": 0.01, "mode": "slow"}), "gptq 3-bit damping=0.01 mode=slow"),
        ] {
            let Value::Object(options) = options else { panic!("an object") };
            assert_eq!(PluginUse { options, ..PluginUse::new("gptq", "/x.so") }.shown(), shown);
        }
    }
}
