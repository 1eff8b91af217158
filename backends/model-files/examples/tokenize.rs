//! Token ids of texts: `tokenize DIRECTORY [--plain] [--save DIRECTORY]` reads one JSON string a line from standard
//! input, and writes for each a line with an array of ids, and behind a tab the text of these ids as a JSON string.
//!
//! `--plain` leaves out the special tokens around a text; `--save` also writes the tokenizer.

use std::io::{BufRead, BufWriter, Write, stdin, stdout};
use std::path::Path;

use llmcb_model_files::Tokenizer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(directory) = arguments.first() else {
        return Err("usage: tokenize DIRECTORY [--plain] [--save DIRECTORY] < LINES".into());
    };
    let tokenizer = Tokenizer::open(Path::new(directory))?;
    eprintln!("{tokenizer:?}");
    if let Some(at) = arguments.iter().position(|a| a == "--save") {
        let directory = arguments.get(at + 1).ok_or("--save needs a directory")?;
        std::fs::create_dir_all(directory)?;
        tokenizer.save(Path::new(directory))?;
    }
    let plain = arguments.iter().any(|a| a == "--plain");
    let mut out = BufWriter::new(stdout().lock());
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let ids = tokenizer.encode(&text, !plain)?;
        let again = tokenizer.decode(&ids, true)?;
        writeln!(out, "{}\t{}", serde_json::to_string(&ids)?, serde_json::to_string(&again)?)?;
    }
    Ok(())
}
