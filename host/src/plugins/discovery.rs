//! Finding plugins.
//!
//! The plugin path, in order: files named with `--plugin`; folders named with `--plugin-dir`; the folders in
//! `LLMCB_PLUGIN_PATH`; the folder of the program and its `plugins` folder; the user's data folder. The first plugin
//! with an id wins.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use llmcb_plugin_api::sdk::{Descriptor, PluginKind};

use super::describe::{CachedDescriptions, Refusal};
use crate::assets::nearest;

/// Environment variable with folders to search, separated by colons.
pub const PATH_VARIABLE: &str = "LLMCB_PLUGIN_PATH";

/// Why a folder is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Named with `--plugin` or `--plugin-dir`.
    Flag,
    /// Named in the environment.
    Environment,
    /// Beside the program.
    Program,
    /// The user's data folder.
    UserData,
}

impl Origin {
    /// In words, for lists.
    pub fn words(self) -> &'static str {
        match self {
            Origin::Flag => "command line",
            Origin::Environment => PATH_VARIABLE,
            Origin::Program => "beside the program",
            Origin::UserData => "user's data folder",
        }
    }
}

/// A folder on the plugin path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The folder.
    pub folder: PathBuf,
    /// Why it is there.
    pub origin: Origin,
}

/// Where plugins are looked for.
#[derive(Clone, Debug, Default)]
pub struct SearchPath {
    /// Files named with `--plugin`: paths or bare names.
    pub files: Vec<String>,
    /// Folders, in order.
    pub places: Vec<Place>,
}

/// A plugin that can be used.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its file, absolute.
    pub path: PathBuf,
    /// SHA-256 of its file.
    pub sha256: String,
    /// What it says of itself.
    pub descriptor: Descriptor,
    /// Where it was found.
    pub origin: Origin,
    /// Whether it was named with `--plugin`.
    pub named: bool,
}

/// All plugins of the path.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// In the order in which they were found, one per id.
    pub plugins: Vec<Plugin>,
    /// One line for each file that was passed over and why; for standard error.
    pub notes: Vec<String>,
    searched: Vec<PathBuf>,
}

/// A plugin that the user named cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// No file of that name.
    #[error("no plugin file `{name}`{hint}; looked in:{}\n  way out: name the file with its path, or its folder with --plugin-dir", folders(.searched))]
    NoFile {
        /// As the user wrote it.
        name: String,
        /// Names that resemble it, as a clause.
        hint: String,
        /// Folders.
        searched: Vec<PathBuf>,
    },
    /// The file cannot be used.
    #[error("{0}")]
    Unusable(String),
    /// `--plugin-dir` names something else.
    #[error("--plugin-dir {}: {reason}", .folder.display())]
    NoFolder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        reason: String,
    },
    /// No plugin has this id.
    #[error("no {role} is called `{id}`{hint}{known}; looked in:{}\n  way out: add it with --plugin FILE or --plugin-dir DIR; `llmcb-host plugins list` shows all", folders(.searched))]
    UnknownId {
        /// As the user wrote it.
        id: String,
        /// `method`, `backend` or `plugin`.
        role: &'static str,
        /// Names that resemble it, as a clause.
        hint: String,
        /// Those that are there, as a clause.
        known: String,
        /// Folders.
        searched: Vec<PathBuf>,
    },
    /// There is such a plugin, of the other kind.
    #[error("`{id}` is a {is}, a {wanted} is needed here ({way_out})")]
    WrongKind {
        /// Id of the plugin.
        id: String,
        /// Its kind.
        is: &'static str,
        /// The kind that was needed.
        wanted: &'static str,
        /// What to write instead.
        way_out: &'static str,
    },
}

fn folders(searched: &[PathBuf]) -> String {
    if searched.is_empty() {
        return " (no folder)".into();
    }
    searched.iter().map(|folder| format!("\n    {}", folder.display())).collect()
}

fn kind_word(kind: PluginKind) -> &'static str {
    match kind {
        PluginKind::Method => "method",
        PluginKind::Backend => "backend",
        _ => "plugin",
    }
}

