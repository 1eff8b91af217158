//! Writers of small model files, valid ones and broken ones.
#![allow(dead_code)] // Each test file uses its own part.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

pub const F32: u32 = 0;
pub const Q4_0: u32 = 2;

/// A metadata value.
#[derive(Clone)]
pub enum Meta {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(Vec<u8>),
    Texts(Vec<String>),
    I32s(Vec<i32>),
    F32s(Vec<f32>),
    /// A type code and raw bytes.
    Raw(u32, Vec<u8>),
}

pub fn text(value: &str) -> Meta {
    Meta::Text(value.as_bytes().to_vec())
}

/// A tensor to write; extents in GGUF's order, fastest first.
#[derive(Clone)]
pub struct Tensor {
    pub name: String,
    pub extents: Vec<u64>,
    pub kind: u32,
    pub bytes: Vec<u8>,
    /// An offset to claim in place of the true one.
    pub claimed_offset: Option<u64>,
}

impl Tensor {
    pub fn new(name: &str, extents: &[u64], kind: u32) -> Self {
        let elements: u64 = extents.iter().product();
        let size = match kind {
            F32 => elements * 4,
            Q4_0 => elements / 32 * 18,
            _ => elements * 2,
        };
        // Distinct content, so that a tensor read from the wrong place shows.
        let seed = name.bytes().fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
        let bytes = (0..size).map(|i| seed.wrapping_add(i as u8)).collect();
        Tensor { name: name.to_owned(), extents: extents.to_vec(), kind, bytes, claimed_offset: None }
    }
}

/// A GGUF to write.
#[derive(Clone)]
pub struct Gguf {
    pub magic: [u8; 4],
    pub version: u32,
    pub meta: Vec<(String, Meta)>,
    pub tensors: Vec<Tensor>,
    pub claimed_tensors: Option<u64>,
    pub claimed_pairs: Option<u64>,
    pub alignment: u64,
}

impl Gguf {
    /// A model of one block: embedding 32, 4 heads of 8, 2 key-value heads, and a byte-level vocabulary.
    pub fn llama() -> Self {
        Self::of_architecture("llama")
    }

    pub fn qwen2() -> Self {
        let mut gguf = Self::of_architecture("qwen2");
        for (name, extent) in [("attn_q", 32), ("attn_k", 16), ("attn_v", 16)] {
            gguf.tensors.push(Tensor::new(&format!("blk.0.{name}.bias"), &[extent], F32));
        }
        gguf.set("tokenizer.ggml.pre", text("qwen2"));
        gguf
    }

    fn of_architecture(architecture: &str) -> Self {
        let mut gguf = Gguf {
            magic: *b"GGUF",
            version: 3,
            meta: Vec::new(),
            tensors: Vec::new(),
            claimed_tensors: None,
            claimed_pairs: None,
            alignment: 32,
        };
        gguf.set("general.architecture", text(architecture));
        for (key, value) in [
            ("block_count", 1),
            ("embedding_length", 32),
            ("feed_forward_length", 64),
            ("attention.head_count", 4),
            ("attention.head_count_kv", 2),
            ("context_length", 128),
        ] {
            gguf.set(&format!("{architecture}.{key}"), Meta::U32(value));
        }
        gguf.set(&format!("{architecture}.attention.layer_norm_rms_epsilon"), Meta::F32(1e-5));
        gguf.set(&format!("{architecture}.rope.freq_base"), Meta::F32(100_000.0));
        let tokens = byte_level_tokens();
        let mut types = vec![1; tokens.len()];
        types[0] = 3;
        types[1] = 3;
        types[2] = 4;
        let rows = tokens.len() as u64;
        gguf.set("tokenizer.ggml.model", text("gpt2"));
        gguf.set("tokenizer.ggml.pre", text("smollm"));
        gguf.set("tokenizer.ggml.tokens", Meta::Texts(tokens));
        gguf.set("tokenizer.ggml.token_type", Meta::I32s(types));
        gguf.set("tokenizer.ggml.merges", Meta::Texts(vec!["a b".into(), "Ġ ab".into(), "1 2".into()]));
        gguf.set("tokenizer.ggml.bos_token_id", Meta::U32(0));
        gguf.set("tokenizer.ggml.eos_token_id", Meta::U32(1));
        for (name, extents, kind) in [
            ("token_embd.weight", vec![32, rows], F32),
            ("output_norm.weight", vec![32], F32),
            ("blk.0.attn_norm.weight", vec![32], F32),
            ("blk.0.ffn_norm.weight", vec![32], F32),
            ("blk.0.attn_q.weight", vec![32, 32], Q4_0),
            ("blk.0.attn_k.weight", vec![32, 16], Q4_0),
            ("blk.0.attn_v.weight", vec![32, 16], Q4_0),
            ("blk.0.attn_output.weight", vec![32, 32], Q4_0),
            ("blk.0.ffn_gate.weight", vec![32, 64], Q4_0),
            ("blk.0.ffn_up.weight", vec![32, 64], Q4_0),
            ("blk.0.ffn_down.weight", vec![64, 32], Q4_0),
        ] {
            gguf.tensors.push(Tensor::new(name, &extents, kind));
        }
        gguf
    }

