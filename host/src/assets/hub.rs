//! The Hugging Face hub: data sets as Parquet files, and models.

use super::cache::sha256_file;
use super::error::SourceError;
use super::progress::{Progress, ProgressFn};
use super::registry::HubFile;
use super::stop::Stop;
use hf_hub::api::sync::{ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Address of the hub (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Folder of the hub's own cache (`HF_HUB_CACHE`, or `hub` below `HF_HOME`).
    pub cache: PathBuf,
    /// Token for repositories that ask for one (`HF_TOKEN`); without it, the token file beside the cache counts.
    pub token: Option<String>,
    /// Take only what the hub's cache already has (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Connections go through a proxy, so whether the hub itself can be reached is not asked first.
    pub proxied: bool,
    /// How long a connection may take to be made.
    pub connect_timeout: Duration,
    /// How long a transfer may stand still.
    pub stall_timeout: Duration,
}

/// The hub, and whether it was found unreachable before.
#[derive(Debug)]
pub(crate) struct Hub {
    options: HubOptions,
    unreachable: Mutex<Option<String>>,
}

enum Event<T> {
    Size(u64),
    Moved(u64),
    Done(Result<T, ApiError>),
}

/// Sends what hf-hub reports to the thread that waits; a receiver that has gone away has given up on this transfer.
struct Reporter<T>(Sender<Event<T>>);

impl<T> hf_hub::api::Progress for Reporter<T> {
    fn init(&mut self, size: usize, _filename: &str) {
        let _ = self.0.send(Event::Size(size as u64));
    }
    fn update(&mut self, size: usize) {
        let _ = self.0.send(Event::Moved(size as u64));
    }
    fn finish(&mut self) {}
}

const OFFLINE: &str = "HF_HUB_OFFLINE is set and the hub's cache does not have it";

/// Files of a repository that a model needs.
fn belongs_to_a_model(name: &str) -> bool {
    !name.contains('/')
        && !name.starts_with("pytorch_model")
        && [".safetensors", ".json", ".gguf", ".model", ".jinja"].iter().any(|end| name.ends_with(end))
}

fn is_weights(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { options, unreachable: Mutex::new(None) }
    }

    /// The address, without a slash at its end.
    pub(crate) fn endpoint(&self) -> &str {
        self.options.endpoint.trim_end_matches('/')
    }

    fn cached(&self, repo: &Repo, path: &str) -> Option<PathBuf> {
        Cache::new(self.options.cache.clone()).repo(repo.clone()).get(path)
    }

    /// Fetches a file of a data set into the hub's cache and checks it against the hash that the hub names it by.
    ///
    /// # Errors
    /// A reason, in words, or the user asked to stop.
    pub(crate) fn data_file(
        &self,
        file: &HubFile,
        progress: &ProgressFn<'_>,
        stop: &Stop,
    ) -> Result<PathBuf, SourceError> {
        let repo = Repo::with_revision(file.repo.to_owned(), RepoType::Dataset, file.revision.to_owned());
        if let Some(path) = self.cached(&repo, file.path) {
            match check(&path) {
                Ok(()) => return Ok(path),
                Err(reason) if self.options.offline => return Err(SourceError::Unavailable(reason)),
                Err(_) => discard(&path),
            }
        }
        if self.options.offline {
            return Err(SourceError::Unavailable(OFFLINE.to_owned()));
        }
        self.reach(progress, stop)?;
        self.download(&repo, file.path, progress, stop)
    }

    /// Brings a model's repository into the hub's cache and returns its folder, or the file where it is one GGUF. Where the hub cannot be
    /// reached, what the cache has is used if it is whole.
    ///
    /// # Errors
    /// A reason, in words, or the user asked to stop.
    pub(crate) fn model(
        &self,
        id: &str,
        revision: &str,
        progress: &ProgressFn<'_>,
        stop: &Stop,
    ) -> Result<PathBuf, SourceError> {
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        if self.options.offline {
            return self.cached_model(&repo).ok_or_else(|| SourceError::Unavailable(OFFLINE.to_owned()));
        }
        match self.listing(&repo, progress, stop).and_then(|names| choose(&names)) {
            Ok(names) => {
                let mut last = PathBuf::new();
                for name in &names {
                    last = match self.cached(&repo, name) {
                        Some(path) => path,
                        None => self.download(&repo, name, progress, stop)?,
                    };
                }
                Ok(match last.extension() {
                    Some(end) if end == "gguf" => last,
                    _ => last.parent().map(Path::to_owned).unwrap_or_default(),
                })
            }
            Err(SourceError::Unavailable(reason)) => match self.cached_model(&repo) {
                Some(path) => {
                    progress(Progress::Message(format!("{id}: {reason}; the hub's cache has it")));
                    Ok(path)
                }
                None => Err(SourceError::Unavailable(reason)),
            },
            Err(fatal) => Err(fatal),
        }
    }

    /// Names of a repository's files.
    fn listing(
        &self,
        repo: &Repo,
        progress: &ProgressFn<'_>,
        stop: &Stop,
    ) -> Result<Vec<String>, SourceError> {
        self.reach(progress, stop)?;
        progress(Progress::Message(format!("looking for {} on {}", repo.url(), self.endpoint())));
        let info = self.apart(repo, &repo.url(), progress, stop, |api, _| api.info())?;
        Ok(info.siblings.into_iter().map(|file| file.rfilename).collect())
    }

    /// A model that the hub's cache has whole: its weights are fetched last, so where they are nothing is missing.
    fn cached_model(&self, repo: &Repo) -> Option<PathBuf> {
        let folder = self.options.cache.join(repo.folder_name());
        let commit = std::fs::read_to_string(folder.join("refs").join(repo.revision())).ok()?;
        let snapshot = folder.join("snapshots").join(commit.trim());
        let names: Vec<String> = std::fs::read_dir(&snapshot)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // A link whose target is not there is no file.
            .filter(|name| snapshot.join(name).is_file())
            .collect();
        let index = std::fs::read(snapshot.join("model.safetensors.index.json")).unwrap_or_default();
        let shards: Vec<String> = serde_json::from_slice::<serde_json::Value>(&index)
            .ok()
            .and_then(|index| index.get("weight_map")?.as_object().cloned())
            .map(|map| map.values().filter_map(|file| file.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        if shards.iter().any(|shard| !names.contains(shard)) {
            return None;
        }
        let chosen = choose(&names).ok()?;
        Some(match chosen.last() {
            Some(one) if one.ends_with(".gguf") => snapshot.join(one),
            _ => snapshot,
        })
    }

    /// Asks whether the hub can be reached, once for all.
    fn reach(&self, progress: &ProgressFn<'_>, stop: &Stop) -> Result<(), SourceError> {
        let mut unreachable = self.unreachable.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &*unreachable {
            return Err(SourceError::Unavailable(reason.clone()));
        }
        if self.options.proxied {
            return Ok(());
        }
        reach(&self.options.endpoint, self.options.connect_timeout, stop).inspect_err(|error| {
            if let SourceError::Unavailable(reason) = error {
                progress(Progress::Message(format!("no Hugging Face hub ({reason})")));
                *unreachable = Some(reason.clone());
            }
        })
    }

    fn download(
        &self,
        repo: &Repo,
        path: &str,
        progress: &ProgressFn<'_>,
        stop: &Stop,
    ) -> Result<PathBuf, SourceError> {
        progress(Progress::Message(format!("fetching {}/{path} from {}", repo.url(), self.endpoint())));
        let what = format!("{}/{path}", repo.url());
        let name = path.to_owned();
        let fetched = self.apart(repo, &what, progress, stop, move |api, reporter| {
            api.download_with_progress(&name, reporter)
        })?;
        check(&fetched).inspect_err(|_| discard(&fetched)).map_err(SourceError::Unavailable)?;
        Ok(fetched)
    }

    /// Works with the hub in another thread, because hf-hub sets no time limits and cannot be interrupted: what stands still, and what the user
    /// does not want any more, is left behind.
    fn apart<T: Send + 'static>(
        &self,
        repo: &Repo,
        what: &str,
        progress: &ProgressFn<'_>,
        stop: &Stop,
        work: impl FnOnce(ApiRepo, Reporter<T>) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, SourceError> {
        let unavailable = |reason: String| SourceError::Unavailable(reason);
        let (events, received) = channel();
        let (options, repo) = (self.options.clone(), repo.clone());
        let endpoint = self.endpoint().to_owned();
        std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || {
                let mut api = ApiBuilder::from_cache(Cache::new(options.cache))
                    .with_endpoint(endpoint)
                    .with_progress(false);
                if options.token.is_some() {
                    api = api.with_token(options.token);
                }
                let reporter = Reporter(events.clone());
                let result = api.build().and_then(|api| work(api.repo(repo), reporter));
                let _ = events.send(Event::Done(result));
            })
            .map_err(|e| unavailable(format!("cannot start a thread: {e}")))?;
        let (mut done, mut total) = (0, None);
        loop {
            match stop.receive(&received, self.options.stall_timeout)? {
                Some(Event::Done(result)) => {
                    return result.map_err(|e| unavailable(format!("{what}: {e}")));
                }
                Some(Event::Size(size)) => total = Some(size),
                Some(Event::Moved(bytes)) => {
                    done += bytes;
                    let done = done.min(total.unwrap_or(u64::MAX));
                    progress(Progress::Bytes { what: what.to_owned(), done, total });
                }
                None => {
                    let seconds = self.options.stall_timeout.as_secs_f32();
                    return Err(unavailable(format!("{what}: no data for {seconds} s")));
                }
            }
        }
    }
}

/// The files to fetch of a model's repository, weights last: either weights in safetensors with all that belongs to them, or one GGUF.
fn choose(names: &[String]) -> Result<Vec<String>, SourceError> {
    let ours = || names.iter().filter(|name| belongs_to_a_model(name)).cloned();
    let ggufs: Vec<String> = ours().filter(|name| name.ends_with(".gguf")).collect();
    if ours().any(|name| name.ends_with(".safetensors")) {
        let mut chosen: Vec<String> = ours().filter(|name| !name.ends_with(".gguf")).collect();
        chosen.sort_by_key(|name| is_weights(name));
        return Ok(chosen);
    }
    match ggufs.len() {
        1 => Ok(ggufs),
        0 => Err(SourceError::Unavailable("the repository holds neither safetensors nor GGUF".to_owned())),
        n => Err(SourceError::Unavailable(format!(
            "the repository holds {n} GGUF files; download one and give its path"
        ))),
    }
}

/// Host and port of an `http` or `https` address.
fn host_and_port(endpoint: &str) -> Result<(String, u16), String> {
    let (rest, default) = if let Some(rest) = endpoint.strip_prefix("https://") {
        (rest, 443)
    } else if let Some(rest) = endpoint.strip_prefix("http://") {
        (rest, 80)
    } else {
        return Err(format!("HF_ENDPOINT is `{endpoint}`, but must begin with http:// or https://"));
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let authority = authority.rsplit('@').next().unwrap_or_default();
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => {
            (host, port.parse().map_err(|_| format!("HF_ENDPOINT `{endpoint}` has no valid port"))?)
        }
        _ => (authority, default),
    };
    if host.is_empty() {
        return Err(format!("HF_ENDPOINT `{endpoint}` names no host"));
    }
    Ok((host.trim_matches(['[', ']']).to_owned(), port))
}

/// Asks within `timeout` whether a connection can be made at all. Resolving a name has no time limit of its own, hence the thread.
fn reach(endpoint: &str, timeout: Duration, stop: &Stop) -> Result<(), SourceError> {
    let (host, port) = host_and_port(endpoint).map_err(SourceError::Unavailable)?;
    let (answer, received) = channel();
    let name = host.clone();
    std::thread::Builder::new()
        .name("hub-reach".to_owned())
        .spawn(move || {
            let reached = (name.as_str(), port).to_socket_addrs().and_then(|addresses| {
                let mut last = std::io::Error::other("the name has no address");
                for address in addresses {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(_) => return Ok(()),
                        Err(e) => last = e,
                    }
                }
                Err(last)
            });
            let _ = answer.send(reached.map_err(|e| e.to_string()));
        })
        .map_err(|e| SourceError::Unavailable(format!("cannot start a thread: {e}")))?;
    let reason = match stop.receive(&received, timeout)? {
        Some(Ok(())) => return Ok(()),
        Some(Err(e)) => format!("cannot connect to {host}: {e}"),
        None => format!("no connection to {host} within {} s", timeout.as_secs_f32()),
    };
    Err(SourceError::Unavailable(reason))
}

