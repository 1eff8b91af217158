//! The residual stream: gradients of what lies outside the blocks, and models without some of its channels.

mod support;

use std::sync::Arc;

use llmcb_transformer::{
    Block, CheckpointOptions, CheckpointWriter, LoadOptions, MemorySource, Model, OuterTensor, Parameter,
    TensorSource, model_gradients,
};
use serde_json::{Value, json};
use support::{CASES, golden, model, source, tokens};

fn windows() -> Vec<Vec<u32>> {
    vec![tokens(1, 20, 96), tokens(2, 33, 96)]
}

fn build(source: MemorySource, config: &Value) -> Model {
    Model::from_source(
        Arc::new(source),
        config.clone(),
        "test".to_owned(),
        &LoadOptions { threads: 2, ..LoadOptions::default() },
    )
    .unwrap()
}

fn blocks(model: &Model) -> Vec<Block> {
    (0..model.block_count()).map(|i| model.block(i).unwrap()).collect()
}

#[test]
fn gradients_outside_the_blocks_agree_with_finite_differences() {
    for name in CASES {
        let case = &golden()["cases"][name];
        let plain = model(name, 2);
        if plain.architecture().tie_word_embeddings {
            let head = [Parameter::Outer(OuterTensor::Head)];
            let error = model_gradients(&plain, &blocks(&plain), &windows(), &head).unwrap_err();
            assert!(error.to_string().contains("is the embedding"), "{error}");
        }
        let parameters: Vec<(Parameter<'_>, String)> = OuterTensor::of(plain.architecture())
            .map(|(tensor, name, _)| (Parameter::Outer(tensor), name))
            .collect();
        let wanted: Vec<Parameter<'_>> = parameters.iter().map(|(parameter, _)| *parameter).collect();
        let (_, gradients) = model_gradients(&plain, &blocks(&plain), &windows(), &wanted).unwrap();
        for ((_, tensor), gradient) in parameters.iter().zip(&gradients) {
            let norm = gradient.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let step = 1e-2 / norm;
            let at = |sign: f64| {
                let mut moved = source(case);
                let shape = moved.shape(tensor).unwrap();
                let mut values = moved.load(tensor).unwrap();
                assert_eq!(values.len(), gradient.len(), "{name} {tensor}");
                for (w, &g) in values.iter_mut().zip(gradient) {
                    *w += (sign * step * f64::from(g)) as f32;
                }
                moved.insert(tensor, shape, values).unwrap();
                let moved = build(moved, &case["config"]);
                model_gradients(&moved, &blocks(&moved), &windows(), &[]).unwrap().0
            };
            let slope = (at(1.0) - at(-1.0)) / (2.0 * step * norm);
            assert!((slope - norm).abs() < 0.01 * norm, "{name} {tensor}: {slope} and {norm}");
        }
    }
}

/// The model of a case without some channels of the residual stream, its tensors cut by hand.
fn cut(case: &Value, kept: &[usize]) -> Model {
    let (whole, mut narrow) = (source(case), MemorySource::default());
    for entry in case["parameters"].as_array().unwrap() {
        let name = entry[0].as_str().unwrap();
        let (mut shape, values) = (whole.shape(name).unwrap(), whole.load(name).unwrap());
        let written = [
            "o_proj.weight",
            "down_proj.weight",
            "norm.weight",
            "norm.bias",
            "out_proj.weight",
            "out_proj.bias",
            "fc2.weight",
            "fc2.bias",
            "project_in.weight",
            "dense.weight",
            "dense_4h_to_h.weight",
        ];
        let read = [
            "q_proj.weight",
            "k_proj.weight",
            "v_proj.weight",
            "gate_proj.weight",
            "up_proj.weight",
            "qkv_proj.weight",
            "fc1.weight",
            "query_key_value.weight",
            "dense_h_to_4h.weight",
            "project_out.weight",
            "positions.weight",
        ];
        let outer =
            ["embed_tokens.weight", "word_embeddings.weight", "lm_head.weight", "output_layer.weight"];
        let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
        let projected = whole.contains("model.decoder.project_in.weight");
        let values: Vec<f32> = if ends(&written) {
            let columns = shape[1..].iter().product::<usize>();
            shape[0] = kept.len();
            kept.iter().flat_map(|row| values[row * columns..][..columns].to_vec()).collect()
        } else if ends(&read) || (ends(&outer) && !projected) {
            let columns = shape[1];
            shape[1] = kept.len();
            values
                .chunks(columns)
                .flat_map(|row| kept.iter().map(|c| row[*c]).collect::<Vec<f32>>())
                .collect()
        } else {
            values
        };
        narrow.insert(name, shape, values).unwrap();
    }
    let mut config = case["config"].clone();
    let head = if config["model_type"] == "chatglm" { "kv_channels" } else { "head_dim" };
    config[head] = json!(model_head_dim(case));
    config["hidden_size"] = json!(kept.len());
    if config["word_embed_proj_dim"] == 64 {
        config["word_embed_proj_dim"] = json!(kept.len());
    }
    build(narrow, &config)
}

fn model_head_dim(case: &Value) -> u64 {
    let config = &case["config"];
    config["head_dim"].as_u64().unwrap_or_else(|| {
        config["hidden_size"].as_u64().unwrap() / config["num_attention_heads"].as_u64().unwrap()
    })
}

#[test]
fn channels_of_the_residual_stream_go_from_everything_that_holds_them() {
    for name in CASES {
        let plain = model(name, 2);
        let given = tokens(3, 24, 96);
        let hidden = plain.architecture().hidden_size;
        let all: Vec<usize> = (0..hidden).collect();
        assert_eq!(plain.keep_hidden(&all).unwrap().logits(&given).unwrap(), plain.logits(&given).unwrap());

        let kept: Vec<usize> = all.iter().copied().filter(|c| c % 4 != 1).collect();
        let narrow = plain.keep_hidden(&kept).unwrap();
        let want = cut(&golden()["cases"][name], &kept).logits(&given).unwrap();
        assert_eq!(narrow.logits(&given).unwrap(), want, "{name}");

        let directory = tempfile::tempdir().unwrap();
        let options = CheckpointOptions { tokenizer: false, ..CheckpointOptions::default() };
        let mut writer = CheckpointWriter::create(directory.path(), &narrow, options).unwrap();
        for (index, block) in blocks(&narrow).iter().enumerate() {
            writer.write_block(index, block).unwrap();
        }
        writer.finish().unwrap();
        let again = Model::open(directory.path(), &LoadOptions::default()).unwrap();
        assert_eq!(again.original_config()["hidden_size"], kept.len());
        assert_eq!(again.architecture().head_dim, plain.architecture().head_dim);
        assert_eq!(again.logits(&given).unwrap(), want, "{name}");

        for (kept, says) in
            [(vec![], "at least one"), (vec![2, 1], "ascending"), (vec![hidden], "no channel")]
        {
            let error = plain.keep_hidden(&kept).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}
