//! A compression method for llmcb-host: every weight goes to the nearest point of its row's grid.
//!
//! It works, and it is poor: a row of a weight shares one grid, so a single large weight makes it coarse for all others. Put your
//! own idea in place of `round`.

use llmcb_plugin_api::sdk::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Options of the method. Names, comments, ranges and defaults become its help: `llmcb-host plugins info my-plugin`.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Options {
    /// Bits per weight.
    #[schemars(range(min = 2, max = 8))]
    bits: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { bits: 4 }
    }
}

struct MyPlugin {
    bits: u32,
}

impl Method for MyPlugin {
    type Options = Options;

    fn descriptor() -> Descriptor {
        Descriptor::method("my-plugin", "my-plugin", env!("CARGO_PKG_VERSION"))
            .summary("Rounds every weight to the nearest point of its row's grid.")
            .licence(env!("CARGO_PKG_LICENSE"))
            // What it makes, the likeliest first: integer codes are stored in GPTQ's layout where they fit.
            .formats(&["gptq", "grouped-integer", "dense"])
    }

    fn new(options: Options, _host: &Host) -> Result<Self> {
        // The host has checked ranges; other users of the library may not have.
        if !(2..=8).contains(&options.bits) {
            return Err(Error::invalid(format!(
                "bits = {}: must be from 2 to 8",
                options.bits
            )));
        }
        Ok(MyPlugin { bits: options.bits })
    }

    fn compress_block(&mut self, block: &mut Block<'_>, host: &Host) -> Result<()> {
        for linear in block.linears().to_vec() {
            // Often enough that a user who presses Ctrl-C does not wait.
            host.check_cancelled()?;
            host.progress(
                u64::from(block.info().index),
                u64::from(block.info().of),
                &linear.name,
            );
            let weight = block.weight(&linear.name)?.to_f32()?; // [out, in], row by row
            let rounded = round(&weight, linear.shape(), self.bits)
                .map_err(|e| e.at(format!("block {}, {}", block.index(), linear.name)))?;
            block.set_quantized(&linear.name, &rounded)?;
        }
        Ok(())
    }
}

/// Integer codes for a weight, with a grid for each row: evenly spaced points from its least to its greatest weight, 0 among them.
fn round(weight: &[f32], [rows, columns]: [usize; 2], bits: u32) -> Result<QuantizedWeight> {
    let steps = ((1u32 << bits) - 1) as f32;
    let (mut codes, mut scales, mut zeros) = (Vec::new(), Vec::new(), Vec::new());
    for row in 0..rows {
        let row = &weight[row * columns..(row + 1) * columns];
        let least = row.iter().copied().fold(0.0, f32::min);
        let greatest = row.iter().copied().fold(0.0, f32::max);
        let mut scale = (greatest - least) / steps;
        if !scale.is_finite() || row.iter().any(|w| !w.is_finite()) {
            return Err(Error::failed("a weight is infinite or not a number"));
        }
        if scale == 0.0 {
            // All are 0, or there are none.
            scale = 1.0;
        }
        let zero = (-least / scale).round();
        codes.extend(
            row.iter()
                .map(|w| (w / scale + zero).round().clamp(0.0, steps) as u8),
        );
        scales.push(scale);
        zeros.push(zero);
    }
    Ok(QuantizedWeight {
        rows,
        columns,
        bits,
        group_size: None, // the whole row
        symmetric: false,
        codes,
        scales,
        zeros,
        group_index: None,
    })
}

llmcb_plugin_api::export_method!(MyPlugin);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_moves_by_half_a_step_at_most() {
        let weight = [
            0.7, -0.2, 0.05, 0.3, 0.0, 0.0, 0.0, 0.0, -1.5, -1.0, -0.25, 0.0,
        ];
        for bits in 2..=8 {
            let rounded = round(&weight, [3, 4], bits).unwrap();
            let values = rounded.dequantize().unwrap();
            for (at, (before, after)) in weight.iter().zip(&values).enumerate() {
                // The grid's zero is rounded, too: another half step for weights at the ends.
                let step = rounded.scales[at / 4];
                assert!(
                    (before - after).abs() <= step * 1.001,
                    "{bits} bits: {before} became {after}"
                );
            }
            assert!(values[4..8].iter().all(|w| *w == 0.0));
        }
    }

    #[test]
    fn weights_that_are_no_numbers_are_refused() {
        assert!(round(&[1.0, f32::NAN], [1, 2], 4).is_err());
        assert!(round(&[1.0, f32::INFINITY], [1, 2], 4).is_err());
        assert!(round(&[], [0, 0], 4).is_ok());
    }
}
