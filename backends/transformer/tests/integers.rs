//! Models with integer weights compute what the numbers that their codes stand for compute, in memory and from every format.

mod support;

use llmcb_model_files::packed::{FloatType, IntegerMatrix, Layout, Scheme, ZeroPoints};
use llmcb_transformer::generate::{GenerateOptions, generate};
use llmcb_transformer::{
    Block, CheckpointOptions, CheckpointWriter, FormatChoice, LoadOptions, Model, StorageFormat, Stored,
};
use support::{CASES, model, tokens};

/// Rounds a weight to a grid whose scales are exact in half precision.
fn quantised(values: &[f32], rows: usize, bits: u32, group: usize, act_order: bool) -> IntegerMatrix {
    let columns = values.len() / rows;
    let groups = columns.div_ceil(group);
    let middle = f32::from(1u8 << (bits - 1));
    let top = f32::from(u8::MAX >> (8 - bits));
    let index: Vec<u32> =
        (0..columns).map(|c| ((if act_order { c * 7 % columns } else { c }) / group) as u32).collect();
    let scales: Vec<f32> =
        (0..rows * groups).map(|i| FloatType::F16.round((0.5 + (i % 7) as f32 / 20.0) / top)).collect();
    let codes = values
        .iter()
        .enumerate()
        .map(|(i, v)| {
            let scale = scales[i / columns * groups + index[i % columns] as usize];
            ((v / scale).round() + middle).clamp(0.0, top) as u8
        })
        .collect();
    let zeros = vec![middle; rows * groups];
    let (group_size, symmetric, group_index) = (Some(group), true, Some(index));
    IntegerMatrix { rows, columns, bits, group_size, symmetric, codes, scales, zeros, group_index }
        .without_plain_index()
}

/// The blocks of a model with integer weights, and the same with the numbers that they stand for.
fn blocks(model: &Model, bits: u32, act_order: bool) -> (Vec<Block>, Vec<Block>) {
    (0..model.block_count())
        .map(|index| {
            let (mut codes, mut dense) = (model.block(index).unwrap(), model.block(index).unwrap());
            for linear in &model.block_info().linears {
                let name = format!("{}.weight", linear.name);
                let values = codes.tensor(&name).unwrap();
                let matrix = quantised(&values, linear.out_features, bits, 16, act_order);
                dense.set_tensor(&name, matrix.dequantize()).unwrap();
                codes.set_integers(&linear.name, &matrix).unwrap();
                assert_eq!(codes.tensor(&name).unwrap(), matrix.dequantize());
                assert_eq!(codes.linear(&linear.name).unwrap().integers().unwrap(), matrix);
            }
            (codes, dense)
        })
        .unzip()
}

fn with(name: &str, blocks: Vec<Block>) -> Model {
    let mut model = model(name, 2);
    for (index, block) in blocks.into_iter().enumerate() {
        model.replace_block(index, block).unwrap();
    }
    model
}

#[test]
fn integer_weights_compute_what_their_numbers_compute() {
    for name in CASES {
        for (bits, act_order) in [(4, false), (4, true), (8, false), (3, true)] {
            let (codes, dense) = blocks(&model(name, 1), bits, act_order);
            let (codes, dense) = (with(name, codes), with(name, dense));
            for length in [1, 3, 40] {
                let ids = tokens(length as u64, length, 96);
                assert_eq!(codes.logits(&ids).unwrap(), dense.logits(&ids).unwrap(), "{name}, {bits} bits");
            }
            let prompts = [tokens(5, 9, 96), tokens(6, 4, 96)];
            let options = GenerateOptions { max_new_tokens: 8, ..GenerateOptions::default() };
            let run =
                |model| generate(model, &prompts, &options, &mut |_| std::ops::ControlFlow::Continue(()));
            assert_eq!(run(&codes).unwrap().0, run(&dense).unwrap().0);
        }
    }
}

#[test]
fn numbers_take_the_place_of_codes_and_shapes_are_checked() {
    let model = model("llama2", 1);
    let (codes, _) = blocks(&model, 4, false);
    let mut block = codes[0].clone();
    block.set_tensor("mlp.up_proj.weight", vec![0.5; 112 * 64]).unwrap();
    assert!(block.linear("mlp.up_proj").unwrap().integers().is_none());
    assert!(codes[0].linear("mlp.up_proj").unwrap().integers().is_some(), "the other clone keeps its codes");
    let matrix = codes[0].linear("mlp.up_proj").unwrap().integers().unwrap();
    let message = block.set_integers("mlp.down_proj", &matrix).unwrap_err().to_string();
    assert!(message.contains("[112, 64]") && message.contains("[64, 112]"), "{message}");
    assert!(block.set_integers("mlp.nothing", &matrix).is_err());
}

