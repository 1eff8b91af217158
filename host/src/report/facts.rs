//! What the table's notes say that only the stages' own results know.

use std::collections::BTreeMap;
use std::path::Path;

use llmcb_plugin_api::sdk::ModelInfo;
use serde::Serialize;

use crate::suite::plan::DENSE;
use crate::suite::result::{RunResult, StageResult};
use crate::suite::store::{RESULT, stage_folder};

/// Facts gathered from the results of a run's stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Models as the backend that opened the original described them, by the name the user gave.
    pub models: BTreeMap<String, ModelInfo>,
    /// Lines that stages added for readers, each once.
    pub warnings: Vec<String>,
    /// How each backend computed, by its label.
    pub arithmetic: BTreeMap<String, Arithmetic>,
    /// How speed was measured, where it was, by the backend's label.
    pub timing: BTreeMap<String, String>,
}

/// How a backend computed.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Arithmetic {
    /// The library that it ran models in, with its version; empty where that is the plugin itself.
    pub library: String,
    /// Precisions, each with the labels of the methods whose results were run in it.
    pub precisions: BTreeMap<String, Vec<String>>,
}

impl Facts {
    /// Reads the results of all stages in a result directory. Stages without a result are passed over: the table says
    /// itself what is missing.
    pub fn read(run: &RunResult, directory: &Path) -> Self {
        let mut facts = Facts::default();
        for stage in run.stages().filter(|stage| !stage.directory.as_os_str().is_empty()) {
            let read = || -> Option<StageResult> {
                let folder = stage_folder(directory, &stage.directory)?;
                serde_json::from_slice(&std::fs::read(folder.join(RESULT)).ok()?).ok()
            };
            if let Some(result) = read() {
                facts.add(&result);
            }
        }
        facts
    }

    /// Adds the facts of one stage.
    pub fn add(&mut self, stage: &StageResult) {
        // A compressed model's files have the checkpoint's precision, not the original's.
        let original = stage.method.is_none() || stage.checkpoint.is_some();
        if let Some(info) = stage.model.info.as_ref().filter(|_| original) {
            self.models.entry(stage.model.reference.clone()).or_insert_with(|| info.clone());
        }
        let backend = stage.backend.as_ref().map(|backend| backend.label.clone()).unwrap_or_default();
        if let Some(info) = stage.model.info.as_ref().filter(|_| stage.checkpoint.is_none()) {
            let arithmetic = self.arithmetic.entry(backend.clone()).or_default();
            arithmetic.library.clone_from(&info.library);
            let method = stage.method.as_ref().map_or(DENSE, |method| &method.label).to_owned();
            let methods = arithmetic.precisions.entry(info.compute.clone()).or_default();
            if !methods.contains(&method) {
                methods.push(method);
            }
        }
        for warning in &stage.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
        if let Some(profile) = &stage.profile {
            self.timing.entry(backend).or_insert_with(|| profile.raw.how.clone());
        }
    }
}
