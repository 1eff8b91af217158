//! A checkpoint as a directory in the Hugging Face layout.

use std::path::{Path, PathBuf};

use llmcb_plugin_api::sdk::{Error, Result};
use llmcb_transformer::{CheckpointOptions, CheckpointWriter, StorageType};

use crate::checkpoint::{Checkpoint, translate};
use crate::install::{Scratch, scratch};

/// A directory to load. One that was written for this purpose goes when this is dropped.
pub struct HubLayout {
    /// The directory.
    pub directory: PathBuf,
    /// Whether it was written for this purpose.
    pub written: bool,
    _folder: Option<Scratch>,
}

impl HubLayout {
    /// A directory as it is.
    pub fn as_it_is(directory: &Path) -> Self {
        HubLayout { directory: directory.to_owned(), written: false, _folder: None }
    }

    /// What was written into a folder for this purpose.
    pub fn of_folder(folder: Scratch) -> Self {
        HubLayout { directory: folder.path().to_owned(), written: true, _folder: Some(folder) }
    }
}

/// The checkpoint's own directory, or, of a GGUF, one with its weights as numbers of type `storage`.
///
/// # Errors
/// It cannot be written.
pub fn hub_layout(checkpoint: &Checkpoint, path: &Path, storage: StorageType) -> Result<HubLayout> {
    match checkpoint.info.source_format.as_str() {
        "gguf" => written(checkpoint, storage),
        _ => Ok(HubLayout::as_it_is(path)),
    }
}

/// The checkpoint's own directory where its weights are stored as numbers, else one with its weights as numbers of type `storage`.
///
/// # Errors
/// It cannot be written.
pub fn as_numbers(checkpoint: &Checkpoint, path: &Path, storage: StorageType) -> Result<HubLayout> {
    let config = checkpoint.model.original_config();
    let is_plain = ["quantization_config", "compression_config"].iter().all(|key| config[*key].is_null());
    match is_plain && path.is_dir() {
        true => hub_layout(checkpoint, path, storage),
        false => written(checkpoint, storage),
    }
}

fn written(checkpoint: &Checkpoint, storage: StorageType) -> Result<HubLayout> {
    let folder = scratch()?;
    let model = &checkpoint.model;
    let options = CheckpointOptions { storage, block_storage: storage, ..CheckpointOptions::default() };
    let mut writer = CheckpointWriter::create(folder.path(), model, options).map_err(translate)?;
    for index in 0..model.block_count() {
        writer.write_block(index, &model.block(index).map_err(translate)?).map_err(translate)?;
    }
    writer.finish().map_err(translate)?;
    Ok(HubLayout::of_folder(folder))
}

/// Links the files of a directory into a folder, but for hidden ones and those that are left out.
///
/// # Errors
/// They cannot be read or linked.
pub fn link_files(directory: &Path, folder: &Path, left_out: &[&str]) -> Result<()> {
    let cannot =
        |e: std::io::Error| Error::failed(format!("cannot link the files of {}: {e}", directory.display()));
    for entry in directory.canonicalize().and_then(std::fs::read_dir).map_err(cannot)? {
        let entry = entry.map_err(cannot)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') && !left_out.contains(&name.as_str()) {
            std::os::unix::fs::symlink(entry.path(), folder.join(entry.file_name())).map_err(cannot)?;
        }
    }
    Ok(())
}
