//! What the host gives a plugin.

use abi_stable::sabi_trait;
use abi_stable::std_types::{RArc, ROption, RSlice, RStr, RVec};

use super::error::AbiResult;

/// Services of the host; every function may be called from any thread, at any time until the plugin's instance is
/// dropped.
#[sabi_trait]
pub trait AbiHost: Send + Sync + 'static {
    /// Reports progress of the present stage: `done` of `total` steps, and what is being done.
    fn progress(&self, done: u64, total: u64, what: RStr<'_>);
    /// Whether the user asked to stop; then return an error of kind `CANCELLED` soon.
    fn cancelled(&self) -> bool;
    /// Writes to the log. Levels: 1 error, 2 warning, 3 info, 4 debug, 5 trace.
    fn log(&self, level: u32, message: RStr<'_>);
    /// The seed of the run: all randomness of a plugin comes from it.
    fn seed(&self) -> u64;
    /// How many threads the plugin may keep busy.
    fn threads(&self) -> u32;
    /// Keeps bytes under a key so that a stage that was killed can go on; replaces what was there, atomically.
    fn save_state(&self, key: RStr<'_>, bytes: RSlice<'_, u8>) -> AbiResult<()>;
    /// What was kept under a key.
    #[sabi(last_prefix_field)]
    fn load_state(&self, key: RStr<'_>) -> AbiResult<ROption<RVec<u8>>>;
}

/// A shared handle on the host's services.
pub type AbiHostArc = AbiHost_TO<RArc<()>>;
