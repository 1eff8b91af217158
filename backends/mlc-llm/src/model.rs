//! A model that MLC-LLM compiled, in TVM's virtual machine.
//!
//! The functions of a model library, and the order in which they are called, are those of MLC-LLM's own engine: `embed`, then, between
//! `kv_state_begin_forward` and `kv_state_end_forward`, `prefill`, `decode`, their batched forms, or `batch_verify`, which gives logits after
//! every token.

use std::path::Path;

use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_runner_kit::process::cores;
use serde::Deserialize;

use crate::tvm::{Argument, PROCESSOR, Place, Tvm, Value, terminated};

/// Tokens of a page of keys and values, as in MLC-LLM's engine.
const PAGE: usize = 16;
/// TVM's allocator that keeps what is given back.
const POOLED: i64 = 2;
/// Tokens whose logits are all given at once: they are as many times the vocabulary.
const LOGITS: usize = 256;

/// What a model library says of itself.
#[derive(Debug, Deserialize)]
struct Metadata {
    context_window_size: i64,
    prefill_chunk_size: usize,
    max_batch_size: usize,
    #[serde(default = "none")]
    sliding_window_size: i64,
    #[serde(default = "one")]
    tensor_parallel_shards: usize,
    #[serde(default = "one")]
    pipeline_parallel_stages: usize,
    #[serde(default = "one")]
    seqlen_padding_factor: usize,
    #[serde(default)]
    kv_state_kind: Option<String>,
    params: Vec<Parameter>,
}

#[derive(Debug, Deserialize)]
struct Parameter {
    name: String,
}

fn none() -> i64 {
    -1
}

fn one() -> usize {
    1
}

impl Metadata {
    /// Why this engine cannot run a library.
    fn refused(&self) -> Option<String> {
        let kind = self.kv_state_kind.as_deref().unwrap_or("kv_cache");
        if kind != "kv_cache" {
            return Some(format!("it keeps {kind} in place of keys and values"));
        }
        if self.tensor_parallel_shards * self.pipeline_parallel_stages != 1 {
            return Some("it was compiled for several devices, which engine=serve runs".to_owned());
        }
        if self.seqlen_padding_factor != 1 {
            return Some(format!("it wants lengths in multiples of {}", self.seqlen_padding_factor));
        }
        None
    }
}

/// Functions of a model library.
struct Functions {
    embed: Value,
    prefill: Value,
    decode: Value,
    batch_prefill: Value,
    batch_decode: Value,
    batch_verify: Value,
    create_cache: Value,
}

/// Functions of the runtime.
struct Builtins {
    reshape: Value,
    allocate: Value,
    copy_from: Value,
    add_sequence: Value,
    begin_forward: Value,
    end_forward: Value,
    forget: Value,
    clear: Value,
}

/// Keys and values, and how many there is room for.
struct Cache {
    state: Value,
    sequences: usize,
    tokens: usize,
}

/// A model that is ready to run.
pub(crate) struct Loaded {
    tvm: Tvm,
    place: Place,
    functions: Functions,
    builtins: Builtins,
    parameters: Value,
    cache: Option<Cache>,
    metadata: Metadata,
    threads: usize,
    /// Tokens that may be asked for: one beyond would be read from anywhere.
    vocabulary: usize,
}

/// What to open.
pub(crate) struct Files<'a> {
    /// The model library, as `mlc_llm compile` writes it.
    pub library: &'a Path,
    /// The folder of weights, as `mlc_llm convert_weight` writes it.
    pub weights: &'a Path,
    /// Size of the vocabulary.
    pub vocabulary: usize,
}

#[allow(unsafe_code)]
// SAFETY: TVM ties neither modules nor tensors to a thread, and a `Loaded` is used by one at a time.
unsafe impl Send for Loaded {}

/// Logits, a row for each token that they were asked for.
pub(crate) struct Logits {
    numbers: Vec<f32>,
    /// Numbers of a row.
    width: usize,
    /// Those of them that are of tokens: a library may fill rows up.
    vocabulary: usize,
}

impl Logits {
    /// The rows, in order.
    pub(crate) fn rows(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.width).map(|row| &row[..self.vocabulary])
    }
}

/// After which tokens logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// After the last of each part.
    Last,
    /// After every token, of one part.
    All,
}

