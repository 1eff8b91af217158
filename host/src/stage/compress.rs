//! Compression: an engine opens the model, a method walks its blocks, the engine saves a checkpoint.
//!
//! Every finished block is saved, with the state that the method keeps; an interrupted stage replays those without the method and goes on with
//! the next.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use llmcb_plugin_api::loader::EngineHandle;
use llmcb_plugin_api::sdk::{
    BlockInfo, Error, ErrorKind, HostServices, Linear, LogLevel, Parameter, Result, Tensor,
};
use serde_json::Value;

use super::{load, text};
use crate::suite::result::CheckpointRecord;
use crate::suite::store;
use crate::tasks;
use crate::worker::protocol::{StageOrder, StageOutcome, Work};
use crate::worker::{Services, Usage};

/// Directory of finished blocks, removed at the end.
pub(crate) const BLOCKS: &str = "blocks";
/// Directory of the checkpoint.
pub(crate) const CHECKPOINT: &str = "checkpoint";
/// Present when the checkpoint is whole: what the engine said of it.
const CHECKPOINT_INFO: &str = "checkpoint.json";

fn block_file(directory: &Path, index: usize) -> PathBuf {
    directory.join(format!("{index:04}.safetensors"))
}

fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let place = format!("cannot {what} {}", path.display());
    move |error| Error::failed(format!("{place}: {error}"))
}

/// An engine's error about a file, with the file's name: not every engine says it.
fn naming(path: &Path, error: Error) -> Error {
    if error.message().contains(&*path.to_string_lossy()) {
        return error;
    }
    error.at(format!("cannot write {}", path.display()))
}

/// How many blocks from the first on are saved.
fn finished_blocks(directory: &Path) -> usize {
    (0..).take_while(|i| block_file(directory, *i).is_file()).count()
}

pub(super) fn run(order: &StageOrder, services: &Arc<Services>, usage: &Usage) -> Result<StageOutcome> {
    let Work::Compress { model, engine: engine_order, method: method_order, calibration } = &order.work
    else {
        return Err(Error::failed("not a compress stage"));
    };
    let mut outcome = StageOutcome::default();
    let blocks = order.directory.join(BLOCKS);
    std::fs::create_dir_all(&blocks).map_err(io("create", &blocks))?;
    let finished = finished_blocks(&blocks);
    services.open_state(&blocks, finished)?;

    // The method first: options that it refuses should not cost the loading of a model.
    services.stage_progress(0, 0, "loading the method");
    let plugin = load(&method_order.path)?;
    let mut method =
        plugin.new_method(&Value::Object(method_order.options.clone()), Arc::<Services>::clone(services))?;
    services.stage_progress(0, 0, "opening the model");
    let mut engine = load(&engine_order.path)?.open_engine(
        model,
        &Value::Object(engine_order.options.clone()),
        Arc::<Services>::clone(services),
    )?;
    let info = engine.model()?;
    let total = u64::from(info.blocks);
    outcome.model = Some(info);

    services.check_cancelled()?;
    if plugin.descriptor().needs.calibration {
        usage.phase("calibration data");
        services.stage_progress(0, total, "preparing calibration");
        let text = text::obtain(order, services, &calibration.text, &mut outcome.data)?;
        outcome.warnings.extend(text.note.clone());
        let wanted = calibration.windows.saturating_mul(calibration.length);
        let tokens = text::first_tokens(&text.text, wanted, |texts| engine.encode(texts, true))?;
        let windows = tasks::windows(&tokens, calibration.length, calibration.windows, tasks::Windows::First)
            .map_err(|e| Error::invalid(e.to_string()))?;
        engine.calibrate(&windows, &plugin.descriptor().needs.plan)?;
    } else if let Err(error) = engine.calibrate(&[], &plugin.descriptor().needs.plan) {
        // An engine may want to hear that there is nothing to calibrate on; one that refuses has no need to.
        services.log(LogLevel::Debug, &format!("engine without calibration: {error}"));
    }

    method.prepare(&mut engine, total as u32)?;
    usage.phase("blocks");
    for index in 0..info_blocks(total)? {
        services.check_cancelled()?;
        let file = block_file(&blocks, index);
        let place = format!("block {}/{total}", index + 1);
        let block = engine.open_block(index as u32)?;
        if index < finished {
            services.stage_progress(index as u64, total, "blocks, restoring");
            engine.restore_block(&file)?;
        } else {
            services.stage_progress(index as u64, total, "blocks");
            method.compress_block(&mut engine, &block).map_err(|e| e.at(&place))?;
            let block = engine.block_info().map_err(|e| e.at(&place))?;
            check_finite(&mut engine, block).map_err(|e| e.at(&place))?;
            save(&mut engine, services, &blocks, index)?;
            usage.keep();
        }
        engine.close_block().map_err(|e| e.at(&place))?;
    }
    services.check_cancelled()?;
    services.stage_progress(total, total, "finishing");
    method.finish(&mut engine, total as u32)?;
    check_finished(&mut engine, total as u32)?;
    services.check_cancelled()?;
    usage.phase("saving");
    services.stage_progress(total, total, "saving the checkpoint");
    outcome.checkpoint = Some(save_checkpoint(&mut engine, &order.directory)?);
    std::fs::remove_dir_all(&blocks).map_err(io("remove", &blocks))?;
    Ok(outcome)
}

