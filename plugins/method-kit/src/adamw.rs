//! The optimiser AdamW (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2).

/// Decay of the mean of gradients.
const BETA1: f64 = 0.9;
/// Decay of the mean of squared gradients.
const BETA2: f64 = 0.999;
/// Added to the root, so that it is never zero.
const EPSILON: f32 = 1e-8;

/// The state of AdamW for one array of parameters, with the usual constants 0.9, 0.999 and 1e-8.
#[derive(Debug, Clone)]
pub struct AdamW {
    learning_rate: f32,
    weight_decay: f32,
    steps: i32,
    mean: Vec<f32>,
    square: Vec<f32>,
}

impl AdamW {
    /// For so many parameters.
    pub fn new(parameters: usize, learning_rate: f32, weight_decay: f32) -> Self {
        Self {
            learning_rate,
            weight_decay,
            steps: 0,
            mean: vec![0.0; parameters],
            square: vec![0.0; parameters],
        }
    }

    /// Changes the learning rate of the steps to come.
    pub fn set_learning_rate(&mut self, learning_rate: f32) {
        self.learning_rate = learning_rate;
    }

    /// Takes one step along a gradient.
    ///
    /// # Panics
    /// If there are not as many parameters or gradients as the state is for.
    pub fn step(&mut self, parameters: &mut [f32], gradient: &[f32]) {
        assert_eq!((parameters.len(), gradient.len()), (self.mean.len(), self.mean.len()));
        self.steps = self.steps.saturating_add(1);
        // Rounded after the subtraction, as PyTorch does.
        let (new1, beta2, new2) = ((1.0 - BETA1) as f32, BETA2 as f32, (1.0 - BETA2) as f32);
        let size = (f64::from(self.learning_rate) / (1.0 - BETA1.powi(self.steps))) as f32;
        let correction = (1.0 - BETA2.powi(self.steps)).sqrt() as f32;
        let decay = 1.0 - self.learning_rate * self.weight_decay;
        let state = self.mean.iter_mut().zip(&mut self.square);
        for ((p, &g), (mean, square)) in parameters.iter_mut().zip(gradient).zip(state) {
            *mean += (g - *mean) * new1;
            *square = *square * beta2 + g * g * new2;
            *p = *p * decay - size * (*mean / (square.sqrt() / correction + EPSILON));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_those_of_pytorch() {
        // torch.optim.AdamW(lr=0.1, weight_decay=0.05), gradients (1, -2), (0.5, 0), (-3, 1) at parameters (1, 2).
        let mut optimiser = AdamW::new(2, 0.1, 0.05);
        let mut parameters = [1.0, 2.0];
        for (gradient, expected) in [
            ([1.0, -2.0], [0.895, 2.09]),
            ([0.5, 0.0], [0.797307, 2.146556]),
            ([-3.0, 1.0], [0.828043, 2.15355]),
        ] {
            optimiser.step(&mut parameters, &gradient);
            for (found, expected) in parameters.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        }
    }
}
