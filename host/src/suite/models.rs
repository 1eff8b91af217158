//! From a model's reference to its files: an asset, a path, or a repository of the Hugging Face hub.

use std::path::{Path, PathBuf};

use crate::assets::{AssetError, ProgressFn, Store, nearest, registry};

/// Whether a model is one that can be fetched: an asset, or a repository of the hub.
pub fn is_remote(reference: &str, store: &Store) -> bool {
    let asset = store.asset(reference).is_ok_and(|asset| asset.kind == registry::Kind::Model);
    asset
        || (!Path::new(reference).exists()
            && !looks_like_a_path(reference)
            && repository(reference).is_some())
}

fn looks_like_a_path(reference: &str) -> bool {
    reference.starts_with(['/', '.', '~'])
        || reference.ends_with(".gguf")
        // A revision may hold slashes.
        || reference.split('@').next().unwrap_or_default().matches('/').count() > 1
}

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
    let looks_like_a_path = looks_like_a_path(reference);
    match repository(reference) {
        Some((id, revision)) if !looks_like_a_path => {
            store.hub_model(id, revision, progress).map_err(|error| match error {
                AssetError::NoHubModel { place, reason, .. } => format!(
                    "model {reference}: cannot be had from {place}: {reason}; give a path to its files, or `{}` which comes from a package registry",
                    registry::DEFAULT_MODEL
                ),
                error => format!("model {reference}: {error}"),
            })
        }
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

/// `org/name[@revision]`, as the two.
fn repository(reference: &str) -> Option<(&str, &str)> {
    let (id, revision) = reference.split_once('@').unwrap_or((reference, "main"));
    let (org, name) = id.split_once('/')?;
    let fine = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    // Revisions are folders of the hub's cache.
    let is_revision = revision.split('/').all(|part| !matches!(part, "" | "." | ".."));
    (fine(org) && fine(name) && is_revision).then_some((id, revision))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_told_from_other_words() {
        assert_eq!(repository("org/name@abc"), Some(("org/name", "abc")));
        assert_eq!(repository("org/name"), Some(("org/name", "main")));
        assert_eq!(repository("org/name@refs/pr/7"), Some(("org/name", "refs/pr/7")));
        for bad in ["name", "org/", "/name", "org/na me", "org/name@", "org/name@../x", "org/name@/x"] {
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