    /// Sets or replaces a metadata pair.
    pub fn set(&mut self, key: &str, value: Meta) {
        match self.meta.iter_mut().find(|(k, _)| k == key) {
            Some(pair) => pair.1 = value,
            None => self.meta.push((key.to_owned(), value)),
        }
    }

    pub fn remove(&mut self, key: &str) {
        self.meta.retain(|(k, _)| k != key);
    }

    pub fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).expect("a tensor of the fixture")
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend(self.magic);
        out.extend(self.version.to_le_bytes());
        out.extend(self.claimed_tensors.unwrap_or(self.tensors.len() as u64).to_le_bytes());
        out.extend(self.claimed_pairs.unwrap_or(self.meta.len() as u64).to_le_bytes());
        for (key, value) in &self.meta {
            put_string(&mut out, key.as_bytes());
            put_meta(&mut out, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_string(&mut out, tensor.name.as_bytes());
            out.extend((tensor.extents.len() as u32).to_le_bytes());
            for extent in &tensor.extents {
                out.extend(extent.to_le_bytes());
            }
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.claimed_offset.unwrap_or(offset).to_le_bytes());
            offset += (tensor.bytes.len() as u64).next_multiple_of(self.alignment);
        }
        for tensor in &self.tensors {
            out.resize(out.len().next_multiple_of(self.alignment as usize), 0);
            out.extend(&tensor.bytes);
        }
        out
    }

    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("model.gguf");
        std::fs::write(&path, self.to_bytes()).unwrap();
        path
    }
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text);
}

