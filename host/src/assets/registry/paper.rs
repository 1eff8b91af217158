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
    /// Width of the residual stream.
    pub hidden: usize,
    /// Bytes of its weights there, rounded (16 bits a parameter).
    pub bytes: u64,
    /// Licence.
    pub licence: &'static str,
}

const LLAMA1: &str = "LLaMA 1, non-commercial";
const LLAMA2: &str = "Llama 2 community (gated)";
const LLAMA3: &str = "Llama 3 community (gated)";
const OPT: &str = "OPT-175B, non-commercial";
const GLM: &str = "ChatGLM model licence";

const fn model(
    name: &'static str,
    hub: &'static str,
    parameters: u64,
    hidden: usize,
    licence: &'static str,
) -> PaperModel {
    PaperModel { name, hub, parameters, hidden, bytes: 2 * parameters, licence }
}

/// All 18.
pub static PAPER_MODELS: &[PaperModel] = &[
    model("LLaMA-7B", "huggyllama/llama-7b", 6_738_415_616, 4096, LLAMA1),
    model("LLaMA-13B", "huggyllama/llama-13b", 13_015_864_320, 5120, LLAMA1),
    model("LLaMA-30B", "huggyllama/llama-30b", 32_528_943_616, 6656, LLAMA1),
    model("LLaMA-65B", "huggyllama/llama-65b", 65_285_660_672, 8192, LLAMA1),
    model("LLaMA2-7B", "meta-llama/Llama-2-7b-hf", 6_738_415_616, 4096, LLAMA2),
    model("LLaMA2-13B", "meta-llama/Llama-2-13b-hf", 13_015_864_320, 5120, LLAMA2),
    model("LLaMA2-70B", "meta-llama/Llama-2-70b-hf", 68_976_648_192, 8192, LLAMA2),
    model("LLaMA3-8B", "meta-llama/Meta-Llama-3-8B", 8_030_261_248, 4096, LLAMA3),
    model("LLaMA3-70B", "meta-llama/Meta-Llama-3-70B", 70_553_706_496, 8192, LLAMA3),
    model("Vicuna-7B", "lmsys/vicuna-7b-v1.5", 6_738_415_616, 4096, LLAMA2),
    model("Vicuna-13B", "lmsys/vicuna-13b-v1.5", 13_015_864_320, 5120, LLAMA2),
    model("OPT-1.3B", "facebook/opt-1.3b", 1_315_758_080, 2048, OPT),
    model("OPT-2.7B", "facebook/opt-2.7b", 2_651_596_800, 2560, OPT),
    model("OPT-6.7B", "facebook/opt-6.7b", 6_658_473_984, 4096, OPT),
    model("OPT-13B", "facebook/opt-13b", 12_853_473_280, 5120, OPT),
    model("OPT-30B", "facebook/opt-30b", 29_974_540_288, 7168, OPT),
    model("ChatGLM2-6B", "THUDM/chatglm2-6b", 6_243_584_000, 4096, GLM),
    model("ChatGLM3-6B", "THUDM/chatglm3-6b", 6_243_584_000, 4096, GLM),
];
