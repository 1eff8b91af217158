//! One row for each number: model, method, backend, task, metric, value, standard error, items.

use std::io::Write;
use std::path::Path;

use crate::suite::result::{Cell, RunResult, StageKind, Status};

const HEADER: [&str; 10] =
    ["model", "method", "backend", "task", "subset", "metric", "value", "stderr", "n", "higher_is_better"];

/// Writes a run's numbers as CSV (RFC 4180, UTF-8, full precision; `inf` and `NaN` are written as such).
///
/// # Errors
/// The writer's.
pub fn write(run: &RunResult, writer: impl Write) -> csv::Result<()> {
    let mut out = csv::Writer::from_writer(writer);
    out.write_record(HEADER)?;
    for cell in &run.cells {
        let mut row = |task: &str,
                       subset: &str,
                       metric: &str,
                       value: String,
                       stderr: String,
                       n: String,
                       better: &str| {
            out.write_record([
                cell.model.as_str(),
                &cell.method,
                &cell.backend,
                task,
                subset,
                metric,
                &value,
                &stderr,
                &n,
                better,
            ])
        };
        for record in &cell.metrics {
            let m = &record.metric;
            let stderr = m.stderr.map(|e| e.to_string()).unwrap_or_default();
            let better = if m.higher_is_better { "true" } else { "false" };
            row(
                &record.task,
                m.subset.as_deref().unwrap_or(""),
                &m.name,
                m.value.to_string(),
                stderr,
                m.n.to_string(),
                better,
            )?;
        }
        for (metric, value) in costs(cell) {
            row("", "", metric, value, String::new(), String::new(), "false")?;
        }
        let overall = run.overall.iter().filter(|o| o.method == cell.method && o.backend == cell.backend);
        // Overall metrics are over all models: they go with the first model's row.
        let first = run.cells.iter().find(|c| c.method == cell.method && c.backend == cell.backend);
        if first.is_some_and(|first| std::ptr::eq(first, cell)) {
            for one in overall {
                if let Some(value) = one.om.value {
                    let task = format!("track{}", one.track);
                    row(
                        &task,
                        "",
                        &one.om.name,
                        value.to_string(),
                        String::new(),
                        one.om.cells.to_string(),
                        "true",
                    )?;
                }
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn costs(cell: &Cell) -> Vec<(&'static str, String)> {
    let mut costs = Vec::new();
    if cell.weight_bytes > 0 {
        costs.push(("weight_bytes", cell.weight_bytes.to_string()));
    }
    let done = || cell.stages.iter().filter(|s| s.status == Some(Status::Done));
    for stage in done() {
        if stage.kind == StageKind::Compress {
            costs.push(("compress_seconds", stage.wall_seconds.to_string()));
            costs.push(("compress_peak_memory_bytes", stage.peak_memory_bytes.to_string()));
        }
    }
    let peak = done().filter(|s| s.kind == StageKind::Evaluate).map(|s| s.peak_memory_bytes).max();
    if let Some(peak) = peak.filter(|p| *p > 0) {
        costs.push(("evaluate_peak_memory_bytes", peak.to_string()));
    }
    costs
}

/// Writes a run's numbers to a file so that a reader sees the old file or the whole new one.
///
/// # Errors
/// The operating system's.
pub fn save(run: &RunResult, path: &Path) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    write(run, &mut bytes).map_err(std::io::Error::other)?;
    replace(path, &bytes)
}

/// Replaces a file's contents in one step.
///
/// # Errors
/// The operating system's.
pub fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    // Temporary files are the owner's alone; results are for whoever may read the folder.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_number_is_a_row() {
        let mut out = Vec::new();
        super::write(&crate::report::table::tests::sample(), &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap());
    }
}