/// The hub names large files by their SHA-256; others by a git hash, which says nothing that could be checked here.
fn check(path: &Path) -> Result<(), String> {
    let blob = path.canonicalize().map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    if name.len() != 64 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(());
    }
    let found = sha256_file(&blob).map_err(|e| e.to_string())?;
    if found == name.to_ascii_lowercase() {
        Ok(())
    } else {
        Err(format!("{} is damaged: SHA-256 is {found}, the hub names {name}", blob.display()))
    }
}

/// Takes a damaged file out of the hub's cache; if it cannot be removed, it will be found damaged again.
fn discard(path: &Path) {
    if let Ok(blob) = path.canonicalize() {
        let _ = std::fs::remove_file(blob);
    }
    let _ = std::fs::remove_file(path);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_models_files_are_chosen_and_its_weights_come_last() {
        let choose = |names: &[&str]| {
            choose(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).map_err(|e| format!("{e:?}"))
        };
        let names = [
            ".gitattributes",
            "README.md",
            "model-00001-of-00002.safetensors",
            "config.json",
            "model.safetensors.index.json",
            "model-00002-of-00002.safetensors",
            "onnx/model.onnx",
            "original/consolidated.safetensors",
            "pytorch_model.bin.index.json",
            "q4.gguf",
            "tokenizer.model",
        ];
        assert_eq!(
            choose(&names).unwrap(),
            [
                "config.json",
                "model.safetensors.index.json",
                "tokenizer.model",
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors"
            ]
        );
        assert_eq!(choose(&["README.md", "q4.gguf", "config.json"]).unwrap(), ["q4.gguf"]);
        assert!(choose(&["a.gguf", "b.gguf"]).unwrap_err().contains("2 GGUF files"));
        assert!(choose(&["pytorch_model.bin"]).unwrap_err().contains("neither safetensors nor GGUF"));
    }

    #[test]
    fn endpoints_name_host_and_port() {
        for (endpoint, host, port) in [
            ("https://huggingface.co", "huggingface.co", 443),
            ("http://127.0.0.1:8080/mirror", "127.0.0.1", 8080),
            ("http://u:p@host", "host", 80),
            ("http://[::1]:81", "::1", 81),
            ("http://[::1]", "::1", 80),
        ] {
            assert_eq!(host_and_port(endpoint), Ok((host.to_owned(), port)), "{endpoint}");
        }
        for endpoint in ["huggingface.co", "ftp://x", "http://", "http://h:99999", "http://:80"] {
            assert!(host_and_port(endpoint).is_err(), "{endpoint}");
        }
    }
}
