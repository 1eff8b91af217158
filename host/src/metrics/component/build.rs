//! From core modules to components, for languages whose compilers end with a module: C and Rust.

use wit_bindgen_core::wit_parser::{Resolve, WorldId};
use wit_component::metadata::decode;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

use super::error::{ComponentError, one_line};
use super::world::WIT;

/// The world, parsed.
fn world() -> Result<(Resolve, WorldId), ComponentError> {
    let mut resolve = Resolve::default();
    let world = resolve
        .push_source("metric.wit", WIT)
        .and_then(|package| resolve.select_world(&[package], Some("metric")));
    world.map(|world| (resolve, world)).map_err(ComponentError::sandbox)
}

/// The component of a core module that has the exports of this world, in the names that bindings give them.
///
/// # Errors
/// The module lacks an export, or imports what it may not have.
pub fn component_of(module: &[u8]) -> Result<Vec<u8>, ComponentError> {
    let broken = |e: &dyn std::fmt::Display| ComponentError::Broken(one_line(&format!("{e:#}")));
    if !module.starts_with(b"\0asm\x01\0\0\0") {
        return Err(ComponentError::NotWasm);
    }
    let (resolve, world) = world()?;
    let mut module = module.to_vec();
    // Bindings may have said already which world it is of.
    if !matches!(decode(&module), Ok((Some(_), _))) {
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
            .map_err(|e| broken(&e))?;
    }
    let mut encoder = ComponentEncoder::default().validate(true).module(&module).map_err(|e| broken(&e))?;
    encoder.encode().map_err(|e| broken(&e))
}

/// The C header, source and object between a metric in C and the world, by file name.
///
/// # Errors
/// Never, unless the world cannot be parsed.
pub fn bindings_for_c() -> Result<Vec<(String, Vec<u8>)>, ComponentError> {
    let (mut resolve, world) = world()?;
    let mut files = wit_bindgen_core::Files::default();
    wit_bindgen_c::Opts::default()
        .build()
        .generate(&mut resolve, world, &mut files)
        .map_err(ComponentError::sandbox)?;
    Ok(files.iter().map(|(name, bytes)| (name.to_owned(), bytes.to_vec())).collect())
}
