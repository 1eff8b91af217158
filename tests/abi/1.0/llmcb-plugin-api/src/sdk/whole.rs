//! The whole model, as a method sees it before its blocks are compressed, and once they are.

use std::fmt;

use abi_stable::std_types::ROption;
use serde::{Deserialize, Serialize};

use super::block::EngineAccess;
use super::error::{Error, Result, from_abi};
use super::gradients::ModelGradients;
use super::model::{Axis, BlockInfo};
use super::tensor::Tensor;
use crate::abi::engine::AbiParameter;

/// The embedding, `f32 [vocabulary, hidden]`; the output head as well, where the model has but one matrix for both.
pub const EMBEDDING: &str = "embedding";
/// The last norm, `f32 [hidden]`.
pub const LAST_NORM: &str = "norm";
/// The output head, `f32 [vocabulary, hidden]`, where it is a matrix of its own.
pub const HEAD: &str = "head";

/// A parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Parameter {
    /// The block's index; none for what lies outside the blocks.
    pub block: Option<u32>,
    /// In a block a linear or a norm (its weight), or `NAME.bias`; outside [`EMBEDDING`], [`LAST_NORM`] or [`HEAD`].
    pub name: String,
}

impl Parameter {
    /// A parameter of a block.
    pub fn of_block(block: u32, name: impl Into<String>) -> Self {
        Parameter { block: Some(block), name: name.into() }
    }

    /// A parameter outside the blocks.
    pub fn outside(name: impl Into<String>) -> Self {
        Parameter { block: None, name: name.into() }
    }

    pub(crate) fn from_abi(parameter: &AbiParameter) -> Self {
        Parameter { block: parameter.block.into_option(), name: parameter.name.as_str().to_owned() }
    }

    fn to_abi(&self) -> AbiParameter {
        AbiParameter { block: ROption::from(self.block), name: self.name.as_str().into() }
    }
}

impl fmt::Display for Parameter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.block {
            Some(block) => write!(f, "block {block}, {}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// What a parameter has of each unit of a [`ModelStructure`]: unit `u` has row or column `u`. The only side of a norm or
/// a bias is its outputs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelPart {
    /// The parameter.
    pub parameter: Parameter,
    /// Whether the unit takes a row or a column of it.
    pub axis: Axis,
}

/// Units that can only be removed from all blocks at once: channels of the residual stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelStructure {
    /// Its name, for example `hidden`.
    pub name: String,
    /// How many units there are now.
    pub units: u32,
    /// The parameters that hold them, in the order of the forward pass.
    pub parts: Vec<ModelPart>,
}

/// All blocks of a model, and what lies around them.
pub struct WholeModel<'a> {
    blocks: u32,
    engine: EngineAccess<'a>,
}

impl<'a> WholeModel<'a> {
    pub(crate) fn new(blocks: u32, engine: EngineAccess<'a>) -> Self {
        WholeModel { blocks, engine }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u32 {
        self.blocks
    }

    /// The description of a block: before blocks are compressed of the dense one, afterwards as the method left it.
    pub fn block(&self, index: u32) -> Result<BlockInfo> {
        let json = from_abi(self.engine.0.model_block(index))?;
        serde_json::from_str(&json).map_err(|e| Error::failed(format!("the engine's block description: {e}")))
    }

    /// Units of the whole model that can be removed.
    pub fn structures(&self) -> Result<Vec<ModelStructure>> {
        let json = from_abi(self.engine.0.model_structures())?;
        serde_json::from_str(&json).map_err(|e| Error::failed(format!("the engine's structures: {e}")))
    }

    /// Keeps the given units of a structure, in ascending order, and removes all others from every parameter that holds
    /// them. Only before blocks are compressed.
    pub fn keep_units(&mut self, structure: &str, units: &[u32]) -> Result<()> {
        from_abi(self.engine.0.keep_model_units(structure.into(), units.into()))
    }

    /// The present value of a parameter: `f32 [out, in]` of a linear, `f32 [size]` of a norm or a bias.
    pub fn weight(&self, parameter: &Parameter) -> Result<Tensor> {
        Tensor::from_abi(from_abi(self.engine.0.model_weight(parameter.to_abi()))?)
    }

    /// Replaces a parameter of a block, once all are compressed. A weight of integer codes becomes one of numbers.
    pub fn set_weight(&mut self, parameter: &Parameter, weight: Tensor) -> Result<()> {
        from_abi(self.engine.0.set_model_weight(parameter.to_abi(), weight.into_abi()))
    }

    /// The model's language-modelling loss over some calibration windows (none: all), and its gradients with respect to
    /// parameters, in their order.
    pub fn gradients(&mut self, parameters: &[Parameter], windows: &[u32]) -> Result<ModelGradients> {
        let parameters: Vec<AbiParameter> = parameters.iter().map(Parameter::to_abi).collect();
        let answer = from_abi(self.engine.0.model_gradients(parameters.as_slice().into(), windows.into()))?;
        if answer.gradients.len() != parameters.len() {
            return Err(Error::failed(format!(
                "the engine gave {} of {} gradients",
                answer.gradients.len(),
                parameters.len()
            )));
        }
        let gradients = answer.gradients.into_iter().map(Tensor::from_abi).collect::<Result<_>>()?;
        Ok(ModelGradients { loss: answer.loss, gradients })
    }
}
