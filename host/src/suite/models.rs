//! From a model's reference to its files: an asset, a path, or a repository of the Hugging Face hub.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};

use crate::assets::{HubOptions, Progress, ProgressFn, Store, nearest, registry};

/// The files of a model.
///
/// # Errors
/// One line that names the reference and the way out.
pub fn locate(reference: &str, store: &Store, progress: &ProgressFn<'_>) -> Result<PathBuf, String> {
    let asset = store.asset(reference).ok().filter(|a| a.kind == registry::Kind::Model);
    if let Some(asset) = asset {
        let part = asset.parts.first().ok_or_else(|| format!("asset {reference} has no files"))?;
        return store.obtain(asset.id, part.name, progress).map(|o| o.path).map_err(|e| e.to_string());
    }
    let path = Path::new(reference);
    if path.exists() {
        return path.canonicalize().map_err(|e| format!("model {reference}: {e}"));
    }
    let looks_like_a_path = reference.starts_with(['/', '.', '~'])
        || reference.ends_with(".gguf")
        || reference.matches('/').count() > 1;
    match repository(reference) {
        Some(repo) if !looks_like_a_path => fetch(reference, repo, store.options().hub.as_ref(), progress),
        _ if looks_like_a_path => Err(format!("model {reference}: there is no such file or directory")),
        _ => {
            let models = registry::ASSETS.iter().filter(|a| a.kind == registry::Kind::Model).map(|a| a.id);
            let near = nearest(reference, models.clone());
            let known: Vec<&str> = if near.is_empty() { models.collect() } else { near };
            Err(format!(
                "model {reference}: neither a known model ({}), nor a path, nor org/name on the hub",
                known.join(", ")
            ))
        }
    }
}

/// `org/name[@revision]`.
fn repository(reference: &str) -> Option<Repo> {
    let (id, revision) = reference.split_once('@').unwrap_or((reference, "main"));
    let (org, name) = id.split_once('/')?;
    let fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    (fine(org) && fine(name) && !revision.is_empty())
        .then(|| Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned()))
}

/// Files without which, or beside which, weights are of no use.
fn wanted(name: &str) -> bool {
    !name.contains('/')
        && [".safetensors", ".safetensors.index.json", ".json", ".gguf", ".model", ".jinja"]
            .iter()
            .any(|end| name.ends_with(end))
        && !name.starts_with("pytorch_model")
}

enum Event {
    Progress(Progress),
    Done(Result<PathBuf, String>),
}

#[derive(Clone)]
struct Reporter {
    events: std::sync::mpsc::Sender<Event>,
    what: String,
    done: u64,
    total: u64,
}

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _: &str) {
        self.total = size as u64;
    }
    fn update(&mut self, size: usize) {
        self.done += size as u64;
        let progress = Progress::Bytes { what: self.what.clone(), done: self.done, total: Some(self.total) };
        let _ = self.events.send(Event::Progress(progress));
    }
    fn finish(&mut self) {}
}

/// Downloads in a thread of its own, since the client sets no time limits: a transfer that stands still is left behind.
fn fetch(
    reference: &str,
    repo: Repo,
    hub: Option<&HubOptions>,
    progress: &ProgressFn<'_>,
) -> Result<PathBuf, String> {
    let Some(hub) = hub.cloned() else {
        return Err(format!("model {reference}: the hub is switched off; give a path"));
    };
    let cached = Cache::new(hub.cache.clone()).repo(repo.clone());
    if hub.offline {
        let config = cached.get("config.json");
        return config.and_then(|file| file.parent().map(Path::to_owned)).ok_or_else(|| {
            format!(
                "model {reference}: HF_HUB_OFFLINE is set and the hub's cache does not have it; give a path"
            )
        });
    }
    progress(Progress::Message(format!("looking for {reference} on {}", hub.endpoint)));
    let (events, received) = channel();
    let (stall, endpoint) = (hub.stall_timeout.max(Duration::from_secs(5)), hub.endpoint.clone());
    std::thread::Builder::new()
        .name("hub".into())
        .spawn(move || {
            let result = download(&repo, hub, &events);
            let _ = events.send(Event::Done(result));
        })
        .map_err(|e| format!("cannot start a thread: {e}"))?;
    let result = loop {
        match received.recv_timeout(stall) {
            Ok(Event::Progress(report)) => progress(report),
            Ok(Event::Done(result)) => break result,
            Err(RecvTimeoutError::Timeout) => break Err(format!("nothing came for {} s", stall.as_secs())),
            Err(RecvTimeoutError::Disconnected) => break Err("the download broke off".to_owned()),
        }
    };
    result.map_err(|reason| {
        format!(
            "model {reference}: cannot be had from {endpoint}: {reason}; give a path to its files, or `{}` which comes from a package registry",
            registry::DEFAULT_MODEL
        )
    })
}

