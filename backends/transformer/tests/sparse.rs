//! Checkpoints without zeros give back the numbers they were made of, and what they cannot hold is refused.

mod support;

use llmcb_model_files::packed::{Bitmask, FloatType};
use llmcb_transformer::{
    Block, CheckpointOptions, CheckpointWriter, Chosen, FormatChoice, LoadOptions, Model, Result, Role,
    StorageType, Stored,
};
use support::{CASES, linear, model, tokens};

/// Blocks of which every linear but the output projection of attention has lost two of four weights.
fn pruned(model: &Model) -> Vec<Block> {
    let prune = |index| {
        let mut block: Block = model.block(index).unwrap();
        let spared = linear(&block, Role::Output);
        for linear in model.block_info().linears.iter().filter(|l| l.name != spared) {
            let mut weight = block.linear(&linear.name).unwrap().weight();
            weight.iter_mut().enumerate().filter(|(i, _)| (i / 3 + i) % 4 < 2).for_each(|(_, w)| *w = 0.0);
            for four in weight.chunks_mut(4) {
                let extra = four.iter().filter(|w| **w != 0.0).count().saturating_sub(2);
                four.iter_mut().filter(|w| **w != 0.0).take(extra).for_each(|w| *w = 0.0);
            }
            block.set_tensor(&format!("{}.weight", linear.name), weight).unwrap();
        }
        block
    };
    (0..model.block_count()).map(prune).collect()
}

fn choose(text: &str, blocks: &Vec<Block>) -> Result<Chosen> {
    text.parse::<FormatChoice>().unwrap().choose(blocks, FloatType::F16, FloatType::F32)
}

#[test]
fn what_was_zero_is_not_stored_and_nothing_else_is_lost() {
    for name in CASES {
        let plain = model(name, 2);
        let blocks = pruned(&plain);
        let mut expected = model(name, 2);
        for (index, block) in blocks.iter().enumerate() {
            expected.replace_block(index, block.clone()).unwrap();
        }
        let want = expected.logits(&tokens(1, 20, 96)).unwrap();
        for layout in Bitmask::ALL {
            let chosen = choose(&format!("compressed-tensors:{}", layout.name()), &blocks).unwrap();
            assert_eq!(chosen.stored, Stored::Sparse(layout));
            for max_shard_bytes in [100_000, 5_000_000_000] {
                let directory = tempfile::tempdir().unwrap();
                let options = CheckpointOptions { tokenizer: false, max_shard_bytes, ..Default::default() };
                let mut writer =
                    CheckpointWriter::create_of(directory.path(), &plain, options, chosen.stored, &blocks)
                        .unwrap();
                for (index, block) in blocks.iter().enumerate() {
                    writer.write_block(index, block).unwrap();
                }
                writer.finish().unwrap();
                let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
                assert_eq!(again.logits(&tokens(1, 20, 96)).unwrap(), want, "{name} {}", layout.name());
                let config = again.original_config()["quantization_config"]["sparsity_config"].clone();
                assert_eq!(config["format"], layout.name());
                assert!(config["ignore"].to_string().contains(linear(&blocks[1], Role::Output)), "{config}");
                let (files, all) = (again.files().unwrap().provenance(), expected.block_info());
                let linears: usize = all.linears.iter().map(|l| l.in_features * l.out_features).sum();
                assert_eq!(files.precision, "F32");
                assert!(files.parameters as usize > linears * blocks.len());
                assert!((files.bytes_on_disk as usize) < 4 * files.parameters as usize * 4 / 5);
            }
        }
    }
}

#[test]
fn half_precision_rounds_numbers_and_keeps_their_places() {
    let plain = model("smollm2-tied", 1);
    let blocks = pruned(&plain);
    let directory = tempfile::tempdir().unwrap();
    let half = StorageType::F16;
    let options =
        CheckpointOptions { tokenizer: false, storage: half, block_storage: half, ..Default::default() };
    let stored = Stored::Sparse(Bitmask::TwoOfFour);
    let mut writer = CheckpointWriter::create_of(directory.path(), &plain, options, stored, &blocks).unwrap();
    for (index, block) in blocks.iter().enumerate() {
        writer.write_block(index, block).unwrap();
    }
    writer.finish().unwrap();
    let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
    let (found, expected) = (again.block(1).unwrap(), &blocks[1]);
    for linear in again.block_info().linears.iter() {
        let found = found.linear(&linear.name).unwrap().weight();
        let expected = expected.linear(&linear.name).unwrap().weight();
        assert!(found.iter().zip(&expected).all(|(f, e)| *f == FloatType::F16.round(*e)), "{}", linear.name);
    }
}

#[test]
fn what_it_cannot_hold_is_refused_or_stored_otherwise() {
    let plain = model("llama2", 1);
    let untouched: Vec<Block> = (0..plain.block_count()).map(|i| plain.block(i).unwrap()).collect();
    for layout in Bitmask::ALL {
        let format = format!("compressed-tensors:{}", layout.name());
        let message = choose(&format, &untouched).unwrap_err().to_string();
        assert!(message.contains(&format) && message.contains("enough zeros"), "{message}");
        let gave_way = choose(&format!("auto:{format}"), &untouched).unwrap();
        assert_eq!(gave_way.stored, Stored::Dense);
        assert!(gave_way.instead_of.unwrap().1.contains("enough zeros"));
    }
    // Zeros of another pattern are refused at the first block, not after the last.
    let mut block = untouched[0].clone();
    let mut weight = block.linear("mlp.up_proj").unwrap().weight();
    let half = weight.len() / 2;
    weight[..half].fill(0.0);
    block.set_tensor("mlp.up_proj.weight", weight).unwrap();
    let check = |format: &str, block: &Block| format.parse::<FormatChoice>().unwrap().check_block(0, block);
    let message = check("compressed-tensors:sparse-24-bitmask", &block).unwrap_err().to_string();
    assert!(message.contains("model.layers.0.mlp.up_proj") && message.contains("two of four"), "{message}");
    for fine in ["compressed-tensors:sparse-bitmask", "auto:compressed-tensors:sparse-24-bitmask", "dense"] {
        assert!(check(fine, &block).is_ok(), "{fine}");
    }
    for block in untouched.iter().chain(&pruned(&plain)) {
        assert!(check("compressed-tensors:sparse-24-bitmask", block).is_ok());
    }
}
