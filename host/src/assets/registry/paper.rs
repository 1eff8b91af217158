//! The models of LLMCBench's paper, as the hub has them.

/// A model of the paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PaperModel {
    /// Name in the paper's tables.
    pub name: &'static str,
    /// Repository on the hub.
    pub hub: &'static str,
    /// Parameters.
    pub parameters: u64,
    /// Blocks.
    pub blocks: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward part.
    pub intermediate: usize,
    /// Bytes of its weights there: 16 bits a parameter.
    pub bytes: u64,
    /// Licence.
    pub licence: &'static str,
    /// What a user should know of the repository, in a word that [`NOTES`] explains; may be empty.
    pub note: &'static str,
}

impl PaperModel {
    /// The one that a reference names: its repository, with a revision or without.
    pub fn find(reference: &str) -> Option<&'static PaperModel> {
        let id = reference.split('@').next().unwrap_or(reference);
        PAPER_MODELS.iter().find(|model| model.hub.eq_ignore_ascii_case(id))
    }
}

const LLAMA1: &str = "LLaMA 1, non-commercial";
const LLAMA2: &str = "Llama 2 community";
const LLAMA3: &str = "Llama 3 community";
const OPT: &str = "OPT-175B, non-commercial";
const GLM: &str = "ChatGLM model licence";

const NONE: &str = "";
const GATED: &str = "gated";
const PICKLED: &str = "pickles";

/// What the notes mean, and what to do.
pub static NOTES: [(&str, &str); 2] = [
    (GATED, "accept the terms on the model's page, then set HF_TOKEN to a token of that account"),
    (
        PICKLED,
        "the main branch has its weights as .bin alone, which are not read: give a conversion (NAME@refs/pr/NUMBER), or make one",
    ),
];

/// Name, repository, parameters, blocks, width of the residual stream and of the feed-forward part, licence, note.
type Row = (&'static str, &'static str, u64, [usize; 3], &'static str, &'static str);

const fn model((name, hub, parameters, [blocks, hidden, intermediate], licence, note): Row) -> PaperModel {
    PaperModel { name, hub, parameters, blocks, hidden, intermediate, bytes: 2 * parameters, licence, note }
}

/// All 18.
pub static PAPER_MODELS: &[PaperModel] = &[
    model(("LLaMA-7B", "huggyllama/llama-7b", 6_738_415_616, [32, 4096, 11008], LLAMA1, NONE)),
    model(("LLaMA-13B", "huggyllama/llama-13b", 13_015_864_320, [40, 5120, 13824], LLAMA1, NONE)),
    model(("LLaMA-30B", "huggyllama/llama-30b", 32_528_943_616, [60, 6656, 17920], LLAMA1, NONE)),
    model(("LLaMA-65B", "huggyllama/llama-65b", 65_285_660_672, [80, 8192, 22016], LLAMA1, NONE)),
    model(("LLaMA2-7B", "meta-llama/Llama-2-7b-hf", 6_738_415_616, [32, 4096, 11008], LLAMA2, GATED)),
    model(("LLaMA2-13B", "meta-llama/Llama-2-13b-hf", 13_015_864_320, [40, 5120, 13824], LLAMA2, GATED)),
    model(("LLaMA2-70B", "meta-llama/Llama-2-70b-hf", 68_976_648_192, [80, 8192, 28672], LLAMA2, GATED)),
    model(("LLaMA3-8B", "meta-llama/Meta-Llama-3-8B", 8_030_261_248, [32, 4096, 14336], LLAMA3, GATED)),
    model(("LLaMA3-70B", "meta-llama/Meta-Llama-3-70B", 70_553_706_496, [80, 8192, 28672], LLAMA3, GATED)),
    model(("Vicuna-7B", "lmsys/vicuna-7b-v1.5", 6_738_415_616, [32, 4096, 11008], LLAMA2, NONE)),
    model(("Vicuna-13B", "lmsys/vicuna-13b-v1.5", 13_015_864_320, [40, 5120, 13824], LLAMA2, NONE)),
    model(("OPT-1.3B", "facebook/opt-1.3b", 1_315_758_080, [24, 2048, 8192], OPT, PICKLED)),
    model(("OPT-2.7B", "facebook/opt-2.7b", 2_651_596_800, [32, 2560, 10240], OPT, PICKLED)),
    model(("OPT-6.7B", "facebook/opt-6.7b", 6_658_473_984, [32, 4096, 16384], OPT, PICKLED)),
    model(("OPT-13B", "facebook/opt-13b", 12_853_473_280, [40, 5120, 20480], OPT, PICKLED)),
    model(("OPT-30B", "facebook/opt-30b", 29_974_540_288, [48, 7168, 28672], OPT, PICKLED)),
    model(("ChatGLM2-6B", "THUDM/chatglm2-6b", 6_243_584_000, [28, 4096, 13696], GLM, NONE)),
    model(("ChatGLM3-6B", "THUDM/chatglm3-6b", 6_243_584_000, [28, 4096, 13696], GLM, NONE)),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Parameters that follow from the published configuration: vocabularies, key and value widths and what else a family has are not in the
    /// table.
    fn counted(m: &PaperModel) -> usize {
        let (h, f) = (m.hidden, m.intermediate);
        match m.name.split('-').next() {
            Some("OPT") => {
                // Linears and norms with biases, learned positions, a head that is the embedding.
                let block = 4 * (h * h + h) + (h * f + f) + (f * h + h) + 2 * 2 * h;
                50_272 * h + 2050 * h + m.blocks * block + 2 * h
            }
            Some("ChatGLM2" | "ChatGLM3") => {
                let qkv = h + 2 * 2 * 128;
                let block = h * qkv + qkv + h * h + h * 2 * f + f * h + 2 * h;
                2 * 65_024 * h + m.blocks * block + h
            }
            family => {
                let vocabulary = if family == Some("LLaMA3") { 128_256 } else { 32_000 };
                // Eight heads of keys and values, of 128, where they are shared.
                let shared = m.name.starts_with("LLaMA3") || m.name == "LLaMA2-70B";
                let kv = if shared { 8 * 128 } else { h };
                let block = 2 * h * h + 2 * h * kv + 3 * h * f + 2 * h;
                2 * vocabulary * h + m.blocks * block + h
            }
        }
    }

    #[test]
    fn parameters_follow_from_the_published_configurations() {
        assert_eq!(PAPER_MODELS.len(), 18);
        for model in PAPER_MODELS {
            assert_eq!(counted(model) as u64, model.parameters, "{}", model.name);
        }
    }
}
