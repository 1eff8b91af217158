//! Walking blocks: statistics, trials, gradients and going on where a walk was left.

mod support;

use std::sync::Arc;

use llmcb_transformer::{
    ActivationQuantization, ActivationSite, Batch, Block, BlockInputs, CalibrationOptions, Calibrator, Error,
    InputGroup, Model, ModuleInfo, NormOrder, Parameter, Role, StatisticKind, StatisticRequest, Structure,
    model_gradients,
};
use support::{CASES, linear, model, tokens, weight_name};

fn windows() -> Vec<Vec<u32>> {
    vec![tokens(1, 20, 96), tokens(2, 33, 96), tokens(3, 64, 96)]
}

fn calibrator(model: &Arc<Model>) -> Calibrator {
    let options = CalibrationOptions { batch_tokens: 60, ..CalibrationOptions::default() };
    Calibrator::new(Arc::clone(model), windows(), options).unwrap()
}

fn request(linear: &str, kind: StatisticKind) -> StatisticRequest {
    StatisticRequest { linear: linear.to_owned(), kind }
}

fn multiply(x: &[f32], weight: &[f32], inputs: usize) -> Vec<f64> {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
    x.chunks(inputs).flat_map(|row| weight.chunks(inputs).map(move |w| dot(row, w))).collect()
}

fn close(a: &[f32], b: &[f32], tolerance: f32) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() <= tolerance)
}

fn set_weight(calibrator: &mut Calibrator, linear: &str, values: Vec<f32>) {
    let name = format!("{linear}.weight");
    calibrator.change_block(|block| block.set_tensor(&name, values)).unwrap();
}

#[test]
fn walking_all_blocks_is_the_forward_pass() {
    for name in CASES {
        let model = Arc::new(model(name, 2));
        let mut calibrator = calibrator(&model);
        for index in 0..model.block_count() {
            calibrator.open_block(index).unwrap();
            let ahead = calibrator.forward_block(&[]).unwrap();
            assert_eq!(calibrator.output_error(&[]).unwrap(), 0.0);
            calibrator.close_block().unwrap();
            assert_eq!(ahead, calibrator.inputs().unwrap());
        }
        let mut batch = Batch::default();
        for window in windows() {
            batch.push(&window, Vec::new());
        }
        assert_eq!(calibrator.inputs().unwrap(), model.forward(&batch, &mut [], &[]).unwrap(), "{name}");
    }
}

#[test]
fn statistics_are_those_of_the_inputs_of_each_linear() {
    let model = Arc::new(model("qwen2-bias", 2));
    let mut calibrator = calibrator(&model);
    calibrator.open_block(0).unwrap();
    let all = StatisticKind::Rows { count: usize::MAX };
    let linears = model.block_info().linears.clone();
    let rows = calibrator
        .input_statistics(&linears.iter().map(|l| request(&l.name, all)).collect::<Vec<_>>())
        .unwrap();
    let grams = calibrator
        .input_statistics(&linears.iter().map(|l| request(&l.name, StatisticKind::Gram)).collect::<Vec<_>>())
        .unwrap();
    for ((linear, rows), gram) in linears.iter().zip(&rows).zip(&grams) {
        assert_eq!(rows.shape, [117, linear.in_features]);
        let n = linear.in_features;
        for i in 0..n {
            for j in 0..n {
                let want: f64 = rows.values.chunks(n).map(|row| f64::from(row[i]) * f64::from(row[j])).sum();
                assert!((f64::from(gram.values[i * n + j]) - want).abs() < 1e-3 * (1.0 + want.abs()));
            }
        }
    }
    // Query, key and value share one input; so do gate and up. What o_proj and down_proj read gives the block's output.
    assert!(std::sync::Arc::ptr_eq(&rows[0], &rows[2]) && std::sync::Arc::ptr_eq(&rows[4], &rows[5]));
    let block = calibrator.block().unwrap().clone();
    let outputs = calibrator.forward_block(&[]).unwrap();
    let attention = multiply(&rows[3].values, &block.linear("self_attn.o_proj").unwrap().weight(), 64);
    let gated = multiply(&rows[6].values, &block.linear("mlp.down_proj").unwrap().weight(), 112);
    let inputs = calibrator.inputs().unwrap();
    for (i, output) in outputs.iter().enumerate() {
        let want = f64::from(inputs[i]) + attention[i] + gated[i];
        assert!((f64::from(*output) - want).abs() < 1e-4);
    }
    // The gated activations follow from what gate_proj and up_proj read.
    let gate = multiply(&rows[4].values, &block.linear("mlp.gate_proj").unwrap().weight(), 64);
    let up = multiply(&rows[5].values, &block.linear("mlp.up_proj").unwrap().weight(), 64);
    for ((g, u), got) in gate.iter().zip(&up).zip(&rows[6].values) {
        assert!((f64::from(*got) - g / (1.0 + (-g).exp()) * u).abs() < 1e-4);
    }
}

