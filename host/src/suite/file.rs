//! Suites as people write them: a TOML file, or flags, which mean the same.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::spec::{PluginUse, ProfileSpec, Suite};

/// A suite as written. What is left out has its default; lists may be one value without brackets. Paths are relative to the working
/// directory, as in flags.
///
/// ```toml
/// models = ["smollm2-135m-instruct"]
/// tasks = ["wikitext2", "arc_easy:shots=5"]
/// seeds = [1, 2, 3]
/// limit = 100
/// methods = ["wanda:pattern=2:4", "gptq:bits=3|4,group_size=128"]   # a grid: one method for each value
///
/// [calibration]
/// text = "wikitext2"
/// windows = 128
/// length = 2048
/// ```
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SuiteFile {
    /// Models: an asset's id, a path, or `org/name[@revision]`.
    #[serde(alias = "model", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub models: Option<Vec<String>>,
    /// Tasks with their options.
    #[serde(alias = "task", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Vec<String>>,
    /// Metrics beside those of the tasks: names of built-in ones, or files of components.
    #[serde(alias = "metric", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub metrics: Option<Vec<String>>,
    /// At most so many documents of each task.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Solved examples before each question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shots: Option<usize>,
    /// Seeds; with several, everything is done with each.
    #[serde(alias = "seed", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub seeds: Option<Vec<u64>>,
    /// Whether to evaluate the model as it is, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense: Option<bool>,
    /// Format of the checkpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
    /// Whether to measure speed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile: Option<bool>,
    /// What speed is measured on, for example `batch=8,prompt=512,new=64`.
    #[serde(alias = "workload", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub workloads: Option<Vec<String>>,
    /// Where results go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
    /// A folder with data sets in their published layout.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Threads of a worker; 0: all cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// How long a worker may show no progress, for example `10m`; `0`: for ever.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hang_limit: Option<String>,
    /// Memory that a worker may take, for example `4G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<String>,
    /// Text from which methods learn the statistics of activations.
    #[serde(skip_serializing_if = "CalibrationLines::is_empty")]
    pub calibration: CalibrationLines,
    /// The backend that opens models for methods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<PluginLine>,
    /// Methods.
    #[serde(alias = "method", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<PluginLine>>,
    /// Backends that run models.
    #[serde(alias = "backend", deserialize_with = "list", skip_serializing_if = "Option::is_none")]
    pub backends: Option<Vec<PluginLine>>,
}

/// Calibration as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CalibrationLines {
    /// A calibration text by name, or a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// How many windows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub windows: Option<usize>,
    /// Tokens in each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub length: Option<usize>,
}

impl CalibrationLines {
    fn is_empty(&self) -> bool {
        *self == CalibrationLines::default()
    }
}

/// A plugin as written: as `--method` takes it, or as a table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "a plugin is text such as \"gptq:bits=4\", or a table of plugin, label, options and grid"
)]
pub enum PluginLine {
    /// `gptq:bits=4,group_size=64|128`: of each option with several values, every one.
    Text(String),
    /// `{ plugin = "gptq", options = { bits = 4 }, grid = { group_size = [64, 128] } }`.
    Table(PluginTable),
}

/// A plugin as a table.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PluginTable {
    /// The plugin's id.
    pub plugin: String,
    /// Name in tables and folders; from the options where it is left out. Not together with a grid.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Options by name.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// Options of which every value is to be tried, in every combination.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub grid: Map<String, Value>,
}

impl PluginTable {
    /// Every combination of the grid's values with the options, the last option varying fastest.
    ///
    /// # Errors
    /// A grid whose values are no list, are none, or repeat an option; in one line.
    pub fn combinations(&self) -> Result<Vec<Map<String, Value>>, String> {
        let fault = |what: String| Err(format!("{}: {what}", self.plugin));
        if self.label.is_some() && !self.grid.is_empty() {
            return fault(
                "a label and a grid cannot go together: every combination needs a label of its own".into(),
            );
        }
        let mut all = vec![self.options.clone()];
        for (name, values) in &self.grid {
            if self.options.contains_key(name) {
                return fault(format!("option `{name}` is given both by itself and in the grid"));
            }
            let Value::Array(values) = values else {
                return fault(format!("grid.{name} must be a list of values"));
            };
            if values.is_empty() {
                return fault(format!("grid.{name} has no value"));
            }
            let with = |options: &Map<String, Value>| {
                let one = |value: &Value| {
                    let mut options = options.clone();
                    options.insert(name.clone(), value.clone());
                    options
                };
                values.iter().map(one).collect::<Vec<_>>()
            };
            all = all.iter().flat_map(with).collect();
        }
        Ok(all)
    }
}