fn put_meta(out: &mut Vec<u8>, value: &Meta) {
    fn array(out: &mut Vec<u8>, kind: u32, count: usize) {
        out.extend(9u32.to_le_bytes());
        out.extend(kind.to_le_bytes());
        out.extend((count as u64).to_le_bytes());
    }
    match value {
        Meta::U32(n) => {
            out.extend(4u32.to_le_bytes());
            out.extend(n.to_le_bytes());
        }
        Meta::U64(n) => {
            out.extend(10u32.to_le_bytes());
            out.extend(n.to_le_bytes());
        }
        Meta::F32(x) => {
            out.extend(6u32.to_le_bytes());
            out.extend(x.to_le_bytes());
        }
        Meta::Bool(flag) => {
            out.extend(7u32.to_le_bytes());
            out.push(u8::from(*flag));
        }
        Meta::Text(bytes) => {
            out.extend(8u32.to_le_bytes());
            put_string(out, bytes);
        }
        Meta::Texts(texts) => {
            array(out, 8, texts.len());
            texts.iter().for_each(|text| put_string(out, text.as_bytes()));
        }
        Meta::I32s(numbers) => {
            array(out, 5, numbers.len());
            numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Meta::F32s(numbers) => {
            array(out, 6, numbers.len());
            numbers.iter().for_each(|n| out.extend(n.to_le_bytes()));
        }
        Meta::Raw(kind, bytes) => {
            out.extend(kind.to_le_bytes());
            out.extend(bytes);
        }
    }
}

/// `<bos>`, `<eos>`, the user-defined `<tool>`, printable ASCII with `Ġ` and `Ċ` for space and newline, and merges.
pub fn byte_level_tokens() -> Vec<String> {
    let mut tokens = vec!["<bos>".to_owned(), "<eos>".to_owned(), "<tool>".to_owned()];
    tokens.extend(('!'..='~').map(String::from));
    tokens.extend(["Ġ", "Ċ", "ab", "Ġab", "12"].map(str::to_owned));
    tokens
}

/// The id of a token of [`byte_level_tokens`].
pub fn id(token: &str) -> u32 {
    byte_level_tokens().iter().position(|t| t == token).expect("a token of the fixture") as u32
}

pub fn llama_config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 6,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 16, "bos_token_id": 1, "eos_token_id": [2, 3],
    })
}

/// A safetensors file of these tensors: name, dtype, shape, bytes.
pub fn safetensors(tensors: &[(&str, &str, &[usize], &[u8])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut data = Vec::new();
    for (name, dtype, shape, bytes) in tensors {
        let start = data.len();
        data.extend_from_slice(bytes);
        let entry = json!({ "dtype": dtype, "shape": shape, "data_offsets": [start, data.len()] });
        header.insert((*name).to_owned(), entry);
    }
    with_header(&Value::Object(header).to_string(), &data)
}

pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut out = (header.len() as u64).to_le_bytes().to_vec();
    out.extend(header.as_bytes());
    out.extend(data);
    out
}

/// A word-less BPE tokenizer of four letters, with `<s>` and `</s>`.
pub fn tokenizer_json() -> Value {
    let added = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": { "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0 },
        "padding": null,
        "added_tokens": [added(1, "<s>"), added(2, "</s>")],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" },
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": false,
            "vocab": { "<unk>": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5 },
            "merges": [["a", "b"]],
        },
    })
}

/// Writes a whole model in the Hugging Face layout.
pub fn write_hub_layout(directory: &Path) {
    write_json(directory, "config.json", &llama_config());
    write_json(directory, "tokenizer.json", &tokenizer_json());
    write_json(
        directory,
        "tokenizer_config.json",
        &json!({ "bos_token": "<s>", "eos_token": { "content": "</s>" } }),
    );
    let bytes: Vec<u8> = (0..96).collect();
    let file = safetensors(&[
        ("model.embed_tokens.weight", "F32", &[6, 4], &bytes),
        ("model.norm.weight", "BF16", &[4], &bytes[..8]),
        ("lm_head.weight", "F16", &[6, 4], &bytes[..48]),
        ("model.steps", "F64", &[2], &bytes[..16]),
    ]);
    std::fs::write(directory.join("model.safetensors"), file).unwrap();
}

pub fn write_json(directory: &Path, name: &str, value: &Value) {
    std::fs::write(directory.join(name), value.to_string()).unwrap();
}

/// The message of a failure.
pub fn message<T>(result: llmcb_model_files::Result<T>) -> String {
    match result {
        Ok(_) => String::from("(it worked)"),
        Err(error) => error.to_string(),
    }
}

/// Asserts that a failure's message names the file and holds all of `parts`.
#[track_caller]
pub fn assert_says<T>(result: llmcb_model_files::Result<T>, path: &Path, parts: &[&str]) {
    let message = message(result);
    assert!(message.contains(&path.display().to_string()), "{message:?} does not name {}", path.display());
    for part in parts {
        assert!(message.contains(part), "{message:?} does not say {part:?}");
    }
    assert!(!message.contains('\n'), "{message:?} is more than one line");
}
