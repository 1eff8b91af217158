// The runs as rows: one model with one method (or none) on one backend, of one run and one seed.

const DENSE = "dense";
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs ?? [];

/** The last part of a path or reference. */
function shortName(reference) {
  return (reference.replace(/\/+$/, "").split("/").pop() || reference).replace(/\.gguf$/, "");
}

/** A plugin with its options as people write them, for example `gptq 4-bit g128 act_order`. */
function shownUse(use) {
  const options = { ...(use.options ?? {}) };
  const words = [use.plugin];
  const text = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const usual = { bits: (v) => `${v}-bit`, group_size: (v) => `g${v}`, ratio: (v) => v, pattern: (v) => v };
  for (const [name, notation] of Object.entries(usual)) {
    if (options[name] !== undefined) words.push(notation(text(options[name])));
    delete options[name];
  }
  for (const [name, value] of Object.entries(options)) words.push(value === true ? name : `${name}=${text(value)}`);
  return words.join(" ");
}

function shownLabel(uses, label) {
  const use = (uses ?? []).find((one) => one.label === label);
  return use ? shownUse(use) : label;
}

function distinct(values) {
  return [...new Set(values)];
}

const rows = runs.flatMap((run, runAt) => (run.cells ?? []).map((cell) => ({
  run,
  runAt,
  cell,
  dense: cell.method === DENSE,
  model: shortName(cell.model ?? ""),
  method: cell.method === DENSE ? DENSE : shownLabel(run.suite?.methods, cell.method),
  backend: shownLabel(run.suite?.backends, cell.backend),
  seed: cell.seed ?? null,
})));

const models = distinct(rows.map((row) => row.model));
const methods = distinct(rows.map((row) => row.method));
const severalModels = models.length > 1;
const severalBackends = distinct(rows.map((row) => row.backend)).length > 1;
const severalRuns = runs.length > 1;
// A run with one seed says it once, in its settings.
const severalSeeds = runs.some((_, at) => distinct(rows.filter((row) => row.runAt === at).map((row) => row.seed)).length > 1);

/** The name of a run among several. */
function nameOfRun(at) {
  return data.names?.[at] || `run ${at + 1}`;
}

/** What tells a row from the others, apart from the model. */
function wayName(row) {
  return [row.method, severalBackends && row.backend, severalSeeds && row.seed !== null && `seed ${row.seed}`,
    severalRuns && nameOfRun(row.runAt)].filter(Boolean).join(" · ");
}

function rowName(row) {
  return severalModels ? `${row.model} · ${wayName(row)}` : wayName(row);
}

/** The dense model of the same run, model, backend and, where there is one, seed. */
function baselineOf(row) {
  if (row.dense) return null;
  const same = rows.filter((other) => other.dense && other.run === row.run && other.cell.model === row.cell.model
    && other.backend === row.backend);
  return same.find((other) => other.seed === row.seed) ?? same[0] ?? null;
}

function metricOf(row, task, name) {
  return (row?.cell.metrics ?? []).find((m) => m.task === task && m.name === name && !m.subset) ?? null;
}

function pairedOf(row, task, name) {
  return (row.cell.paired ?? []).find((p) => p.task === task && p.metric === name && !p.subset) ?? null;
}

function stagesOf(row, kind, task) {
  return (row.cell.stages ?? []).filter((s) => s.kind === kind && (task === undefined || s.task === task));
}

function doneStages(row, kind) {
  return stagesOf(row, kind).filter((s) => s.status === "done");
}

/** The workloads of a row that were timed, the first being the one the table shows. */
function profilesOf(row) {
  const list = row.cell.profiles?.length ? row.cell.profiles : [row.cell.profile];
  return list.filter(Boolean);
}

/** Stages of a run, each once: several cells may share one. */
function stagesOfRun(run) {
  const seen = new Set();
  return (run.cells ?? []).flatMap((cell) => cell.stages ?? []).filter((stage) => {
    if (!stage.key) return true;
    if (seen.has(stage.key)) return false;
    seen.add(stage.key);
    return true;
  });
}

/** Why a row has no number: the end of the stage that should have given it, or of the compression before it. */
function whyAbsent(row, stage) {
  const compress = stagesOf(row, "compress").find((s) => s.status && s.status !== "done");
  const cause = compress ?? stage;
  if (!cause) return { word: null, why: "not measured" };
  if (!cause.status) return { word: "…", why: "not reached yet" };
  if (cause.status === "done") return { word: null, why: "not measured" };
  return { word: cause.status, why: `${cause.label}: ${cause.reason ?? cause.status}` };
}

const TASKS = distinct(runs.flatMap((run) => [...(run.suite?.tasks ?? []),
  ...(run.cells ?? []).flatMap((cell) => (cell.stages ?? []).filter((s) => s.kind === "evaluate" && s.task).map((s) => s.task))]));

/** A task's name without its options, unless they are what tells two tasks apart. */
function taskName(task) {
  const base = (t) => (t.startsWith("text:") ? shortName(t) : t.split(":")[0]);
  return TASKS.filter((other) => base(other) === base(task)).length > 1 ? task : base(task);
}

// Where the host does not say which metric stands for a task, the field's usual one does.
const USUAL = ["perplexity", "acc_norm", "acc", "mc1", "mc2"];

/** The metrics of a task that tables show, its own first, then those that were asked for: name, whether more is better, unit. */
function shownOf(task) {
  const measured = rows.flatMap((row) => row.cell.metrics ?? []).filter((m) => m.task === task && !m.subset);
  const names = distinct(measured.map((m) => m.name));
  const own = data.headlines?.[task] ?? USUAL.find((one) => names.includes(one)) ?? names[0] ?? "score";
  const asked = distinct(rows.flatMap((row) => stagesOf(row, "score", task)).map((stage) => stage.metric));
  return distinct([own, ...asked]).map((name) => {
    const found = measured.find((m) => m.name === name);
    return { name, up: found ? found.higher_is_better : name !== "perplexity", unit: found?.unit ?? "" };
  });
}

const OM_NAMES = ["OM_perf", "OM_ka", "OM_ia", "OM_gen", "OM_train", "OM_inf", "OM_hard", "OM_trust", "OM_rob", "OM_tru"];

/** Overall metrics that have a value in some run, in the order of the tracks. */
const OVERALL = (() => {
  const measured = runs.flatMap((run) => run.overall ?? []).filter((o) => Number.isFinite(real(o.value)));
  const names = distinct(measured.map((o) => o.name));
  return [...OM_NAMES, ...names].filter((name, at, all) => names.includes(name) && all.indexOf(name) === at)
    .map((name) => ({ name, track: measured.find((o) => o.name === name).track }));
})();

/** An overall metric of a row's method and backend; it is over all models of the run. */
function overallOf(row, name) {
  return (row.run.overall ?? []).find((o) => o.name === name && o.method === row.cell.method
    && o.backend === row.cell.backend && (o.seed === undefined || o.seed === null || o.seed === row.seed)) ?? null;
}
