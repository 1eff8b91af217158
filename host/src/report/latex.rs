//! The table in LaTeX, with the rules of the `booktabs` package.

use super::grid::Grid;

/// Text as LaTeX reads it.
fn escaped(text: &str) -> String {
    let mut out = String::new();
    for c in text.trim_end().chars() {
        match c {
            '&' | '%' | '$' | '#' | '_' | '{' | '}' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push(' '),
            '\\' => out.push_str("\\textbackslash{}"),
            '^' => out.push_str("\\textasciicircum{}"),
            '~' => out.push_str("$\\sim$"),
            '±' => out.push_str("$\\pm$"),
            '↑' => out.push_str("$\\uparrow$"),
            '↓' => out.push_str("$\\downarrow$"),
            '−' => out.push_str("$-$"),
            '+' => out.push_str("$+$"),
            '<' => out.push_str("$<$"),
            '>' => out.push_str("$>$"),
            '…' => out.push_str("\\ldots{}"),
            c => out.push(c),
        }
    }
    out
}

/// A grid as a `tabular`, with the notes in small print under it.
pub fn render(grid: &Grid) -> String {
    let columns: String = (0..grid.header.len()).map(|at| if at < grid.keys { 'l' } else { 'r' }).collect();
    let mut text = format!("% needs \\usepackage{{booktabs}}\n\\begin{{tabular}}{{{columns}}}\n\\toprule\n");
    let height = grid.header.iter().map(|title| title.lines().count()).max().unwrap_or(0);
    for at in 0..height {
        let line: Vec<String> =
            grid.header.iter().map(|t| escaped(t.lines().nth(at).unwrap_or(""))).collect();
        text.push_str(&format!("{} \\\\\n", line.join(" & ")));
    }
    text.push_str("\\midrule\n");
    for row in &grid.rows {
        let line: Vec<String> = row.iter().map(|c| escaped(c)).collect();
        text.push_str(&format!("{} \\\\\n", line.join(" & ")));
    }
    text.push_str("\\bottomrule\n\\end{tabular}\n");
    if !grid.notes.is_empty() {
        // A bracket or a star after the end of a line would be taken for its argument.
        let notes: Vec<String> = grid.notes.iter().map(|note| format!("{{}}{}", escaped(note))).collect();
        text.push_str(&format!("\n{{\\footnotesize\n{}\n}}\n", notes.join("\\\\\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::report::{Facts, grid::Grid, table};

    #[test]
    fn a_run_in_latex() {
        insta::assert_snapshot!(super::render(&Grid::of(&table::tests::sample(), &Facts::default())));
    }
}
