//! Libraries that a backend needs and that are installed apart from it.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::host::Host;

/// Environment variable with the folder below which backends keep libraries that they have installed. The host sets it for workers.
pub const LIBRARIES_VARIABLE: &str = "LLMCB_BACKENDS";

/// What is there of a library.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LibraryStatus {
    /// Its name, as its authors write it.
    pub name: String,
    /// Its version; absent where it is not installed.
    pub version: Option<String>,
    /// Where it is, or would be.
    pub place: String,
    /// What decides its results besides its version: how it was built, versions of what it rests on. Part of content keys.
    pub build: String,
    /// Why it cannot be used, and the way out, in one line; absent where it can.
    pub missing: Option<String>,
    /// What setting it up would do: what is downloaded from where, how much, how long it takes. Empty where the plugin cannot.
    pub set_up: String,
}

/// The library of a backend that is installed apart from the plugin.
pub trait Library: 'static {
    /// The options of the backend's runner, which may name an installation of the user's.
    type Options: DeserializeOwned;

    /// Name of the library.
    const NAME: &'static str;

    /// Looks for the library. That it is missing is no error. Cheap: it is asked for every plan.
    ///
    /// # Errors
    /// What is there cannot be asked.
    fn find(options: &Self::Options) -> Result<LibraryStatus>;

    /// Installs the library below [`libraries_folder`], with progress. What an earlier attempt left is gone on from or replaced; nothing
    /// half-installed is ever found.
    ///
    /// # Errors
    /// Of kind `Unsupported` where only the user can install it; else what went wrong.
    fn set_up(options: &Self::Options, host: &Host) -> Result<LibraryStatus> {
        let _ = (options, host);
        Err(Error::unsupported(format!("{} has to be installed by hand", Self::NAME)))
    }
}

/// The folder below which backends keep libraries that they have installed, each in one of its own.
///
/// # Errors
/// The host did not say.
pub fn libraries_folder() -> Result<PathBuf> {
    match std::env::var_os(LIBRARIES_VARIABLE) {
        Some(folder) if !folder.is_empty() => Ok(PathBuf::from(folder)),
        _ => Err(Error::invalid(format!("{LIBRARIES_VARIABLE} is not set to a folder"))),
    }
}
