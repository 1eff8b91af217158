//! Gradients that an engine computes for a method.

use super::tensor::Tensor;

/// Which gradients of a block's output error a method wants.
#[derive(Debug, Default)]
pub struct GradientRequest {
    /// Parameters of the open block: names of linears and norms (their weights), or `NAME.bias`.
    pub parameters: Vec<String>,
    /// Parameters that take other values for this call, as in [`Block::forward`](super::Block::forward). The gradient is
    /// taken at these values.
    pub trial: Vec<(String, Tensor)>,
    /// Calibration windows, from 0; none: all of them.
    pub windows: Vec<u32>,
}

impl GradientRequest {
    /// A request for the gradients of some parameters over all windows.
    pub fn of<S: Into<String>>(parameters: impl IntoIterator<Item = S>) -> Self {
        GradientRequest { parameters: parameters.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// Other values for some parameters.
    pub fn at(mut self, trial: Vec<(String, Tensor)>) -> Self {
        self.trial = trial;
        self
    }

    /// Only some windows.
    pub fn windows(mut self, windows: impl IntoIterator<Item = u32>) -> Self {
        self.windows = windows.into_iter().collect();
        self
    }
}

/// An output error and its gradients.
#[derive(Debug)]
pub struct Gradients {
    /// Mean squared difference between the block's outputs and its targets over the windows asked for.
    pub error: f64,
    /// Its gradient with respect to each parameter, in the order of the request, of the parameter's shape.
    pub gradients: Vec<(String, Tensor)>,
}

/// The loss of a finished model and its gradients.
#[derive(Debug)]
pub struct ModelGradients {
    /// Mean over the windows asked for of the mean over a window's predicted tokens of `-ln p`.
    pub loss: f64,
    /// Its gradient with respect to each parameter, in the order of the request, of the parameter's shape.
    pub gradients: Vec<Tensor>,
}

/// The gradient of the dense model's language-modelling loss with respect to the weight of one linear.
#[derive(Debug)]
pub struct LossGradient {
    /// The linear.
    pub linear: String,
    /// Gradient of the loss (mean over the calibration windows asked for of the mean over a window's predicted tokens of `-ln p`),
    /// `f32 [out, in]`.
    pub gradient: Tensor,
    /// Mean over calibration windows of the squared gradient of each window's own loss, `f32 [out, in]`, if it was asked
    /// for: the diagonal of the empirical Fisher information.
    pub mean_square: Option<Tensor>,
}
