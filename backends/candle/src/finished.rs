//! Blocks that a method is done with: on disk where they were saved, so that one block at a time is in memory.

use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use llmcb_transformer::{Activations, Architecture, Block, BlockShape, BlockStore, Error, Result};

use crate::block_file;

/// Closed blocks, in order.
pub(crate) struct Finished {
    architecture: Arc<Architecture>,
    blocks: Vec<Closed>,
    /// The one that was read last: what asks for a block asks for several of its tensors in turn.
    last: Mutex<Option<(usize, Block)>>,
}

struct Closed {
    shape: BlockShape,
    activations: Activations,
    place: Place,
}

enum Place {
    /// Nobody saved it, or it was changed since.
    Memory(Box<Block>),
    /// The file may have been renamed since; it stays open.
    File(File),
}

impl Finished {
    /// None yet, of a model of this architecture.
    pub(crate) fn new(architecture: Architecture) -> Self {
        Self { architecture: Arc::new(architecture), blocks: Vec::new(), last: Mutex::default() }
    }

    /// Takes in the next block; `saved` is the file that has it as it is.
    pub(crate) fn push(&mut self, block: Block, saved: Option<File>) {
        self.blocks.push(Closed {
            shape: block.architecture().block_shape(),
            activations: *block.activations(),
            place: match saved {
                Some(file) => Place::File(file),
                None => Place::Memory(Box::new(block)),
            },
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.blocks.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    fn closed(&self, index: usize) -> Result<&Closed> {
        let found = self.blocks.get(index);
        found.ok_or_else(|| Error::argument(format!("block {index}"), format!("{} are finished", self.len())))
    }

    /// Changes block `index`, which stays in memory from then on.
    pub(crate) fn change(
        &mut self,
        index: usize,
        change: impl FnOnce(&mut Block) -> Result<()>,
    ) -> Result<()> {
        let mut block = self.block(index)?;
        change(&mut block)?;
        *self.last.get_mut().unwrap_or_else(PoisonError::into_inner) = None;
        self.blocks[index].place = Place::Memory(Box::new(block));
        Ok(())
    }

    /// What readers of a checkpoint should know of its activations.
    pub(crate) fn activation_note(&self) -> Option<String> {
        let mut found: Vec<(String, Vec<&str>)> = Vec::new();
        for (site, rounding) in self.blocks.iter().flat_map(|block| block.activations.iter()) {
            let how = rounding.describe();
            let at = found.iter().position(|(known, _)| *known == how).unwrap_or_else(|| {
                found.push((how, Vec::new()));
                found.len() - 1
            });
            if !found[at].1.contains(&site.name()) {
                found[at].1.push(site.name());
            }
        }
        let all: Vec<String> =
            found.iter().map(|(how, sites)| format!("{} to {how}", sites.join(", "))).collect();
        (!all.is_empty()).then(|| {
            format!(
                "activations are rounded while it runs ({}); other tools run what `quantization_config` says of it, else leave them as they are",
                all.join("; ")
            )
        })
    }

    /// What readers of a checkpoint should know of blocks that differ.
    pub(crate) fn shape_note(&self) -> Option<String> {
        let first = self.blocks.first()?.shape;
        self.blocks.iter().any(|block| block.shape != first).then(|| {
            "blocks differ in their numbers of heads or channels, which `llmcb_block_shapes` in config.json gives and other tools do not read"
                .to_owned()
        })
    }
}

impl BlockStore for Finished {
    fn count(&self) -> usize {
        self.blocks.len()
    }

    fn shape(&self, index: usize) -> Result<BlockShape> {
        Ok(self.closed(index)?.shape)
    }

    fn block(&self, index: usize) -> Result<Block> {
        let file = match &self.closed(index)?.place {
            Place::Memory(block) => return Ok(Block::clone(block)),
            Place::File(file) => file,
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, block)) = &*last
            && *at == index
        {
            return Ok(block.clone());
        }
        // Let go of the other one first.
        *last = None;
        let block = block_file::read(file, &self.architecture)
            .map_err(|e| Error::argument(format!("saved block {index}"), e.to_string()))?;
        *last = Some((index, block.clone()));
        Ok(block)
    }
}
