// Speed by workload, and what each stage took. Only what was measured has a table.

function percentiles(seconds) {
  const known = Object.entries(seconds ?? {}).filter(([, value]) => Number.isFinite(value));
  if (!known.length) return "–";
  const by = Object.fromEntries(known.map(([name, value]) => [name.replace(/^p/, ""), value]));
  const middle = by["50"] !== undefined ? milliseconds(by["50"]) : null;
  const ends = by["5"] !== undefined && by["95"] !== undefined ? `${milliseconds(by["5"])} to ${milliseconds(by["95"])}` : null;
  return middle && ends ? `${middle} (${ends})` : middle ?? known.map(([name, value]) => `${name} ${milliseconds(value)}`).join(", ");
}

function speedTable() {
  const timed = rows.flatMap((row) => profilesOf(row).map((profile) => ({ row, profile })));
  if (!timed.length) return null;
  const positive = (value) => (value > 0 ? rate(value) : "–");
  const how = distinct(timed.map(({ profile }) => profile.raw?.how).filter(Boolean));
  return [numbered("Table", "Speed. Times are medians, with the 5th to 95th percentile; rates are over the whole batch."),
    plainTable("Speed", ["method", "batch", "prompt tokens", "new tokens", "prefill tokens/s ↑", "time to first token ↓", "decode tokens/s ↑", "decode step ↓"],
      timed.map(({ row, profile: p }) => [rowName(row), String(p.batch ?? "–"), String(p.prompt_tokens ?? "–"), String(p.new_tokens ?? "–"),
        positive(p.prefill_tokens_per_second), percentiles(p.prefill_seconds), positive(p.decode_tokens_per_second), percentiles(p.decode_step_seconds)])),
    how.map((text) => el("p", { class: "fine" }, `How it was measured: ${text}`))];
}

function resourceTable() {
  const sum = (row, kind, field) => doneStages(row, kind).reduce((total, stage) => total + (stage[field] ?? 0), 0);
  const columns = [
    ["compress time ↓", (row) => sum(row, "compress", "wall_seconds"), seconds],
    ["compress processor time ↓", (row) => sum(row, "compress", "cpu_seconds"), seconds],
    ["compress memory ↓", peakOf("compress", "peak_memory_bytes"), bytes],
    ["compress device memory ↓", peakOf("compress", "peak_device_bytes"), bytes],
    ["evaluate time ↓", (row) => sum(row, "evaluate", "wall_seconds"), seconds],
    ["evaluate processor time ↓", (row) => sum(row, "evaluate", "cpu_seconds"), seconds],
    ["evaluate memory ↓", peakOf("evaluate", "peak_memory_bytes"), bytes],
    ["evaluate device memory ↓", peakOf("evaluate", "peak_device_bytes"), bytes],
    ["MACs counted ↓", (row) => row.cell.macs?.counted ?? 0, count],
    ["MACs raw", (row) => row.cell.macs?.raw ?? 0, count],
    ["zeros on disk", (row) => row.cell.checkpoint?.info?.zero_fraction ?? 0, (share) => `${(100 * share).toFixed(1)} %`],
  ].filter(([, of]) => rows.some((row) => of(row) > 0));
  if (!columns.length) return null;
  const tokens = distinct(rows.map((row) => row.cell.macs?.prefill_tokens).filter((n) => n > 0));
  return [numbered("Table", "What each row took. Evaluation is summed over the tasks; memory is the largest peak."),
    plainTable("Resources", [severalModels ? "model and method" : "method", ...columns.map(([title]) => title)],
      rows.map((row) => [rowName(row), ...columns.map(([, of, text]) => (of(row) > 0 ? text(of(row)) : "–"))])),
    tokens.length ? el("p", { class: "fine" }, `MACs: multiply–accumulates of a pass over a prompt of ${tokens.join(" or ")} tokens. “Raw” is by the architecture alone; “counted” leaves out zeros of weights that are numbers, and takes (bits / 16)² of the work for integer codes, as LLMCBench counts.`) : null];
}

function costsSection() {
  const parts = [speedTable(), resourceTable()].filter(Boolean);
  return parts.length ? parts : null;
}
