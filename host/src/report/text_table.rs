//! Tables of text that fit a terminal: what is too wide is continued below, never wrapped inside a cell.

use comfy_table::{CellAlignment, ContentArrangement, LineStyle, Table, TableStyle};

/// One line under the header; columns are set apart by blanks.
const STYLE: TableStyle = TableStyle::new().header_separator(LineStyle::none().fill('─'));

/// A table of text. The first `keys` columns name a row and are repeated where the table is continued.
#[derive(Clone, Debug, Default)]
pub struct TextTable {
    /// Titles; may have several lines.
    pub header: Vec<String>,
    /// Rows, as long as the header.
    pub rows: Vec<Vec<String>>,
    /// Columns that name a row; they are left-aligned, the others right-aligned.
    pub keys: usize,
}

fn width_of(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or(0)
}

impl TextTable {
    fn column_width(&self, column: usize) -> usize {
        let cells = self.rows.iter().filter_map(|row| row.get(column));
        // One blank on each side.
        cells.chain(self.header.get(column)).map(|text| width_of(text)).max().unwrap_or(0) + 2
    }

    /// The columns of each part of the table, so that each part fits into `width` where that is possible at all.
    fn parts(&self, width: usize) -> Vec<Vec<usize>> {
        let keys: Vec<usize> = (0..self.keys.min(self.header.len())).collect();
        let key_width: usize = keys.iter().map(|k| self.column_width(*k)).sum();
        let mut parts = vec![keys.clone()];
        let mut used = key_width;
        for column in keys.len()..self.header.len() {
            let needed = self.column_width(column);
            let part = parts.last_mut().expect("there is a part");
            if used + needed > width && part.len() > keys.len() {
                parts.push(keys.clone());
                used = key_width;
            }
            parts.last_mut().expect("there is a part").push(column);
            used += needed;
        }
        parts
    }

    /// The table in lines of at most `width` characters, continued below where it is wider.
    pub fn render(&self, width: usize) -> String {
        let parts: Vec<String> = self.parts(width).iter().map(|columns| self.render_part(columns)).collect();
        parts.join("\n")
    }

    fn render_part(&self, columns: &[usize]) -> String {
        let pick = |row: &[String]| -> Vec<String> {
            columns.iter().map(|c| row.get(*c).cloned().unwrap_or_default()).collect()
        };
        let mut table = Table::new();
        table
            .load_style(STYLE)
            .force_no_tty()
            .set_content_arrangement(ContentArrangement::Disabled)
            .set_header(pick(&self.header));
        for row in &self.rows {
            table.add_row(pick(row));
        }
        for (at, column) in table.column_iter_mut().enumerate() {
            if at >= self.keys {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> TextTable {
        TextTable {
            header: vec!["method".into(), "perplexity\n↓".into(), "acc ↑".into(), "size".into()],
            rows: vec![
                vec!["dense".into(), "17.05 ±0.42".into(), "0.413".into(), "92.8 MiB".into()],
                vec!["gptq".into(), "18.11 ±0.44".into(), "0.400".into(), "80.0 MiB".into()],
            ],
            keys: 1,
        }
    }

    #[test]
    fn wide_tables_are_continued_below() {
        let text = format!("{}\n{}", table().render(80), table().render(25));
        insta::assert_snapshot!(text);
    }

    #[test]
    fn lines_fit_the_width_whenever_one_column_does() {
        for width in 24..60 {
            for line in table().render(width).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }
}