#[test]
fn every_format_gives_the_same_logits() {
    let base = Scheme {
        layout: Layout::Gptq,
        bits: 4,
        group_size: Some(16),
        symmetric: true,
        per_tensor: false,
        act_order: false,
        zero_points: ZeroPoints::V1,
        scales: FloatType::F16,
    };
    for name in CASES {
        for (bits, act_order, scheme) in [
            (4, false, base),
            (4, true, Scheme { act_order: true, zero_points: ZeroPoints::V2, ..base }),
            (2, false, Scheme { bits: 2, ..base }),
            (8, false, Scheme { bits: 8, ..base }),
            (4, false, Scheme { layout: Layout::Awq, ..base }),
            (4, false, Scheme { layout: Layout::PackQuantized, scales: FloatType::F32, ..base }),
            (3, false, Scheme { layout: Layout::PackQuantized, bits: 3, ..base }),
            (8, false, Scheme { layout: Layout::IntQuantized, bits: 8, ..base }),
            (4, false, Scheme { layout: Layout::ModelOpt, ..base }),
        ] {
            let original = model(name, 2);
            let (codes, dense) = blocks(&original, bits, act_order);
            let want = with(name, dense).logits(&tokens(1, 20, 96)).unwrap();
            for max_shard_bytes in [100_000, 5_000_000_000] {
                let directory = tempfile::tempdir().unwrap();
                let options =
                    CheckpointOptions { tokenizer: false, max_shard_bytes, ..CheckpointOptions::default() };
                let stored = Stored::Codes(scheme);
                let mut writer =
                    CheckpointWriter::create_of(directory.path(), &original, options, stored, &codes)
                        .unwrap();
                for (index, block) in codes.iter().enumerate() {
                    writer.write_block(index, block).unwrap();
                }
                writer.finish().unwrap();
                let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
                let block = again.block(1).unwrap();
                assert!(block.linears().all(|linear| linear.has_codes()), "it is run as it is");
                assert_eq!(again.logits(&tokens(1, 20, 96)).unwrap(), want, "{name}, {}", scheme.describe());
                let provenance = again.files().unwrap().provenance();
                assert_eq!(provenance.precision, format!("INT{bits}"));
                let dense: usize =
                    original.block_info().linears.iter().map(|l| l.out_features * l.in_features).sum();
                assert!(provenance.parameters as usize > dense * original.block_count());
            }
        }
    }
}

#[test]
fn linears_that_were_left_alone_are_stored_as_numbers() {
    let original = model("smollm2-tied", 1);
    let (mut codes, mut dense) = blocks(&original, 4, false);
    for (block, like) in codes.iter_mut().zip(&mut dense) {
        let kept = original.block(0).unwrap().tensor("self_attn.o_proj.weight").unwrap();
        block.set_tensor("self_attn.o_proj.weight", kept.clone()).unwrap();
        like.set_tensor("self_attn.o_proj.weight", kept).unwrap();
    }
    let want = with("smollm2-tied", dense).logits(&tokens(1, 20, 96)).unwrap();
    for text in ["gptq", "awq", "compressed-tensors", "compressed-tensors:int-quantized", "auto", "auto:awq"]
    {
        let choice: FormatChoice = text.parse().unwrap();
        let chosen = choice.choose(&codes, FloatType::F16, FloatType::F32).unwrap();
        assert_eq!(chosen.instead_of, None);
        let directory = tempfile::tempdir().unwrap();
        let options = CheckpointOptions { tokenizer: false, ..CheckpointOptions::default() };
        assert!(matches!(chosen.stored, Stored::Codes(_)), "{text}");
        let mut writer =
            CheckpointWriter::create_of(directory.path(), &original, options, chosen.stored, &codes).unwrap();
        for (index, block) in codes.iter().enumerate() {
            writer.write_block(index, block).unwrap();
        }
        writer.finish().unwrap();
        let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
        assert_eq!(again.logits(&tokens(1, 20, 96)).unwrap(), want, "{text}");
        let config = again.original_config()["quantization_config"].to_string();
        let listed = if text.contains("gptq") || text == "auto" { "q_proj" } else { "o_proj" };
        assert!(config.contains(listed), "{text}: {config}");
    }
}

#[test]
fn a_format_is_asked_for_or_preferred() {
    let original = model("llama2", 1);
    let (shuffled, _) = blocks(&original, 4, true);
    let choose = |text: &str, blocks: &Vec<Block>| {
        text.parse::<FormatChoice>().unwrap().choose(blocks, FloatType::F32, FloatType::F32)
    };
    let gave_way = choose("auto:awq", &shuffled).unwrap();
    assert!(matches!(gave_way.stored, Stored::Codes(Scheme { layout: Layout::Gptq, .. })));
    let (format, why) = gave_way.instead_of.unwrap();
    assert!(format == StorageFormat::Awq && why.contains("activation order"), "{why}");
    assert!(choose("awq", &shuffled).unwrap_err().to_string().contains("activation order"));
    let untouched = vec![original.block(0).unwrap()];
    assert_eq!(choose("auto:gptq", &untouched).unwrap().stored, Stored::Dense);
    assert!(choose("gptq", &untouched).unwrap_err().to_string().contains("no integer codes"));
    assert!("zip".parse::<FormatChoice>().unwrap_err().to_string().contains("compressed-tensors"));
}
