//! Removing channels of the residual stream: of the embedding, of every norm, and of all that reads or writes it.

use std::sync::Arc;

use crate::layout::OuterTensor;
use crate::{
    ActivationQuantization, Architecture, Error, LoadOptions, Model, Result, TensorSource, UnitAxis,
};

/// Which side of a tensor is the residual stream, if any; the only side of a norm or a bias is its outputs.
fn side_of(name: &str, architecture: &Architecture) -> Option<UnitAxis> {
    let names = architecture.family.names;
    if let Some((tensor, ..)) = OuterTensor::of(architecture).find(|(_, known, _)| known == name) {
        return tensor.residual_side(architecture);
    }
    let (_, inside) = names.split(name)?;
    let (owner, kind) = inside.rsplit_once('.')?;
    if names.norms.contains(&owner) {
        return Some(UnitAxis::Outputs);
    }
    let side = names.linear(owner)?.group().residual_side();
    Some(side).filter(|side| kind == "weight" || *side == UnitAxis::Outputs)
}

/// Tensors of a model without some channels of its residual stream.
struct Narrowed {
    source: Arc<dyn TensorSource>,
    /// Of the whole model.
    architecture: Architecture,
    kept: Vec<usize>,
}

impl TensorSource for Narrowed {
    fn contains(&self, name: &str) -> bool {
        self.source.contains(name)
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        let mut shape = self.source.shape(name)?;
        let extent = match side_of(name, &self.architecture) {
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
        Ok(match side_of(name, &self.architecture) {
            None => values,
            Some(UnitAxis::Outputs) => {
                self.kept.iter().flat_map(|&row| &values[row * columns..][..columns]).copied().collect()
            }
            Some(UnitAxis::Inputs) => {
                values.chunks_exact(columns).flat_map(|row| self.kept.iter().map(|&c| row[c])).collect()
            }
        })
    }

    fn load_rows(&self, name: &str, rows: &[u32]) -> Result<Vec<f32>> {
        let columns = self.source.shape(name)?.last().copied().unwrap_or_default().max(1);
        match side_of(name, &self.architecture) {
            Some(UnitAxis::Inputs) => {
                let whole = self.source.load_rows(name, rows)?;
                Ok(whole.chunks_exact(columns).flat_map(|row| self.kept.iter().map(|&c| row[c])).collect())
            }
            Some(UnitAxis::Outputs) => {
                let kept: Vec<u32> = rows.iter().map(|&row| self.kept[row as usize] as u32).collect();
                self.source.load_rows(name, &kept)
            }
            None => self.source.load_rows(name, rows),
        }
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
        let count = self.architecture().hidden_size;
        if kept.is_empty() || !kept.is_sorted_by(|a, b| a < b) {
            return Err(wrong("at least one must be kept, in ascending order, each named once".to_owned()));
        }
        if let Some(beyond) = kept.iter().find(|channel| **channel >= count) {
            return Err(wrong(format!("there is no channel {beyond}; the model has {count}")));
        }
        let mut narrow = self.architecture().clone();
        if !narrow.projects() {
            narrow.embedding_size = kept.len();
        } else if narrow.embedding_size == kept.len() {
            return Err(wrong(format!(
                "{} cannot be kept: the embedding is as wide, and a configuration then means that no projection lies between; keep one more or fewer",
                kept.len()
            )));
        }
        narrow.hidden_size = kept.len();
        let mut config = self.original_config().clone();
        if let Some(object) = config.as_object_mut() {
            narrow.spell(object);
        }
        let source = Arc::new(Narrowed {
            source: Arc::clone(self.source()),
            architecture: self.architecture().clone(),
            kept: kept.to_vec(),
        });
        let options =
            LoadOptions { threads: self.threads(), precision: self.precision(), stream: self.streams() };
        let mut model = Model::from_source(source, config, self.name().to_owned(), &options)?;
        model.keep_files_of(self);
        Ok(model)
    }
}
