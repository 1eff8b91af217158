//! A run, or several, as a grid of text: what every table format is made from.

use super::columns::{Column, columns, short_name};
use super::facts::Facts;
use super::notes::{Footnotes, note_lines};
use super::seeds;
use crate::suite::result::{Cell, RunResult};
use crate::suite::spec::PluginUse;

/// Rows of text under titles, with notes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grid {
    /// Titles; may have several lines.
    pub header: Vec<String>,
    /// Rows, as long as the header.
    pub rows: Vec<Vec<String>>,
    /// Columns that name a row.
    pub keys: usize,
    /// Notes, a line each.
    pub notes: Vec<String>,
}

/// A run under a name.
#[derive(Clone, Debug)]
pub struct Named {
    /// The name.
    pub name: String,
    /// The run.
    pub run: RunResult,
    /// What its stages' results say.
    pub facts: Facts,
}

/// A label as people write what it stands for.
fn shown(uses: &[PluginUse], label: &str) -> String {
    uses.iter().find(|one| one.label == label).map_or_else(|| label.to_owned(), PluginUse::shown)
}

fn is_control(c: char) -> bool {
    c.is_control() && c != '\n'
}

impl Grid {
    /// The grid of one run.
    pub fn of(run: &RunResult, facts: &Facts) -> Grid {
        let named = Named { name: String::new(), run: run.clone(), facts: facts.clone() };
        Self::of_all(&[named], &[])
    }

    /// The grid of several runs, each compared with its own dense model; the best of each model first. `notes` come before the runs' own.
    pub fn of_all(runs: &[Named], notes: &[String]) -> Grid {
        let gaps: Vec<Vec<String>> = runs.iter().map(|one| seeds::gaps(&one.run)).collect();
        let runs: Vec<Named> = runs
            .iter()
            .map(|one| Named {
                run: RunResult { cells: seeds::together(&one.run), ..one.run.clone() },
                ..one.clone()
            })
            .collect();
        let Some(first) = runs.first() else { return Grid::default() };
        // Columns of everything that any of them measured.
        let mut whole = first.run.clone();
        for other in &runs[1..] {
            whole.cells.extend(other.run.cells.clone());
            whole.overall.extend(other.run.overall.clone());
            let new = other.run.suite.tasks.iter().filter(|task| !first.run.suite.tasks.contains(task));
            whole.suite.tasks.extend(new.cloned());
        }
        let columns = columns(&whole);
        let several =
            |name: fn(&Cell) -> &str| whole.cells.iter().any(|cell| name(cell) != name(&whole.cells[0]));
        let (models, backends) = (several(|c| &c.model), several(|c| &c.backend));
        let mut grid = Grid { notes: notes.to_vec(), ..Grid::default() };
        let titles = [("result", runs.len() > 1), ("model", models), ("method", true), ("backend", backends)];
        grid.header.extend(titles.iter().filter(|(_, shown)| *shown).map(|(title, _)| (*title).to_owned()));
        grid.keys = grid.header.len();
        grid.header.extend(columns.iter().map(Column::title));
        let mut ranked: Vec<(String, f64, Vec<String>)> = Vec::new();
        for (one, gaps) in runs.iter().zip(gaps) {
            let mut notes = Footnotes::default();
            for cell in &one.run.cells {
                let mut row = Vec::new();
                if runs.len() > 1 {
                    row.push(one.name.clone());
                }
                if models {
                    row.push(short_name(&cell.model));
                }
                row.push(shown(&one.run.suite.methods, &cell.method));
                if backends {
                    row.push(shown(&one.run.suite.backends, &cell.backend));
                }
                row.extend(columns.iter().map(|column| column.text(&one.run, cell, &mut notes)));
                let rank = columns
                    .iter()
                    .find_map(|column| column.rank(&one.run, cell))
                    .unwrap_or(f64::NEG_INFINITY);
                ranked.push((cell.model.clone(), rank, row));
            }
            let prefix = if runs.len() > 1 { format!("{}: ", one.name) } else { String::new() };
            for line in note_lines(&one.run, &one.facts, &columns, notes, gaps) {
                // Marks mean the same in all runs.
                let general = line.starts_with(['~', '*']) || line.starts_with("[low");
                let line = if general { line } else { format!("{prefix}{line}") };
                if !grid.notes.contains(&line) {
                    grid.notes.push(line);
                }
            }
        }
        if runs.len() > 1 {
            let order: Vec<String> = ranked.iter().map(|(model, ..)| model.clone()).collect();
            let place = |model: &String| order.iter().position(|other| other == model);
            ranked.sort_by(|a, b| place(&a.0).cmp(&place(&b.0)).then(b.1.total_cmp(&a.1)));
        }
        grid.rows = ranked.into_iter().map(|(.., row)| row).collect();
        // Names and reasons may be somebody else's: what a terminal would obey is not for a table.
        let cells = grid.header.iter_mut().chain(grid.rows.iter_mut().flatten()).chain(&mut grid.notes);
        for text in cells.filter(|text| text.chars().any(is_control)) {
            *text =
                text.chars().map(|c| if is_control(c) { char::REPLACEMENT_CHARACTER } else { c }).collect();
        }
        grid
    }
}
