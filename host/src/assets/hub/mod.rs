//! The Hugging Face hub: data sets as Parquet files, and models.

mod choose;
mod client;
mod listing;
mod transfer;

use self::choose::{INDEX, choose, shards};
use self::client::Client;
use self::listing::Listing;
use self::transfer::{Fetched, Told, check, fetch, with_patience};
use super::disk::free_disk;
use super::error::SourceError;
use super::progress::{Progress, ProgressFn};
use super::registry::HubFile;
use super::stop::Stop;
use crate::report::numbers;
use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How the hub is reached.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Address of the hub (`HF_ENDPOINT`).
    pub endpoint: String,
    /// Folder of the hub's own cache (`HF_HUB_CACHE`, or `hub` below `HF_HOME`).
    pub cache: PathBuf,
    /// Token for repositories that ask for one (`HF_TOKEN`, or the file that `HF_TOKEN_PATH` names, else `token` below `HF_HOME`; none with
    /// `HF_HUB_DISABLE_IMPLICIT_TOKEN`).
    pub token: Option<String>,
    /// Take only what the hub's cache already has (`HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`).
    pub offline: bool,
    /// Connections go through a proxy, so whether the hub itself can be reached is not asked first.
    pub proxied: bool,
    /// How long a connection may take to be made (`HF_HUB_ETAG_TIMEOUT`).
    pub connect_timeout: Duration,
    /// How long a transfer may stand still before it is made again from there (`HF_HUB_DOWNLOAD_TIMEOUT`).
    pub stall_timeout: Duration,
}

/// The hub, and whether it was found unreachable before.
#[derive(Debug)]
pub(crate) struct Hub {
    options: HubOptions,
    unreachable: Mutex<Option<String>>,
}

enum Event<T> {
    Told(Told),
    Done(Result<T, String>),
}