impl SuiteFile {
    /// Reads a suite file.
    ///
    /// # Errors
    /// One line with the file, the line in it, and what is wrong.
    pub fn read(path: &Path) -> Result<SuiteFile, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("suite {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("suite {}{e}", path.display()))
    }

    fn parse(text: &str) -> Result<SuiteFile, String> {
        toml::from_str(text).map_err(|e| {
            let line = e.span().map(|span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let message = e.message().lines().collect::<Vec<_>>().join("; ");
            line.map_or_else(|| format!(": {message}"), |line| format!(", line {line}: {message}"))
        })
    }

    /// What this one says, and of the rest what another says.
    #[must_use]
    pub fn over(self, base: SuiteFile) -> SuiteFile {
        SuiteFile {
            models: self.models.or(base.models),
            tasks: self.tasks.or(base.tasks),
            metrics: self.metrics.or(base.metrics),
            limit: self.limit.or(base.limit),
            shots: self.shots.or(base.shots),
            seeds: self.seeds.or(base.seeds),
            dense: self.dense.or(base.dense),
            format: self.format.or(base.format),
            profile: self.profile.or(base.profile),
            workloads: self.workloads.or(base.workloads),
            out: self.out.or(base.out),
            data: self.data.or(base.data),
            threads: self.threads.or(base.threads),
            hang_limit: self.hang_limit.or(base.hang_limit),
            memory_limit: self.memory_limit.or(base.memory_limit),
            calibration: CalibrationLines {
                text: self.calibration.text.or(base.calibration.text),
                windows: self.calibration.windows.or(base.calibration.windows),
                length: self.calibration.length.or(base.calibration.length),
            },
            engine: self.engine.or(base.engine),
            methods: self.methods.or(base.methods),
            backends: self.backends.or(base.backends),
        }
    }

    /// The file that says what a suite is, with nothing left to a default.
    #[must_use]
    pub fn of(suite: &Suite) -> SuiteFile {
        let plugin = |one: &PluginUse| {
            PluginLine::Table(PluginTable {
                plugin: one.plugin.clone(),
                label: Some(one.label.clone()),
                options: one.options.clone(),
                grid: Map::new(),
            })
        };
        SuiteFile {
            models: Some(suite.models.clone()),
            tasks: Some(suite.tasks.clone()),
            metrics: (!suite.metrics.is_empty()).then(|| suite.metrics.clone()),
            limit: suite.limit,
            shots: Some(suite.shots),
            seeds: Some(suite.seeds.clone()),
            dense: Some(suite.dense),
            format: suite.format.clone(),
            profile: Some(suite.profile),
            workloads: Some(suite.workloads.iter().map(ProfileSpec::to_string).collect()),
            out: Some(suite.out.clone()),
            data: suite.data_dir.clone(),
            threads: Some(suite.threads),
            hang_limit: Some(format!("{}s", suite.hang_limit_seconds)),
            memory_limit: suite.memory_limit_bytes.map(|bytes| bytes.to_string()),
            calibration: CalibrationLines {
                text: Some(suite.calibration.text.clone()),
                windows: Some(suite.calibration.windows),
                length: Some(suite.calibration.length),
            },
            engine: suite.engine.as_ref().map(plugin),
            methods: Some(suite.methods.iter().map(plugin).collect()),
            backends: Some(suite.backends.iter().map(plugin).collect()),
        }
    }

    /// The file as text.
    ///
    /// # Errors
    /// An option that TOML cannot write (`null`).
    pub fn to_text(&self) -> Result<String, String> {
        toml::to_string(self).map_err(|e| format!("the suite cannot be written as TOML: {e}"))
    }
}

/// A list, or one value without brackets.
fn list<'de, T: Deserialize<'de>, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    super::spec::one_or_many(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_file_says_where_it_is_wrong() {
        for (text, says) in [
            ("models = [\"a\"]\nlimits = 3\n", ", line 2: unknown field `limits`"),
            ("seeds = \"many\"\n", ", line 1: "),
            ("limit = [\n", ", line 1: "),
            ("[calibration]\nwindow = 3\n", ", line 2: unknown field `window`"),
        ] {
            let error = SuiteFile::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn one_value_needs_no_brackets() {
        let one =
            SuiteFile::parse("model = \"a\"\nseed = 3\nmethod = \"rtn:bits=4\"\nworkload = \"batch=2\"")
                .unwrap();
        let many = SuiteFile::parse(
            "models = [\"a\"]\nseeds = [3]\nmethods = [\"rtn:bits=4\"]\nworkloads = [\"batch=2\"]",
        )
        .unwrap();
        assert_eq!(one, many);
    }

    #[test]
    fn a_suite_comes_back_from_its_file() {
        let mut suite = Suite {
            models: vec!["a".into(), "./b".into()],
            tasks: vec!["arc_easy:limit=3".into()],
            seeds: vec![1, 2],
            limit: Some(7),
            memory_limit_bytes: Some(1 << 31),
            ..Suite::default()
        };
        let mut method = PluginUse::new("gptq", "/p/libgptq.so");
        method.options = json!({"bits": 4, "damping": 0.01, "act_order": true}).as_object().cloned().unwrap();
        method.label = "gptq-bits=4".into();
        suite.methods.push(method);
        let file = SuiteFile::of(&suite);
        assert_eq!(SuiteFile::parse(&file.to_text().unwrap()).unwrap(), file);
    }

    #[test]
    fn a_grid_is_every_combination() {
        let table = |value: Value| serde_json::from_value::<PluginTable>(value).unwrap();
        let grid = table(
            json!({"plugin": "gptq", "options": {"act_order": true}, "grid": {"bits": [3, 4], "group_size": [64, 128]}}),
        );
        let found: Vec<Value> = grid.combinations().unwrap().into_iter().map(Value::Object).collect();
        let expected =
            |bits: u32, group_size: u32| json!({"act_order": true, "bits": bits, "group_size": group_size});
        assert_eq!(found, [expected(3, 64), expected(3, 128), expected(4, 64), expected(4, 128)]);
        for (bad, says) in [
            (json!({"plugin": "x", "grid": {"bits": 4}}), "must be a list"),
            (json!({"plugin": "x", "grid": {"bits": []}}), "no value"),
            (json!({"plugin": "x", "options": {"bits": 2}, "grid": {"bits": [4]}}), "both"),
            (json!({"plugin": "x", "label": "y", "grid": {"bits": [4]}}), "label"),
        ] {
            assert!(table(bad).combinations().unwrap_err().contains(says), "{says}");
        }
    }

    #[test]
    fn the_suites_of_the_repository_can_be_read() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../suites");
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().extension().is_some_and(|end| end == "toml") {
                let suite = SuiteFile::read(&entry.path()).unwrap();
                assert!(suite.methods.is_some_and(|methods| !methods.is_empty()));
                names.push(entry.file_name().into_string().unwrap());
            }
        }
        names.sort();
        assert_eq!(names, ["llmcbench.toml", "quick.toml"]);
    }

    #[test]
    fn flags_go_before_the_file() {
        let file = SuiteFile::parse("limit = 3\nshots = 1\n[calibration]\nwindows = 9\nlength = 2").unwrap();
        let flags = SuiteFile::parse("limit = 5\n[calibration]\nlength = 8").unwrap();
        let both = flags.over(file);
        assert_eq!((both.limit, both.shots), (Some(5), Some(1)));
        assert_eq!((both.calibration.windows, both.calibration.length), (Some(9), Some(8)));
    }
}