fn info_blocks(total: u64) -> Result<usize> {
    match usize::try_from(total) {
        Ok(0) => Err(Error::failed("the engine found no blocks in the model")),
        Ok(n) if n <= 100_000 => Ok(n),
        _ => Err(Error::failed(format!("the engine claims that the model has {total} blocks"))),
    }
}

/// Saves the open block and the method's state after it. The block's file comes last and by rename: while it is not there, the block is not done.
fn save(engine: &mut EngineHandle, services: &Services, blocks: &Path, index: usize) -> Result<()> {
    services.commit_state(index)?;
    let file = block_file(blocks, index);
    let partial = file.with_extension("partial");
    engine.save_block(&partial).map_err(|e| naming(&partial, e))?;
    store::sync_file(&partial).map_err(io("write", &partial))?;
    std::fs::rename(&partial, &file).map_err(io("rename to", &file))?;
    store::sync_directory(blocks).map_err(io("write", blocks))?;
    if let Some(before) = index.checked_sub(1) {
        let _ = std::fs::remove_file(crate::worker::state_file(blocks, before));
    }
    Ok(())
}

/// Refuses weights that are not numbers: they would make every later number worthless.
fn check_finite(engine: &mut EngineHandle, info: BlockInfo) -> Result<()> {
    let linears = info.linears.clone();
    let block = engine.block(info);
    check_weights(&linears, |name| block.weight(name))
}

/// The same of all blocks, once the method has finished the model.
fn check_finished(engine: &mut EngineHandle, blocks: u32) -> Result<()> {
    let model = engine.whole(blocks);
    for index in 0..blocks {
        let info = match model.block(index) {
            Ok(info) => info,
            // Such an engine lets nothing be changed either.
            Err(error) if error.kind() == ErrorKind::Unsupported => return Ok(()),
            Err(error) => return Err(error),
        };
        let place = format!("block {}/{blocks}", index + 1);
        check_weights(&info.linears, |name| model.weight(&Parameter::of_block(index, name)))
            .map_err(|e| e.at(&place))?;
    }
    Ok(())
}

fn check_weights(linears: &[Linear], weight: impl Fn(&str) -> Result<Tensor>) -> Result<()> {
    for linear in linears {
        let weight = weight(&linear.name)?;
        if weight.shape() != linear.shape() {
            return Err(Error::failed(format!(
                "the method left {} with the shape {:?}; it must be {:?}",
                linear.name,
                weight.shape(),
                linear.shape()
            )));
        }
        let bad = match weight.as_slice::<f32>() {
            Ok(values) => values.iter().filter(|w| !w.is_finite()).count(),
            Err(_) => weight.to_f32()?.iter().filter(|w| !w.is_finite()).count(),
        };
        if bad > 0 {
            return Err(Error::failed(format!(
                "the method left {bad} of {} weights of {} infinite or not a number",
                weight.len(),
                linear.name
            )));
        }
    }
    Ok(())
}

fn save_checkpoint(engine: &mut EngineHandle, directory: &Path) -> Result<CheckpointRecord> {
    let checkpoint = directory.join(CHECKPOINT);
    if checkpoint.exists() {
        // Left by an attempt that was killed while it wrote.
        std::fs::remove_dir_all(&checkpoint).map_err(io("remove", &checkpoint))?;
    }
    std::fs::create_dir(&checkpoint).map_err(io("create", &checkpoint))?;
    let info = engine.save_checkpoint(&checkpoint).map_err(|e| naming(&checkpoint, e))?;
    for (name, size) in &info.files {
        let file = checkpoint.join(name);
        let found = std::fs::metadata(&file).map_err(io("find", &file))?.len();
        if found != *size {
            return Err(Error::failed(format!(
                "{} has {found} bytes, the engine wrote {size}; is the disk full?",
                file.display()
            )));
        }
        store::sync_file(&file).map_err(io("write", &file))?;
    }
    store::sync_directory(&checkpoint).map_err(io("write", &checkpoint))?;
    let record = CheckpointRecord { path: CHECKPOINT.into(), info };
    let json = serde_json::to_vec_pretty(&record).map_err(|e| Error::failed(e.to_string()))?;
    store::write_atomically(&directory.join(CHECKPOINT_INFO), &json)
        .map_err(|e| Error::failed(e.to_string()))?;
    Ok(record)
}