fn number(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Loaded {
    /// Opens a model library with its weights.
    ///
    /// # Errors
    /// Of kind `Unsupported` for a library that this engine cannot run; else what TVM says.
    pub(crate) fn open(tvm: Tvm, place: Place, threads: usize, files: &Files<'_>) -> Result<Self> {
        let library = files.library;
        let threads = use_threads(tvm, threads)?;
        let path = terminated(library.as_os_str().as_encoded_bytes())?;
        let file = tvm.run("ffi.ModuleLoadFromFile", &[Argument::Text(&path)])?;
        let lacks = |name: &str| {
            Error::unsupported(format!("{}: the model library has no function {name}", library.display()))
        };
        let load = file.function("vm_load_executable")?.ok_or_else(|| lacks("vm_load_executable"))?;
        let machine = load.call("vm_load_executable", &[])?;
        let initialise = machine.function("vm_initialization")?.ok_or_else(|| lacks("vm_initialization"))?;
        let of = |place: Place| {
            [Argument::Int(place.kind.into()), Argument::Int(place.index.into()), Argument::Int(POOLED)]
        };
        initialise.call("vm_initialization", &[of(place), of(PROCESSOR)].concat())?;

        let describe = machine.function("_metadata")?.ok_or_else(|| lacks("_metadata"))?;
        let metadata: Metadata = serde_json::from_str(&describe.call("_metadata", &[])?.text()?)
            .map_err(|e| Error::unsupported(format!("{}: its metadata: {e}", library.display())))?;
        if let Some(why) = metadata.refused() {
            return Err(Error::unsupported(format!("{}: {why}", library.display())));
        }
        let function = |name: &str| machine.function(name)?.ok_or_else(|| lacks(name));
        // Kernels of FlashInfer are there on CUDA only, and not for sliding windows.
        let create_cache = match machine.function("create_flashinfer_paged_kv_cache")? {
            Some(create) if metadata.sliding_window_size == -1 => create,
            _ => function("create_tir_paged_kv_cache")?,
        };
        let functions = Functions {
            embed: function("embed")?,
            prefill: function("prefill")?,
            decode: function("decode")?,
            batch_prefill: function("batch_prefill")?,
            batch_decode: function("batch_decode")?,
            batch_verify: function("batch_verify")?,
            create_cache,
        };
        let builtins = Builtins {
            reshape: tvm.global("vm.builtin.reshape")?,
            allocate: tvm.global("runtime.TVMTensorAllocWithScope")?,
            copy_from: tvm.global("runtime.TVMTensorCopyFromBytes")?,
            add_sequence: tvm.global("vm.builtin.kv_state_add_sequence")?,
            begin_forward: tvm.global("vm.builtin.kv_state_begin_forward")?,
            end_forward: tvm.global("vm.builtin.kv_state_end_forward")?,
            forget: tvm.global("vm.builtin.kv_state_popn")?,
            clear: tvm.global("vm.builtin.kv_state_clear")?,
        };
        let parameters = parameters(tvm, place, &metadata, files.weights)?;
        if let Some(prepare) = machine.function("cuda_graph_alloc_init")? {
            prepare.call("cuda_graph_alloc_init", &[])?;
        }
        let vocabulary = files.vocabulary;
        Ok(Loaded { tvm, place, functions, builtins, parameters, cache: None, metadata, threads, vocabulary })
    }

    /// Threads that it computes with.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Tokens of the longest sequence.
    pub(crate) fn longest(&self) -> usize {
        usize::try_from(self.metadata.context_window_size).unwrap_or(usize::MAX)
    }

    /// Tokens that run at once.
    pub(crate) fn most_tokens(&self, wanted: Wanted) -> usize {
        match wanted {
            Wanted::Last => self.metadata.prefill_chunk_size,
            Wanted::All => self.metadata.prefill_chunk_size.min(LOGITS),
        }
    }

    /// Makes room for sequences 0, 1, ..., of so many tokens each; what was held before is forgotten.
    ///
    /// # Errors
    /// The library was compiled for fewer, or there is no memory.
    pub(crate) fn make_room(&mut self, sequences: usize, tokens: usize) -> Result<()> {
        if sequences > self.metadata.max_batch_size {
            return Err(Error::unsupported(format!(
                "the model library was compiled for {} sequences at once, not {sequences} (option max_batch_size)",
                self.metadata.max_batch_size
            )));
        }
        // A sequence begins on a page of its own.
        let each = tokens.next_multiple_of(PAGE) + PAGE;
        let is_enough = |cache: &Cache| cache.sequences >= sequences && cache.tokens >= each * sequences;
        let cache = match self.cache.take().filter(is_enough) {
            Some(cache) => {
                self.builtins.clear.call("kv_state_clear", &[Argument::Value(&cache.state)])?;
                cache
            }
            None => self.new_cache(sequences, each * sequences)?,
        };
        for sequence in 0..sequences {
            let arguments = [Argument::Value(&cache.state), Argument::Int(number(sequence))];
            self.builtins.add_sequence.call("kv_state_add_sequence", &arguments)?;
        }
        self.cache = Some(cache);
        Ok(())
    }

    fn new_cache(&self, sequences: usize, tokens: usize) -> Result<Cache> {
        let slides = i64::from(self.metadata.sliding_window_size != -1);
        let sizes = [
            number(sequences),
            number(tokens),
            number(self.metadata.prefill_chunk_size),
            number(PAGE),
            slides,
        ];
        let shapes: Vec<Value> = sizes.iter().map(|n| self.tvm.shape(&[*n])).collect::<Result<_>>()?;
        let arguments: Vec<Argument<'_>> = shapes.iter().map(Argument::Value).collect();
        let state = self.functions.create_cache.call("create_paged_kv_cache", &arguments)?;
        Ok(Cache { state, sequences, tokens })
    }

    fn state(&self) -> Result<Argument<'_>> {
        let cache = self.cache.as_ref().ok_or_else(|| Error::failed("no room was made for tokens"))?;
        Ok(Argument::Value(&cache.state))
    }

    /// Forgets the last tokens of a sequence.
    ///
    /// # Errors
    /// What TVM says.
    pub(crate) fn forget(&mut self, sequence: usize, tokens: usize) -> Result<()> {
        if tokens == 0 {
            return Ok(());
        }
        let arguments = [self.state()?, Argument::Int(number(sequence)), Argument::Int(number(tokens))];
        self.builtins.forget.call("kv_state_popn", &arguments).map(|_| ())
    }

    /// Runs parts, tokens that come after what their sequences hold, at most [`most_tokens`](Self::most_tokens) together.
    ///
    /// # Errors
    /// What TVM says.
    pub(crate) fn run(&mut self, parts: &[(usize, &[u32])], wanted: Wanted) -> Result<Logits> {
        // After an error in between, nobody knows what is held.
        self.run_parts(parts, wanted).inspect_err(|_| self.cache = None)
    }

    fn run_parts(&self, parts: &[(usize, &[u32])], wanted: Wanted) -> Result<Logits> {
        let lengths: Vec<usize> = parts.iter().map(|(_, tokens)| tokens.len()).collect();
        let total: usize = lengths.iter().sum();
        if lengths.contains(&0)
            || total > self.most_tokens(wanted)
            || (wanted == Wanted::All && parts.len() != 1)
        {
            return Err(Error::failed("tokens that cannot run at once"));
        }
        let tokens: Vec<u32> = parts.iter().flat_map(|(_, tokens)| tokens.iter().copied()).collect();
        let is_step = total == parts.len();
        let embedded = self.embed(&tokens, if is_step { [total, 1] } else { [1, total] })?;
        let sequences: Vec<i64> = parts.iter().map(|(sequence, _)| number(*sequence)).collect();
        let each: Vec<i64> = lengths.iter().copied().map(number).collect();
        let (sequences, each) = (self.tvm.shape(&sequences)?, self.tvm.shape(&each)?);
        let begin = [self.state()?, Argument::Value(&sequences), Argument::Value(&each)];
        self.builtins.begin_forward.call("kv_state_begin_forward", &begin)?;

        let (input, parameters) = (Argument::Value(&embedded), Argument::Value(&self.parameters));
        let state = self.state()?;
        let f = &self.functions;
        let result = match (wanted, parts.len(), is_step) {
            // One token alone has one shape in all three.
            (_, 1, true) => f.decode.call("decode", &[input, state, parameters]),
            (Wanted::All, ..) => f.batch_verify.call("batch_verify", &[input, state, parameters]),
            (_, 1, false) => f.prefill.call("prefill", &[input, state, parameters]),
            (_, _, true) => f.batch_decode.call("batch_decode", &[input, state, parameters]),
            (_, _, false) => {
                let mut end = 0;
                let ends: Vec<u32> = lengths
                    .iter()
                    .map(|length| {
                        end += *length as u32;
                        end - 1
                    })
                    .collect();
                let ends = self.integers(&ends)?;
                f.batch_prefill.call("batch_prefill", &[input, Argument::Value(&ends), state, parameters])
            }
        }?;
        self.builtins.end_forward.call("kv_state_end_forward", &[state])?;
        // Beside the logits, the cache comes back.
        let logits = result.item(0)?;
        let width = logits.dimensions()?.last().copied().unwrap_or(0);
        if width < self.vocabulary {
            let vocabulary = self.vocabulary;
            return Err(Error::failed(format!(
                "the model library gave logits of {width} tokens, not {vocabulary}"
            )));
        }
        let logits = Logits { numbers: logits.numbers()?, width, vocabulary: self.vocabulary };
        let rows = if wanted == Wanted::All { total } else { parts.len() };
        let given = logits.rows().len();
        match given == rows {
            true => Ok(logits),
            false => Err(Error::failed(format!("the model library gave {given} of {rows} logits"))),
        }
    }

    /// Embeddings of tokens, as a tensor of two dimensions before the width.
    fn embed(&self, tokens: &[u32], shape: [usize; 2]) -> Result<Value> {
        if let Some(beyond) = tokens.iter().find(|token| **token as usize >= self.vocabulary) {
            let size = self.vocabulary;
            return Err(Error::invalid(format!("token {beyond} is beyond the vocabulary of {size}")));
        }
        let ids = self.integers(tokens)?;
        let arguments = [Argument::Value(&ids), Argument::Value(&self.parameters)];
        let embedded = self.functions.embed.call("embed", &arguments)?;
        let width = embedded.dimensions()?.last().copied().unwrap_or(0);
        let shape = self.tvm.shape(&[number(shape[0]), number(shape[1]), number(width)])?;
        self.builtins.reshape.call("reshape", &[Argument::Value(&embedded), Argument::Value(&shape)])
    }

    /// A tensor of integers on the device.
    fn integers(&self, numbers: &[u32]) -> Result<Value> {
        let numbers: Vec<i32> = numbers
            .iter()
            .map(|n| {
                i32::try_from(*n).map_err(|_| Error::invalid(format!("{n} is more than TVM's 32 bits hold")))
            })
            .collect::<Result<_>>()?;
        let shape = self.tvm.shape(&[number(numbers.len())])?;
        let arguments =
            [Argument::Value(&shape), Argument::Int32, Argument::Place(self.place), Argument::None];
        let tensor = self.builtins.allocate.call("TVMTensorAllocWithScope", &arguments)?;
        let bytes = number(size_of_val(numbers.as_slice()));
        let memory = Argument::Memory(numbers.as_ptr().cast_mut().cast());
        self.builtins
            .copy_from
            .call("TVMTensorCopyFromBytes", &[Argument::Value(&tensor), memory, Argument::Int(bytes)])?;
        Ok(tensor)
    }
}