impl SearchPath {
    /// The path from flags and from what surrounds the process, which the arguments give.
    ///
    /// # Errors
    /// [`DiscoveryError::NoFolder`] where `--plugin-dir` names no folder.
    pub fn new(
        files: Vec<String>,
        folders: Vec<PathBuf>,
        variable: Option<OsString>,
        program: Option<PathBuf>,
        user_data: Option<PathBuf>,
    ) -> Result<Self, DiscoveryError> {
        let mut places: Vec<Place> = Vec::new();
        let mut add = |folder: PathBuf, origin| {
            if !places.iter().any(|place| place.folder == folder) {
                places.push(Place { folder, origin });
            }
        };
        for folder in folders {
            if let Err(e) = std::fs::read_dir(&folder) {
                return Err(DiscoveryError::NoFolder { folder, reason: e.to_string() });
            }
            add(folder, Origin::Flag);
        }
        for folder in variable.iter().flat_map(std::env::split_paths).filter(|f| !f.as_os_str().is_empty()) {
            add(folder, Origin::Environment);
        }
        if let Some(folder) = program.as_deref().and_then(Path::parent) {
            add(folder.join("plugins"), Origin::Program);
            add(folder.to_owned(), Origin::Program);
            // Cargo puts test programs one folder below the plugins.
            if folder.file_name().is_some_and(|name| name == "deps")
                && let Some(parent) = folder.parent()
            {
                add(parent.to_owned(), Origin::Program);
            }
        }
        if let Some(folder) = user_data {
            add(folder.join("plugins"), Origin::UserData);
        }
        Ok(SearchPath { files, places })
    }

    /// The path of this process.
    ///
    /// # Errors
    /// As [`SearchPath::new`].
    pub fn of_process(files: Vec<String>, folders: Vec<PathBuf>) -> Result<Self, DiscoveryError> {
        Self::new(
            files,
            folders,
            std::env::var_os(PATH_VARIABLE),
            std::env::current_exe().ok().and_then(|exe| exe.canonicalize().ok()),
            directories::ProjectDirs::from("", "", "llmcb-host").map(|dirs| dirs.data_dir().to_owned()),
        )
    }

    fn searched(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.folder.clone()).collect()
    }

    /// The file that `--plugin NAME` means: a path, or a bare name (`gptq`, `gptq.so`, `libgptq.so`) on the path.
    ///
    /// # Errors
    /// [`DiscoveryError::NoFile`] with names that resemble.
    pub fn locate(&self, name: &str) -> Result<PathBuf, DiscoveryError> {
        let given = Path::new(name);
        let is_path = name.contains('/');
        if (is_path || name.ends_with(".so")) && given.is_file() {
            return absolute(given);
        }
        if is_path {
            let what = if given.is_dir() {
                "is a folder; name the file in it, or use --plugin-dir"
            } else {
                "no such file"
            };
            return Err(DiscoveryError::Unusable(format!("--plugin {name}: {what}")));
        }
        let names = file_names(name);
        for place in &self.places {
            for candidate in &names {
                let path = place.folder.join(candidate);
                if path.is_file() {
                    return absolute(&path);
                }
            }
        }
        // Names are compared without what all of them share, or everything short would resemble everything.
        let core = |file: &str| file.trim_start_matches("lib").trim_end_matches(".so").replace('-', "_");
        let cores: Vec<String> = self
            .places
            .iter()
            .flat_map(|place| candidates(&place.folder).unwrap_or_default())
            .filter_map(|path| Some(core(path.file_name()?.to_str()?)))
            .collect();
        let near = nearest(&core(name), cores.iter().map(String::as_str));
        let hint = near.first().map(|near| format!(" (there is `lib{near}.so`)")).unwrap_or_default();
        Err(DiscoveryError::NoFile { name: name.to_owned(), hint, searched: self.searched() })
    }

    /// Finds and describes every plugin.
    ///
    /// # Errors
    /// When a file named with `--plugin` cannot be used. Files that are merely found never stop the others.
    pub fn discover(&self, descriptions: &CachedDescriptions<'_>) -> Result<Catalog, DiscoveryError> {
        let mut catalog = Catalog { searched: self.searched(), ..Catalog::default() };
        for name in &self.files {
            let path = self.locate(name)?;
            let (sha256, descriptor) = descriptions
                .describe(&path)
                .map_err(|refusal| DiscoveryError::Unusable(refusal.to_string()))?;
            catalog.add(Plugin { path, sha256, descriptor, origin: Origin::Flag, named: true });
        }
        for place in &self.places {
            let files = match candidates(&place.folder) {
                Ok(files) => files,
                Err(e) => {
                    // Folders of the standard path need not exist; those that the user named should.
                    if place.origin == Origin::Environment {
                        catalog.notes.push(format!("{} in {PATH_VARIABLE}: {e}", place.folder.display()));
                    }
                    continue;
                }
            };
            for file in files {
                let Ok(path) = absolute(&file) else { continue };
                if catalog.plugins.iter().any(|plugin| plugin.path == path) {
                    continue;
                }
                match descriptions.describe(&path) {
                    Ok((sha256, descriptor)) => {
                        catalog.add(Plugin { path, sha256, descriptor, origin: place.origin, named: false });
                    }
                    Err(Refusal::Foreign(why)) => tracing::debug!("passed over: {why}"),
                    Err(Refusal::Broken(why)) => catalog.notes.push(format!("plugin passed over: {why}")),
                }
            }
        }
        Ok(catalog)
    }
}

