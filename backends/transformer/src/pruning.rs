//! Removing units from a block: heads of attention, and channels of the feed-forward part, each with all that depends on it.

use crate::block::Block;
use crate::layout::Role;
use crate::{Architecture, BlockShape, Error, Result};

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

/// What a matrix has of each unit: unit `u` has rows or columns `u * width .. (u + 1) * width`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StructurePart {
    /// The matrix.
    pub role: Role,
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
    pub fn units(self, architecture: &Architecture) -> usize {
        match self {
            Structure::Heads => architecture.num_key_value_heads,
            Structure::Channels => architecture.intermediate_size,
        }
    }

    /// The matrices that hold the units.
    pub fn parts(self, architecture: &Architecture) -> Vec<StructurePart> {
        let group = architecture.num_attention_heads / architecture.num_key_value_heads;
        let head = architecture.head_dim;
        let (outputs, inputs) = (UnitAxis::Outputs, UnitAxis::Inputs);
        let parts = match self {
            Structure::Heads => vec![
                (Role::Query, outputs, group * head),
                (Role::Key, outputs, head),
                (Role::Value, outputs, head),
                (Role::Output, inputs, group * head),
            ],
            Structure::Channels => {
                vec![(Role::Gate, outputs, 1), (Role::Up, outputs, 1), (Role::Down, inputs, 1)]
            }
        };
        let parts = parts.into_iter().map(|(role, axis, width)| StructurePart { role, axis, width });
        parts.filter(|part| part.role.shape(architecture).0 > 0).collect()
    }

    /// The shape of a block that keeps so many units.
    fn shape(self, architecture: &Architecture, units: usize) -> BlockShape {
        let shape = architecture.block_shape();
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
        let count = structure.units(self.architecture());
        if units.is_empty() {
            return Err(wrong("none is kept; keep at least one".to_owned()));
        }
        if !units.is_sorted_by(|a, b| a < b) {
            return Err(wrong("they must ascend, each named once".to_owned()));
        }
        if let Some(beyond) = units.iter().find(|unit| **unit >= count) {
            return Err(wrong(format!("there is no unit {beyond}; the block has {count}")));
        }
        let parts = structure.parts(self.architecture());
        let mut kept = Vec::new();
        for part in parts {
            let matrix = self.role(part.role);
            if matrix.weight.integers().is_some() {
                let name = self.architecture().family.names.holder(part.role, self.architecture());
                return Err(wrong(format!(
                    "`{}` is integer codes; remove units before rounding",
                    name.map_or("a weight", |(linear, _)| linear.name)
                )));
            }
            let columns = matrix.weight.inputs();
            let places = |at: &usize| at * part.width..(at + 1) * part.width;
            let weight = matrix.weight.unpack();
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
            let bias = matrix.bias().map(|bias| match part.axis {
                UnitAxis::Outputs => units.iter().flat_map(places).map(|row| bias[row]).collect(),
                UnitAxis::Inputs => bias.to_vec(),
            });
            kept.push((part.role, weight, bias));
        }
        self.reshape(structure.shape(self.architecture(), units.len()));
        for (role, weight, bias) in kept {
            self.set_matrix(role, &weight, bias);
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
