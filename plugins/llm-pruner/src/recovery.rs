//! Recovery: low-rank changes of all linears, trained on the calibration windows once everything is pruned.

use llmcb_method_kit::lora::{Adapter, warmed_up};
use llmcb_plugin_api::sdk::{Error, Host, LogLevel, Parameter, Result, Tensor, WholeModel};
use rand_pcg::Pcg64;
use rand_pcg::rand_core::Rng;

/// Steps over which the learning rate rises.
const WARMUP: u64 = 100;
/// A stream of its own for the generator of initial values.
const STREAM: u128 = u128::MAX;

/// How long, and how fast.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schedule {
    pub(crate) epochs: u32,
    pub(crate) batch: u32,
    pub(crate) rank: u32,
    pub(crate) alpha: f32,
    pub(crate) learning_rate: f32,
}

/// A linear in training.
struct Trained {
    parameter: Parameter,
    shape: [usize; 2],
    pruned: Vec<f32>,
    adapter: Adapter,
}

/// Trains the model on all calibration windows, and leaves its weights with the changes in them.
pub(crate) fn recover(model: &mut WholeModel<'_>, schedule: &Schedule, host: &Host) -> Result<()> {
    let mut generator = Pcg64::new(u128::from(host.seed()), STREAM);
    let mut trained = Vec::new();
    let mut windows = 0;
    for block in 0..model.blocks() {
        let info = model.block(block)?;
        windows = info.windows;
        for linear in info.linears {
            let shape = linear.shape();
            let uniform = || (generator.next_u32() >> 8) as f32 / 16_777_216.0;
            let adapter = Adapter::new(shape[0], shape[1], schedule.rank as usize, schedule.alpha, uniform)?;
            let parameter = Parameter::of_block(block, linear.name);
            let pruned = model.weight(&parameter)?.to_f32()?;
            trained.push(Trained { parameter, shape, pruned, adapter });
        }
    }
    if windows == 0 {
        return Err(Error::failed("the engine names no calibration windows to train on"));
    }
    let batches: Vec<Vec<u32>> =
        (0..windows).collect::<Vec<u32>>().chunks(schedule.batch as usize).map(<[u32]>::to_vec).collect();
    let steps = u64::from(schedule.epochs) * batches.len() as u64;
    for step in 0..steps {
        host.check_cancelled()?;
        host.progress(step, steps, &format!("recovery: step {} of {steps}", step + 1));
        let batch = &batches[step as usize % batches.len()];
        let parameters: Vec<Parameter> = trained.iter().map(|t| t.parameter.clone()).collect();
        let found = model.gradients(&parameters, batch)?;
        host.log(LogLevel::Debug, format!("recovery, step {}: loss {:.4}", step + 1, found.loss));
        // The first step of a rise from zero would change nothing.
        let rate = warmed_up(schedule.learning_rate, step + 1, WARMUP.min(steps), steps + 1);
        for (linear, gradient) in trained.iter_mut().zip(found.gradients) {
            let place = |e: Error| e.at(linear.parameter.to_string());
            linear.adapter.step(&gradient.to_f32()?, rate).map_err(Error::from).map_err(place)?;
            let weight = linear.adapter.apply(&linear.pruned)?;
            model.set_weight(&linear.parameter, Tensor::from_vec(weight, &linear.shape)?)?;
        }
    }
    Ok(())
}