fn absolute(path: &Path) -> Result<PathBuf, DiscoveryError> {
    path.canonicalize().map_err(|e| DiscoveryError::Unusable(format!("{}: {e}", path.display())))
}

/// File names that a bare name may stand for, the most literal first. Cargo writes `_` for `-`.
fn file_names(name: &str) -> Vec<String> {
    let mut names = Vec::new();
    for stem in [name.to_owned(), name.replace('-', "_")] {
        for candidate in [stem.clone(), format!("{stem}.so"), format!("lib{stem}"), format!("lib{stem}.so")] {
            let sound = candidate.ends_with(".so") && !candidate.ends_with(".so.so");
            if sound && !names.contains(&candidate) {
                names.push(candidate);
            }
        }
    }
    names
}

/// Shared objects of a folder, sorted by name.
fn candidates(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "so") && path.is_file())
        .collect();
    files.sort();
    Ok(files)
}

impl Catalog {
    fn add(&mut self, plugin: Plugin) {
        match self.plugins.iter().find(|other| other.descriptor.id == plugin.descriptor.id) {
            Some(first) if first.path == plugin.path => {}
            Some(first) => self.notes.push(format!(
                "two plugins have the id `{}`: {} is used, {} is ignored",
                plugin.descriptor.id,
                first.path.display(),
                plugin.path.display()
            )),
            None => self.plugins.push(plugin),
        }
    }

    /// The plugin with an id, of a kind if one is asked for.
    ///
    /// # Errors
    /// [`DiscoveryError::UnknownId`] with names that resemble, or [`DiscoveryError::WrongKind`].
    pub fn get(&self, id: &str, kind: Option<PluginKind>) -> Result<&Plugin, DiscoveryError> {
        let role = kind.map_or("plugin", kind_word);
        if let Some(plugin) = self.plugins.iter().find(|plugin| plugin.descriptor.id == id) {
            let is = plugin.descriptor.kind;
            if kind.is_none_or(|kind| kind == is) {
                return Ok(plugin);
            }
            let way_out =
                if is == PluginKind::Backend { "give it as --backend" } else { "give it as --method" };
            return Err(DiscoveryError::WrongKind {
                id: id.into(),
                is: kind_word(is),
                wanted: role,
                way_out,
            });
        }
        let known: Vec<&str> = self
            .plugins
            .iter()
            .filter(|plugin| kind.is_none_or(|kind| kind == plugin.descriptor.kind))
            .map(|plugin| plugin.descriptor.id.as_str())
            .collect();
        let hint = match nearest(id, known.iter().copied()).first() {
            Some(near) => format!("; did you mean `{near}`?"),
            None => String::new(),
        };
        let known = if known.is_empty() {
            format!("; there is no {role} at all")
        } else {
            let lead = if hint.is_empty() { ";" } else { "" };
            format!("{lead} there are: {}", known.join(", "))
        };
        Err(DiscoveryError::UnknownId { id: id.into(), role, hint, known, searched: self.searched.clone() })
    }