#[test]
fn statistics_follow_replaced_weights_and_skip_first_tokens() {
    let model = Arc::new(model("llama2", 2));
    let kind = StatisticKind::AbsMax;
    let mut plain = calibrator(&model);
    plain.open_block(0).unwrap();
    let before = plain.input_statistics(&[request("mlp.down_proj", kind)]).unwrap();
    let weight = plain.block().unwrap().linear("mlp.up_proj").unwrap().weight();
    set_weight(&mut plain, "mlp.up_proj", weight.iter().map(|w| 2.0 * w).collect());
    let after = plain.input_statistics(&[request("mlp.down_proj", kind)]).unwrap();
    let doubled: Vec<f32> = before[0].values.iter().map(|v| 2.0 * v).collect();
    assert!(close(&after[0].values, &doubled, 1e-5));

    let options = CalibrationOptions { batch_tokens: 60, skip_first: 25, ..CalibrationOptions::default() };
    let mut skipping = Calibrator::new(Arc::clone(&model), windows(), options).unwrap();
    skipping.open_block(0).unwrap();
    let rows = StatisticKind::Rows { count: usize::MAX };
    let got = skipping.input_statistics(&[request("self_attn.q_proj", rows)]).unwrap();
    assert_eq!((got[0].tokens, got[0].shape[0]), (8 + 39, 8 + 39));
}

#[test]
fn trials_leave_the_block_as_it_is() {
    let model = Arc::new(model("smollm2-tied", 2));
    let mut calibrator = calibrator(&model);
    calibrator.open_block(0).unwrap();
    let dense = calibrator.forward_block(&[]).unwrap();
    let name = "mlp.down_proj.weight";
    let zeros = vec![0.0; 48 * 80];
    let trial = [(name.to_owned(), zeros.clone())];
    let tried = calibrator.forward_block(&trial).unwrap();
    let error = calibrator.output_error(&trial).unwrap();
    let want: f64 =
        tried.iter().zip(&dense).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / dense.len() as f64;
    assert!((error - want).abs() < 1e-6 * want && error > 0.0);
    assert_eq!(calibrator.forward_block(&[]).unwrap(), dense);
    calibrator.change_block(|block| block.set_tensor(name, zeros)).unwrap();
    assert_eq!(calibrator.forward_block(&[]).unwrap(), tried);
    assert!((calibrator.output_error(&[]).unwrap() - error).abs() < 1e-12);
    let closed = calibrator.close_block().unwrap();
    assert!(closed.tensor(name).unwrap().iter().all(|&v| v == 0.0));
    assert_eq!(calibrator.inputs().unwrap(), tried);
}

#[test]
fn a_walk_goes_on_where_it_was_left() {
    let model = Arc::new(model("llama3-gqa", 2));
    let mut first = calibrator(&model);
    first.open_block(0).unwrap();
    set_weight(&mut first, "self_attn.v_proj", vec![0.01; 32 * 64]);
    let saved: Block = first.close_block().unwrap();
    let mut resumed = calibrator(&model);
    resumed.seek(1, &mut |_| Ok(Some(saved.clone()))).unwrap();
    assert_eq!((resumed.position(), resumed.inputs().unwrap()), (1, first.inputs().unwrap()));
    // Back to the beginning, and forth with the model's own weights.
    first.seek(0, &mut |_| Ok(None)).unwrap();
    let dense = calibrator(&model);
    assert_eq!(first.inputs().unwrap(), dense.inputs().unwrap());
    assert!(first.seek(3, &mut |_| Ok(None)).is_err());
}

