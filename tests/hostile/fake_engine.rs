//! An engine whose one block is not as it describes it: the weight lies the other way round.

use std::path::Path;

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

struct FakeEngine;

/// It has no options.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {}

const LINEAR: &str = "linear";

fn descriptor() -> Descriptor {
    Descriptor::backend("fake-engine", "Fake engine", env!("CARGO_PKG_VERSION"))
        .summary("Opens a model that is not there.")
        .licence("MIT OR Apache-2.0")
}

fn nothing<T>() -> Result<T> {
    Err(Error::unsupported("there is no model"))
}

impl Engine for FakeEngine {
    type Options = Options;

    fn open(_: &Path, _: Options, _: &Host) -> Result<Self> {
        Ok(FakeEngine)
    }

    fn model(&self) -> ModelInfo {
        ModelInfo { blocks: 1, hidden_size: 3, vocab_size: 10, ..ModelInfo::default() }
    }

    fn encode(&self, texts: &[String], _: bool) -> Result<Vec<Vec<u32>>> {
        Ok(texts.iter().map(|_| vec![1]).collect())
    }

    fn calibrate(&mut self, _: &[Vec<u32>], _: &CalibrationPlan) -> Result<()> {
        Ok(())
    }

    fn open_block(&mut self, _: u32) -> Result<BlockInfo> {
        self.block_info()
    }

    fn block_info(&self) -> Result<BlockInfo> {
        let linear = Linear {
            name: LINEAR.into(),
            out_features: 4,
            in_features: 3,
            input_group: "in".into(),
            bias: false,
            outputs: Vec::new(),
            fed_by: None,
        };
        Ok(BlockInfo {
            index: 0,
            of: 1,
            windows: 1,
            linears: vec![linear],
            norms: Vec::new(),
            heads: 0,
            key_value_heads: 0,
            head_dim: 0,
            modules: Vec::new(),
            structures: Vec::new(),
            activation_sites: Vec::new(),
        })
    }

    fn weight(&self, _: &str) -> Result<Tensor> {
        Tensor::from_vec(vec![0f32; 12], &[3, 4])
    }

    fn set_weight(&mut self, _: &str, _: Tensor) -> Result<()> {
        nothing()
    }

    fn set_quantized(&mut self, _: &str, _: QuantizedWeight) -> Result<()> {
        nothing()
    }

    fn input_statistics(&mut self, _: &StatisticsRequest) -> Result<Vec<InputStatistics>> {
        nothing()
    }

    fn forward(&mut self, _: &[(String, Tensor)]) -> Result<Tensor> {
        nothing()
    }

    fn output_error(&mut self, _: &[(String, Tensor)]) -> Result<f64> {
        nothing()
    }

    fn gradients(&mut self, _: &GradientRequest) -> Result<Gradients> {
        nothing()
    }

    fn close_block(&mut self) -> Result<()> {
        Ok(())
    }

    fn save_block(&mut self, _: &Path) -> Result<()> {
        nothing()
    }

    fn restore_block(&mut self, _: &Path) -> Result<()> {
        nothing()
    }

    fn save_checkpoint(&mut self, _: &Path) -> Result<CheckpointInfo> {
        nothing()
    }
}

llmcb_plugin_api::export_backend!(descriptor = descriptor, engine = FakeEngine);
