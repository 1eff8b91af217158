//! Content keys: one hash over everything that decides the result of a stage.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::spec::ProfileSpec;
use crate::assets::sha256_hex;

/// Grows when the host does its part of a stage differently, so that older results are not taken for new ones.
pub const RECIPE: u32 = 2;

/// A plugin, as far as it decides a result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PluginPart {
    /// SHA-256 of the shared object.
    pub sha256: String,
    /// Complete options.
    pub options: Map<String, Value>,
    /// Version and build of the library that a runner needs, where that is installed apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<String>,
}

/// Calibration, as far as it decides a result.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CalibrationPart {
    /// SHA-256 of the text.
    pub sha256: String,
    /// Number of windows.
    pub windows: usize,
    /// Tokens in each.
    pub length: usize,
}

/// What decides the result of a stage besides the versions of recipe and ABI.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Inputs {
    /// Of a compress stage.
    Compress {
        /// SHA-256 of the model.
        model: String,
        /// The engine.
        engine: PluginPart,
        /// The method.
        method: PluginPart,
        /// Calibration, where the method needs it.
        calibration: Option<CalibrationPart>,
        /// Seed.
        seed: u64,
    },
    /// Of an evaluate stage.
    Evaluate {
        /// SHA-256 of the model, or key of the stage that makes it.
        model: String,
        /// The runner.
        runner: PluginPart,
        /// The task's fingerprint: its version, options and data.
        task: String,
        /// Seed.
        seed: u64,
    },
    /// Of a diverge stage.
    Diverge {
        /// SHA-256 of the dense model.
        dense: String,
        /// Key of the stage that makes the compressed one.
        model: String,
        /// The runner of both.
        runner: PluginPart,
        /// The task's fingerprint: its version, options and data.
        task: String,
        /// Seed.
        seed: u64,
    },
    /// Of a profile stage.
    Profile {
        /// SHA-256 of the model, or key of the stage that makes it.
        model: String,
        /// The runner.
        runner: PluginPart,
        /// The workload.
        workload: ProfileSpec,
        /// SHA-256 of the text of the prompts.
        text: String,
        /// Threads, which decide speed but no other result.
        threads: usize,
        /// The machine, for the same reason.
        machine: String,
        /// Seed.
        seed: u64,
    },
    /// Of a score stage.
    Score {
        /// Key of the evaluate stage whose items are read.
        items: String,
        /// The metric: [`MetricOrder::identity`](crate::metrics::scoring::MetricOrder::identity).
        metric: String,
    },
}

impl Inputs {
    /// The content key, 64 hexadecimal digits.
    pub fn key(&self) -> String {
        use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};
        let document = serde_json::json!({
            "recipe": RECIPE,
            "abi": [ABI_MAJOR, ABI_MINOR],
            "inputs": self,
        });
        sha256_hex(canonical(&document).as_bytes())
    }
}

/// JSON without white space and with sorted keys: one text for one value.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_canonical(value, &mut out);
    out
}

fn write_canonical(value: &Value, out: &mut String) {
    match value {
        Value::Object(object) => {
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            out.push('{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                let _ = write!(out, "{}:", Value::String(key.clone()));
                write_canonical(value, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_canonical(item, out);
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

/// SHA-256 of files, remembered between runs.
#[derive(Clone, Debug)]
pub struct FileHashes {
    folder: Option<PathBuf>,
}

/// A file that was changed within this time may be changed again without a visible change of its time.
const SETTLED: Duration = Duration::from_secs(2);

#[derive(PartialEq, Serialize, Deserialize)]
struct Remembered {
    path: PathBuf,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    inode: u64,
    sha256: String,
}

impl FileHashes {
    /// Hashes, remembered in a folder if there is one.
    pub fn new(folder: Option<PathBuf>) -> Self {
        FileHashes { folder }
    }

    /// SHA-256 of a file.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn file(&self, path: &Path) -> io::Result<String> {
        let path = path.canonicalize()?;
        let data = std::fs::metadata(&path)?;
        let entry = |sha256: String| Remembered {
            path: path.clone(),
            size: data.len(),
            modified: (data.mtime(), data.mtime_nsec()),
            changed: (data.ctime(), data.ctime_nsec()),
            inode: data.ino(),
            sha256,
        };
        let place = self
            .folder
            .as_ref()
            .map(|f| f.join(format!("{}.json", &sha256_hex(path.as_os_str().as_encoded_bytes())[..24])));
        if let Some(place) = &place
            && let Ok(bytes) = std::fs::read(place)
            && let Ok(known) = serde_json::from_slice::<Remembered>(&bytes)
            && known == entry(known.sha256.clone())
        {
            return Ok(known.sha256);
        }
        let sha256 = hash(&path)?;
        let settled = data
            .modified()
            .ok()
            .and_then(|m| SystemTime::now().duration_since(m).ok())
            .is_some_and(|age| age > SETTLED);
        if settled && let Some(place) = &place {
            // Forgetting costs time only.
            let _ = place.parent().map(std::fs::create_dir_all);
            if let Ok(json) = serde_json::to_vec(&entry(sha256.clone())) {
                let _ = super::store::write_atomically(place, &json);
            }
        }
        Ok(sha256)
    }

    /// SHA-256 of a model: of its file, or over names and hashes of the files directly in its directory.
    ///
    /// # Errors
    /// A file cannot be read, or there is none.
    pub fn model(&self, path: &Path) -> io::Result<String> {
        if !path.is_dir() {
            return self.file(path);
        }
        let mut files = BTreeMap::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            // Through links: a hub's cache consists of them.
            if !name.starts_with('.') && entry.path().is_file() {
                files.insert(name, self.file(&entry.path())?);
            }
        }
        if files.is_empty() {
            return Err(io::Error::other("the folder holds no files"));
        }
        let list: String = files.iter().map(|(name, sha256)| format!("{sha256}  {name}\n")).collect();
        Ok(sha256_hex(list.as_bytes()))
    }
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => hasher.update(&buffer[..n]),
        }
    }
    Ok(hasher.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    }))
}
