//! What method plugins share besides mathematics: option types, walking a block's linears, conversions.

use llmcb_plugin_api::sdk::{Block, Error, Host, Linear, QuantizedWeight, Result, Tensor};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::grid::{GridOptions, Quantized};
use crate::mask::{Mask, Sparsity};
use crate::{KitError, Matrix};

impl From<KitError> for Error {
    fn from(error: KitError) -> Self {
        match error {
            KitError::Option { .. } => Error::invalid(error.to_string()),
            _ => Error::failed(error.to_string()),
        }
    }
}

/// How much of each weight matrix is pruned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SparsityOptions {
    /// Fraction of the weights of each output row that is set to zero. Not used with `pattern`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub ratio: f64,
    /// Semi-structured sparsity `N:M`: of every M neighbouring inputs, N weights are kept, for example `2:4`.
    /// Empty: unstructured, by `ratio`.
    #[schemars(regex(pattern = r"^([0-9]+:[0-9]+)?$"))]
    pub pattern: String,
}

impl Default for SparsityOptions {
    fn default() -> Self {
        SparsityOptions { ratio: 0.5, pattern: String::new() }
    }
}

impl SparsityOptions {
    /// The sparsity they ask for. Errors for a ratio outside 0 to 1 and for a malformed pattern.
    pub fn sparsity(&self) -> Result<Sparsity> {
        if self.pattern.is_empty() {
            if !(0.0..=1.0).contains(&self.ratio) {
                return Err(Error::invalid(format!("ratio = {}: must be from 0 to 1", self.ratio)));
            }
            return Ok(Sparsity::Unstructured { ratio: self.ratio });
        }
        let parsed: Option<(usize, usize)> =
            self.pattern.split_once(':').and_then(|(n, m)| Some((n.parse().ok()?, m.parse().ok()?)));
        match parsed {
            Some((keep, of)) if keep >= 1 && keep < of => Ok(Sparsity::Pattern { prune: of - keep, of }),
            _ => Err(Error::invalid(format!(
                "pattern = {}: must be N:M with N from 1 to M - 1, for example 2:4",
                self.pattern
            ))),
        }
    }
}

/// Group size as options spell it: columns per group, -1 for the whole row.
pub fn group_size(option: i64) -> Result<Option<usize>> {
    match option {
        -1 => Ok(None),
        n if n > 0 => Ok(usize::try_from(n).ok()),
        other => Err(Error::invalid(format!(
            "group_size = {other}: must be -1 (the whole row) or a positive number of columns"
        ))),
    }
}

/// A grid of the given options, checked.
pub fn grid(bits: u8, group: i64, symmetric: bool) -> Result<GridOptions> {
    let options = GridOptions { bits, group_size: group_size(group)?, symmetric, search: None };
    options.validate()?;
    Ok(options)
}

/// Reports that the `at`-th linear of a block is being compressed, and stops when the user asked for it.
pub fn step(block: &Block<'_>, at: usize, linear: &Linear, host: &Host) -> Result<()> {
    host.check_cancelled()?;
    let per_block = block.linears().len() as u64;
    let done = block.index() as u64 * per_block + at as u64;
    let total = u64::from(block.info().of) * per_block;
    host.progress(done, total, &format!("block {}: {}", block.index(), linear.name));
    Ok(())
}

/// The weight of a linear as a matrix `[out, in]`: `values` are those of [`Block::weight`].
pub fn matrix<'a>(values: &'a [f32], linear: &Linear) -> Result<Matrix<'a>> {
    let [rows, columns] = linear.shape();
    Ok(Matrix::new(values, rows, columns)?)
}

/// Names the linear in an error.
pub fn name<T>(result: Result<T>, block: &Block<'_>, linear: &Linear) -> Result<T> {
    result.map_err(|e| e.at(format!("block {}, {}", block.index(), linear.name)))
}

/// Zeroes what a mask prunes.
pub fn prune(block: &mut Block<'_>, linear: &Linear, weight: &[f32], mask: &Mask) -> Result<()> {
    let mut values = weight.to_vec();
    mask.apply(&mut values)?;
    block.set_weight(&linear.name, Tensor::from_vec(values, &linear.shape())?)
}

/// Hands integer codes to the engine.
pub fn quantize(block: &mut Block<'_>, linear: &Linear, quantized: Quantized) -> Result<()> {
    let in_order = quantized.group_size.is_none_or(|size| {
        quantized.group_index.iter().enumerate().all(|(column, group)| *group as usize == column / size)
    });
    let weight = QuantizedWeight {
        rows: quantized.rows,
        columns: quantized.cols,
        bits: u32::from(quantized.bits),
        group_size: quantized.group_size,
        symmetric: quantized.symmetric,
        codes: quantized.codes,
        scales: quantized.scales,
        zeros: quantized.zeros.into_iter().map(f32::from).collect(),
        group_index: (!in_order).then_some(quantized.group_index),
    };
    block.set_quantized(&linear.name, &weight)
}

/// Divides the outputs of a norm by a scale for each feature: its weight, and its bias where it has one.
pub fn divide_norm(block: &mut Block<'_>, norm: &str, scales: &[f32]) -> Result<()> {
    let bias = format!("{norm}.bias");
    if block.weight(&bias).is_ok() {
        divide(block, &bias, scales)?;
    }
    divide(block, norm, scales)
}

/// Divides a norm's weight, or a bias, by scales.
pub fn divide(block: &mut Block<'_>, parameter: &str, scales: &[f32]) -> Result<()> {
    let values = block.weight(parameter)?.to_f32()?;
    if values.len() != scales.len() {
        return Err(Error::failed(format!(
            "{parameter} has {} values, but there are {} scales for it",
            values.len(),
            scales.len()
        )));
    }
    let divided: Vec<f32> = values.iter().zip(scales).map(|(v, s)| v / s).collect();
    let length = divided.len();
    block.set_weight(parameter, Tensor::from_vec(divided, &[length])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparsity_options_are_read_as_the_field_writes_them() {
        let cases = [
            ("", 0.25, Some(Sparsity::Unstructured { ratio: 0.25 })),
            ("2:4", 0.5, Some(Sparsity::Pattern { prune: 2, of: 4 })),
            ("1:4", 0.5, Some(Sparsity::Pattern { prune: 3, of: 4 })),
            ("4:4", 0.5, None),
            ("0:4", 0.5, None),
            ("2", 0.5, None),
            ("", 1.5, None),
            ("", f64::NAN, None),
        ];
        for (pattern, ratio, expected) in cases {
            let options = SparsityOptions { ratio, pattern: pattern.into() };
            assert_eq!(options.sparsity().ok(), expected, "{options:?}");
        }
    }

    #[test]
    fn group_sizes_are_read_as_the_field_writes_them() {
        assert_eq!(group_size(-1).ok(), Some(None));
        assert_eq!(group_size(128).ok(), Some(Some(128)));
        assert!(group_size(0).is_err());
        assert!(group_size(-2).is_err());
    }
}
