// What is known of a row, quantity by quantity. Tables, charts and selections all read these.
//
// A quantity is {id, group, title, sub, up, kind, of(row)}; `up` says whether more is better. `of` gives
// {value, text, error, mark, low, high, extra, word, why}: a null value has a `why`, and zero is never said for "not measured".

/** Combined standard errors within which two numbers are not told apart. */
const NOISE = 2;
/** Half-width of a 95 % interval in standard errors. */
const Z95 = 1.96;

const missing = (why, word = null) => ({ value: null, text: word ?? "–", why, word });

/** `+` better than dense, `−` worse, `~` not told apart from it. */
function markOf(row, task, metric, up) {
  const dense = metricOf(baselineOf(row), task, metric.name);
  if (!dense) return null;
  const [a, b] = [real(metric.value), real(dense.value)];
  const paired = pairedOf(row, task, metric.name);
  const known = Number.isFinite(metric.stderr ?? NaN) && Number.isFinite(dense.stderr ?? NaN);
  if (!paired && !known) return null;
  const toldApart = paired ? paired.told_apart : Math.abs(a - b) >= NOISE * Math.hypot(metric.stderr, dense.stderr);
  if (!toldApart) return "~";
  if (Number.isNaN(a) || a === b) return null;
  return (a > b) === up ? "+" : "−";
}

function scoreOf(row, task, headline) {
  const metric = metricOf(row, task, headline.name);
  if (!metric || real(metric.value) === null) {
    const applied = stagesOf(row, "score", task).find((stage) => stage.metric === headline.name);
    const { word, why } = whyAbsent(row, applied ?? stagesOf(row, "evaluate", task)[0]);
    return missing(why, word);
  }
  const value = real(metric.value);
  const spread = Number.isFinite(metric.stderr ?? NaN) && Number.isFinite(value) ? Z95 * metric.stderr : null;
  // A share lies within 0 and 1, and a perplexity is at least 1, whatever the normal approximation says.
  const [least, most] = headline.unit === "fraction" ? [0, 1] : [headline.name === "perplexity" ? 1 : -Infinity, Infinity];
  return {
    value,
    text: score(value),
    error: errorText(value, metric.stderr),
    mark: markOf(row, task, metric, headline.up),
    low: spread === null ? null : Math.max(least, value - spread),
    high: spread === null ? null : Math.min(most, value + spread),
    n: metric.n,
  };
}

function overallValue(row, name) {
  const found = overallOf(row, name);
  const value = real(found?.value);
  if (value === null || Number.isNaN(value)) {
    const measured = (row.run.overall ?? []).some((o) => o.name === name);
    if (!row.dense || !measured) return missing(row.run.complete ? "not measured" : "not measured so far");
    return name === "OM_train" ? missing("the dense model is not compressed") : { value: 100, text: "100", why: "by definition" };
  }
  const [low, high] = [real(found.interval?.low), real(found.interval?.high)];
  const known = Number.isFinite(low ?? NaN) && Number.isFinite(high ?? NaN);
  const partial = (found.not_measured ?? []).length > 0;
  return {
    value,
    text: Number.isFinite(value) ? value.toFixed(1) : score(value),
    star: partial,
    low: known ? low : null,
    high: known ? high : null,
    extra: known ? `${low.toFixed(1)} to ${high.toFixed(1)}` : null,
    title: partial ? `over a part of the track; not measured: ${found.not_measured.join(", ")}` : null,
  };
}

/** A cost that is one number of a row, with how many times the dense model's it is. */
function costOf(row, number, text, stage) {
  const value = number(row);
  if (!(value > 0)) {
    const { word, why } = whyAbsent(row, stage?.(row));
    return missing(why, word);
  }
  const base = baselineOf(row);
  const dense = base ? number(base) : 0;
  return { value, text: text(value), extra: dense > 0 ? times(value / dense) : null };
}

const peakOf = (kind, field) => (row) => Math.max(0, ...doneStages(row, kind).map((s) => s[field] ?? 0));
const evaluateStage = (row) => stagesOf(row, "evaluate").find((s) => s.status !== "done");
const compressStage = (row) => stagesOf(row, "compress")[0];

function compressCost(row, field, text) {
  if (row.dense) return missing("the dense model is not compressed");
  return costOf(row, peakOf("compress", field), text, compressStage);
}

const COSTS = [
  { id: "size", title: "weights", sub: "on disk", up: false, kind: "bytes", axis: "weights on disk",
    of: (row) => costOf(row, (r) => r.cell.weight_bytes ?? 0, bytes, (r) => evaluateStage(r) ?? compressStage(r)) },
  { id: "compress-time", title: "compress", sub: "time", up: false, kind: "seconds", axis: "time to compress",
    of: (row) => compressCost(row, "wall_seconds", seconds) },
  { id: "compress-memory", title: "compress", sub: "memory", up: false, kind: "bytes", axis: "peak memory to compress",
    of: (row) => compressCost(row, "peak_memory_bytes", bytes) },
  { id: "evaluate-memory", title: "evaluate", sub: "memory", up: false, kind: "bytes", axis: "peak memory to evaluate",
    of: (row) => costOf(row, peakOf("evaluate", "peak_memory_bytes"), bytes, evaluateStage) },
  { id: "decode", title: "decode", sub: "tokens/s", up: true, kind: "number", axis: "decode tokens/s",
    of: (row) => costOf(row, (r) => profilesOf(r)[0]?.decode_tokens_per_second ?? 0, rate, (r) => stagesOf(r, "profile")[0]) },
  { id: "prefill", title: "prefill", sub: "tokens/s", up: true, kind: "number", axis: "prefill tokens/s",
    of: (row) => costOf(row, (r) => profilesOf(r)[0]?.prefill_tokens_per_second ?? 0, rate, (r) => stagesOf(r, "profile")[0]) },
  { id: "device", title: "device", sub: "memory", up: false, kind: "bytes", axis: "peak device memory to evaluate",
    of: (row) => costOf(row, peakOf("evaluate", "peak_device_bytes"), bytes, evaluateStage) },
  { id: "macs", title: "MACs", sub: "prefill", up: false, kind: "count", axis: "multiply–accumulates of a prefill, as counted",
    of: (row) => costOf(row, (r) => r.cell.macs?.counted ?? 0, count) },
].map((cost) => ({ ...cost, group: "Costs" }));

const SCORES = TASKS.flatMap((task) => shownOf(task).map((headline, at) => (
  { id: `task:${task}${at ? `:${headline.name}` : ""}`, task, headline, group: "Scores", title: taskName(task), sub: headline.name,
    up: headline.up, kind: "score", axis: `${taskName(task)} ${headline.name}`, of: (row) => scoreOf(row, task, headline) })));

const OVERALLS = OVERALL.map(({ name, track }) => ({ id: `om:${name}`, overall: name, group: "Overall metrics", title: name,
  sub: `track ${track}`, up: true, kind: "score", axis: `${name} (100 = ${name === "OM_train" ? "cheapest method" : "dense"})`,
  of: (row) => overallValue(row, name) }));

const measuredSomewhere = (quantity) => rows.some((row) => quantity.of(row).value !== null);
const MEASURED_COSTS = COSTS.filter(measuredSomewhere);
const COMPARES = rows.some((row) => row.dense) && rows.some((row) => !row.dense);
