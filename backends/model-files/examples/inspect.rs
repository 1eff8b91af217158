//! Says what a model's files hold, and how a text is tokenised: `inspect MODEL [TEXT_FILE] [--save DIR]`.
//!
//! Rows of the text file are its lines, blank ones as empty strings, joined by blank lines: the usual protocol for
//! WikiText's raw files.

use std::path::Path;
use std::time::Instant;

use llmcb_model_files::ModelFiles;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some(model) = arguments.first() else {
        return Err("usage: inspect MODEL [TEXT_FILE] [--save DIR]".into());
    };
    let start = Instant::now();
    let files = ModelFiles::open(Path::new(model))?;
    eprintln!("opened in {:.3} s", start.elapsed().as_secs_f64());
    println!("{:#}", files.config());
    println!("{:#?}", files.provenance());
    for name in files.tensor_names() {
        let tensor = files.tensor(name)?;
        println!(
            "{} {:?} {} {:?}",
            tensor.name, tensor.shape, tensor.encoding, tensor.rope_interleaved_heads
        );
    }
    let start = Instant::now();
    let tokenizer = files.tokenizer()?;
    eprintln!("tokenizer built in {:.3} s", start.elapsed().as_secs_f64());
    println!("{tokenizer:?}");
    if let Some(text_file) = arguments.get(1).filter(|a| *a != "--save") {
        let text = std::fs::read_to_string(text_file)?;
        let rows: Vec<&str> =
            text.split_inclusive('\n').map(|row| if row.trim().is_empty() { "" } else { row }).collect();
        let joined = rows.join("\n\n");
        let start = Instant::now();
        let ids = tokenizer.encode(&joined, false)?;
        eprintln!("encoded {} bytes in {:.3} s", joined.len(), start.elapsed().as_secs_f64());
        println!("{} tokens, first {:?}", ids.len(), &ids[..ids.len().min(8)]);
        println!("decodes to itself: {}", tokenizer.decode(&ids, false)? == joined);
    }
    if let Some(at) = arguments.iter().position(|a| a == "--save") {
        let directory = arguments.get(at + 1).ok_or("--save needs a directory")?;
        std::fs::create_dir_all(directory)?;
        tokenizer.save(Path::new(directory))?;
    }
    Ok(())
}