#[test]
fn calls_out_of_order_are_named() {
    let model = Arc::new(model("llama2", 1));
    let mut calibrator = calibrator(&model);
    assert!(matches!(calibrator.forward_block(&[]), Err(Error::Order(_))));
    assert!(matches!(calibrator.close_block(), Err(Error::Order(_))));
    assert!(matches!(calibrator.open_block(1), Err(Error::Order(_))));
    calibrator.open_block(0).unwrap();
    assert!(matches!(calibrator.open_block(0), Err(Error::Order(_))));
    let gram = request("mlp.nothing", StatisticKind::Gram);
    assert!(calibrator.input_statistics(&[gram]).unwrap_err().to_string().contains("mlp.nothing"));
    for (name, values) in [
        ("mlp.up_proj.weight", vec![0.0; 3]),
        ("mlp.up_proj.bias", vec![0.0; 112]),
        ("nothing", vec![]),
        ("x.weight", vec![]),
    ] {
        let message =
            calibrator.change_block(|block| block.set_tensor(name, values)).unwrap_err().to_string();
        assert!(message.contains(name), "{message}");
    }
    for windows in [vec![], vec![vec![]], vec![vec![0; 65]], vec![vec![96]]] {
        assert!(Calibrator::new(Arc::clone(&model), windows, CalibrationOptions::default()).is_err());
    }
}

#[test]
fn gradients_agree_with_finite_differences() {
    for name in CASES {
        let model = Arc::new(model(name, 2));
        let mut calibrator = calibrator(&model);
        calibrator.open_block(0).unwrap();
        let linears: Vec<String> = model.block_info().linears.iter().map(|l| l.name.clone()).collect();
        let names: Vec<&str> = linears.iter().map(String::as_str).collect();
        // Away from the minimum: every weight scaled a little, each linear by another factor.
        let trial: Vec<(String, Vec<f32>)> = names
            .iter()
            .enumerate()
            .map(|(i, name)| {
                let weight = calibrator.block().unwrap().linear(name).unwrap().weight();
                (format!("{name}.weight"), weight.iter().map(|w| w * (0.6 + 0.1 * i as f32)).collect())
            })
            .collect();
        let tensors: Vec<&str> = trial.iter().map(|(name, _)| name.as_str()).collect();
        let (error, gradients) = calibrator.block_gradients(&tensors, &trial, &[]).unwrap();
        let fast = calibrator.output_error(&trial).unwrap();
        assert!((error - fast).abs() < 1e-4 * fast, "{name}: {error} and {fast}");
        for (i, gradient) in gradients.iter().enumerate() {
            // Along the gradient itself, where the difference is largest.
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let step = 2e-2 / norm;
            let mut at = |sign: f64| {
                let mut moved = trial.clone();
                for (w, &g) in moved[i].1.iter_mut().zip(gradient) {
                    *w += (sign * step * f64::from(g)) as f32;
                }
                calibrator.output_error(&moved).unwrap()
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step * norm);
            assert!((slope - norm).abs() < 0.02 * norm, "{name} {}: {slope} and {norm}", names[i]);
        }
    }
}

#[test]
fn gradients_of_norms_biases_and_single_windows_agree_with_finite_differences() {
    let model = Arc::new(model("qwen2-bias", 2));
    let mut calibrator = calibrator(&model);
    calibrator.open_block(0).unwrap();
    let names = ["input_layernorm.weight", "post_attention_layernorm.weight", "self_attn.v_proj.bias"];
    let trial: Vec<(String, Vec<f32>)> = names
        .iter()
        .map(|name| {
            let values = calibrator.block().unwrap().tensor(name).unwrap();
            ((*name).to_owned(), values.iter().map(|v| v * 0.7 + 0.01).collect())
        })
        .collect();
    let (whole, _) = calibrator.block_gradients(&names, &trial, &[]).unwrap();
    let parts: Vec<f64> =
        (0..3).map(|w| calibrator.block_gradients(&names, &trial, &[w]).unwrap().0).collect();
    // Windows of 20, 33 and 64 tokens.
    let mean = (parts[0] * 20.0 + parts[1] * 33.0 + parts[2] * 64.0) / 117.0;
    assert!((whole - mean).abs() < 1e-6 * whole, "{whole} {mean}");
    let (_, gradients) = calibrator.block_gradients(&names, &trial, &[0, 1, 2]).unwrap();
    for (i, gradient) in gradients.iter().enumerate() {
        let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        let step = 1e-2 / norm;
        let mut at = |sign: f64| {
            let mut moved = trial.clone();
            for (w, &g) in moved[i].1.iter_mut().zip(gradient) {
                *w += (sign * step * f64::from(g)) as f32;
            }
            calibrator.output_error(&moved).unwrap()
        };
        let slope = (at(1.0) - at(-1.0)) / (2.0 * step * norm);
        assert!((slope - norm).abs() < 0.02 * norm, "{}: {slope} and {norm}", names[i]);
    }
    assert!(calibrator.block_gradients(&names, &trial, &[3]).unwrap_err().to_string().contains("window 3"));
    assert!(calibrator.block_gradients(&["nothing"], &trial, &[]).is_err());
    assert!(calibrator.block_gradients(&[names[0], names[0]], &trial, &[]).is_err());
}

