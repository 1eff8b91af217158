//! One row for each number: model, method, backend, seed, task, subset, metric, value, standard error, interval, items.

use std::io::Write;
use std::path::Path;

use super::grid::Named;
use crate::suite::result::{Cell, RunResult, StageKind, Status};

const HEADER: [&str; 13] = [
    "model",
    "method",
    "backend",
    "seed",
    "task",
    "subset",
    "metric",
    "value",
    "stderr",
    "low",
    "high",
    "n",
    "higher_is_better",
];

/// Writes a run's numbers as CSV (RFC 4180, UTF-8, full precision; `inf` and `NaN` are written as such).
///
/// # Errors
/// The writer's.
pub fn write(run: &RunResult, writer: impl Write) -> csv::Result<()> {
    let mut out = csv::Writer::from_writer(writer);
    out.write_record(HEADER)?;
    for row in rows(run) {
        out.write_record(row)?;
    }
    out.flush()?;
    Ok(())
}

/// As [`write`] for one run; several have a first column with the name of each.
///
/// # Errors
/// The writer's.
pub fn write_all(runs: &[Named], writer: impl Write) -> csv::Result<()> {
    if let [one] = runs {
        return write(&one.run, writer);
    }
    let mut out = csv::Writer::from_writer(writer);
    out.write_record(["result"].into_iter().chain(HEADER))?;
    for one in runs {
        for row in rows(&one.run) {
            out.write_record([one.name.clone()].into_iter().chain(row))?;
        }
    }
    out.flush()?;
    Ok(())
}

fn rows(run: &RunResult) -> Vec<[String; HEADER.len()]> {
    let mut rows = Vec::new();
    let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for cell in &run.cells {
        let row = |task: &str, subset: &str, metric: &str, numbers: [String; 5], higher_is_better: bool| {
            let [value, stderr, low, high, n] = numbers;
            [
                cell.model.clone(),
                cell.method.clone(),
                cell.backend.clone(),
                cell.seed.to_string(),
                task.to_owned(),
                subset.to_owned(),
                metric.to_owned(),
                value,
                stderr,
                low,
                high,
                n,
                higher_is_better.to_string(),
            ]
        };
        let nothing = String::new;
        for record in &cell.metrics {
            let m = &record.metric;
            let numbers = [m.value.to_string(), text(m.stderr), nothing(), nothing(), m.n.to_string()];
            rows.push(row(
                &record.task,
                m.subset.as_deref().unwrap_or(""),
                &m.name,
                numbers,
                m.higher_is_better,
            ));
        }
        for (metric, value) in costs(cell) {
            rows.push(row("", "", metric, [value, nothing(), nothing(), nothing(), nothing()], false));
        }
        // Overall metrics are over all models and seeds: they go with the first row of their method.
        let first = run.cells.iter().find(|c| c.method == cell.method && c.backend == cell.backend);
        if !first.is_some_and(|first| std::ptr::eq(first, cell)) {
            continue;
        }
        for one in run.overall.iter().filter(|o| o.method == cell.method && o.backend == cell.backend) {
            let om = &one.om;
            if let Some(value) = om.value {
                let (low, high) = (om.interval.map(|i| i.low), om.interval.map(|i| i.high));
                let numbers = [value.to_string(), nothing(), text(low), text(high), om.cells.to_string()];
                rows.push(row(&format!("track{}", one.track), "", &om.name, numbers, true));
            }
        }
    }
    rows
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
            costs.push(("compress_cpu_seconds", stage.cpu_seconds.to_string()));
            costs.push(("compress_peak_memory_bytes", stage.peak_memory_bytes.to_string()));
        }
    }
    if let Some(macs) = cell.macs {
        costs.push(("macs_raw", macs.raw.to_string()));
        costs.push(("macs_counted", macs.counted.to_string()));
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