/// Has TVM compute with so many threads on all cores that this process may use; how many it takes. By itself it would bind each to a core of its
/// own choice, whoever else is there.
fn use_threads(tvm: Tvm, threads: usize) -> Result<usize> {
    const SHARE_ALL_CORES: i64 = -3;
    let cores: Vec<_> =
        cores().iter().map(|core| terminated(core.to_string().as_bytes())).collect::<Result<_>>()?;
    let cores: Vec<Argument<'_>> = cores.iter().map(|core| Argument::Text(core)).collect();
    let cores = tvm.run("ffi.Array", &cores)?;
    let arguments = [Argument::Int(SHARE_ALL_CORES), Argument::Int(number(threads)), Argument::Value(&cores)];
    tvm.run("runtime.config_threadpool", &arguments)?;
    let taken = tvm.run("runtime.NumThreads", &[])?.int()?;
    Ok(usize::try_from(taken).unwrap_or(threads))
}

/// The weights of a model, in the order in which its functions want them.
fn parameters(tvm: Tvm, place: Place, metadata: &Metadata, weights: &Path) -> Result<Value> {
    let folder = terminated(weights.as_os_str().as_encoded_bytes())?;
    let arguments =
        [Argument::Text(&folder), Argument::Int(place.kind.into()), Argument::Int(place.index.into())];
    tvm.run("vm.builtin.tensor_cache.load", &arguments)?;
    let names: Vec<_> =
        metadata.params.iter().map(|p| terminated(p.name.as_bytes())).collect::<Result<_>>()?;
    let names: Vec<Argument<'_>> = names.iter().map(|name| Argument::Text(name)).collect();
    let names = tvm.run("ffi.Array", &names)?;
    let parameters = tvm.run("vm.builtin.param_array_from_cache_by_name", &[Argument::Value(&names)])?;
    // The list holds them from now on.
    tvm.run("vm.builtin.tensor_cache.clear", &[])?;
    Ok(parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_this_engine_cannot_run_are_refused_with_the_reason() {
        let plain = r#"{"context_window_size": 2048, "prefill_chunk_size": 256, "max_batch_size": 8, "params": [{"name": "a"}]"#;
        for (more, says) in [
            ("", None),
            (r#", "kv_state_kind": "rnn_state""#, Some("rnn_state")),
            (r#", "tensor_parallel_shards": 2"#, Some("engine=serve")),
            (r#", "seqlen_padding_factor": 8"#, Some("multiples of 8")),
        ] {
            let metadata: Metadata = serde_json::from_str(&format!("{plain}{more}}}")).unwrap();
            let found = metadata.refused();
            assert_eq!(found.is_some(), says.is_some(), "{more}");
            assert!(found.unwrap_or_default().contains(says.unwrap_or_default()));
        }
    }
}
