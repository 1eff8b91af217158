//! Safe handles on instances that live in a plugin.

use std::path::Path;
use std::sync::Arc;

use abi_stable::std_types::{RString, RVec};
use serde::de::DeserializeOwned;

use crate::abi::engine::AbiEngineBox;
use crate::abi::error::AbiResult;
use crate::abi::host::AbiHostArc;
use crate::abi::method::AbiMethodBox;
use crate::abi::runner::{AbiRunnerBox, AbiScoreRequest};
use crate::sdk::{
    Block, BlockInfo, CalibrationPlan, CheckpointInfo, Engine, EngineAccess, Error, HostServices, ModelInfo,
    Profile, Result, Score, ScoreRequest, WholeModel, Workload,
};

pub(super) fn services(host: Arc<dyn HostServices>) -> AbiHostArc {
    crate::sdk::services_to_abi(host)
}

pub(super) fn from_json<T: DeserializeOwned>(what: &str, text: &str) -> Result<T> {
    serde_json::from_str(text)
        .map_err(|e| Error::failed(format!("the plugin's {what} is not what the ABI demands: {e}")))
}

pub(super) fn path_text(path: &Path) -> Result<String> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| Error::invalid(format!("{}: the path is not valid UTF-8", path.display())))
}

fn ok<T>(result: AbiResult<T>) -> Result<T> {
    result.into_result().map_err(Error::from)
}

fn to_strings(texts: &[String]) -> Vec<RString> {
    texts.iter().map(|t| RString::from(t.as_str())).collect()
}

fn to_sequences(sequences: &[Vec<u32>]) -> Vec<RVec<u32>> {
    sequences.iter().map(|s| RVec::from(s.clone())).collect()
}

fn from_sequences(sequences: RVec<RVec<u32>>) -> Vec<Vec<u32>> {
    sequences.into_iter().map(RVec::into_vec).collect()
}

/// An instance of a method.
pub struct MethodHandle(AbiMethodBox);

impl MethodHandle {
    pub(super) fn new(method: AbiMethodBox) -> Self {
        MethodHandle(method)
    }

    /// Lets the method compress the block that is open in the engine.
    pub fn compress_block(&mut self, engine: &mut EngineHandle, block: &BlockInfo) -> Result<()> {
        let json = serde_json::to_string(block).map_err(|e| Error::failed(e.to_string()))?;
        ok(self.0.compress_block(engine.0.sabi_reborrow_mut(), json.as_str().into()))
    }

    /// Lets the method work on the dense model of `blocks` blocks.
    pub fn prepare(&mut self, engine: &mut EngineHandle, blocks: u32) -> Result<()> {
        ok(self.0.prepare(engine.0.sabi_reborrow_mut(), blocks))
    }

    /// Lets the method work on the model whose `blocks` blocks are all closed.
    pub fn finish(&mut self, engine: &mut EngineHandle, blocks: u32) -> Result<()> {
        ok(self.0.finish(engine.0.sabi_reborrow_mut(), blocks))
    }
}

/// A model opened for compression.
pub struct EngineHandle(AbiEngineBox);

impl EngineHandle {
    pub(super) fn new(engine: AbiEngineBox) -> Self {
        EngineHandle(engine)
    }

    /// An engine of the host's own, reached through the same ABI as a plugin's: what conformance checks hand to methods.
    pub fn in_process<E: Engine>(engine: E) -> Self {
        EngineHandle(crate::export::engine_box(engine))
    }

    /// The model.
    pub fn model(&self) -> Result<ModelInfo> {
        from_json("model description", &ok(self.0.model())?)
    }