    /// Files of all plugins, for the program's own use.
    pub fn files(&self) -> Vec<PathBuf> {
        self.plugins.iter().map(|plugin| plugin.path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLAIM: &[u8] = b"\x7fELF llmcb_plugin_header ";

    /// A folder with files; those called `lib<id>[.<variant>].so` describe themselves as method `<id>`.
    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, bytes) in files {
            std::fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    fn describe(path: &Path) -> Result<Descriptor, Refusal> {
        let stem = path.file_stem().unwrap().to_str().unwrap().trim_start_matches("lib");
        if stem.starts_with("bad") {
            return Err(Refusal::Broken(format!("{}: built for plugin ABI 9.0", path.display())));
        }
        let id = stem.split('.').next().unwrap();
        Ok(if id == "candle" { Descriptor::backend(id, id, "1") } else { Descriptor::method(id, id, "1") })
    }

    fn path(files: &[&str], folders: &[&Path]) -> SearchPath {
        let files = files.iter().map(|f| (*f).to_owned()).collect();
        let folders = folders.iter().map(|f| (*f).to_owned()).collect();
        SearchPath::new(files, folders, None, None, None).unwrap()
    }

    fn discover(path: &SearchPath) -> Result<Catalog, String> {
        path.discover(&CachedDescriptions::new(&describe, None)).map_err(|e| e.to_string())
    }

    fn ids(catalog: &Catalog) -> Vec<&str> {
        catalog.plugins.iter().map(|p| p.descriptor.id.as_str()).collect()
    }

    #[test]
    fn bare_names_find_the_library() {
        let dir = folder(&[("libgptq.so", CLAIM), ("libllama_cpp.so", CLAIM)]);
        let path = path(&[], &[dir.path()]);
        for (name, file) in [
            ("gptq", "libgptq.so"),
            ("gptq.so", "libgptq.so"),
            ("libgptq.so", "libgptq.so"),
            ("libgptq", "libgptq.so"),
            ("llama-cpp", "libllama_cpp.so"),
        ] {
            assert_eq!(path.locate(name).unwrap().file_name().unwrap(), file, "{name}");
        }
        let absolute = dir.path().join("libgptq.so");
        assert_eq!(path.locate(absolute.to_str().unwrap()).unwrap(), absolute.canonicalize().unwrap());
        let message = path.locate("gtpq").unwrap_err().to_string();
        assert!(message.contains("no plugin file `gtpq` (there is `libgptq.so`)"), "{message}");
        assert!(message.contains(dir.path().to_str().unwrap()), "{message}");
        assert!(path.locate("./nowhere/x.so").unwrap_err().to_string().contains("no such file"));
        assert!(path.locate(dir.path().to_str().unwrap()).unwrap_err().to_string().contains("is a folder"));
    }

    #[test]
    fn broken_files_are_reported_and_stop_nothing_foreign_ones_are_silent() {
        let dir = folder(&[
            ("libgptq.so", CLAIM),
            ("libbad.so", CLAIM),
            ("libother.so", b"\x7fELF"),
            ("libtext.so", b"INPUT(libm.so)"),
            ("notes.txt", CLAIM),
        ]);
        let catalog = discover(&path(&[], &[dir.path()])).unwrap();
        assert_eq!(ids(&catalog), ["gptq"]);
        assert_eq!(catalog.notes.len(), 1, "{:?}", catalog.notes);
        assert!(catalog.notes[0].contains("libbad.so") && catalog.notes[0].contains("ABI 9.0"));
    }

    #[test]
    fn a_named_file_that_cannot_be_used_is_an_error() {
        let dir = folder(&[("libbad.so", CLAIM), ("libtext.so", b"text"), ("libother.so", b"\x7fELF")]);
        for (file, why) in [
            ("bad", "ABI 9.0"),
            ("text", "not a shared object"),
            ("other", "not an llmcb plugin"),
            ("none", "no plugin file"),
        ] {
            let message = discover(&path(&[file], &[dir.path()])).unwrap_err();
            assert!(message.contains(why), "{file}: {message}");
        }
    }

    #[test]
    fn the_first_with_an_id_wins_and_a_named_file_beats_all() {
        let (one, two) =
            (folder(&[("libgptq.so", CLAIM)]), folder(&[("libgptq.mine.so", CLAIM), ("libwanda.so", CLAIM)]));
        let catalog = discover(&path(&[], &[one.path(), two.path()])).unwrap();
        assert_eq!(ids(&catalog), ["gptq", "wanda"]);
        assert!(catalog.plugins[0].path.ends_with("libgptq.so"));
        assert!(catalog.notes[0].starts_with("two plugins have the id `gptq`:"), "{:?}", catalog.notes);
        let mine = two.path().join("libgptq.mine.so");
        let catalog = discover(&path(&[mine.to_str().unwrap()], &[one.path(), two.path()])).unwrap();
        assert!(catalog.plugins[0].path.ends_with("libgptq.mine.so") && catalog.plugins[0].named);
        assert_eq!(catalog.notes.len(), 1);
    }

    #[test]
    fn the_same_file_met_twice_is_no_news() {
        let dir = folder(&[("libgptq.so", CLAIM)]);
        let again = dir.path().join("../").join(dir.path().file_name().unwrap());
        let catalog = discover(&path(&["gptq"], &[dir.path(), &again])).unwrap();
        assert_eq!(ids(&catalog), ["gptq"]);
        assert!(catalog.notes.is_empty());
    }

    #[test]
    fn folders_are_searched_in_the_documented_order() {
        let dir = folder(&[]);
        let path = SearchPath::new(
            vec![],
            vec![dir.path().to_owned()],
            Some("/env/a::/env/b".into()),
            Some("/opt/target/release/deps/test".into()),
            Some("/home/u/.local/share/llmcb-host".into()),
        )
        .unwrap();
        let found: Vec<&str> = path.places.iter().skip(1).map(|p| p.folder.to_str().unwrap()).collect();
        assert_eq!(
            found,
            [
                "/env/a",
                "/env/b",
                "/opt/target/release/deps/plugins",
                "/opt/target/release/deps",
                "/opt/target/release",
                "/home/u/.local/share/llmcb-host/plugins"
            ]
        );
        let catalog = path.discover(&CachedDescriptions::new(&describe, None)).unwrap();
        assert_eq!(
            catalog.notes.len(),
            2,
            "only the folders that the user named are missed: {:?}",
            catalog.notes
        );
        let error = SearchPath::new(vec![], vec!["/nowhere".into()], None, None, None).unwrap_err();
        assert!(error.to_string().starts_with("--plugin-dir /nowhere: "));
    }

    #[test]
    fn unknown_ids_come_with_what_there_is() {
        let dir = folder(&[("libgptq.so", CLAIM), ("libwanda.so", CLAIM), ("libcandle.so", CLAIM)]);
        let catalog = discover(&path(&[], &[dir.path()])).unwrap();
        let message = catalog.get("gtpq", Some(PluginKind::Method)).unwrap_err().to_string();
        assert!(
            message.starts_with(
                "no method is called `gtpq`; did you mean `gptq`? there are: gptq, wanda; looked in:"
            ),
            "{message}"
        );
        let message = catalog.get("gptq", Some(PluginKind::Backend)).unwrap_err().to_string();
        assert_eq!(message, "`gptq` is a method, a backend is needed here (give it as --method)");
        assert!(catalog.get("candle", None).is_ok());
        let message = Catalog::default().get("x", Some(PluginKind::Method)).unwrap_err().to_string();
        assert!(message.contains("there is no method at all; looked in: (no folder)"), "{message}");
    }
}
