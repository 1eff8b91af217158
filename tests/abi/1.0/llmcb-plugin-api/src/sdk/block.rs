//! The open block of a model, as a method sees it.

use abi_stable::std_types::{ROption, RString, RVec};

use super::activation::ActivationQuantization;
use super::error::{Error, Result, from_abi};
use super::gradients::{GradientRequest, Gradients, LossGradient};
use super::model::{BlockInfo, Linear, Module, Norm, Structure};
use super::quantized::QuantizedWeight;
use super::statistics::{InputStatistics, StatisticsRequest};
use super::tensor::Tensor;
use crate::abi::method::AbiEngineMut;
use crate::abi::tensor::{AbiNamedTensor, AbiTensor};

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

fn strings(names: &[String]) -> Vec<RString> {
    names.iter().map(|n| RString::from(n.as_str())).collect()
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

    /// Parts of the block whose outputs can be compared on their own.
    pub fn modules(&self) -> &[Module] {
        &self.info.modules
    }

    /// Units that can be removed.
    pub fn structures(&self) -> &[Structure] {
        &self.info.structures
    }

    /// The present weight of a linear, `f32 [out, in]`, or of a norm, `f32 [size]`, or with `NAME.bias` its bias,
    /// `f32 [out]`; not copied.
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

    /// Mean squared difference between the outputs with trial weights and the block's targets: the outputs with the
    /// weights it was opened with, on the same inputs, or for a method that
    /// [aims at dense outputs](super::Descriptor::aims_at_dense_outputs) on the dense model's.
    pub fn output_error(&mut self, trial: Vec<(String, Tensor)>) -> Result<f64> {
        from_abi(self.engine.0.output_error(named(trial)))
    }

    /// [`Block::output_error`] and its gradients with respect to parameters.
    pub fn gradients(&mut self, request: GradientRequest) -> Result<Gradients> {
        let parameters = strings(&request.parameters);
        let answer = from_abi(self.engine.0.gradients(
            parameters.as_slice().into(),
            named(request.trial),
            request.windows.as_slice().into(),
        ))?;
        let gradients = answer.gradients.into_iter();
        Ok(Gradients {
            error: answer.error,
            gradients: gradients
                .map(|g| Ok((g.name.into_string(), Tensor::from_abi(g.tensor)?)))
                .collect::<Result<_>>()?,
        })
    }

    /// Mean squared difference between the outputs of a module with trial parameters and with the present ones, both on
    /// what the module reads with the present ones.
    pub fn module_error(&mut self, module: &str, trial: Vec<(String, Tensor)>) -> Result<f64> {
        from_abi(self.engine.0.module_error(module.into(), named(trial)))
    }

    /// From now on, and in the checkpoint, rounds the activations of a site (one of
    /// [`BlockInfo::activation_sites`]); none: no longer.
    pub fn quantize_activations(
        &mut self,
        site: &str,
        quantization: Option<ActivationQuantization>,
    ) -> Result<()> {
        if let Some(quantization) = &quantization {
            quantization.check()?;
        }
        let json = serde_json::to_string(&quantization)
            .map_err(|e| Error::failed(format!("cannot be written as JSON: {e}")))?;
        from_abi(self.engine.0.quantize_activations(site.into(), json.as_str().into()))
    }

    /// Gradients of the dense model's language-modelling loss over some calibration windows (none: all) with respect to
    /// weights of linears of this block; `mean_square` asks for the second moment as well. The first call runs the dense
    /// model forward and back; later ones, for other blocks too, need not if they name the same windows.
    pub fn loss_gradients(
        &mut self,
        linears: &[&str],
        mean_square: bool,
        windows: &[u32],
    ) -> Result<Vec<LossGradient>> {
        let linears: Vec<RString> = linears.iter().map(|l| RString::from(*l)).collect();
        let from = |tensor: ROption<AbiTensor>| tensor.into_option().map(Tensor::from_abi).transpose();
        from_abi(self.engine.0.loss_gradients(linears.as_slice().into(), mean_square, windows.into()))?
            .into_iter()
            .map(|g| {
                Ok(LossGradient {
                    linear: g.linear.into_string(),
                    gradient: Tensor::from_abi(g.gradient)?,
                    mean_square: from(g.mean_square)?,
                })
            })
            .collect()
    }

    /// Keeps the given units of a structure, in ascending order, and removes all others from every linear that holds
    /// them; [`Block::info`] and the shapes of weights are new afterwards.
    pub fn keep_units(&mut self, structure: &str, units: &[u32]) -> Result<()> {
        from_abi(self.engine.0.keep_units(structure.into(), units.into()))?;
        let json = from_abi(self.engine.0.block_info())?;
        self.info = serde_json::from_str(&json)
            .map_err(|e| Error::failed(format!("the engine's block description: {e}")))?;
        Ok(())
    }
}
