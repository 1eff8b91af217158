//! `plugins new`: the crate of an author's own plugin.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use llmcb_plugin_api::abi::{ABI_MAJOR, ABI_MINOR};

use super::failure::Failure;
use super::output;
use crate::plugins::scaffold::{self, Names, ScaffoldError, Template};

const EXAMPLES: &str = "\
The crate builds as it is, has tests, and is benchmarked at once; the commands that do it are printed. It is written against the SDK \
beside the program, if there is one, else against the one in the registry.

Examples:
  llmcb-host plugins new my-method
  llmcb-host plugins new my-backend --backend --path ~/code/my-backend";

/// Write the crate of a new plugin: a method, or with --backend a backend
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct NewCommand {
    /// Name of the plugin, which is its id and its crate's name: lower-case letters, digits, `-` and `_`
    name: String,
    /// A backend that runs models, instead of a method that compresses them
    #[arg(long)]
    backend: bool,
    /// Folder to write into; it must not exist, or be empty [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
}

/// A word of a command line, quoted where a shell would take it apart.
fn word(text: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// How the user calls the program, from any folder.
fn called(program: Option<&Path>) -> String {
    let given = std::env::args_os().next().unwrap_or_default();
    match (program, given.to_string_lossy().contains('/')) {
        (Some(program), true) => word(&program.to_string_lossy()),
        _ => "llmcb-host".to_owned(),
    }
}

/// Runs the command.
pub fn run(command: &NewCommand) -> Result<ExitCode, Failure> {
    let names = Names::of(&command.name).map_err(Failure::usage)?;
    let template = if command.backend { Template::Backend } else { Template::Method };
    let folder = command.path.clone().unwrap_or_else(|| PathBuf::from(&names.id));
    let program = std::env::current_exe().and_then(|path| path.canonicalize()).ok();
    let sdk = program.as_deref().and_then(scaffold::find_sdk);
    scaffold::write(template, &names, &folder, sdk.as_deref()).map_err(|error| match error {
        ScaffoldError::Unwritable { .. } => Failure::failed(error),
        other => Failure::usage(other),
    })?;
    output::say(&format!("{}: the crate of a {}", folder.display(), template.words()));
    let version = llmcb_plugin_api::VERSION;
    output::say(&match sdk {
        Some(sdk) => format!("SDK: {} ({version}, ABI {ABI_MAJOR}.{ABI_MINOR})", sdk.display()),
        None => {
            format!("SDK: llmcb-plugin-api {version} of the registry, as there is none beside the program")
        }
    });
    output::say("next:");
    let host = called(program.as_deref());
    // Where cargo is told to build elsewhere, it will.
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let file = word(&target.join("release").join(names.file()).to_string_lossy());
    let (id, folder) = (&names.id, word(&folder.to_string_lossy()));
    // A table within a minute; `--plugin` alone is the default benchmark, which takes longer.
    let tasks = format!("--{} {id} --tasks arc_easy,piqa --limit 20", template.words());
    output::data(&format!(
        "cd {folder} && cargo build --release\n{host} plugins check {file}\n{host} run --plugin {file} {tasks}\n"
    ))?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        for (text, expected) in
            [("a/b-c_1.so", "a/b-c_1.so"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(word(text), expected);
        }
    }
}
