//! The functions of `bridge/bridge.c`.

use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;

use libloading::Library;
use llmcb_plugin_api::sdk::{Error, Result};

/// What the bridge must say of its interface.
const INTERFACE: i32 = 2;

type Handle = *mut c_void;

/// llama.cpp, loaded. Never unloaded: its threads may outlive any handle.
#[derive(Clone, Copy)]
pub(crate) struct Functions {
    version: unsafe extern "C" fn() -> *const c_char,
    features: unsafe extern "C" fn() -> *const c_char,
    offloads: unsafe extern "C" fn() -> i32,
    open: unsafe extern "C" fn(*const c_char, i32, i32) -> Handle,
    close: unsafe extern "C" fn(Handle),
    hold: unsafe extern "C" fn(Handle, i32, i32, i32, i32, i32) -> i32,
    vocabulary: unsafe extern "C" fn(Handle) -> i32,
    trained_length: unsafe extern "C" fn(Handle) -> i32,
    describe: unsafe extern "C" fn(Handle, *mut c_char, usize),
    run: unsafe extern "C" fn(Handle, i32, *const i32, *const i32, *const i32, *const i8) -> i32,
    logits: unsafe extern "C" fn(Handle, i32) -> *const f32,
    forget: unsafe extern "C" fn(Handle, i32, i32) -> i32,
}

fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    #[allow(unsafe_code)]
    // SAFETY: the bridge gives texts that end in a zero and that stay as they are.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_string_lossy().trim().to_owned()
}

impl Functions {
    /// Loads the bridge with llama.cpp in it.
    pub(crate) fn load(file: &Path) -> Result<Self> {
        let wrong = |e: &dyn std::fmt::Display| {
            Error::invalid(format!("{}: not a bridge to llama.cpp: {e}", file.display()))
        };
        #[allow(unsafe_code)]
        // SAFETY: loading runs the file's constructors; the user named or built it, and it is trusted like a plugin.
        let library = unsafe { Library::new(file) }.map_err(|e| wrong(&e))?;
        let library: &'static Library = Box::leak(Box::new(library));
        macro_rules! function {
            ($name:literal) => {{
                #[allow(unsafe_code)]
                // SAFETY: the name promises a function of this type; the interface's number is checked before any other is called.
                let symbol = unsafe { library.get($name.as_bytes()) }.map_err(|e| wrong(&e))?;
                *symbol
            }};
        }
        let interface: unsafe extern "C" fn() -> i32 = function!("llmcb_llama_interface");
        #[allow(unsafe_code)]
        // SAFETY: this function is the same in all versions.
        let number = unsafe { interface() };
        if number != INTERFACE {
            return Err(wrong(&format!(
                "it has interface {number}, this plugin needs {INTERFACE}; run `llmcb-host backends setup llama-cpp`"
            )));
        }
        Ok(Functions {
            version: function!("llmcb_llama_version"),
            features: function!("llmcb_llama_features"),
            offloads: function!("llmcb_llama_offloads"),
            open: function!("llmcb_llama_open"),
            close: function!("llmcb_llama_close"),
            hold: function!("llmcb_llama_hold"),
            vocabulary: function!("llmcb_llama_vocabulary"),
            trained_length: function!("llmcb_llama_trained_length"),
            describe: function!("llmcb_llama_describe"),
            run: function!("llmcb_llama_run"),
            logits: function!("llmcb_llama_logits"),
            forget: function!("llmcb_llama_forget"),
        })
    }

    /// Version of llama.cpp.
    pub(crate) fn version(&self) -> String {
        #[allow(unsafe_code)]
        // SAFETY: takes nothing, gives a constant text.
        text(unsafe { (self.version)() })
    }

    /// What it was built for.
    pub(crate) fn features(&self) -> String {
        #[allow(unsafe_code)]
        // SAFETY: as above.
        text(unsafe { (self.features)() })
    }

    /// Whether layers can be put on an accelerator.
    pub(crate) fn offloads(&self) -> bool {
        #[allow(unsafe_code)]
        // SAFETY: takes nothing.
        unsafe {
            (self.offloads)() != 0
        }
    }
}

/// How many tokens are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Room {
    /// Sequences side by side.
    pub sequences: usize,
    /// Tokens of each.
    pub tokens: usize,
    /// Tokens that are run at once.
    pub batch: usize,
    /// Whether keys and values are kept in single precision, not half.
    pub single: bool,
}

/// A token to run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub token: u32,
    pub position: usize,
    pub sequence: usize,
    /// Whether logits after it are wanted.
    pub wanted: bool,
}

/// A model in llama.cpp.
pub(crate) struct Loaded {
    functions: Functions,
    handle: Handle,
    threads: usize,
    room: Option<Room>,
    vocabulary: usize,
}

#[allow(unsafe_code)]
// SAFETY: llama.cpp ties neither a model nor a context to a thread, and a `Loaded` is used by one at a time.
unsafe impl Send for Loaded {}

fn number(n: usize) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::invalid(format!("{n} is more than llama.cpp can count")))
}

