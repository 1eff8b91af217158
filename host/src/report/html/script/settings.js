// How the numbers came about: formulas of the overall metrics, settings, versions, machine, content keys.

function formulasSection() {
  const all = runs.flatMap((run) => run.overall ?? []);
  if (!all.length) return null;
  const order = (name) => (OM_NAMES.includes(name) ? OM_NAMES.indexOf(name) : OM_NAMES.length);
  const names = distinct(all.map((o) => o.name)).sort((a, b) => order(a) - order(b));
  const parts = names.flatMap((name) => {
    const of = all.filter((o) => o.name === name);
    const formulas = distinct(of.map((o) => o.formula).filter(Boolean));
    const gaps = distinct(of.flatMap((o) => o.not_measured ?? []));
    const cells = distinct(of.map((o) => o.cells).filter((n) => n > 0));
    return [el("dt", {}, name, el("span", { class: "sub" }, ` track ${of[0].track}`)),
      formulas.length ? formulas.map((text) => el("dd", {}, el("code", {}, text))) : el("dd", {}, "formula not recorded"),
      cells.length > 0 && el("dd", {}, `over ${cells.sort((a, b) => a - b).join(" or ")} cells (task and model)`),
      el("dd", {}, gaps.length ? `not measured: ${gaps.join(", ")}` : "all of it was measured")];
  });
  return [disclosure(`${plural(names.length, "overall metric")}: how they are computed, and what was not measured`, el("dl", { class: "formulas" }, parts))];
}

/** A value of the settings as text; what is not set says so. */
function settingText(value) {
  if (value === null || value === undefined || value === "") return "not set";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (Array.isArray(value)) return value.length ? value.map(settingText).join(", ") : "none";
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([name, one]) => `${name}=${settingText(one)}`);
    return pairs.length ? pairs.join(", ") : "defaults";
  }
  return String(value);
}

function pairsTable(caption, pairs) {
  return plainTable(caption, ["setting", "value"], pairs.map(([name, value]) => [name, settingText(value)]), () => false);
}

function copyButton(text) {
  const label = el("span", {}, "Copy the suite as JSON");
  const area = el("textarea", { class: "copy", readonly: true, rows: "8", hidden: true, "aria-label": "The suite as JSON" });
  const button = el("button", { type: "button", class: "quiet", click: async () => {
    try {
      await navigator.clipboard.writeText(text);
      label.textContent = "Copied";
    } catch {
      // Pages opened from a file may not write to the clipboard: then the text is there to be copied by hand.
      area.value = text;
      area.hidden = false;
      area.focus();
      area.select();
    }
  } }, label);
  return el("div", { class: "controls" }, button, area);
}

function stageTable(run) {
  const stages = stagesOfRun(run);
  if (!stages.length) return null;
  const cpu = stages.some((s) => s.cpu_seconds > 0);
  const head = ["stage", "kind", "state", "time", ...(cpu ? ["processor time"] : []), "peak memory", "content key", "folder"];
  const lines = stages.map((s) => [s.label, s.kind, `${s.status ?? "not reached"}${s.reused ? ", reused" : ""}`,
    s.wall_seconds > 0 ? seconds(s.wall_seconds) : "–", ...(cpu ? [s.cpu_seconds > 0 ? seconds(s.cpu_seconds) : "–"] : []),
    s.peak_memory_bytes > 0 ? bytes(s.peak_memory_bytes) : "–", el("code", { class: "key" }, s.key || "–"), el("code", { class: "key" }, s.directory || "–")]);
  const numeric = (at) => at >= 3 && at <= (cpu ? 5 : 4);
  return disclosure(`${plural(stages.length, "stage")} with content keys`, plainTable("Stages", head, lines, numeric));
}

/** What the run was made from, by hash. */
function inputsTable(run) {
  const { models: files = {}, plugins = {}, data: texts = {}, program } = run.inputs ?? {};
  const key = (text) => el("code", { class: "key" }, text || "–");
  const lines = [...Object.entries(files).map(([name, hash]) => ["model", name, key(hash)]),
    ...Object.entries(plugins).map(([name, one]) => ["plugin", `${name} ${one.version ?? ""}`, key(one.sha256)]),
    ...Object.entries(texts).map(([name, hash]) => ["data", name, key(hash)]), ...(program ? [["program", "llmcb-host", key(program)]] : [])];
  return lines.length ? disclosure("Inputs by hash", plainTable("Inputs", ["kind", "name", "SHA-256"], lines, () => false)) : null;
}

function runSettings(run, at) {
  const suite = run.suite ?? {};
  const { methods: used, backends, engine, calibration, workload, ...rest } = suite;
  const plugins = [...(used ?? []).map((use) => ["method", use]), ...(backends ?? []).map((use) => ["backend", use]), ...(engine ? [["engine", engine]] : [])];
  return el("div", { class: "run" }, severalRuns && el("h3", {}, runName(at)),
    disclosure("Suite", pairsTable("Suite", Object.entries(rest)), copyButton(JSON.stringify(suite, null, 2))),
    plugins.length > 0 && disclosure("Plugins and their options", plainTable("Plugins", ["plugin", "role", "label", "options as given", "file"],
      plugins.map(([role, use]) => [use.plugin, role, use.label, settingText(use.options ?? {}), el("code", { class: "key" }, use.path ?? "–")]), () => false)),
    calibration && disclosure("Calibration", pairsTable("Calibration", Object.entries(calibration))),
    workload && disclosure("Workload of the speed measurement", pairsTable("Workload", Object.entries(workload))),
    disclosure("Machine and versions", pairsTable("Machine and versions", [...Object.entries(run.machine ?? {}).map(([name, value]) =>
      (name === "memory_bytes" ? ["memory", value > 0 ? bytes(value) : null] : [name, value])),
    ["host version", run.host_version], ["plugin ABI", run.abi_version], ["result format", run.schema_version], ["started", instant(run.started_unix)], ["took", seconds(run.wall_seconds ?? NaN)]])),
    inputsTable(run), stageTable(run));
}

function settingsSection() {
  return runs.map(runSettings);
}
