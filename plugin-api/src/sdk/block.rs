//! The open block of a model, as a method sees it.

use abi_stable::std_types::{RString, RVec};

use super::error::{Error, Result, from_abi};
use super::model::{BlockInfo, Linear, Norm};
use super::quantized::QuantizedWeight;
use super::statistics::{InputStatistics, StatisticsRequest};
use super::tensor::Tensor;
use crate::abi::method::AbiEngineMut;
use crate::abi::tensor::AbiNamedTensor;

/// What of an engine a block's user may call. It separates the ABI's trait object from [`Block`].
pub(crate) struct EngineAccess<'a>(pub(crate) AbiEngineMut<'a>);

/// One transformer block: its description, weights, statistics of inputs, trial runs.
pub struct Block<'a> {
    info: BlockInfo,
    engine: EngineAccess<'a>,
}

fn named(tensors: Vec<(String, Tensor)>) -> RVec<AbiNamedTensor> {
    tensors
        .into_iter()
        .map(|(name, tensor)| AbiNamedTensor { name: name.into(), tensor: tensor.into_abi() })
        .collect()
}

impl<'a> Block<'a> {
    pub(crate) fn new(info: BlockInfo, engine: EngineAccess<'a>) -> Self {
        Block { info, engine }
    }

    /// The whole description.
    pub fn info(&self) -> &BlockInfo {
        &self.info
    }

    /// Position in the model, from 0.
    pub fn index(&self) -> usize {
        self.info.index as usize
    }

    /// Linears, in the order in which the forward pass reaches them.
    pub fn linears(&self) -> &[Linear] {
        &self.info.linears
    }

    /// Norms, in the order in which the forward pass reaches them.
    pub fn norms(&self) -> &[Norm] {
        &self.info.norms
    }

    /// Linears grouped by the input they share, in the order of the forward pass.
    pub fn input_groups(&self) -> Vec<Vec<Linear>> {
        let mut groups: Vec<Vec<Linear>> = Vec::new();
        for linear in &self.info.linears {
            match groups.iter_mut().find(|g| g[0].input_group == linear.input_group) {
                Some(group) => group.push(linear.clone()),
                None => groups.push(vec![linear.clone()]),
            }
        }
        groups
    }

    /// The present weight of a linear, `f32 [out, in]`, or of a norm, `f32 [size]`; not copied.
    pub fn weight(&self, name: &str) -> Result<Tensor> {
        Tensor::from_abi(from_abi(self.engine.0.weight(name.into()))?)
    }

    /// Replaces a weight.
    pub fn set_weight(&mut self, name: &str, weight: Tensor) -> Result<()> {
        if let Some(linear) = self.info.linears.iter().find(|l| l.name == name)
            && weight.shape() != linear.shape()
        {
            return Err(Error::invalid(format!(
                "weight of {name} has shape {:?}, {:?} expected",
                weight.shape(),
                linear.shape()
            )));
        }
        from_abi(self.engine.0.set_weight(name.into(), weight.into_abi()))
    }

    /// Replaces the weight of a linear by a quantised one; the forward pass then uses the values its codes stand for.
    pub fn set_quantized(&mut self, name: &str, weight: &QuantizedWeight) -> Result<()> {
        from_abi(self.engine.0.set_quantized(name.into(), weight.to_abi()?))
    }

    /// Statistics of inputs of linears over the calibration tokens, with the block's present weights.
    pub fn input_statistics(&mut self, request: &StatisticsRequest) -> Result<Vec<InputStatistics>> {
        let statistics = from_abi(self.engine.0.input_statistics(request.to_abi()))?;
        statistics.into_iter().map(InputStatistics::from_abi).collect()
    }

    /// The block's outputs, `f32 [tokens, hidden]`, with its present weights but for the trial ones.
    pub fn forward(&mut self, trial: Vec<(String, Tensor)>) -> Result<Tensor> {
        Tensor::from_abi(from_abi(self.engine.0.forward(named(trial)))?)
    }

    /// Mean squared difference between the outputs with trial weights and those with the weights the block was
    /// opened with.
    pub fn output_error(&mut self, trial: Vec<(String, Tensor)>) -> Result<f64> {
        from_abi(self.engine.0.output_error(named(trial)))
    }

    /// Gradient of [`Block::output_error`] with respect to weights of linears, at the trial weights.
    pub fn gradients(
        &mut self,
        linears: &[&str],
        trial: Vec<(String, Tensor)>,
    ) -> Result<Vec<(String, Tensor)>> {
        let linears: Vec<RString> = linears.iter().map(|l| RString::from(*l)).collect();
        from_abi(self.engine.0.gradients(linears.as_slice().into(), named(trial)))?
            .into_iter()
            .map(|g| Ok((g.name.into_string(), Tensor::from_abi(g.tensor)?)))
            .collect()
    }
}