/// Mean over windows of the mean over predicted tokens of `-ln p`.
fn loss(model: &Model, windows: &[Vec<u32>]) -> f64 {
    let vocabulary = model.architecture().vocab_size;
    let of_window = |window: &Vec<u32>| {
        let logits = model.logits(window).unwrap();
        let surprise = logits.chunks(vocabulary).zip(&window[1..]).map(|(row, &next)| {
            let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            sum.ln() - f64::from(row[next as usize])
        });
        surprise.sum::<f64>() / (window.len() - 1) as f64
    };
    windows.iter().map(of_window).sum::<f64>() / windows.len() as f64
}

/// A walk over dense inputs.
fn dense_walk(model: &Arc<Model>, windows: &[Vec<u32>]) -> Calibrator {
    let options =
        CalibrationOptions { batch_tokens: 60, inputs: BlockInputs::Dense, ..CalibrationOptions::default() };
    Calibrator::new(Arc::clone(model), windows.to_vec(), options).unwrap()
}

fn linears(model: &Model) -> Vec<&'static str> {
    model.architecture().family.names.linears.iter().map(|linear| linear.name).collect()
}

#[test]
fn loss_gradients_agree_with_finite_differences() {
    for name in CASES {
        let dense = Arc::new(model(name, 2));
        let mut walk = dense_walk(&dense, &windows());
        let linears = linears(&dense);
        for index in 0..dense.block_count() {
            walk.open_block(index).unwrap();
            let gradients = walk.loss_gradients(&linears, false, &[]).unwrap();
            for (linear, found) in linears.iter().zip(&gradients) {
                let gradient = &found.gradient;
                let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
                let step = 1e-2 / norm;
                let at = |sign: f64| {
                    let mut moved = model(name, 2);
                    let mut block = moved.block(index).unwrap();
                    let mut weight = block.linear(linear).unwrap().weight();
                    for (w, &g) in weight.iter_mut().zip(gradient) {
                        *w += (sign * step * f64::from(g)) as f32;
                    }
                    block.set_tensor(&format!("{linear}.weight"), weight).unwrap();
                    moved.replace_block(index, block).unwrap();
                    loss(&moved, &windows())
                };
                let slope = (at(1.0) - at(-1.0)) / (2.0 * step * norm);
                // A rectifier's kinks make differences a little other than slopes.
                let tolerance = if name.starts_with("opt") { 0.03 } else { 0.01 };
                assert!(
                    (slope - norm).abs() < tolerance * norm,
                    "{name} {index} {linear}: {slope} and {norm}"
                );
            }
            // What a method does to a block changes neither its own gradients nor those of the next.
            let up = linear(walk.block().unwrap(), Role::Up);
            let halved = walk.block().unwrap().linear(up).unwrap().weight();
            set_weight(&mut walk, up, halved.iter().map(|w| w / 2.0).collect());
            assert_eq!(walk.loss_gradients(&linears, false, &[]).unwrap(), gradients);
            walk.close_block().unwrap();
        }
    }
}

