//! Text to token ids and back.

mod assembly;
mod byte_level;
mod chatglm;
mod definition;
mod gguf_metadata;
mod gguf_vocabulary;
mod hub_files;
mod merges;
mod save;
mod sentence_piece;
mod sources;
mod vocabulary;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;
use serde_json::Value;

use self::sentence_piece::Segmenter;
pub(crate) use self::sources::Source;
use crate::gguf::{MetadataValue, View};
use crate::{Error, Result};

/// A text to see what is put around every text.
const PROBE: &str = "a";

/// A model's tokenizer. Cheap to clone, and usable from several threads at once.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
    around: Arc<Surroundings>,
}

/// Special tokens that every text gets.
#[derive(Default)]
struct Surroundings {
    before: Vec<u32>,
    after: Vec<u32>,
}

struct Inner {
    tokenizer: tokenizers::Tokenizer,
    /// What cuts text in the library's place, where that would do it differently.
    segmenter: Option<Segmenter>,
    /// What messages name.
    source: PathBuf,
    bos: Option<u32>,
    eos: Option<u32>,
    /// `tokenizer_config.json`, as it was or as it follows from a GGUF.
    config: Value,
    /// `generation_config.json` where the model came with one.
    generation_config: Option<Value>,
    /// Names and contents of the files that the tokenizer was put together from, unless that was `tokenizer.json`.
    originals: Vec<(&'static str, Vec<u8>)>,
}

impl Tokenizer {
    /// Reads the tokenizer of a directory in the Hugging Face layout: `tokenizer.json`, else SentencePiece's
    /// `tokenizer.model`, else `vocab.json` with `merges.txt`. Names of special tokens are from
    /// `tokenizer_config.json`, `special_tokens_map.json`, or the ids in the model's configuration.
    ///
    /// Without `tokenizer.json`, tokens are those of the model's own Python code: a `tokenizer.model` is LLaMA's (a
    /// BOS before every text, special tokens found in text, a space put before each stretch of text between them), or
    /// where `tokenizer_config.json` names `ChatGLMTokenizer`, ChatGLM2's and ChatGLM3's (`[gMASK] sop` before every
    /// text, special tokens not sought in it); the other files are GPT-2's or OPT's (`</s>` before every text).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when these files are missing or broken.
    pub fn open(directory: &Path) -> Result<Self> {
        hub_files::read(directory).and_then(Self::from_inner)
    }

    pub(crate) fn from_gguf(view: &View<'_>) -> Result<Self> {
        gguf_vocabulary::build(view).and_then(Self::from_inner)
    }

    fn from_inner(inner: Inner) -> Result<Self> {
        let mut tokenizer = Tokenizer { inner: Arc::new(inner), around: Arc::default() };
        let (bare, whole) = (tokenizer.library_ids(PROBE, false)?, tokenizer.library_ids(PROBE, true)?);
        let place = whole.windows(bare.len().max(1)).position(|window| window == bare);
        if let Some(start) = place {
            let (before, after) = (whole[..start].to_vec(), whole[start + bare.len()..].to_vec());
            tokenizer.around = Arc::new(Surroundings { before, after });
        }
        Ok(tokenizer)
    }

    /// Token ids of `text`. Special tokens written out in the text are recognised where the model's own tokenizer
    /// does so (ChatGLM's does not); `add_special` also adds those that the model expects around every text (such as
    /// a BOS), if any.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text has no spelling in the vocabulary.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let Some(segmenter) = &self.inner.segmenter else { return self.library_ids(text, add_special) };
        let mut ids = segmenter.encode(&self.inner.tokenizer, text).map_err(|e| self.encode_failure(&*e))?;
        if add_special {
            ids.splice(..0, self.around.before.iter().copied());
            ids.extend(&self.around.after);
        }
        Ok(ids)
    }

    fn library_ids(&self, text: &str, add_special: bool) -> Result<Vec<u32>> {
        let encoding = self.inner.tokenizer.encode_fast(text, add_special);
        encoding.map(|encoding| encoding.get_ids().to_vec()).map_err(|e| self.encode_failure(&*e))
    }

    /// [`Tokenizer::encode`] of several texts, in parallel; the answers are in the texts' order.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_batch(&self, texts: &[&str], add_special: bool) -> Result<Vec<Vec<u32>>> {
        if self.inner.segmenter.is_some() {
            let all: Vec<Result<Vec<u32>>> =
                texts.par_iter().map(|text| self.encode(text, add_special)).collect();
            // In order, so that of several errors the first is told.
            return all.into_iter().collect();
        }
        let encodings = self.inner.tokenizer.encode_batch_fast(texts.to_vec(), add_special);
        let encodings = encodings.map_err(|e| self.encode_failure(&*e))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The text of token ids. Ids outside the vocabulary have no text; `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String> {
        self.inner.tokenizer.decode(ids, skip_special).map_err(|e| {
            Error::tokenizer(
                &self.inner.source,
                format!("cannot decode {} tokens: {e}", ids.len()),
                "check that model and tokenizer belong together",
            )
        })
    }

    /// The token that begins a sequence, where the model has one. Whether [`Tokenizer::encode`] adds it is another
    /// question: SmolLM2 has one and does not.
    pub fn bos(&self) -> Option<u32> {
        self.inner.bos
    }

    /// The tokens that [`Tokenizer::encode`] puts before every text when asked for special tokens: none, a BOS, or
    /// ChatGLM's `[gMASK] sop`.
    pub fn prefix(&self) -> &[u32] {
        &self.around.before
    }

    /// The token that ends a sequence, where the model has one; the first, where it has several.
    pub fn eos(&self) -> Option<u32> {
        self.inner.eos
    }

    /// The id of a token by its exact spelling in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.tokenizer.token_to_id(token)
    }

    /// Number of tokens, added ones included. A model's embedding may have more rows (padding).
    pub fn vocab_size(&self) -> usize {
        self.inner.tokenizer.get_vocab_size(true)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json`, which Python transformers' `AutoTokenizer` loads, and
    /// `generation_config.json` with the ids of BOS and EOS as far as they are known; also the `tokenizer.model`, or
    /// `vocab.json` and `merges.txt`, that the tokenizer was read from. Where a SentencePiece model gives other tokens
    /// than any `tokenizer.json` (a unigram model, or one that normalises text), it is written without one. The
    /// directory must exist.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be written.
    pub fn save(&self, directory: &Path) -> Result<()> {
        save::write(&self.inner, directory)
    }

    /// The tokenizer as metadata of a GGUF, for a model whose embedding has `rows` rows.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when it is of a kind that llama.cpp does not know.
    pub fn gguf_metadata(&self, rows: usize) -> Result<Vec<(String, MetadataValue)>> {
        gguf_metadata::build(self, rows)
    }

    fn encode_failure(&self, error: &(dyn std::error::Error + Send + Sync)) -> Error {
        Error::tokenizer(
            &self.inner.source,
            format!("cannot encode a text: {error}"),
            "check that the vocabulary is complete",
        )
    }
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("source", &self.inner.source)
            .field("vocab_size", &self.vocab_size())
            .field("bos", &self.bos())
            .field("eos", &self.eos())
            .finish()
    }
}
