//! What a component may take, and the state that a call has on the host's side.

use std::time::Duration;

use wasmtime::ResourceLimiter;

use super::error::{Stopped, one_line};
use super::world::llmcb::metric::host::Host;

/// Largest file: a Python with a script in it has some 20 MB.
pub const LARGEST_FILE: u64 = 64 << 20;
/// Most bytes of items that a call is given.
pub const LARGEST_INPUT: usize = 64 << 20;
/// Most memory, in bytes, of all its linear memories.
pub const MEMORY: usize = 512 << 20;
/// Fuel of a description.
pub const DESCRIBE_FUEL: u64 = 1_000_000_000;
/// Fuel of a score for each item, beside that of a description: some ten thousand lines of a script.
const FUEL_PER_ITEM: u64 = 2_000_000;
/// Entries of a table; interpreters have some ten thousand.
const TABLE: usize = 200_000;
/// Core instances, tables and memories: an interpreter is linked from several parts.
const PARTS: usize = 64;
/// Bytes of stack.
pub(super) const STACK: usize = 1 << 20;
/// How often the clock is looked at.
pub(super) const TICK: Duration = Duration::from_millis(50);
/// The last resort where fuel is spent more slowly than anybody thought.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(300);
/// Lines of the log that are kept, and their length.
const LOG_LINES: usize = 100;
const LOG_LINE: usize = 1000;

/// Fuel of a score over items.
pub fn fuel_for(items: usize) -> u64 {
    DESCRIBE_FUEL.saturating_add(FUEL_PER_ITEM.saturating_mul(items as u64))
}

/// What the host keeps of a call.
#[derive(Default)]
pub(super) struct Guest {
    /// Lines that were logged.
    pub(super) log: Vec<String>,
    /// Who ended the call, if it was the host.
    pub(super) stopped: Option<Stopped>,
    /// Whether it asked for more memory than it may have.
    pub(super) too_much_memory: bool,
    memory: usize,
}

impl Host for Guest {
    fn log(&mut self, message: String) {
        if self.log.len() < LOG_LINES {
            self.log.push(one_line(&message).chars().take(LOG_LINE).collect());
        }
    }
}

impl ResourceLimiter for Guest {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let all = self.memory + desired.saturating_sub(current);
        let may = all <= MEMORY;
        if may {
            self.memory = all;
        }
        self.too_much_memory |= !may;
        Ok(may)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        Ok(desired <= TABLE)
    }

    fn instances(&self) -> usize {
        PARTS
    }

    fn tables(&self) -> usize {
        PARTS
    }

    fn memories(&self) -> usize {
        PARTS
    }
}