#[test]
fn squared_loss_gradients_are_of_each_window_by_itself() {
    let dense = Arc::new(model("smollm2-tied", 2));
    let (mut all, mut some) = (dense_walk(&dense, &windows()), dense_walk(&dense, &windows()));
    let mut single: Vec<Calibrator> =
        windows().iter().map(|window| dense_walk(&dense, std::slice::from_ref(window))).collect();
    for index in 0..dense.block_count() {
        let open = |walk: &mut Calibrator| {
            walk.open_block(index).unwrap();
            let found = walk.loss_gradients(&["self_attn.k_proj"], true, &[]).unwrap().remove(0);
            walk.close_block().unwrap();
            (found.gradient, found.mean_square.unwrap())
        };
        let (gradient, mean_square) = open(&mut all);
        some.open_block(index).unwrap();
        let pair = some.loss_gradients(&["self_attn.k_proj"], false, &[0, 2]).unwrap().remove(0).gradient;
        // Other windows in between change nothing.
        let other = some.loss_gradients(&["self_attn.k_proj"], false, &[1]).unwrap().remove(0).gradient;
        assert_ne!(other, pair);
        some.close_block().unwrap();
        let parts: Vec<Vec<f32>> = single.iter_mut().map(|walk| open(walk).0).collect();
        for i in 0..gradient.len() {
            assert!((pair[i] - (parts[0][i] + parts[2][i]) / 2.0).abs() < 1e-6);
            let mean = parts.iter().map(|part| part[i]).sum::<f32>() / 3.0;
            let squares = parts.iter().map(|part| part[i] * part[i]).sum::<f32>() / 3.0;
            assert!((gradient[i] - mean).abs() < 1e-6, "{} {mean}", gradient[i]);
            assert!((mean_square[i] - squares).abs() < 1e-6, "{} {squares}", mean_square[i]);
        }
    }
}

#[test]
fn gradients_of_a_changed_model_agree_with_finite_differences() {
    for name in CASES {
        let plain = model(name, 2);
        let mut blocks: Vec<Block> = (0..plain.block_count()).map(|i| plain.block(i).unwrap()).collect();
        // Not the dense model: other weights, and a block without some of its units.
        let up = weight_name(&blocks[0], Role::Up);
        let halved: Vec<f32> = blocks[0].tensor(&up).unwrap().iter().map(|w| w / 2.0).collect();
        blocks[0].set_tensor(&up, halved).unwrap();
        blocks[1].keep_units(Structure::Channels, &[0, 3, 4, 9, 20, 31]).unwrap();
        // Every tensor of the first block, and the pruned matrix of the second.
        let mut tensors: Vec<(usize, String)> =
            blocks[0].tensor_names().into_iter().map(|name| (0, name)).collect();
        tensors.push((1, weight_name(&blocks[1], Role::Down)));
        let parameters: Vec<Parameter<'_>> =
            tensors.iter().map(|(index, name)| Parameter::Block(*index, name)).collect();
        let (loss, gradients) = model_gradients(&plain, &blocks, &windows(), &parameters).unwrap();
        for ((index, tensor), gradient) in tensors.iter().zip(&gradients) {
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            if norm < 1e-6 {
                // What is added to all keys alike changes no attention.
                assert!(tensor.ends_with("k_proj.bias"), "{name} {tensor}");
                continue;
            }
            let step = 1e-2 / norm;
            let at = |sign: f64| {
                let mut moved = blocks.clone();
                let mut values = moved[*index].tensor(tensor).unwrap();
                for (w, &g) in values.iter_mut().zip(gradient) {
                    *w += (sign * step * f64::from(g)) as f32;
                }
                moved[*index].set_tensor(tensor, values).unwrap();
                model_gradients(&plain, &moved, &windows(), &[]).unwrap().0
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step * norm);
            let tolerance = if name.starts_with("opt") { 0.03 } else { 0.01 };
            assert!((slope - norm).abs() < tolerance * norm, "{name} {index} {tensor}: {slope} and {norm}");
        }
        let mut changed = model(name, 2);
        for (index, block) in blocks.iter().enumerate() {
            changed.replace_block(index, block.clone()).unwrap();
        }
        assert!((loss - self::loss(&changed, &windows())).abs() < 1e-5, "{name}");
        let error = model_gradients(&plain, &blocks, &windows(), &[Parameter::Block(2, &up)]).unwrap_err();
        assert!(error.to_string().contains("block 2"), "{error}");
        assert!(
            model_gradients(&plain, &blocks, &windows(), &[Parameter::Block(1, "mlp.knee.weight")]).is_err()
        );
    }
}

