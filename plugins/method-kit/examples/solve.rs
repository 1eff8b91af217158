//! Times the solvers of GPTQ and SparseGPT on matrices that lie in a folder.
//!
//! usage: solve FOLDER THREADS
//!
//! `matrices.json` says what the folder holds: `{"sequences": n, "inputs": [{"input", "cols", "linears": {name: rows}}]}`, with
//! plain little-endian float32 in `INPUT.gram` and `INPUT.LINEAR.weight`. Prints one JSON object: for each method the
//! seconds (the least of three runs) over all linears, from Gram matrices to results, and the sum of their losses.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::Instant;

use llmcb_method_kit::Matrix;
use llmcb_method_kit::gptq::{GptqOptions, gptq};
use llmcb_method_kit::hessian::{FactorOptions, Hessian};
use llmcb_method_kit::mask::Sparsity;
use llmcb_method_kit::sparsegpt::sparsegpt;
use serde::Deserialize;

#[derive(Deserialize)]
struct Folder {
    sequences: usize,
    inputs: Vec<Input>,
}

#[derive(Deserialize)]
struct Input {
    input: String,
    cols: usize,
    linears: BTreeMap<String, usize>,
}

/// A Gram matrix and the linears that read its input.
struct Case {
    cols: usize,
    gram: Vec<f32>,
    linears: Vec<(usize, Vec<f32>)>,
}

fn read(path: &Path) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(threads)) = (arguments.next(), arguments.next()) else {
        return Err("usage: solve FOLDER THREADS".into());
    };
    let folder = Path::new(&folder);
    rayon::ThreadPoolBuilder::new().num_threads(threads.parse()?).build_global()?;
    let described: Folder = serde_json::from_slice(&std::fs::read(folder.join("matrices.json"))?)?;
    let mut cases = Vec::new();
    for input in &described.inputs {
        let mut linears = Vec::new();
        for (name, &rows) in &input.linears {
            linears.push((rows, read(&folder.join(format!("{}.{name}.weight", input.input)))?));
        }
        let gram = read(&folder.join(format!("{}.gram", input.input)))?;
        cases.push(Case { cols: input.cols, gram, linears });
    }

    let mut results = BTreeMap::new();
    for method in ["gptq", "sparsegpt"] {
        let (mut least, mut loss) = (f64::INFINITY, 0.0);
        for _ in 0..3 {
            let start = Instant::now();
            loss = 0.0;
            for case in &cases {
                loss += solve(method, case, described.sequences)?;
            }
            least = least.min(start.elapsed().as_secs_f64());
        }
        results.insert(method, serde_json::json!({ "seconds": least, "loss": loss }));
    }
    println!("{}", serde_json::to_string(&results)?);
    Ok(())
}

fn solve(method: &str, case: &Case, sequences: usize) -> Result<f64, Box<dyn Error>> {
    let hessian = Hessian::from_gram(&case.gram, case.cols, sequences)?;
    let factor =
        hessian.factor(&FactorOptions { activation_order: method == "gptq", ..FactorOptions::default() })?;
    let mut loss = 0.0;
    for (rows, weight) in &case.linears {
        let weight = Matrix::new(weight, *rows, case.cols)?;
        loss += match method {
            "gptq" => gptq(weight, &factor, &GptqOptions::default())?.loss,
            _ => sparsegpt(weight, &factor, Sparsity::Unstructured { ratio: 0.5 }, 128)?.loss,
        };
    }
    Ok(loss)
}
