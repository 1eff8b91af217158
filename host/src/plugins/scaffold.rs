//! The crate of a new plugin, from templates that are kept as files and work as they are.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the templates call the plugin: as its crate and id, as its library, as a Rust type.
const PLACEHOLDERS: [&str; 3] = ["my-plugin", "my_plugin", "MyPlugin"];

/// Where the manifest says where the SDK is.
const SDK: &str = "{sdk}";

/// The SDK's crate.
const CRATE: &str = "llmcb-plugin-api";

/// Longest id of a plugin.
const LONGEST: usize = 64;

/// Names that a library cannot have: words of the language, and crates that every plugin sees.
const TAKEN: &[&str] = &[
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "box",
    "break",
    "const",
    "continue",
    "core",
    "crate",
    "do",
    "dyn",
    "else",
    "enum",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "let",
    "llmcb_plugin_api",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc_macro",
    "pub",
    "ref",
    "return",
    "schemars",
    "self",
    "serde",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "typeof",
    "union",
    "unsafe",
    "unsized",
    "use",
    "virtual",
    "where",
    "while",
    "yield",
];

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Template {
    /// A compression method.
    Method,
    /// A backend with a runner.
    Backend,
}

impl Template {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Template::Method => "method",
            Template::Backend => "backend",
        }
    }

    /// Paths in the new folder, and what stands there.
    fn files(self) -> [(&'static str, &'static str); 4] {
        let (library, readme) = match self {
            Template::Method => (
                include_str!("../../templates/method/lib.rs"),
                include_str!("../../templates/method/README.md"),
            ),
            Template::Backend => (
                include_str!("../../templates/backend/lib.rs"),
                include_str!("../../templates/backend/README.md"),
            ),
        };
        [
            ("Cargo.toml", include_str!("../../templates/manifest.toml")),
            (".gitignore", include_str!("../../templates/gitignore")),
            ("README.md", readme),
            ("src/lib.rs", library),
        ]
    }
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// The name cannot be one of a plugin and a crate.
    #[error("`{name}` cannot be the name of a plugin: {why}{hint}")]
    Name {
        /// As the user wrote it.
        name: String,
        /// What is wrong with it.
        why: String,
        /// One that would do, as a clause.
        hint: String,
    },
    /// There is something in the folder already.
    #[error("{}: {why}; nothing was written; name another folder with --path", .folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What is there.
        why: &'static str,
    },
    /// A file or folder cannot be made.
    #[error("{}: cannot be written: {source}", .file.display())]
    Unwritable {
        /// The file or folder.
        file: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// The names of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Its id, and the name of its crate.
    pub id: String,
    /// Its library, without `lib` and `.so`.
    pub library: String,
}

impl Names {
    /// The names that go with an id.
    ///
    /// # Errors
    /// [`ScaffoldError::Name`] for what is no id, or cannot name a crate.
    pub fn of(name: &str) -> Result<Self, ScaffoldError> {
        let refuse = |why: &str| {
            let near = nearby(name);
            let hint = near.map(|near| format!("; try `{near}`")).unwrap_or_default();
            Err(ScaffoldError::Name { name: name.to_owned(), why: why.to_owned(), hint })
        };
        let sound = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_';
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(sound) {
            return refuse("it must be lower-case letters, digits, `-` and `_`, with a letter first");
        }
        if name.len() > LONGEST {
            return refuse(&format!("it has more than {LONGEST} characters"));
        }
        let library = name.replace('-', "_");
        if TAKEN.contains(&library.as_str()) {
            return refuse("Rust has a use for that word");
        }
        Ok(Names { id: name.to_owned(), library })
    }

    /// The Rust type: the id in upper camel case, told apart from what the template itself names.
    fn type_name(&self, template: Template, text: &str) -> String {
        let capital = |word: &str| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str())
        };
        let camel: String = self.library.split('_').filter_map(capital).collect();
        let used = text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == camel);
        if used { format!("{camel}{}", capital(template.words()).unwrap_or_default()) } else { camel }
    }

    /// The shared object that cargo makes.
    pub fn file(&self) -> String {
        format!("lib{}.so", self.library)
    }
}