#[test]
fn loss_gradients_that_cannot_be_had_say_why() {
    let model = Arc::new(model("llama2", 2));
    let mut walk = dense_walk(&model, &windows());
    let linears = linears(&model);
    assert!(matches!(walk.loss_gradients(&linears, false, &[]), Err(Error::Order(_))));
    walk.open_block(0).unwrap();
    assert!(walk.loss_gradients(&["mlp.knee"], false, &[]).unwrap_err().to_string().contains("mlp.knee"));
    let error = walk.loss_gradients(&linears, false, &[3]).unwrap_err().to_string();
    assert!(error.contains("calibration window 3"), "{error}");
    let mut compressed = calibrator(&model);
    compressed.open_block(0).unwrap();
    let error = compressed.loss_gradients(&linears, false, &[]).unwrap_err().to_string();
    assert!(error.contains("kept only where"), "{error}");
    let mut short = dense_walk(&model, &[tokens(1, 9, 96), vec![5]]);
    short.open_block(0).unwrap();
    let error = short.loss_gradients(&linears, false, &[]).unwrap_err().to_string();
    assert!(error.contains("calibration window 1") && error.contains("at least two"), "{error}");
}

/// Weights of one linear, halved.
fn halved(calibrator: &Calibrator, linear: &str) -> Vec<(String, Vec<f32>)> {
    let weight = calibrator.block().unwrap().linear(linear).unwrap().weight();
    vec![(format!("{linear}.weight"), weight.iter().map(|w| w * 0.5).collect())]
}

#[test]
fn errors_of_modules_are_those_of_what_they_add() {
    for name in CASES {
        let model = Arc::new(model(name, 2));
        let mut calibrator = calibrator(&model);
        calibrator.open_block(0).unwrap();
        // The feed-forward part comes last, so the block's error is its own, if no norm follows.
        let trial = halved(&calibrator, linear(calibrator.block().unwrap(), Role::Up));
        let mlp = calibrator.module_error(ModuleInfo::Mlp, &trial).unwrap();
        let block = calibrator.output_error(&trial).unwrap();
        let norm_follows = model.architecture().norm_order == NormOrder::After;
        assert!(norm_follows || (mlp - block).abs() < 1e-4 * block, "{name}: {mlp} {block}");
        let output = linear(calibrator.block().unwrap(), Role::Output);
        // Attention halved at its end: the error is a quarter of the mean square of what it adds (but for biases).
        let trial = halved(&calibrator, output);
        let attention = calibrator.module_error(ModuleInfo::Attention, &trial).unwrap();
        let none = vec![(format!("{output}.weight"), vec![0.0; trial[0].1.len()])];
        let added = calibrator.module_error(ModuleInfo::Attention, &none).unwrap();
        assert!(added > 0.0 && (attention * 4.0 - added).abs() < 1e-4 * added, "{name}: {attention} {added}");
        for module in ModuleInfo::ALL {
            assert_eq!(calibrator.module_error(module, &[]).unwrap(), 0.0, "{name}");
        }
        // A change of the present weights is a change of what trials are compared with.
        let weight = trial[0].1.clone();
        set_weight(&mut calibrator, output, weight);
        assert_eq!(calibrator.module_error(ModuleInfo::Attention, &trial).unwrap(), 0.0, "{name}");
    }
}

