//! One row for each number: model, method, backend, seed, task, subset, metric, value, standard error, interval, items; and for each that is
//! missing, with the reason. Overall metrics, which are over all models and seeds, have neither.

use std::io::Write;
use std::path::Path;

use super::grid::Named;
use crate::suite::result::{Cell, RunResult, StageKind, Status};

const HEADER: [&str; 14] = [
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
    "not_measured",
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

/// As [`write()`] for one run; several have a first column with the name of each.
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

type Row = [String; HEADER.len()];

/// A row of a cell, with nothing in its other columns.
fn row(cell: &Cell, task: &str, metric: &str) -> Row {
    let mut row = Row::default();
    row[..4].clone_from_slice(&[
        cell.model.clone(),
        cell.method.clone(),
        cell.backend.clone(),
        cell.seed.to_string(),
    ]);
    (row[4], row[6]) = (task.to_owned(), metric.to_owned());
    row
}

fn rows(run: &RunResult) -> Vec<Row> {
    let mut rows = Vec::new();
    let text = |value: Option<f64>| value.map(|value| value.to_string()).unwrap_or_default();
    for cell in &run.cells {
        for record in &cell.metrics {
            let m = &record.metric;
            let mut row = row(cell, &record.task, &m.name);
            row[5] = m.subset.clone().unwrap_or_default();
            (row[7], row[8]) = (m.value.to_string(), text(m.stderr));
            (row[11], row[12]) = (m.n.to_string(), m.higher_is_better.to_string());
            rows.push(row);
        }
        for (metric, value) in costs(cell) {
            let mut row = row(cell, "", metric);
            (row[7], row[12]) = (value, "false".to_owned());
            rows.push(row);
        }
        // What has no number is there with the reason.
        for stage in cell.stages.iter().filter(|s| s.status != Some(Status::Done)) {
            let what = stage.metric.as_deref().unwrap_or(stage.kind.name());
            let mut row = row(cell, stage.task.as_deref().unwrap_or(""), what);
            let status = stage.status.map_or("not reached", Status::name);
            row[13] =
                stage.reason.as_ref().map_or_else(|| status.to_owned(), |why| format!("{status}: {why}"));
            rows.push(row);
        }
    }
    for one in &run.overall {
        let om = &one.om;
        let mut row = Row::default();
        // Over all models and seeds.
        (row[1], row[2], row[4]) = (one.method.clone(), one.backend.clone(), format!("track{}", one.track));
        (row[6], row[7]) = (om.name.clone(), text(om.value));
        (row[9], row[10]) = (text(om.interval.map(|i| i.low)), text(om.interval.map(|i| i.high)));
        (row[11], row[12]) = (om.cells.to_string(), "true".to_owned());
        row[13] = om.not_measured.join("; ");
        rows.push(row);
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
        if stage.kind == StageKind::Compress && stage.wall_seconds > 0.0 {
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
    for (kind, name) in [
        (StageKind::Compress, "compress_gpu_peak_memory_bytes"),
        (StageKind::Evaluate, "evaluate_gpu_peak_memory_bytes"),
        (StageKind::Profile, "profile_gpu_peak_memory_bytes"),
    ] {
        let peak = done().filter(|s| s.kind == kind).map(|s| s.gpu_peak_memory_bytes).max();
        if let Some(peak) = peak.filter(|p| *p > 0) {
            costs.push((name, peak.to_string()));
        }
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
