//! What a run says: the table for people, CSV for spreadsheets, JSON as it is.
//!
//! Every number shown is in the result files; nothing is computed here but differences from the dense row.

pub mod csv;
pub mod facts;
pub mod numbers;
pub mod table;
pub mod text_table;

pub use facts::Facts;
