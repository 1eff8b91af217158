//! Normalisation of the residual stream.

use std::sync::Arc;

use crate::architecture::{Architecture, NormKind};
use crate::block::check_length;
use crate::kernels::{layer_norm_rows, rms_norm_rows};
use crate::{Result, TensorSource};

/// A norm: `y = x / sqrt(mean(x^2) + eps) * w` ([`NormKind::Rms`]), or `y = (x - mean(x)) / sqrt(var(x) + eps) * w + b`
/// ([`NormKind::Layer`]).
#[derive(Debug, Clone)]
pub(crate) struct Norm {
    pub weight: Arc<Vec<f32>>,
    /// There with LayerNorm, and only there.
    pub bias: Option<Arc<Vec<f32>>>,
    pub eps: f32,
}

impl Norm {
    /// Loads the norm that is called `name` in full.
    pub(crate) fn load(
        source: &dyn TensorSource,
        name: &str,
        architecture: &Architecture,
        size: usize,
    ) -> Result<Self> {
        let load = |kind: &str| -> Result<Arc<Vec<f32>>> {
            let name = format!("{name}.{kind}");
            let values = source.load(&name)?;
            check_length(&name, &values, size)?;
            Ok(Arc::new(values))
        };
        let bias = match architecture.norm {
            NormKind::Rms => None,
            NormKind::Layer => Some(load("bias")?),
        };
        Ok(Self { weight: load("weight")?, bias, eps: architecture.norm_eps })
    }

    /// One that only normalises.
    pub(crate) fn ones(a: &Architecture) -> Self {
        let bias = a.norm.has_bias().then(|| Arc::new(vec![0.0; a.hidden_size]));
        Self { weight: Arc::new(vec![1.0; a.hidden_size]), bias, eps: a.norm_eps }
    }

    /// Normalises rows `x`, `[rows, size]`, into `y`.
    pub(crate) fn apply(&self, x: &[f32], y: &mut [f32]) {
        match &self.bias {
            None => rms_norm_rows(x, &self.weight, self.eps, y),
            Some(bias) => layer_norm_rows(x, &self.weight, bias, self.eps, y),
        }
    }
}
