//! What a run says, one format a file: the table for a terminal, Markdown, LaTeX, CSV for spreadsheets, a page of HTML, JSON as it is.
//!
//! Every number shown is in the result files; nothing is computed here but differences from the dense row.

mod columns;
pub mod csv;
pub mod facts;
pub mod grid;
pub mod html;
pub mod latex;
pub mod markdown;
mod notes;
pub mod numbers;
pub mod seeds;
pub mod table;
pub mod text_table;

pub use columns::{BETTER, SAME, WORSE};
pub use facts::Facts;
