//! A method that was built against plugin ABI 1.0. It rounds each row of a weight to the better of two grids, weighing errors by how
//! strong each input is, and uses much of what an engine and a host offer on the way.

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a resumed stage goes on from.
const STATE: &str = "linears";

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Bits of a code.
    #[schemars(range(min = 2, max = 8))]
    bits: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { bits: 4 }
    }
}

struct Kept {
    bits: u32,
    /// Linears done so far, in all blocks.
    done: u64,
}

/// A weight's row as codes, with scale, zero and the weighted error.
fn round(row: &[f32], strength: &[f32], bits: u32, shrink: f32) -> (Vec<u8>, f32, f32, f64) {
    let (low, high) = row.iter().fold((0f32, 0f32), |(low, high), w| (low.min(*w), high.max(*w)));
    let steps = ((1u32 << bits) - 1) as f32;
    let scale = match (high - low) * shrink / steps {
        width if width > 0.0 => width,
        _ => 1.0,
    };
    let zero = (-low * shrink / scale).round().clamp(0.0, steps);
    let mut error = 0.0;
    let codes = row
        .iter()
        .zip(strength)
        .map(|(weight, strength)| {
            let code = (weight / scale + zero).round().clamp(0.0, steps);
            let off = f64::from(scale * (code - zero) - weight);
            error += f64::from(*strength) * off * off;
            code as u8
        })
        .collect();
    (codes, scale, zero, error)
}

impl Kept {
    fn quantize(&self, linear: &Linear, weight: &[f32], strength: &[f32]) -> QuantizedWeight {
        let [rows, columns] = linear.shape();
        let mut quantized = QuantizedWeight {
            rows,
            columns,
            bits: self.bits,
            group_size: None,
            symmetric: false,
            codes: Vec::with_capacity(rows * columns),
            scales: Vec::with_capacity(rows),
            zeros: Vec::with_capacity(rows),
            group_index: None,
        };
        for at in 0..rows {
            let row = &weight[at * columns..(at + 1) * columns];
            let whole = round(row, strength, self.bits, 1.0);
            let narrower = round(row, strength, self.bits, 0.9);
            let (codes, scale, zero, _) = if narrower.3 < whole.3 { narrower } else { whole };
            quantized.codes.extend(codes);
            quantized.scales.push(scale);
            quantized.zeros.push(zero);
        }
        quantized
    }
}

impl Method for Kept {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("abi-1-0-method", "ABI 1.0", env!("CARGO_PKG_VERSION"))
            .summary("Rounds each row to the better of two grids, as plugins of ABI 1.0 could.")
            .description("Built from kept sources, to show that plugins of that ABI work.")
            .citation("Nothing", "Nobody", "Nowhere", "https://example.org")
            .licence("MIT OR Apache-2.0")
            .authors("The llmcb-host authors")
            .formats(&["gptq", "grouped-integer", "dense"])
            .needs_calibration()
    }

    fn new(options: Options, host: &Host) -> Result<Self> {
        if !(2..=8).contains(&options.bits) {
            return Err(Error::invalid(format!("bits = {}: must be from 2 to 8", options.bits)));
        }
        host.log(LogLevel::Info, format!("seed {}, {} threads", host.seed(), host.threads()));
        Ok(Kept { bits: options.bits, done: 0 })
    }

    fn prepare(&mut self, model: &mut WholeModel<'_>, host: &Host) -> Result<()> {
        let mut linears = 0;
        for index in 0..model.blocks() {
            host.check_cancelled()?;
            linears += model.block(index)?.linears.len();
        }
        host.log(LogLevel::Info, format!("{linears} linears in {} blocks", model.blocks()));
        Ok(())
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        if let Some(bytes) = host.load_state(STATE)? {
            let bytes = bytes.try_into().map_err(|_| Error::failed("the state is not what was kept"))?;
            self.done = u64::from_le_bytes(bytes);
        }
        for group in block.input_groups() {
            let names = group.iter().map(|linear| linear.name.as_str());
            let request = StatisticsRequest::of(names).sum_squares().gram().magnitudes().rows(4);
            let statistics = block.input_statistics(&request)?;
            for linear in &group {
                host.check_cancelled()?;
                host.progress(u64::from(block.info().index), u64::from(block.info().of), &linear.name);
                let of = statistics.iter().find(|s| s.linear == linear.name);
                let of = of.ok_or_else(|| Error::failed(format!("no statistics of {}", linear.name)))?;
                let absent = || Error::failed(format!("statistics of {} are not complete", linear.name));
                let strength = of.sum_squares.as_ref().ok_or_else(absent)?.to_f32()?;
                let gram = of.gram.as_ref().ok_or_else(absent)?.to_f32()?;
                let columns = linear.in_features as usize;
                // What one calibration text gives twice must be the same twice.
                for (at, squares) in strength.iter().enumerate() {
                    let other = gram[at * columns + at];
                    if (squares - other).abs() > 1e-3 * squares.abs().max(1e-6) {
                        return Err(Error::failed(format!("{}: {squares} is not {other}", linear.name)));
                    }
                }
                let rows = of.rows.as_ref().ok_or_else(absent)?.shape();
                if rows.get(1) != Some(&columns) || of.abs_max.is_none() || of.abs_mean.is_none() {
                    return Err(absent());
                }
                let weight = block.weight(&linear.name)?.to_f32()?;
                if weight.iter().any(|w| !w.is_finite()) {
                    return Err(Error::failed(format!("{} has a weight that is not finite", linear.name)));
                }
                let quantized = self.quantize(linear, &weight, &strength);
                let trial = Tensor::from_vec(quantized.dequantize()?, &linear.shape())?;
                let error = block.output_error(vec![(linear.name.clone(), trial)])?;
                host.log(LogLevel::Debug, format!("{}: output error {error:e}", linear.name));
                block.set_quantized(&linear.name, &quantized)?;
                self.done += 1;
            }
        }
        host.save_state(STATE, &self.done.to_le_bytes())
    }

    fn finish(&mut self, model: &mut WholeModel<'_>, host: &Host) -> Result<()> {
        host.log(LogLevel::Info, format!("{} linears of {} blocks are done", self.done, model.blocks()));
        Ok(())
    }
}

llmcb_plugin_api::export_method!(Kept);
