//! Blocks that lost heads and channels compute what the dense ones do with those zeroed, and come back from a checkpoint.

mod support;

use llmcb_transformer::{
    Block, CalibrationOptions, Calibrator, CheckpointOptions, CheckpointWriter, GgufType, LoadOptions, Model,
    Role, StorageType, Stored, Structure, UnitAxis, write_gguf,
};
use serde_json::json;
use support::{CASES, model, tokens, weight_name};

/// The block with the units that are not kept zeroed where they leave it.
fn zeroed(block: &Block, structure: Structure, kept: &[usize]) -> Block {
    let mut block = block.clone();
    let parts = structure.parts(block.architecture());
    for part in parts.into_iter().filter(|part| part.axis == UnitAxis::Inputs) {
        let name = weight_name(&block, part.role);
        let mut weight = block.tensor(&name).unwrap();
        let columns = structure.units(block.architecture()) * part.width;
        for row in weight.chunks_exact_mut(columns) {
            for (column, w) in row.iter_mut().enumerate() {
                if !kept.contains(&(column / part.width)) {
                    *w = 0.0;
                }
            }
        }
        block.set_tensor(&name, weight).unwrap();
    }
    block
}

/// Two of three channels.
fn some_channels(block: &Block) -> Vec<usize> {
    (0..block.architecture().intermediate_size).filter(|c| c % 3 != 1).collect()
}

/// Prunes blocks of a model: the pruned ones, and the dense model with the same units zeroed.
fn pruned(name: &str, blocks: &[usize]) -> (Model, Vec<Block>, Model) {
    let (plain, mut expected) = (model(name, 2), model(name, 2));
    let mut all: Vec<Block> = (0..plain.block_count()).map(|i| plain.block(i).unwrap()).collect();
    for &index in blocks {
        let channels = some_channels(&all[index]);
        for (structure, kept) in [(Structure::Heads, vec![1]), (Structure::Channels, channels)] {
            let masked = zeroed(&expected.block(index).unwrap(), structure, &kept);
            expected.replace_block(index, masked).unwrap();
            all[index].keep_units(structure, &kept).unwrap();
        }
    }
    (plain, all, expected)
}

#[test]
fn what_was_removed_is_as_good_as_zero_and_checkpoints_keep_it() {
    for name in CASES {
        for blocks in [&[0usize, 1][..], &[1]] {
            let (plain, all, expected) = pruned(name, blocks);
            let directory = tempfile::tempdir().unwrap();
            let options = CheckpointOptions { tokenizer: false, ..CheckpointOptions::default() };
            let mut writer =
                CheckpointWriter::create_of(directory.path(), &plain, options, Stored::Dense, &all).unwrap();
            for (index, block) in all.iter().enumerate() {
                writer.write_block(index, block).unwrap();
            }
            writer.finish().unwrap();

            let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
            let given = tokens(1, 20, 96);
            for (a, b) in again.logits(&given).unwrap().iter().zip(&expected.logits(&given).unwrap()) {
                assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
            }
            // Other tools can only be told of one shape for all blocks.
            let even = blocks.len() == 2;
            let config = again.original_config();
            assert_eq!(config.get("llmcb_block_shapes").is_none(), even);
            let size = all[if even { 1 } else { 0 }].architecture().intermediate_size;
            assert_eq!(again.architecture().intermediate_size, size);
            assert_eq!(again.block(1).unwrap().architecture().num_key_value_heads, 1);
            let gguf = write_gguf(directory.path(), &plain, &all, GgufType::F16, StorageType::F16);
            let says = match plain.architecture().family.gguf {
                None => "cannot be stored in it",
                Some(_) if even => "no tokenizer",
                Some(_) => "blocks differ",
            };
            let error = gguf.unwrap_err().to_string();
            assert!(error.contains(says), "{name}: {error}");
        }
    }
}

#[test]
fn a_walk_goes_on_with_what_is_left() {
    for name in CASES {
        let (_, _, expected) = pruned(name, &[0]);
        let windows = vec![tokens(3, 12, 96), tokens(4, 7, 96)];
        let walk = |model: Model| {
            Calibrator::new(model.into(), windows.clone(), CalibrationOptions::default()).unwrap()
        };
        let mut walked = walk(model(name, 2));
        walked.open_block(0).unwrap();
        walked.change_block(|block| block.keep_units(Structure::Heads, &[1])).unwrap();
        let channels = some_channels(walked.block().unwrap());
        walked.change_block(|block| block.keep_units(Structure::Channels, &channels)).unwrap();
        let down = weight_name(walked.block().unwrap(), Role::Down);
        let (_, gradients) = walked.block_gradients(&[&down], &[], &[]).unwrap();
        assert_eq!(gradients[0].len(), walked.model().architecture().hidden_size * channels.len());
        walked.close_block().unwrap();
        let mut reference = walk(expected);
        reference.open_block(0).unwrap();
        reference.close_block().unwrap();
        for (a, b) in walked.inputs().unwrap().iter().zip(&reference.inputs().unwrap()) {
            assert!((a - b).abs() < 1e-5, "{name}: {a} {b}");
        }
    }
}

#[test]
fn units_that_cannot_be_kept_are_refused() {
    let mut block = model("llama3-gqa", 1).block(0).unwrap();
    for (units, says) in
        [(&[][..], "keep at least one"), (&[1, 1], "ascend"), (&[1, 0], "ascend"), (&[2], "no unit 2")]
    {
        let error = block.keep_units(Structure::Heads, units).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn shapes_that_make_no_block_are_refused() {
    let plain = model("llama3-gqa", 1);
    let shape = |heads: u64, key_value_heads: u64| json!({ "num_attention_heads": heads, "num_key_value_heads": key_value_heads, "intermediate_size": 112 });
    for (given, says) in [
        (json!([]), "0 objects are listed for 2 blocks"),
        (json!([shape(4, 2), shape(4, 3)]), "block 1: 4 query heads are no multiple of 3"),
        (json!([shape(4, 2), shape(0, 2)]), "block 1: its numbers must be at least 1"),
        (json!([shape(4, 2), { "knees": 2 }]), "block 1: unknown field `knees`"),
    ] {
        let mut config = plain.original_config().clone();
        config["llmcb_block_shapes"] = given;
        let error = llmcb_transformer::Architecture::from_json(&config, "m").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
