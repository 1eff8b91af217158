//! Which files of a repository a model needs.

use std::path::Path;

/// Names of the files beside weights that decide what a model computes, or how other tools read it.
const BESIDE_WEIGHTS: [&str; 13] = [
    "config.json",
    "generation_config.json",
    "quantize_config.json",
    "quant_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    INDEX,
];

/// Which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";

fn is_pickle(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end))
}

/// The files of a model, weights last: weights in safetensors with all that belongs to them, or one GGUF.
///
/// # Errors
/// Why there is no such choice, and the way out; `id` is the repository, `owner/name`.
pub(super) fn choose(id: &str, names: &[String]) -> Result<Vec<String>, String> {
    let top: Vec<&String> = names.iter().filter(|name| !name.contains('/')).collect();
    let has = |wanted: &str| top.iter().any(|name| *name == wanted);
    let weights: Vec<&String> = top.iter().copied().filter(|name| name.ends_with(".safetensors")).collect();
    if !weights.is_empty() {
        // Many repositories hold the same weights once more, in another layout.
        let usual = |name: &str| match (has(INDEX), has("model.safetensors")) {
            (true, _) => name.starts_with("model-"),
            (false, true) => name == "model.safetensors",
            (false, false) => true,
        };
        let beside = top.iter().copied().filter(|name| BESIDE_WEIGHTS.contains(&name.as_str()));
        return Ok(beside.chain(weights.into_iter().filter(|name| usual(name))).cloned().collect());
    }
    let ggufs: Vec<&String> = top.iter().copied().filter(|name| name.ends_with(".gguf")).collect();
    match ggufs.as_slice() {
        [one] => Ok(vec![(*one).clone()]),
        [] if top.iter().any(|name| is_pickle(name)) => Err(format!(
            "it holds its weights only as PyTorch pickles (.bin), which can run code when they are read. Convert them once, with Python transformers: \
             `AutoModelForCausalLM.from_pretrained(\"{id}\").save_pretrained(\"DIR\", safe_serialization=True)` and the same for AutoTokenizer, then give DIR. \
             The hub often has a conversion to safetensors as a pull request: look under `Community` there, and give {id}@refs/pr/NUMBER"
        )),
        [] => Err("it holds neither safetensors nor GGUF".to_owned()),
        many => Err(format!(
            "it holds {} GGUF files ({}); download one and give its path",
            many.len(),
            many.iter().take(4).map(|name| name.as_str()).collect::<Vec<_>>().join(", ")
        )),
    }
}

/// Shards that an index names.
pub(super) fn shards(index: &Path) -> Vec<String> {
    let text = std::fs::read(index).unwrap_or_default();
    let index: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let mut shards: Vec<String> = index["weight_map"]
        .as_object()
        .map(|map| map.values().filter_map(|file| file.as_str().map(str::to_owned)).collect())
        .unwrap_or_default();
    shards.sort();
    shards.dedup();
    shards
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(names: &[&str]) -> Result<Vec<String>, String> {
        choose("o/n", &names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_a_model_needs_is_chosen_and_weights_come_last() {
        let names = [
            ".gitattributes",
            "README.md",
            "model-00001-of-00002.safetensors",
            "config.json",
            "consolidated.00.safetensors",
            "flax_model.msgpack",
            "merges.txt",
            "model.safetensors.index.json",
            "model-00002-of-00002.safetensors",
            "modeling_own.py",
            "onnx/model.onnx",
            "original/consolidated.safetensors",
            "pytorch_model.bin.index.json",
            "pytorch_model-00001-of-00002.bin",
            "q4.gguf",
            "tf_model.h5",
            "tokenizer.model",
            "trainer_state.json",
        ];
        assert_eq!(
            chosen(&names).unwrap(),
            [
                "config.json",
                "merges.txt",
                "model.safetensors.index.json",
                "tokenizer.model",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors"
            ]
        );
        let single =
            ["adapter_model.safetensors", "config.json", "model.safetensors", "model.fp16.safetensors"];
        assert_eq!(chosen(&single).unwrap(), ["config.json", "model.safetensors"]);
        assert_eq!(chosen(&["README.md", "q4.gguf", "config.json"]).unwrap(), ["q4.gguf"]);
    }

    #[test]
    fn what_cannot_be_chosen_has_a_way_out() {
        for (names, says) in [
            (&["a.gguf", "b.gguf"][..], "2 GGUF files (a.gguf, b.gguf)"),
            (&["pytorch_model.bin", "config.json"], "o/n@refs/pr/NUMBER"),
            (&["config.json"], "neither safetensors nor GGUF"),
        ] {
            let reason = chosen(names).unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
    }
}
