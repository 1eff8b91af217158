//! The Hugging Face hub: data sets as Parquet files.

use super::cache::sha256_file;
use super::progress::{Progress, ProgressFn};
use super::registry::HubFile;
use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
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

enum Event {
    Moved,
    Size(u64),
    Done(Result<PathBuf, String>),
}

/// Sends what hf-hub reports to the thread that waits.
struct Reporter(Sender<Event>, Sender<u64>);

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _filename: &str) {
        let _ = self.0.send(Event::Size(size as u64));
    }
    fn update(&mut self, size: usize) {
        // A receiver that has gone away has given up on this transfer.
        let _ = self.1.send(size as u64);
        let _ = self.0.send(Event::Moved);
    }
    fn finish(&mut self) {}
}

impl Hub {
    pub(crate) fn new(options: HubOptions) -> Self {
        Self { options, unreachable: Mutex::new(None) }
    }

    /// The address, in words for messages.
    pub(crate) fn endpoint(&self) -> &str {
        &self.options.endpoint
    }

    /// Fetches a file into the hub's cache and checks it against the hash that the hub names it by.
    ///
    /// # Errors
    /// A reason, in words.
    pub(crate) fn fetch(&self, file: &HubFile, progress: &ProgressFn<'_>) -> Result<PathBuf, String> {
        let repo = Repo::with_revision(file.repo.to_owned(), RepoType::Dataset, file.revision.to_owned());
        if let Some(path) = Cache::new(self.options.cache.clone()).repo(repo.clone()).get(file.path) {
            match check(&path) {
                Ok(()) => return Ok(path),
                Err(reason) if self.options.offline => return Err(reason),
                Err(_) => discard(&path),
            }
        }
        if self.options.offline {
            return Err("HF_HUB_OFFLINE is set and the hub's cache does not have it".to_owned());
        }
        let mut unreachable = self.unreachable.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(reason) = &*unreachable {
            return Err(reason.clone());
        }
        if !self.options.proxied
            && let Err(reason) = reach(&self.options.endpoint, self.options.connect_timeout)
        {
            progress(Progress::Message(format!(
                "no Hugging Face hub ({reason}), going on to the next source"
            )));
            *unreachable = Some(reason.clone());
            return Err(reason);
        }
        drop(unreachable);
        progress(Progress::Message(format!(
            "fetching {}/{} from {}",
            file.repo, file.path, self.options.endpoint
        )));
        let path = self.download(repo, file, progress)?;
        check(&path).inspect_err(|_| discard(&path))?;
        Ok(path)
    }

    /// Downloads in another thread, because hf-hub sets no time limits: a transfer that stands still is left behind.
    fn download(&self, repo: Repo, file: &HubFile, progress: &ProgressFn<'_>) -> Result<PathBuf, String> {
        let (events, received) = channel();
        let (bytes, counted) = channel();
        let options = self.options.clone();
        let path = file.path.to_owned();
        let builder = std::thread::Builder::new().name("hub".to_owned());
        let reporter = Reporter(events.clone(), bytes);
        builder
            .spawn(move || {
                let mut api = ApiBuilder::from_cache(Cache::new(options.cache))
                    .with_endpoint(options.endpoint.trim_end_matches('/').to_owned())
                    .with_progress(false);
                if options.token.is_some() {
                    api = api.with_token(options.token);
                }
                let fetched = api
                    .build()
                    .and_then(|api| api.repo(repo).download_with_progress(&path, reporter))
                    .map_err(|e| e.to_string());
                let _ = events.send(Event::Done(fetched));
            })
            .map_err(|e| format!("cannot start a thread: {e}"))?;
        let what = format!("{}/{}", file.repo, file.path);
        let (mut done, mut total) = (0, None);
        loop {
            match received.recv_timeout(self.options.stall_timeout) {
                Ok(Event::Done(result)) => return result,
                Ok(Event::Size(size)) => total = Some(size),
                Ok(Event::Moved) => {
                    done += counted.try_iter().sum::<u64>();
                    progress(Progress::Bytes {
                        what: what.clone(),
                        done: done.min(total.unwrap_or(u64::MAX)),
                        total,
                    });
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(format!("no data for {} s", self.options.stall_timeout.as_secs_f32()));
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the hub's client broke off".to_owned()),
            }
        }
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
fn reach(endpoint: &str, timeout: Duration) -> Result<(), String> {
    let (host, port) = host_and_port(endpoint)?;
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
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    match received.recv_timeout(timeout) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(format!("cannot connect to {host}: {e}")),
        Err(_) => Err(format!("no connection to {host} within {} s", timeout.as_secs_f32())),
    }
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
    use super::host_and_port;

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
