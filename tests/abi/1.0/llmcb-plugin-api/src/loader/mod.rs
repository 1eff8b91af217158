//! Loading plugins: header first, then the layout check, then the root module; and safe handles on the roles.
//!
//! A shared object is never unloaded. Native plugins are trusted code: the checks here find faults, not malice.

mod handles;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi_stable::library::{LibraryError, lib_header_from_path};
use abi_stable::std_types::RString;

pub use handles::{EngineHandle, MethodHandle, RunnerHandle};

use crate::abi::header::{HEADER_SYMBOL, MAGIC, PluginHeader};
use crate::abi::root::PluginRootRef;
use crate::abi::{ABI_MAJOR, ABI_MINOR};
use crate::sdk::{Descriptor, HostServices, Result};

/// Why a file is not a usable plugin. Each message is one line; [`LoadError::details`] has the rest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file is missing or cannot be read.
    #[error("{path}: cannot be read: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The dynamic loader refused the file.
    #[error("{path}: not a loadable shared object: {reason}")]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the dynamic loader said.
        reason: String,
    },
    /// The header symbol is missing.
    #[error("{path}: not an llmcb plugin: it exports no `{HEADER_SYMBOL}`")]
    NotAPlugin {
        /// The file.
        path: PathBuf,
    },
    /// The header does not begin with the magic bytes.
    #[error("{path}: not an llmcb plugin: its header does not begin with the magic bytes")]
    WrongMagic {
        /// The file.
        path: PathBuf,
    },
    /// Built for another ABI.
    #[error(
        "{path}: built for plugin ABI {major}.{minor}, this host has {ABI_MAJOR}.{ABI_MINOR}; build the plugin against llmcb-plugin-api of ABI {ABI_MAJOR}"
    )]
    WrongAbi {
        /// The file.
        path: PathBuf,
        /// The plugin's major version.
        major: u32,
        /// The plugin's minor version.
        minor: u32,
    },
    /// The types of the root module differ.
    #[error("{path}: its ABI types are laid out differently from this host's; rebuild it (details with -v)")]
    WrongLayout {
        /// The file.
        path: PathBuf,
        /// abi_stable's full report.
        details: String,
    },
    /// The root module or the descriptor could not be made.
    #[error("{path}: {reason}")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What happened.
        reason: String,
    },
}

impl LoadError {
    /// What goes into a verbose log besides the message.
    pub fn details(&self) -> Option<&str> {
        match self {
            LoadError::WrongLayout { details, .. } => Some(details),
            _ => None,
        }
    }
}

/// A loaded plugin.
#[derive(Clone)]
pub struct LoadedPlugin {
    path: PathBuf,
    descriptor: Descriptor,
    root: PluginRootRef,
}

fn first_line(text: &str) -> String {
    text.lines().map(str::trim).find(|l| !l.is_empty()).unwrap_or("unknown reason").to_owned()
}

fn read_header(path: &Path) -> Result<PluginHeader, LoadError> {
    #[allow(unsafe_code)]
    // SAFETY: loading runs the file's constructors; plugins are trusted code, as the documentation says.
    let library = unsafe { libloading::Library::new(path) }.map_err(|e| LoadError::NotALibrary {
        path: path.into(),
        reason: first_line(&std::error::Error::source(&e).map_or_else(|| e.to_string(), ToString::to_string)),
    })?;
    #[allow(unsafe_code)]
    // SAFETY: the symbol's name promises a `PluginHeader`, a plain C structure; its magic is checked before use.
    let header = unsafe {
        library
            .get::<*const PluginHeader>(HEADER_SYMBOL.as_bytes())
            .ok()
            .map(|symbol| std::ptr::read_unaligned(*symbol))
    };
    // Never unloaded: threads or thread-locals of the library may outlive any handle.
    std::mem::forget(library);
    header.ok_or_else(|| LoadError::NotAPlugin { path: path.into() })
}

impl LoadedPlugin {
    /// Loads a plugin and reads its descriptor.
    pub fn open(path: &Path) -> Result<Self, LoadError> {
        // An absolute path, so that the dynamic loader does not search its own folders for a bare name.
        let path =
            path.canonicalize().map_err(|source| LoadError::Unreadable { path: path.into(), source })?;
        let header = Self::header(&path)?;
        if header.abi_major != ABI_MAJOR || header.abi_minor > ABI_MINOR {
            return Err(LoadError::WrongAbi { path, major: header.abi_major, minor: header.abi_minor });
        }
        let broken = |reason: String| LoadError::Broken { path: path.clone(), reason };
        let root = lib_header_from_path(&path)
            .and_then(|header| header.init_root_module::<PluginRootRef>())
            .map_err(|error| match error {
                LibraryError::AbiInstability(details) => {
                    LoadError::WrongLayout { path: path.clone(), details: format!("{details:?}") }
                }
                other => broken(first_line(&other.to_string())),
            })?;
        let text = root.descriptor()().into_result().map_err(|e| broken(e.message.into_string()))?;
        let descriptor: Descriptor = serde_json::from_str(&text)
            .map_err(|e| broken(format!("its descriptor is not what the ABI demands: {e}")))?;
        let faults = descriptor.faults();
        if !faults.is_empty() {
            return Err(broken(format!("its descriptor is incomplete: {}", faults.join("; "))));
        }
        Ok(LoadedPlugin { path, descriptor, root })
    }

    /// Reads only the frozen header.
    pub fn header(path: &Path) -> Result<PluginHeader, LoadError> {
        let unreadable = |source| LoadError::Unreadable { path: path.into(), source };
        let path = path.canonicalize().map_err(unreadable)?;
        std::fs::File::open(&path).map_err(|source| LoadError::Unreadable { path: path.clone(), source })?;
        let header = read_header(&path)?;
        if header.magic != MAGIC {
            return Err(LoadError::WrongMagic { path });
        }
        Ok(header)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the plugin says of itself.
    pub fn descriptor(&self) -> &Descriptor {
        &self.descriptor
    }

    /// Checks options of a role (`method`, `engine`, `runner`) and completes them with defaults.
    pub fn normalize_options(&self, role: &str, options: &serde_json::Value) -> Result<serde_json::Value> {
        let text =
            self.root.normalize_options()(role.into(), options.to_string().as_str().into()).into_result()?;
        handles::from_json("options", &text)
    }

    /// Makes an instance of the method.
    pub fn new_method(
        &self,
        options: &serde_json::Value,
        host: Arc<dyn HostServices>,
    ) -> Result<MethodHandle> {
        let host = handles::services(host);
        Ok(MethodHandle::new(
            self.root.new_method()(options.to_string().as_str().into(), host).into_result()?,
        ))
    }

    /// Opens a model for compression.
    pub fn open_engine(
        &self,
        model: &Path,
        options: &serde_json::Value,
        host: Arc<dyn HostServices>,
    ) -> Result<EngineHandle> {
        let model = handles::path_text(model)?;
        let options: RString = options.to_string().into();
        let open = self.root.open_engine();
        Ok(EngineHandle::new(
            open(model.as_str().into(), options.as_rstr(), handles::services(host)).into_result()?,
        ))
    }

    /// Loads a model for evaluation.
    pub fn open_runner(
        &self,
        model: &Path,
        options: &serde_json::Value,
        host: Arc<dyn HostServices>,
    ) -> Result<RunnerHandle> {
        let model = handles::path_text(model)?;
        let options: RString = options.to_string().into();
        let open = self.root.open_runner();
        Ok(RunnerHandle::new(
            open(model.as_str().into(), options.as_rstr(), handles::services(host)).into_result()?,
        ))
    }
}