#[test]
fn blocks_read_what_the_plan_says() {
    let model = Arc::new(model("smollm2-tied", 2));
    let walk = |inputs: BlockInputs, dense_targets: bool| {
        let options = CalibrationOptions { batch_tokens: 60, inputs, dense_targets, ..Default::default() };
        let mut calibrator = Calibrator::new(Arc::clone(&model), windows(), options).unwrap();
        calibrator.open_block(0).unwrap();
        let weight = halved(&calibrator, "mlp.down_proj").remove(0).1;
        set_weight(&mut calibrator, "mlp.down_proj", weight);
        calibrator.close_block().unwrap();
        calibrator.open_block(1).unwrap();
        let error = calibrator.output_error(&[]).unwrap();
        (calibrator.inputs().unwrap(), error)
    };
    let (compressed, own) = walk(BlockInputs::Compressed, false);
    let (same, dense_target) = walk(BlockInputs::Compressed, true);
    let (dense, alone) = walk(BlockInputs::Dense, false);
    let mut plain = calibrator(&model);
    plain.seek(1, &mut |_| Ok(None)).unwrap();
    assert_eq!(dense, plain.inputs().unwrap());
    assert_eq!(compressed, same);
    assert_ne!(compressed, dense);
    assert_eq!((own, alone), (0.0, 0.0));
    // The untouched second block cannot undo what the first one lost.
    assert!(dense_target > 0.0);
}

#[test]
fn rounded_activations_act_alike_in_both_forward_passes() {
    for (name, site) in CASES.into_iter().flat_map(|name| ActivationSite::ALL.map(|site| (name, site))) {
        let model = Arc::new(model(name, 2));
        let up = weight_name(&model.block(0).unwrap(), Role::Up);
        let mut calibrator = calibrator(&model);
        calibrator.open_block(0).unwrap();
        let mut error = |bits: Option<u32>| {
            let rounding = bits.map(|bits| ActivationQuantization {
                bits,
                symmetric: false,
                range: None,
                full_range: false,
            });
            let round = |block: &mut Block| {
                block.quantize_activations(site, rounding);
                Ok(())
            };
            calibrator.change_block(round).unwrap();
            let fast = calibrator.output_error(&[]).unwrap();
            let (graph, _) = calibrator.block_gradients(&[&up], &[], &[]).unwrap();
            // A value near the middle between two may fall on either side.
            assert!((fast - graph).abs() <= 0.05 * fast + 1e-12, "{name} {}: {fast} {graph}", site.name());
            fast
        };
        let (four, eight, none) = (error(Some(4)), error(Some(8)), error(None));
        assert!(four > 20.0 * eight && eight > 1e-9 && none == 0.0, "{name} {}: {four} {eight}", site.name());
    }
    assert_eq!(ActivationSite::from_name("mlp_out").unwrap(), ActivationSite::Input(InputGroup::MlpOut));
}

#[test]
fn activations_in_files_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = |name: &str, activation_bytes: Option<usize>, inputs: BlockInputs, dense_targets: bool| {
        let spill_directory = Some(folder.path().to_owned());
        let model = Arc::new(model(name, 2));
        let options = CalibrationOptions {
            batch_tokens: 60,
            inputs,
            dense_targets,
            activation_bytes,
            spill_directory,
            ..Default::default()
        };
        let mut walk = Calibrator::new(Arc::clone(&model), windows(), options).unwrap();
        assert_eq!(walk.spilled(), activation_bytes == Some(0));
        let mut found = Vec::new();
        for index in 0..model.block_count() {
            walk.open_block(index).unwrap();
            let output = linear(walk.block().unwrap(), Role::Output);
            let trial = halved(&walk, output);
            for module in ModuleInfo::ALL {
                found.push(walk.module_error(module, &trial).unwrap());
            }
            found.push(walk.output_error(&trial).unwrap());
            found.push(walk.block_gradients(&[&format!("{output}.weight")], &trial, &[1]).unwrap().0);
            if inputs == BlockInputs::Dense {
                let gradient = &walk.loss_gradients(&[output], false, &[]).unwrap()[0].gradient;
                found.extend(gradient.iter().map(|g| f64::from(*g)));
            }
            set_weight(&mut walk, output, trial[0].1.clone());
            walk.close_block().unwrap();
        }
        found.extend(walk.inputs().unwrap().iter().map(|v| f64::from(*v)));
        found
    };
    for name in ["llama3-gqa", "opt-350m-style"] {
        for (inputs, dense_targets) in
            [(BlockInputs::Compressed, false), (BlockInputs::Compressed, true), (BlockInputs::Dense, false)]
        {
            let all = run(name, None, inputs, dense_targets);
            // Room for what blocks read, and for nothing else; and for nothing.
            for bytes in [117 * 64 * 4, 0] {
                assert_eq!(run(name, Some(bytes), inputs, dense_targets), all, "{name} {inputs:?}");
            }
        }
    }
}
