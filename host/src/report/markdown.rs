//! The table in Markdown (GitHub's dialect).

use super::grid::Grid;

/// Text that stays as it is in a cell.
fn cell(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim_end().chars() {
        match c {
            '\n' => out.push_str("<br>"),
            '|' | '*' | '_' | '`' | '<' | '>' | '[' | ']' | '\\' | '~' => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// A grid as a table, with the notes as a list.
pub fn render(grid: &Grid) -> String {
    let line =
        |cells: &[String]| format!("| {} |\n", cells.iter().map(|c| cell(c)).collect::<Vec<_>>().join(" | "));
    let mut text = line(&grid.header);
    let rule =
        (0..grid.header.len()).map(|at| if at < grid.keys { ":--" } else { "--:" }).collect::<Vec<_>>();
    text.push_str(&format!("| {} |\n", rule.join(" | ")));
    for row in &grid.rows {
        text.push_str(&line(row));
    }
    if !grid.notes.is_empty() {
        text.push('\n');
    }
    for note in &grid.notes {
        text.push_str(&format!("- {}\n", cell(note)));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::report::{Facts, grid::Grid, table};

    #[test]
    fn a_run_in_markdown() {
        insta::assert_snapshot!(super::render(&Grid::of(&table::tests::sample(), &Facts::default())));
    }

    #[test]
    fn names_cannot_break_the_table() {
        let grid = Grid {
            header: vec!["a|b".into()],
            rows: vec![vec!["x\ny `z`".into()]],
            keys: 1,
            notes: vec!["<b>*".into()],
        };
        assert_eq!(super::render(&grid), "| a\\|b |\n| :-- |\n| x<br>y \\`z\\` |\n\n- \\<b\\>\\*\n");
    }
}
