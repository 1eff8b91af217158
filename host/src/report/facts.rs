//! What the table's notes say that only the stages' own results know.

use std::collections::BTreeMap;
use std::path::Path;

use llmcb_plugin_api::sdk::ModelInfo;
use serde::Serialize;

use crate::suite::result::{RunResult, StageResult};
use crate::suite::store::{RESULT, stage_folder};

/// Facts gathered from the results of a run's stages.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Facts {
    /// Models as the backend that opened the original described them, by the name the user gave.
    pub models: BTreeMap<String, ModelInfo>,
    /// Lines that stages added for readers, each once.
    pub warnings: Vec<String>,
    /// How speed was measured, where it was.
    pub timing: Option<String>,
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
        for warning in &stage.warnings {
            if !self.warnings.contains(warning) {
                self.warnings.push(warning.clone());
            }
        }
        if let Some(profile) = &stage.profile {
            self.timing.get_or_insert_with(|| profile.raw.how.clone());
        }
    }
}