/// A name that resembles one which cannot be used, and can.
fn nearby(name: &str) -> Option<String> {
    let mut near = String::new();
    for c in name.to_lowercase().chars() {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' };
        if (c.is_ascii_lowercase() || !near.is_empty()) && !(c == '-' && near.ends_with('-')) {
            near.push(c);
        }
    }
    near.truncate(LONGEST);
    let near = near.trim_end_matches('-');
    let near =
        if TAKEN.contains(&near.replace('-', "_").as_str()) { format!("my-{near}") } else { near.to_owned() };
    (!near.is_empty()).then_some(near)
}

/// The SDK beside a program: in `sdk` of a release, or in the source checkout that the program was built from.
pub fn find_sdk(program: &Path) -> Option<PathBuf> {
    let released = program.ancestors().skip(1).take(2).map(|folder| folder.join("sdk").join(CRATE));
    let sources = program.ancestors().skip(2).map(|folder| folder.join("plugin-api"));
    released.chain(sources).filter(|folder| folder.to_str().is_some()).find(|folder| {
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).ok();
        let manifest: Option<toml::Table> = manifest.and_then(|text| text.parse().ok());
        manifest
            .is_some_and(|table| table.get("package").and_then(|p| p.get("name")?.as_str()) == Some(CRATE))
    })
}

/// What the manifest says of the SDK.
fn dependency(sdk: Option<&Path>) -> String {
    let version = toml::Value::from(llmcb_plugin_api::VERSION);
    match sdk.and_then(Path::to_str) {
        Some(path) => format!("{{ version = {version}, path = {} }}", toml::Value::from(path)),
        None => version.to_string(),
    }
}

/// A template with the plugin's names in place of its own; in one pass, so that names may hold anything.
fn filled(text: &str, with: [&str; 3]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((at, which)) =
        (0..3).filter_map(|which| Some((rest.find(PLACEHOLDERS[which])?, which))).min_by_key(|(at, _)| *at)
    {
        out.push_str(&rest[..at]);
        out.push_str(with[which]);
        rest = &rest[at + PLACEHOLDERS[which].len()..];
    }
    out + rest
}

/// Writes the crate into a folder.
///
/// # Errors
/// [`ScaffoldError::Occupied`], or what the operating system says.
pub fn write(
    template: Template,
    names: &Names,
    folder: &Path,
    sdk: Option<&Path>,
) -> Result<(), ScaffoldError> {
    let files = template.files().map(|(path, text)| {
        let filled = filled(text, [&names.id, &names.library, &names.type_name(template, text)]);
        (PathBuf::from(path), filled.replace(SDK, &dependency(sdk)).into_bytes())
    });
    write_files(folder, &files)
}

