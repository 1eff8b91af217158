//! Channel-wise: channels of the residual stream, removed from the whole model at once.

use std::collections::{BTreeMap, BTreeSet};

use llmcb_method_kit::{Matrix, units};
use llmcb_plugin_api::sdk::{
    Axis, EMBEDDING, Error, Host, ModelPart, ModelStructure, Parameter, Result, Tensor, WholeModel,
};

use crate::{Measure, Options, Slopes, chance, measure};

/// Most elements of the gradients that are asked for at once: each request runs the model forward and back.
const MOST_AT_ONCE: usize = 1 << 28;
/// The place of a block, for draws by chance, where no block is meant.
const NO_BLOCK: u32 = u32::MAX;

/// Removes the least important channels.
pub(crate) fn narrow(model: &mut WholeModel<'_>, options: &Options, host: &Host) -> Result<()> {
    let structure = model.structures()?.into_iter().next().ok_or_else(|| {
        Error::unsupported("this engine names no channels that can be removed from the whole model")
    })?;
    let importance = match options.importance {
        Measure::Random => chance(host.seed(), NO_BLOCK, 0, structure.units),
        _ => importance(model, &structure, options, host)?,
    };
    let removed = units::count_removed(importance.len(), 1, options.ratio);
    let kept: Vec<u32> = units::kept(&importance, removed).into_iter().map(|unit| unit as u32).collect();
    model.keep_units(&structure.name, &kept)
}

fn importance(
    model: &mut WholeModel<'_>,
    structure: &ModelStructure,
    options: &Options,
    host: &Host,
) -> Result<Vec<f64>> {
    let by_loss = options.importance.by_loss();
    let windows = options.windows(model.block(0)?.windows);
    let mut parts = structure.parts.as_slice();
    // The published code forgets to sum the embedding's magnitudes over tokens, and then passes over what has the wrong length.
    if let Some((first, others)) = parts.split_first()
        && first.parameter == Parameter::outside(EMBEDDING)
        && !by_loss
    {
        parts = others;
    }
    let total = parts.len() as u64;
    let mut found: Vec<Vec<f64>> = Vec::with_capacity(parts.len());
    let mut group: Vec<&ModelPart> = Vec::new();
    let mut elements = 0;
    for part in parts {
        // Magnitudes need nothing from one another. Where gradients are needed, weights are read again beside theirs, one at a time, lest a
        // whole group of both is held.
        let length = if by_loss { model.weight(&part.parameter)?.len() } else { MOST_AT_ONCE };
        if elements + length > MOST_AT_ONCE && !group.is_empty() {
            found.extend(of_group(model, &group, options.importance, &windows)?);
            group.clear();
            elements = 0;
        }
        host.check_cancelled()?;
        host.progress(found.len() as u64, total, "importance of channels");
        elements += length;
        group.push(part);
    }
    found.extend(of_group(model, &group, options.importance, &windows)?);
    Ok(units::of_units(&found, structure.units as usize, options.grouping)?)
}

/// Importance of the channels in each of some parts.
fn of_group(
    model: &mut WholeModel<'_>,
    group: &[&ModelPart],
    importance: Measure,
    windows: &[u32],
) -> Result<Vec<Vec<f64>>> {
    let mut slopes = BTreeMap::new();
    if importance.by_loss() {
        // A matrix with two uses stands in two parts; its gradient is one.
        let different: BTreeSet<Parameter> = group.iter().map(|part| part.parameter.clone()).collect();
        let different = Vec::from_iter(different);
        let found = model.gradients(&different, windows)?;
        for (parameter, gradient) in different.into_iter().zip(found.gradients) {
            slopes.insert(parameter, Slopes { gradient: gradient.to_f32()?, mean_square: Vec::new() });
        }
    }
    let channels = group.iter().map(|part| {
        let weight = model.weight(&part.parameter)?;
        let channels = of_part(&weight, part.axis, importance, slopes.get(&part.parameter));
        channels.map_err(|e| e.at(part.parameter.to_string()))
    });
    channels.collect()
}

fn of_part(weight: &Tensor, axis: Axis, importance: Measure, slopes: Option<&Slopes>) -> Result<Vec<f64>> {
    let values = weight.to_f32()?;
    let [rows, columns] = match weight.shape().as_slice() {
        &[rows, columns] => [rows, columns],
        // A norm or a bias: each number is a channel.
        _ => [values.len(), 1],
    };
    let axis = match axis {
        Axis::Outputs => units::Axis::Outputs,
        Axis::Inputs => units::Axis::Inputs,
    };
    let matrix = Matrix::new(&values, rows, columns)?;
    Ok(units::of_channels(matrix, axis, &measure(importance, slopes)?)?)
}
