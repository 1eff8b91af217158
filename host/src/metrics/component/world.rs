//! The world of `plugin-api/wit` on the host's side.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::error::ComponentError;
use crate::metrics::scoring::Column;
use exports::llmcb::metric::scoring as wit;

#[allow(missing_docs)]
mod generated {
    wasmtime::component::bindgen!({ path: "../plugin-api/wit", world: "metric" });
}
pub(super) use generated::{Metric, MetricPre, exports, llmcb};

/// The definition of the world, for authors.
pub const WIT: &str = include_str!("../../../../plugin-api/wit/metric.wit");
/// Version of the world.
pub(super) const VERSION: &str = "1.0.0";

const SCORING: &str = "llmcb:metric/scoring@";
const HOST: &str = "llmcb:metric/host@";

/// How every wasm file begins; the version of what is in it follows.
const MAGIC: &[u8] = b"\0asm";
const CORE_MODULE: &[u8] = &[1, 0, 0, 0];
/// The second half of a component's version: its layer.
const COMPONENT_LAYER: &[u8] = &[1, 0];

/// Whether the bytes begin as a component does.
pub(super) fn check_layer(bytes: &[u8]) -> Result<(), ComponentError> {
    match bytes.strip_prefix(MAGIC) {
        None => Err(ComponentError::NotWasm),
        Some(rest) if rest.starts_with(CORE_MODULE) => Err(ComponentError::CoreModule),
        Some(rest) if rest.get(2..4) == Some(COMPONENT_LAYER) => Ok(()),
        Some(_) => Err(ComponentError::NotWasm),
    }
}

/// Major version of a version.
fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// Whether a component imports and exports what it should; the version of the world that it was made for.
pub(super) fn check_interfaces(component: &Component, engine: &Engine) -> Result<String, ComponentError> {
    let of = component.component_type();
    let version = of.exports(engine).find_map(|(name, _)| name.strip_prefix(SCORING).map(str::to_owned));
    let version = version.ok_or(ComponentError::Foreign)?;
    if major(&version) != major(VERSION) {
        return Err(ComponentError::Version(version));
    }
    let foreign = of
        .imports(engine)
        .find(|(name, _)| name.strip_prefix(HOST).is_none_or(|version| major(version) != major(VERSION)));
    match foreign {
        Some((name, _)) => Err(ComponentError::Import(name.to_owned())),
        None => Ok(version),
    }
}

/// A column as a component is given it.
pub(super) fn column(column: Column) -> wit::Column {
    match column {
        Column::Texts(texts) => wit::Column::Texts(texts),
        Column::Numbers(values) => wit::Column::Numbers(values),
        Column::Indices(values) => wit::Column::Indices(values),
        Column::Ragged { offsets, values } => wit::Column::Ragged(wit::Ragged { offsets, values }),
    }
}