/// Writes files into a folder, which is made, or is there and empty. What is there is never overwritten.
///
/// # Errors
/// As [`write()`].
pub fn write_files(folder: &Path, files: &[(PathBuf, Vec<u8>)]) -> Result<(), ScaffoldError> {
    let occupied = |why| Err(ScaffoldError::Occupied { folder: folder.to_owned(), why });
    match fs::read_dir(folder).map(|mut entries| entries.next()) {
        Ok(None) => {}
        Ok(Some(_)) => return occupied("the folder is not empty"),
        Err(_) if fs::symlink_metadata(folder).is_ok() => {
            return occupied("something else than a folder is there");
        }
        Err(_) => {}
    }
    let unwritable = |file: &Path, source| ScaffoldError::Unwritable { file: file.to_owned(), source };
    for (path, bytes) in files {
        let file = folder.join(path);
        let parent = file.parent().unwrap_or(folder);
        fs::create_dir_all(parent).map_err(|e| unwritable(parent, e))?;
        fs::File::create_new(&file)
            .and_then(|mut new| new.write_all(bytes))
            .map_err(|e| unwritable(&file, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn names_that_are_no_ids_or_no_crates_are_refused_with_one_that_is() {
        for (name, hint) in [
            ("My Method", "`my-method`"),
            ("4bit", "`bit`"),
            ("été", "`t`"),
            ("a/b", "`a-b`"),
            ("-x", "`x`"),
            ("..", ""),
            ("", ""),
            ("self", "`my-self`"),
            ("serde", "`my-serde`"),
            ("llmcb-plugin-api", "cannot be"),
            (&"a".repeat(65), "more than 64"),
        ] {
            let message = Names::of(name).unwrap_err().to_string();
            assert!(message.contains(hint) && !message.contains('\n'), "{name}: {message}");
        }
        for (name, file) in [("my-method", "libmy_method.so"), ("q4_k", "libq4_k.so"), ("x", "libx.so")] {
            assert_eq!(Names::of(name).unwrap().file(), file);
        }
    }

    #[test]
    fn proposed_names_are_sound() {
        for name in ["My Method", "4bit", "x!!y", "SELF", "Typeof", "été", "llmcb_plugin_api!", "a-"] {
            if let Some(near) = nearby(name) {
                Names::of(&near).unwrap_or_else(|e| panic!("{name}: {e}"));
            }
        }
    }

    #[test]
    fn every_placeholder_is_filled_in_and_no_file_of_a_template_is_left_out() {
        for template in [Template::Method, Template::Backend] {
            let folder = tempfile::tempdir().unwrap();
            let names = Names::of("x-my_plugin").unwrap();
            write(template, &names, folder.path(), Some(Path::new("/opt/a \"b\""))).unwrap();
            let manifest: toml::Table = read(folder.path(), "Cargo.toml").parse().unwrap();
            assert_eq!(manifest["package"]["name"].as_str(), Some("x-my_plugin"));
            let sdk = &manifest["dependencies"][CRATE];
            assert_eq!(sdk["path"].as_str(), Some("/opt/a \"b\""));
            assert_eq!(sdk["version"].as_str(), Some(llmcb_plugin_api::VERSION));
            let library = read(folder.path(), "src/lib.rs");
            let export = ["export_method!(XMyPlugin);", "runner = XMyPlugin);"];
            assert!(export.iter().any(|call| library.contains(call)), "{library}");
            for (file, _) in template.files() {
                let text = read(folder.path(), file);
                assert!(!text.contains("my-plugin") && !text.contains(SDK), "{file}: {text}");
            }
        }
    }

    #[test]
    fn types_do_not_hide_what_the_template_uses() {
        for (name, expected) in [("block", "BlockMethod"), ("options", "OptionsMethod"), ("rtn-2", "Rtn2")] {
            let folder = tempfile::tempdir().unwrap();
            write(Template::Method, &Names::of(name).unwrap(), folder.path(), None).unwrap();
            let library = read(folder.path(), "src/lib.rs");
            assert!(library.contains(&format!("export_method!({expected});")), "{name}: {library}");
            let manifest: toml::Table = read(folder.path(), "Cargo.toml").parse().unwrap();
            assert_eq!(manifest["dependencies"][CRATE].as_str(), Some(llmcb_plugin_api::VERSION));
        }
    }

    #[test]
    fn nothing_is_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let (full, file) = (folder.path().join("full"), folder.path().join("file"));
        fs::create_dir(&full).unwrap();
        fs::write(full.join("notes"), "mine").unwrap();
        fs::write(&file, "mine").unwrap();
        let names = Names::of("x").unwrap();
        for (place, why) in [(&full, "not empty"), (&file, "else than a folder")] {
            let message = write(Template::Method, &names, place, None).unwrap_err().to_string();
            assert!(message.contains(why) && message.contains("--path"), "{message}");
        }
        assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
        let empty = folder.path().join("deep/empty");
        fs::create_dir_all(&empty).unwrap();
        write(Template::Method, &names, &empty, None).unwrap();
    }

    #[test]
    fn the_sdk_is_found_beside_a_release_and_above_a_build() {
        let folder = tempfile::tempdir().unwrap();
        let put = |path: &str| {
            let place = folder.path().join(path);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("Cargo.toml"), format!("[package]\nname = \"{CRATE}\"\n")).unwrap();
            place
        };
        let find = |program: &str| find_sdk(&folder.path().join(program));
        assert_eq!(find("release/bin/llmcb-host"), None);
        let released = put("release/sdk/llmcb-plugin-api");
        assert_eq!(find("release/bin/llmcb-host").as_ref(), Some(&released));
        assert_eq!(find("release/llmcb-host").as_ref(), Some(&released));
        let sources = put("checkout/plugin-api");
        assert_eq!(find("checkout/target/release/llmcb-host").as_ref(), Some(&sources));
        fs::write(sources.join("Cargo.toml"), "[package]\nname = \"other\"\n").unwrap();
        assert_eq!(find("checkout/target/release/llmcb-host"), None);
    }
}