impl Loaded {
    /// Loads a GGUF file. `repack` lets llama.cpp lay weights out anew for the processor.
    pub(crate) fn open(
        functions: Functions,
        file: &Path,
        threads: usize,
        gpu_layers: i32,
        repack: bool,
    ) -> Result<Self> {
        let path = CString::new(file.as_os_str().as_encoded_bytes())
            .map_err(|_| Error::invalid(format!("{}: the path has a zero in it", file.display())))?;
        #[allow(unsafe_code)]
        // SAFETY: the path ends in a zero and outlives the call.
        let handle = unsafe { (functions.open)(path.as_ptr(), gpu_layers, i32::from(repack)) };
        if handle.is_null() {
            let why = "llama.cpp cannot load it (it says why in the stage's log)";
            return Err(Error::invalid(format!("{}: {why}", file.display())));
        }
        #[allow(unsafe_code)]
        // SAFETY: the handle was just made.
        let vocabulary = unsafe { (functions.vocabulary)(handle) };
        let vocabulary = usize::try_from(vocabulary).unwrap_or(0);
        Ok(Loaded { functions, handle, threads, room: None, vocabulary })
    }

    /// Longest sequence that the model was trained for.
    pub(crate) fn trained_length(&self) -> usize {
        #[allow(unsafe_code)]
        // SAFETY: the handle lives as long as this.
        let length = unsafe { (self.functions.trained_length)(self.handle) };
        usize::try_from(length).unwrap_or(0)
    }

    /// What llama.cpp calls the model.
    pub(crate) fn describe(&self) -> String {
        let mut bytes = [0u8; 256];
        #[allow(unsafe_code)]
        // SAFETY: at most so many bytes are written, a zero at their end.
        unsafe {
            (self.functions.describe)(self.handle, bytes.as_mut_ptr().cast(), bytes.len());
        }
        CStr::from_bytes_until_nul(&bytes)
            .map_or_else(|_| String::new(), |t| t.to_string_lossy().into_owned())
    }

    /// Makes room for tokens; what was held before is forgotten.
    pub(crate) fn make_room(&mut self, room: Room) -> Result<()> {
        let enough = |held: Room| held.tokens >= room.tokens && Room { tokens: room.tokens, ..held } == room;
        if self.room.is_some_and(enough) {
            return self.forget(None, 0);
        }
        self.room = None;
        let tokens = number(room.sequences.saturating_mul(room.tokens))?;
        let (sequences, batch) = (number(room.sequences)?, number(room.batch)?);
        let (threads, single) = (number(self.threads)?, i32::from(room.single));
        #[allow(unsafe_code)]
        // SAFETY: the handle lives as long as this.
        let result = unsafe { (self.functions.hold)(self.handle, threads, tokens, sequences, batch, single) };
        if result != 0 {
            return Err(Error::failed(format!(
                "llama.cpp has no room for {} sequences of {} tokens",
                room.sequences, room.tokens
            )));
        }
        self.room = Some(room);
        Ok(())
    }

    /// Runs tokens after those that their sequences hold; at most as many as there is room for at once.
    pub(crate) fn run(&mut self, places: &[Place]) -> Result<()> {
        let (mut tokens, mut positions, mut sequences, mut wanted) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for place in places {
            if place.token as usize >= self.vocabulary {
                return Err(Error::invalid(format!(
                    "token {} is beyond the vocabulary of {}",
                    place.token, self.vocabulary
                )));
            }
            tokens.push(number(place.token as usize)?);
            positions.push(number(place.position)?);
            sequences.push(number(place.sequence)?);
            wanted.push(i8::from(place.wanted));
        }
        let room = self.room.ok_or_else(|| Error::failed("no room was made for tokens"))?;
        if places.len() > room.batch || places.iter().any(|place| place.sequence >= room.sequences) {
            return Err(Error::failed("more tokens at once, or other sequences, than room was made for"));
        }
        #[allow(unsafe_code)]
        // SAFETY: all four have as many entries as the first argument says; the handle has a context, for there is room.
        let result = unsafe {
            (self.functions.run)(
                self.handle,
                number(places.len())?,
                tokens.as_ptr(),
                positions.as_ptr(),
                sequences.as_ptr(),
                wanted.as_ptr(),
            )
        };
        match result {
            0 => Ok(()),
            1 => Err(Error::failed("llama.cpp has no room left for the tokens of a sequence")),
            other => {
                Err(Error::failed(format!("llama.cpp could not run {} tokens (code {other})", places.len())))
            }
        }
    }

    /// Logits after the token at a place of the last run, where they were wanted.
    pub(crate) fn logits(&self, place: usize) -> Result<&[f32]> {
        #[allow(unsafe_code)]
        // SAFETY: the handle has a context; the place is checked by llama.cpp.
        let pointer = unsafe { (self.functions.logits)(self.handle, number(place)?) };
        if pointer.is_null() {
            return Err(Error::failed("llama.cpp gave no logits"));
        }
        #[allow(unsafe_code)]
        // SAFETY: it points at as many numbers as the vocabulary has, until the next run, which needs this mutably.
        Ok(unsafe { std::slice::from_raw_parts(pointer, self.vocabulary) })
    }

    /// Forgets a sequence, or all, from a position on.
    pub(crate) fn forget(&mut self, sequence: Option<usize>, from: usize) -> Result<()> {
        let sequence = sequence.map_or(Ok(-1), number)?;
        #[allow(unsafe_code)]
        // SAFETY: the handle lives as long as this.
        let result = unsafe { (self.functions.forget)(self.handle, sequence, number(from)?) };
        match result {
            0 => Ok(()),
            _ => Err(Error::unsupported("llama.cpp cannot forget part of what this model has read")),
        }
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        #[allow(unsafe_code)]
        // SAFETY: the handle was made by `open` and is not used again.
        unsafe {
            (self.functions.close)(self.handle);
        }
    }
}