fn download(
    repo: &Repo,
    hub: HubOptions,
    events: &std::sync::mpsc::Sender<Event>,
) -> Result<PathBuf, String> {
    let cached = Cache::new(hub.cache.clone()).repo(repo.clone());
    let api = ApiBuilder::from_cache(Cache::new(hub.cache))
        .with_endpoint(hub.endpoint.trim_end_matches('/').to_owned())
        .with_progress(false)
        .with_token(hub.token)
        .build()
        .map_err(|e| e.to_string())?
        .repo(repo.clone());
    let files: Vec<String> = api
        .info()
        .map_err(|e| e.to_string())?
        .siblings
        .into_iter()
        .map(|s| s.rfilename)
        .filter(|n| wanted(n))
        .collect();
    let weights: Vec<&String> = files.iter().filter(|n| n.ends_with(".safetensors")).collect();
    let ggufs: Vec<&String> = files.iter().filter(|n| n.ends_with(".gguf")).collect();
    let one_file = match (weights.is_empty(), ggufs.as_slice()) {
        (false, _) => None,
        (true, [one]) => Some((*one).clone()),
        (true, []) => return Err("the repository holds neither safetensors nor GGUF".to_owned()),
        (true, many) => {
            return Err(format!(
                "the repository holds {} GGUF files; download one and give its path",
                many.len()
            ));
        }
    };
    let mut folder = None;
    for name in files.iter().filter(|n| one_file.as_ref().map_or(!n.ends_with(".gguf"), |one| one == *n)) {
        let reporter = Reporter { events: events.clone(), what: name.clone(), done: 0, total: 0 };
        let path = match cached.get(name) {
            Some(path) => path,
            None => api.download_with_progress(name, reporter).map_err(|e| format!("{name}: {e}"))?,
        };
        if one_file.is_some() {
            return Ok(path);
        }
        folder = path.parent().map(Path::to_owned);
    }
    folder.ok_or_else(|| "the repository holds no files".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_words() {
        let repo = repository("org/name@abc").unwrap();
        assert_eq!((repo.revision(), repo.url()), ("abc", "org/name".to_owned()));
        assert_eq!(repository("org/name").unwrap().revision(), "main");
        for bad in ["name", "org/", "/name", "org/na me", "org/name@"] {
            assert!(repository(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_a_way_out() {
        let folder = tempfile::tempdir().unwrap();
        let variables = |name: &str| match name {
            "LLMCB_CACHE" => Some(folder.path().display().to_string()),
            "HF_HUB_OFFLINE" => Some("1".to_owned()),
            "HF_HUB_CACHE" => Some(folder.path().join("hub").display().to_string()),
            _ => None,
        };
        let options = crate::assets::StoreOptions::from_variables(Vec::new(), variables).unwrap();
        let store = Store::new(options);
        for (reference, says) in [
            ("no-such-model", "neither a known model"),
            ("./no/such/dir", "no such file"),
            ("weights.gguf", "no such file"),
            ("org/name", "HF_HUB_OFFLINE"),
        ] {
            let error = locate(reference, &store, &crate::assets::silent).unwrap_err();
            assert!(error.contains(reference) && error.contains(says), "{error}");
        }
        assert_eq!(
            locate(folder.path().to_str().unwrap(), &store, &crate::assets::silent).unwrap(),
            folder.path().canonicalize().unwrap()
        );
    }
}