const OFFLINE: &str = "HF_HUB_OFFLINE is set and the hub's cache does not have it";

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { options, unreachable: Mutex::new(None) }
    }

    /// The address, without a slash at its end.
    pub(crate) fn endpoint(&self) -> &str {
        self.options.endpoint.trim_end_matches('/')
    }

    /// A repository's part of the hub's cache.
    fn cache(&self, repo: &Repo) -> CacheRepo {
        Cache::new(self.options.cache.clone()).repo(repo.clone())
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
        if let Some(path) = self.cache(&repo).get(file.path) {
            match check_cached(&path) {
                Ok(()) => return Ok(path),
                Err(reason) if self.options.offline => return Err(SourceError::Unavailable(reason)),
                Err(_) => discard(&path),
            }
        }
        if self.options.offline {
            return Err(SourceError::Unavailable(OFFLINE.to_owned()));
        }
        self.reach(progress, stop)?;
        let fetched = self.download(&repo, file.path, progress, stop)?;
        self.stands_for(&repo, &fetched.commit)?;
        Ok(fetched.file)
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
        let chosen = |listing: Listing| {
            let names = choose(id, &listing.names()).map_err(SourceError::Unavailable)?;
            Ok((listing, names))
        };
        match self.listing(&repo, progress, stop).and_then(chosen) {
            Ok((listing, names)) => self.snapshot(&repo, &listing, &names, progress, stop),
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

    /// Brings the named files of one commit into the hub's cache; the revision stands for that commit once all are there.
    fn snapshot(
        &self,
        repo: &Repo,
        listing: &Listing,
        names: &[String],
        progress: &ProgressFn<'_>,
        stop: &Stop,
    ) -> Result<PathBuf, SourceError> {
        let id = repo.url();
        let commit = &listing.commit;
        // Asked for by its commit, or a branch that moves meanwhile would give files of two.
        let at = Repo::with_revision(id.clone(), RepoType::Model, commit.clone());
        let cache = self.cache(repo);
        let snapshot = cache.pointer_path(commit);
        let lacking: Vec<&String> = names.iter().filter(|name| !snapshot.join(name).is_file()).collect();
        if !lacking.is_empty() {
            let bytes = listing.bytes_to_come(&lacking, |etag| cache.blob_path(etag));
            room(&self.options.cache, bytes).map_err(SourceError::Unavailable)?;
            let (files, size) = (lacking.len(), numbers::bytes(bytes));
            let short: String = commit.chars().take(12).collect();
            progress(Progress::Message(format!("{id}: {files} files to fetch, {size}, of commit {short}")));
        }
        for name in lacking {
            let fetched = self.download(&at, name, progress, stop)?;
            if fetched.commit != *commit {
                return Err(SourceError::Unavailable(format!(
                    "{id}/{name} was asked for at commit {commit}, and the hub gave it of {}",
                    fetched.commit
                )));
            }
        }
        self.stands_for(repo, commit)?;
        Ok(model_in(snapshot, names))
    }

    /// Notes in the hub's cache which commit a revision is.
    fn stands_for(&self, repo: &Repo, commit: &str) -> Result<(), SourceError> {
        self.cache(repo).create_ref(commit).map_err(|e| {
            let folder = self.options.cache.display();
            SourceError::Unavailable(format!("cannot write the hub's cache in {folder}: {e}"))
        })
    }

    /// What a repository holds.
    fn listing(&self, repo: &Repo, progress: &ProgressFn<'_>, stop: &Stop) -> Result<Listing, SourceError> {
        self.reach(progress, stop)?;
        progress(Progress::Message(format!("looking for {} on {}", repo.url(), self.endpoint())));
        // With sizes and hashes, which the hub tells only if it is asked for blobs.
        let url = format!("{}/api/{}?blobs=true", self.endpoint(), repo.api_url());
        let text = self.apart(repo, &repo.url(), progress, stop, move |client, tell| {
            with_patience(tell, || (false, client.text(&url)))
        })?;
        Listing::read(&text).map_err(|e| SourceError::Unavailable(format!("{}: {e}", repo.url())))
    }

    /// Whether the cache has a model whole.
    pub(crate) fn has_model(&self, id: &str, revision: &str) -> bool {
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        self.cached_model(&repo).is_some()
    }

    /// A model that the hub's cache has whole: its weights are fetched last, so where they are nothing is missing.
    fn cached_model(&self, repo: &Repo) -> Option<PathBuf> {
        let folder = self.options.cache.join(repo.folder_name());
        // A commit stands for itself.
        let commit = std::fs::read_to_string(folder.join("refs").join(repo.revision()))
            .unwrap_or_else(|_| repo.revision().to_owned());
        let snapshot = folder.join("snapshots").join(commit.trim());
        let names: Vec<String> = std::fs::read_dir(&snapshot)
            .ok()?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            // A link whose target is not there is no file.
            .filter(|name| snapshot.join(name).is_file())
            .collect();
        if shards(&snapshot.join(INDEX)).iter().any(|shard| !names.contains(shard)) {
            return None;
        }
        let chosen = choose("", &names).ok()?;
        Some(model_in(snapshot, &chosen))
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
    ) -> Result<Fetched, SourceError> {
        progress(Progress::Message(format!("fetching {}/{path} from {}", repo.url(), self.endpoint())));
        let what = format!("{}/{path}", repo.url());
        let cache = self.cache(repo);
        let url = format!("{}/{}/resolve/{}/{path}", self.endpoint(), repo.url(), repo.url_revision());
        let name = path.to_owned();
        self.apart(repo, &what, progress, stop, move |client, tell| fetch(client, &cache, &url, &name, tell))
    }

    /// Works with the hub in another thread, which cannot be interrupted: what the user does not want any more is left behind, and so is
    /// what stands still although each of its steps has a limit of its own.
    fn apart<T: Send + 'static>(
        &self,
        repo: &Repo,
        what: &str,
        progress: &ProgressFn<'_>,
        stop: &Stop,
        work: impl FnOnce(&Client, &dyn Fn(Told)) -> Result<T, String> + Send + 'static,
    ) -> Result<T, SourceError> {
        let unavailable = |reason: String| SourceError::Unavailable(reason);
        let (events, received) = channel();
        let id = repo.url();
        let id = id.trim_start_matches("datasets/");
        let client = Client::new(&self.options, id, &repo.url(), repo.revision()).map_err(unavailable)?;
        std::thread::Builder::new()
            .name("hub".to_owned())
            .spawn(move || {
                // A receiver that has gone away has given up on this transfer.
                let tell = |told: Told| drop(events.send(Event::Told(told)));
                let result = work(&client, &tell);
                let _ = events.send(Event::Done(result));
            })
            .map_err(|e| unavailable(format!("cannot start a thread: {e}")))?;
        let mut total = None;
        // A stall is found by the transfer itself, which goes on from there; after that comes a new connection.
        let limit = self.options.connect_timeout + self.options.stall_timeout * 2;
        let mut patience = limit;
        loop {
            let event = stop.receive(&received, patience)?;
            patience = limit;
            match event {
                Some(Event::Done(result)) => return result.map_err(|e| unavailable(format!("{what}: {e}"))),
                Some(Event::Told(Told::Size(size))) => total = Some(size),
                Some(Event::Told(Told::There(done))) => {
                    progress(Progress::Bytes { what: what.to_owned(), done, total });
                }
                Some(Event::Told(Told::Waits(pause, reason))) => {
                    let seconds = pause.as_secs_f32();
                    progress(Progress::Message(format!("{what}: {reason}; trying again in {seconds} s")));
                    patience += pause;
                }
                None => {
                    let seconds = limit.as_secs_f32();
                    return Err(unavailable(format!("{what}: no data for {seconds} s")));
                }
            }
        }
    }
}

/// What is opened of the chosen files in a snapshot: the folder, or the file where they are one GGUF.
fn model_in(snapshot: PathBuf, chosen: &[String]) -> PathBuf {
    match chosen.last() {
        Some(one) if one.ends_with(".gguf") => snapshot.join(one),
        _ => snapshot,
    }
}

/// Whether a folder has room for so many bytes.
fn room(folder: &Path, bytes: u64) -> Result<(), String> {
    match free_disk(folder).filter(|free| *free < bytes) {
        None => Ok(()),
        Some(free) => Err(format!(
            "{} are to be fetched, and {} has {} free: make room, or set HF_HUB_CACHE to a folder on another disk",
            numbers::bytes(bytes),
            folder.display(),
            numbers::bytes(free)
        )),
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

/// Checks a file of the hub's cache against the hash that it is named by.
fn check_cached(path: &Path) -> Result<(), String> {
    let blob = path.canonicalize().map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    check(&blob, blob.file_name().and_then(|n| n.to_str()).unwrap_or_default())
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
