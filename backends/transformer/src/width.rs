//! Removing channels of the residual stream: of the embedding, of every norm, and of all that reads or writes it.

use std::sync::Arc;

use serde_json::json;

use crate::block::{ATTENTION_NORM, MLP_NORM, Role};
use crate::model::{EMBEDDING, FINAL_NORM, OUTPUT_HEAD};
use crate::{ActivationQuantization, Error, LoadOptions, Model, Result, TensorSource, UnitAxis};

/// Which side of a linear's weight is the residual stream.
pub(crate) fn residual_side(role: Role) -> UnitAxis {
    match role {
        Role::Output | Role::Down => UnitAxis::Outputs,
        Role::Query | Role::Key | Role::Value | Role::Gate | Role::Up => UnitAxis::Inputs,
    }
}

/// Which side of a tensor is the residual stream, if any; the only side of a norm or a bias is its outputs.
fn side_of(name: &str) -> Option<UnitAxis> {
    if [EMBEDDING, OUTPUT_HEAD].contains(&name) {
        return Some(UnitAxis::Inputs);
    }
    let of = |owner: &str| name.strip_suffix(".weight").is_some_and(|n| n.ends_with(owner));
    if name == FINAL_NORM || of(ATTENTION_NORM) || of(MLP_NORM) {
        return Some(UnitAxis::Outputs);
    }
    let role = |end: &str| {
        let owner = name.strip_suffix(end)?;
        Role::ALL.into_iter().find(|role| owner.ends_with(role.name()))
    };
    match (role(".weight"), role(".bias")) {
        (Some(role), _) => Some(residual_side(role)),
        (_, Some(role)) => Some(residual_side(role)).filter(|side| *side == UnitAxis::Outputs),
        _ => None,
    }
}

/// Tensors of a model without some channels of its residual stream.
struct Narrowed {
    source: Arc<dyn TensorSource>,
    kept: Vec<usize>,
}

impl TensorSource for Narrowed {
    fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let mut shape = self.source.shape(name)?;
        let extent = match side_of(name) {
            Some(UnitAxis::Outputs) => shape.first_mut(),
            Some(UnitAxis::Inputs) => shape.last_mut(),
            None => None,
        };
        if let Some(extent) = extent {
            *extent = self.kept.len();
        }
        Ok(shape)
    }

    fn load(&self, name: &str) -> Result<Vec<f32>> {
        let values = self.source.load(name)?;
        let shape = self.source.shape(name)?;
        // Of a norm or a bias, "columns" are single numbers.
        let columns = if shape.len() > 1 { shape[shape.len() - 1].max(1) } else { 1 };
        Ok(match side_of(name) {
            None => values,
            Some(UnitAxis::Outputs) => {
                self.kept.iter().flat_map(|&row| &values[row * columns..][..columns]).copied().collect()
            }
            Some(UnitAxis::Inputs) => {
                values.chunks_exact(columns).flat_map(|row| self.kept.iter().map(|&c| row[c])).collect()
            }
        })
    }

    fn input_rounding(&self, linear: &str) -> Result<Option<ActivationQuantization>> {
        self.source.input_rounding(linear)
    }
}

impl Model {
    /// This model with only some channels of its residual stream, in ascending order. Integer weights become numbers; heads and channels of
    /// the feed-forward part stay.
    ///
    /// # Errors
    /// [`Error::Argument`] if no channel is given, or one is beyond the last or out of order.
    pub fn keep_hidden(&self, kept: &[usize]) -> Result<Model> {
        let wrong = |problem: String| Error::argument("channels of the residual stream", problem);
        let count = self.config().hidden_size;
        if kept.is_empty() || !kept.is_sorted_by(|a, b| a < b) {
            return Err(wrong("at least one must be kept, in ascending order, each named once".to_owned()));
        }
        if let Some(beyond) = kept.iter().find(|channel| **channel >= count) {
            return Err(wrong(format!("there is no channel {beyond}; the model has {count}")));
        }
        let mut config = self.original_config().clone();
        config["hidden_size"] = json!(kept.len());
        // Without this it would follow from the hidden size.
        config["head_dim"] = json!(self.config().head_dim);
        let source = Arc::new(Narrowed { source: Arc::clone(self.source()), kept: kept.to_vec() });
        let options = LoadOptions { threads: self.threads() };
        let mut model = Model::from_source(source, config, self.name().to_owned(), &options)?;
        model.keep_files_of(self);
        Ok(model)
    }
}
