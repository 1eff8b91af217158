//! Channel-wise: channels of the residual stream, removed from the whole model at once.

use llmcb_method_kit::{Matrix, units};
use llmcb_plugin_api::sdk::{
    Axis, EMBEDDING, Error, Host, ModelPart, ModelStructure, Parameter, Result, WholeModel,
};

use crate::{Measure, Options, Slopes, chance, grouping, measure};

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
    let by_loss = !matches!(options.importance, Measure::L1 | Measure::L2);
    let windows = options.windows(model.block(0)?.windows);
    let mut parts: Vec<Vec<f64>> = Vec::new();
    let mut rest = structure.parts.as_slice();
    // The published code forgets to sum the embedding's magnitudes over tokens, and then passes over what has the wrong length.
    if let Some((first, others)) = rest.split_first()
        && first.parameter == Parameter::outside(EMBEDDING)
        && !by_loss
    {
        rest = others;
    }
    let total = rest.len() as u64;
    while !rest.is_empty() {
        host.check_cancelled()?;
        host.progress(parts.len() as u64, total, "importance of channels");
        let (now, later) = rest.split_at(how_many(model, rest)?);
        rest = later;
        let mut gradients = Vec::new();
        if by_loss {
            let parameters: Vec<Parameter> = now.iter().map(|part| part.parameter.clone()).collect();
            gradients = once_each(model, &parameters, &windows)?;
        }
        for (at, part) in now.iter().enumerate() {
            let slopes = gradients
                .get(at)
                .map(|gradient| Slopes { gradient: gradient.clone(), mean_square: Vec::new() });
            let channels = of_part(model, part, options.importance, slopes.as_ref());
            parts.push(channels.map_err(|e| e.at(part.parameter.to_string()))?);
        }
    }
    Ok(units::of_units(&parts, structure.units as usize, grouping(options.grouping))?)
}

/// Gradients of parameters, of which some may be named twice.
fn once_each(model: &mut WholeModel<'_>, parameters: &[Parameter], windows: &[u32]) -> Result<Vec<Vec<f32>>> {
    let mut different = parameters.to_vec();
    different.sort();
    different.dedup();
    let found = model.gradients(&different, windows)?;
    let values = found.gradients.iter().map(|tensor| tensor.to_f32()).collect::<Result<Vec<_>>>()?;
    parameters
        .iter()
        .map(|parameter| {
            let place = different.binary_search(parameter);
            place.map(|place| values[place].clone()).map_err(|_| Error::failed("a gradient was lost"))
        })
        .collect()
}

/// How many parts from the first on are looked at together.
fn how_many(model: &WholeModel<'_>, parts: &[ModelPart]) -> Result<usize> {
    let mut elements = 0;
    for (count, part) in parts.iter().enumerate() {
        elements += model.weight(&part.parameter)?.len();
        if elements > MOST_AT_ONCE && count > 0 {
            return Ok(count);
        }
    }
    Ok(parts.len())
}

fn of_part(
    model: &WholeModel<'_>,
    part: &ModelPart,
    importance: Measure,
    slopes: Option<&Slopes>,
) -> Result<Vec<f64>> {
    let weight = model.weight(&part.parameter)?;
    let values = weight.to_f32()?;
    let [rows, columns] = match weight.shape().as_slice() {
        &[rows, columns] => [rows, columns],
        // A norm or a bias: each number is a channel.
        _ => [values.len(), 1],
    };
    let axis = match part.axis {
        Axis::Outputs => units::Axis::Outputs,
        Axis::Inputs => units::Axis::Inputs,
    };
    let matrix = Matrix::new(&values, rows, columns)?;
    Ok(units::of_channels(matrix, axis, &measure(importance, slopes)?)?)
}
