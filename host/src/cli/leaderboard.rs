//! `leaderboard`: results of several people or machines in one table.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::failure::Failure;
use super::report::{FormatFlags, name_of, write};
use crate::report::Facts;
use crate::report::grid::Named;
use crate::suite::leaderboard::{Entry, conflicts, trim};

const EXAMPLES: &str = "\
Each directory is checked: version of its files, content keys of its stages, and that every metric follows from its items. Results are \
refused where they asked other questions of a task (data, limit, shots, window length) or took other files for a model of the same name. \
Numbers computed from items are computed anew. Times, memory and speeds are left out where machines differ, and overall metrics where they are over other models or tasks.

Examples:
  llmcb-host leaderboard alice/results bob/results
  llmcb-host leaderboard runs/* --format html --output leaderboard.html

Exit codes: 0 merged, 2 a directory is not sound, or the results cannot be compared";

/// Merge result directories into one table, best first, after checking them
#[derive(Debug, Args)]
#[command(after_long_help = EXAMPLES)]
pub struct LeaderboardCommand {
    /// Result directories
    #[arg(required = true, value_name = "DIR")]
    directories: Vec<PathBuf>,
    #[command(flatten)]
    format: FormatFlags,
}

/// Names of directories, told apart by as much of their paths as that takes.
fn names(directories: &[PathBuf]) -> Vec<String> {
    let short: Vec<String> = directories.iter().map(|folder| name_of(folder)).collect();
    let unique = |name: &String| short.iter().filter(|other| *other == name).count() == 1;
    directories
        .iter()
        .zip(&short)
        .map(|(folder, name)| if unique(name) { name.clone() } else { folder.display().to_string() })
        .collect()
}

/// Runs the command.
pub fn run(command: &LeaderboardCommand) -> Result<ExitCode, Failure> {
    let (mut entries, mut faults) = (Vec::new(), Vec::new());
    for folder in &command.directories {
        match Entry::read(folder) {
            Ok(entry) => entries.push(entry),
            Err(wrong) => faults.extend(wrong),
        }
    }
    faults.extend(conflicts(&entries));
    if !faults.is_empty() {
        return Err(Failure::usage(format!("these results cannot be merged:\n{}", faults.join("\n"))));
    }
    let notes = trim(&mut entries);
    let names = names(&command.directories);
    let runs: Vec<Named> = entries
        .into_iter()
        .zip(names)
        .map(|(entry, name)| Named { name, facts: Facts::read(&entry.run, &entry.root), run: entry.run })
        .collect();
    write(&runs, &command.format, &notes, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_named_by_what_tells_them_apart() {
        let folders = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(names(&folders(&["/a/one", "/b/two/"])), ["one", "two"]);
        assert_eq!(names(&folders(&["/a/results", "/b/results"])), ["/a/results", "/b/results"]);
    }
}
