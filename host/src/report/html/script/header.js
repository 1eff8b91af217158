// What was run, when and where, and whether it came to its end.

function stateOf(run) {
  const stages = stagesOfRun(run);
  const by = (status) => stages.filter((s) => s.status === status);
  const open = stages.filter((s) => !s.status).length;
  const counts = [`${by("done").length} of ${plural(stages.length, "stage")} done`];
  for (const status of ["failed", "skipped", "cancelled"]) {
    if (by(status).length) counts.push(`${by(status).length} ${status}`);
  }
  if (open) counts.push(`${open} not reached`);
  const problems = run.problems ?? [];
  const failed = by("failed").length + problems.length > 0;
  const [word, tone, sign] = run.interrupted ? ["Interrupted", "bad", "■"]
    : !run.complete ? ["Still running", "open", "…"]
      : failed ? ["Complete, with failures", "bad", "!"] : ["Complete", "good", "✓"];
  const meaning = run.interrupted ? "The user stopped this run; the same command goes on where it was. What it had measured is shown."
    : !run.complete ? "This run had not ended when the report was written. What it had measured by then is shown." : null;
  return { word, tone, sign, meaning, counts: counts.join(", "), problems, bad: stages.filter((s) => s.status && s.status !== "done") };
}

function runName(at) {
  return severalRuns ? nameOfRun(at) : "Run";
}

/** Stages that did not end well, grouped by their reason: one cause often costs many stages. */
function failures(state) {
  const groups = new Map();
  for (const stage of state.bad) {
    const reason = `${stage.status}: ${stage.reason ?? "no reason given"}`;
    groups.set(reason, [...(groups.get(reason) ?? []), stage.label]);
  }
  const items = [...groups].map(([reason, labels]) => el("li", {}, el("b", {}, reason), " — ",
    labels.length > 6 ? `${labels.slice(0, 5).join("; ")}; and ${labels.length - 5} more` : labels.join("; ")));
  items.push(...state.problems.map((problem) => el("li", {}, el("b", {}, "not run: "), problem)));
  return items.length ? el("ul", { class: "failures" }, items) : null;
}

function stateLine(run, at) {
  const state = stateOf(run);
  return el("div", { class: `state ${state.tone}` },
    el("p", {}, el("span", { class: "sign", "aria-hidden": "true" }, state.sign), el("b", {}, severalRuns ? `${runName(at)}: ${state.word}` : state.word),
      el("span", { class: "counts" }, ` ${state.counts}`)),
    state.meaning && el("p", {}, state.meaning), failures(state));
}

function machineText(machine) {
  const m = machine ?? {};
  const parts = [m.cpu, m.cores > 0 && plural(m.cores, "core"), m.memory_bytes > 0 && `${bytes(m.memory_bytes)} memory`, m.os, m.kernel]
    .filter(Boolean);
  return parts.length ? parts.join(" · ") : "not recorded";
}

function modelText(run, at, reference) {
  const info = data.facts?.[at]?.models?.[reference];
  if (!info) return shortName(reference);
  const precision = info.source_precision ? `stored as ${info.source_precision}${info.source_format ? ` (${info.source_format})` : ""}` : null;
  const coarse = /^I?Q/.test(info.source_precision ?? "") ? "the dense row is itself quantised" : null;
  return `${shortName(reference)}: ${[info.architecture, info.parameters > 0 && `${count(info.parameters)} parameters`, precision, coarse]
    .filter(Boolean).join(", ")}`;
}

function shortList(words, most = 24) {
  return words.length > most ? [...words.slice(0, most), `and ${words.length - most} more`].join(", ") : words.join(", ");
}

function facts() {
  const pairs = [];
  const same = (text) => distinct(runs.map(text));
  const add = (name, ...values) => pairs.push(el("dt", {}, name), values.map((value) => el("dd", {}, value)));
  const perRun = (text) => {
    const all = same(text);
    return all.length === 1 ? all : runs.map((run, at) => `${runName(at)}: ${text(run, at)}`);
  };
  const described = distinct(runs.flatMap((run, at) => (run.suite?.models ?? []).map((m) => modelText(run, at, m))));
  const named = described.length ? described : models.length ? models : ["none"];
  add(named.length > 1 ? "Models" : "Model", ...(named.length > 4 ? [shortList(named)] : named));
  const compressing = methods.filter((m) => m !== DENSE);
  add("Methods", compressing.length ? shortList(compressing) : "none: the dense model only");
  add("Backends", shortList(distinct(rows.map((row) => row.backend))) || "none");
  add("Tasks", shortList(TASKS.map(taskName)) || "none");
  add("Machine", ...perRun((run) => machineText(run.machine)));
  add("Started", ...perRun((run) => `${instant(run.started_unix)}, took ${seconds(run.wall_seconds ?? NaN)}`));
  return el("dl", { class: "facts" }, pairs);
}

function header() {
  const title = data.title || "LLM compression benchmark";
  document.title = title;
  return el("header", { class: "top" },
    el("p", { class: "eyebrow" }, data.generated_by ?? "llmcb-host"),
    el("h1", {}, title),
    el("p", { class: "lead" }, `${listed([plural(models.length, "model"), plural(methods.filter((m) => m !== DENSE).length, "compression method"),
      plural(distinct(rows.map((r) => r.backend)).length, "backend"), plural(TASKS.length, "task")])}`,
    severalRuns ? `, merged from ${runs.length} runs.` : "."),
    runs.map(stateLine), facts());
}