    /// Token ids of texts.
    pub fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        Ok(from_sequences(ok(self.0.encode(to_strings(texts).as_slice().into(), add_special))?))
    }

    /// Embeds the calibration windows.
    pub fn calibrate(&mut self, windows: &[Vec<u32>], plan: &CalibrationPlan) -> Result<()> {
        let plan = serde_json::to_string(plan).map_err(|e| Error::failed(e.to_string()))?;
        ok(self.0.calibrate(to_sequences(windows).as_slice().into(), plan.as_str().into()))
    }

    /// Opens the next block.
    pub fn open_block(&mut self, index: u32) -> Result<BlockInfo> {
        from_json("block description", &ok(self.0.open_block(index))?)
    }

    /// The open block as it is now.
    pub fn block_info(&self) -> Result<BlockInfo> {
        from_json("block description", &ok(self.0.block_info())?)
    }

    /// The open block as methods see it, for checks and reports of the host.
    pub fn block(&mut self, info: BlockInfo) -> Block<'_> {
        Block::new(info, EngineAccess(self.0.sabi_reborrow_mut()))
    }

    /// The model of `blocks` blocks as methods see it.
    pub fn whole(&mut self, blocks: u32) -> WholeModel<'_> {
        WholeModel::new(blocks, EngineAccess(self.0.sabi_reborrow_mut()))
    }

    /// Finishes the open block.
    pub fn close_block(&mut self) -> Result<()> {
        ok(self.0.close_block())
    }

    /// Writes the open block's parameters to a file.
    pub fn save_block(&mut self, file: &Path) -> Result<()> {
        ok(self.0.save_block(path_text(file)?.as_str().into()))
    }

    /// Sets the open block's parameters from a file.
    pub fn restore_block(&mut self, file: &Path) -> Result<()> {
        ok(self.0.restore_block(path_text(file)?.as_str().into()))
    }

    /// Writes a checkpoint into an existing, empty directory.
    pub fn save_checkpoint(&mut self, directory: &Path) -> Result<CheckpointInfo> {
        from_json(
            "checkpoint description",
            &ok(self.0.save_checkpoint(path_text(directory)?.as_str().into()))?,
        )
    }
}

/// A model loaded for evaluation.
pub struct RunnerHandle(AbiRunnerBox);

impl RunnerHandle {
    pub(super) fn new(runner: AbiRunnerBox) -> Self {
        RunnerHandle(runner)
    }

    /// The model.
    pub fn model(&self) -> Result<ModelInfo> {
        from_json("model description", &ok(self.0.model())?)
    }

    /// Token ids of texts.
    pub fn encode(&self, texts: &[String], add_special: bool) -> Result<Vec<Vec<u32>>> {
        Ok(from_sequences(ok(self.0.encode(to_strings(texts).as_slice().into(), add_special))?))
    }

    /// Text of token ids.
    pub fn decode(&self, tokens: &[u32]) -> Result<String> {
        Ok(ok(self.0.decode(tokens.into()))?.into_string())
    }

    /// Scores a batch; as many results as requests, in their order.
    pub fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<Score>> {
        let abi: Vec<AbiScoreRequest> = requests
            .iter()
            .map(|r| AbiScoreRequest {
                context: r.context.clone().into(),
                continuation: r.continuation.clone().into(),
            })
            .collect();
        let scores = ok(self.0.score(abi.as_slice().into()))?;
        if scores.len() != requests.len() {
            return Err(Error::failed(format!(
                "the runner answered {} of {} requests",
                scores.len(),
                requests.len()
            )));
        }
        Ok(scores
            .into_iter()
            .map(|s| Score {
                log_likelihood: s.log_likelihood,
                greedy: s.greedy,
                truncated: s.truncated,
                token_log_likelihoods: s.token_log_likelihoods.into_vec(),
            })
            .collect())
    }

    /// Greedy continuations of prompts.
    pub fn generate(
        &mut self,
        prompts: &[Vec<u32>],
        max_new_tokens: u32,
        stop: &[u32],
    ) -> Result<Vec<Vec<u32>>> {
        Ok(from_sequences(ok(self.0.generate(
            to_sequences(prompts).as_slice().into(),
            max_new_tokens,
            stop.into(),
        ))?))
    }

    /// Times a workload.
    pub fn profile(&mut self, workload: &Workload) -> Result<Profile> {
        let json = serde_json::to_string(workload).map_err(|e| Error::failed(e.to_string()))?;
        from_json("profile", &ok(self.0.profile(json.as_str().into()))?)
    }
}
