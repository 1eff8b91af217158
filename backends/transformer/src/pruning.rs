//! Removing units from a block: heads of attention, and channels of the feed-forward part, each with all that depends on it.

use crate::block::{Block, Role};
use crate::{BlockShape, Error, LlamaConfig, Result};

/// Units that can be removed from a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Structure {
    /// A key and value head with the query heads that read it: they cannot go without each other.
    Heads,
    /// A channel between the linears of the feed-forward part.
    Channels,
}

/// Whether a unit takes rows or columns of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UnitAxis {
    /// Rows: outputs.
    Outputs,
    /// Columns: inputs.
    Inputs,
}

/// What a linear has of each unit: unit `u` has rows or columns `u * width .. (u + 1) * width`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructurePart {
    /// Name of the linear inside the block.
    pub linear: &'static str,
    /// Rows or columns.
    pub axis: UnitAxis,
    /// How many for each unit.
    pub width: usize,
}

impl Structure {
    /// All structures, in the order in which a block computes them.
    pub const ALL: [Structure; 2] = [Structure::Heads, Structure::Channels];

    /// The name used in descriptions.
    pub fn name(self) -> &'static str {
        match self {
            Structure::Heads => "self_attn.heads",
            Structure::Channels => "mlp.channels",
        }
    }

    /// The structure of this name.
    ///
    /// # Errors
    /// [`Error::Argument`] if there is none.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|structure| structure.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            Error::argument(format!("units `{name}`"), format!("a block has only {names}"))
        })
    }

    /// How many units a block of this configuration has.
    pub fn units(self, config: &LlamaConfig) -> usize {
        match self {
            Structure::Heads => config.num_key_value_heads,
            Structure::Channels => config.intermediate_size,
        }
    }

    /// The linears that hold the units.
    pub fn parts(self, config: &LlamaConfig) -> Vec<StructurePart> {
        let group = config.num_attention_heads / config.num_key_value_heads;
        let (outputs, inputs) = (UnitAxis::Outputs, UnitAxis::Inputs);
        let parts = match self {
            Structure::Heads => vec![
                (Role::Query, outputs, group * config.head_dim),
                (Role::Key, outputs, config.head_dim),
                (Role::Value, outputs, config.head_dim),
                (Role::Output, inputs, group * config.head_dim),
            ],
            Structure::Channels => {
                vec![(Role::Gate, outputs, 1), (Role::Up, outputs, 1), (Role::Down, inputs, 1)]
            }
        };
        let part = |(role, axis, width): (Role, _, _)| StructurePart { linear: role.name(), axis, width };
        parts.into_iter().map(part).collect()
    }

    /// The shape of a block that keeps so many units.
    fn shape(self, config: &LlamaConfig, units: usize) -> BlockShape {
        let shape = config.block_shape();
        match self {
            Structure::Heads => BlockShape {
                num_attention_heads: units * (shape.num_attention_heads / shape.num_key_value_heads),
                num_key_value_heads: units,
                ..shape
            },
            Structure::Channels => BlockShape { intermediate_size: units, ..shape },
        }
    }
}

impl Block {
    /// Keeps the given units, in ascending order, and removes all others. Other clones of the block stay as they are.
    ///
    /// # Errors
    /// [`Error::Argument`] if no unit is given, one is beyond the last or out of order, or a weight is integer codes.
    pub fn keep_units(&mut self, structure: Structure, units: &[usize]) -> Result<()> {
        let wrong = |problem: String| Error::argument(format!("units of `{}`", structure.name()), problem);
        let count = structure.units(self.config());
        if units.is_empty() {
            return Err(wrong("none is kept; keep at least one".to_owned()));
        }
        if !units.is_sorted_by(|a, b| a < b) {
            return Err(wrong("they must ascend, each named once".to_owned()));
        }
        if let Some(beyond) = units.iter().find(|unit| **unit >= count) {
            return Err(wrong(format!("there is no unit {beyond}; the block has {count}")));
        }
        let parts = structure.parts(self.config());
        let mut kept = Vec::new();
        for part in &parts {
            let linear = self.linear(part.linear)?;
            if linear.integers().is_some() {
                return Err(wrong(format!(
                    "`{}` is integer codes; remove units before rounding",
                    part.linear
                )));
            }
            let columns = linear.weight.inputs();
            let places = |at: &usize| at * part.width..(at + 1) * part.width;
            let weight = linear.weight();
            let weight: Vec<f32> = match part.axis {
                UnitAxis::Outputs => {
                    let rows = units.iter().flat_map(places);
                    rows.flat_map(|row| &weight[row * columns..][..columns]).copied().collect()
                }
                UnitAxis::Inputs => {
                    let rows = weight.chunks_exact(columns);
                    rows.flat_map(|row| units.iter().flat_map(places).map(|c| row[c])).collect()
                }
            };
            let bias = linear.bias().map(|bias| match part.axis {
                UnitAxis::Outputs => units.iter().flat_map(places).map(|row| bias[row]).collect(),
                UnitAxis::Inputs => bias.to_vec(),
            });
            kept.push((part.linear, weight, bias));
        }
        self.reshape(structure.shape(self.config(), units.len()));
        for (linear, weight, bias) in kept {
            self.set_tensor(&format!("{linear}.weight"), weight)?;
            if let Some(bias) = bias {
                self.set_tensor(&format!("{linear}.bias"), bias)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_are_found_by_name() {
        for structure in Structure::ALL {
            assert_eq!(Structure::from_name(structure.name()).ok(), Some(structure));
        }
        let error = Structure::from_name("mlp.knees").expect_err("no such units").to_string();
        assert!(error.contains("self_attn.heads, mlp.channels"), "{error}");
    }
}
