// Made-up runs that a report must be able to show. Numbers come from a fixed sequence: every run of the test sees the same pages.

function sequence(seed) {
  let state = seed;
  return () => {
    state = (state * 1664525 + 1013904223) % 4294967296;
    return state / 4294967296;
  };
}

const hex = (random) => Array.from({ length: 64 }, () => Math.floor(random() * 16).toString(16)).join("");

const METHODS = [["rtn", { bits: 4, group_size: 128 }], ["gptq", { bits: 4, group_size: 128, act_order: true }], ["awq", { bits: 4, group_size: 128 }],
  ["smoothquant", { alpha: 0.5 }], ["omniquant", { bits: 4 }], ["wanda", { ratio: 0.5 }], ["sparsegpt", { pattern: "2:4" }], ["llm-pruner", { ratio: 0.25 }]];
const TASKS = ["wikitext2:seqlen=2048", "arc_easy", "arc_challenge", "hellaswag", "piqa", "winogrande", "mmlu"];
const TRACKS = [["OM_ka", 1], ["OM_ia", 1], ["OM_perf", 1], ["OM_gen", 2], ["OM_train", 3], ["OM_inf", 4], ["OM_hard", 5], ["OM_rob", 6], ["OM_tru", 6], ["OM_trust", 6]];
const label = ([plugin, options]) => `${plugin}-${Object.entries(options).map((pair) => pair.join("=")).join("-")}`;
const use = (method) => ({ plugin: method[0], path: `lib${method[0]}.so`, options: method[1], label: label(method) });

export function score(task, name, value, stderr, n = 200) {
  return { task, name, value, stderr, n, higher_is_better: !["perplexity", "kl_divergence", "bits_per_byte"].includes(name), unit: name.startsWith("acc") ? "fraction" : "" };
}

function stage(random, kind, name, task, more = {}) {
  return { key: hex(random), kind, label: `${name} / ${task ?? kind}`, task: task ?? null, status: "done", reason: null, reused: false, wall_seconds: 20 + 400 * random(),
    cpu_seconds: 40 + 700 * random(), peak_memory_bytes: Math.round((1 + random()) * 2 ** 30), directory: `stages/${kind}-${name}`, ...more };
}

function workload(batch, prompt, speed) {
  const step = batch / speed;
  const first = prompt / (speed * 40);
  const around = (middle) => ({ p5: middle * 0.95, p25: middle * 0.98, p50: middle, p75: middle * 1.03, p95: middle * 1.1 });
  return { batch, prompt_tokens: prompt, new_tokens: 32, prefill_tokens_per_second: (batch * prompt) / first, decode_tokens_per_second: speed,
    prefill_seconds: around(first), decode_step_seconds: around(step), raw: { how: "wall clock around each step, after one warm-up run", timings: [] } };
}

/** One model with one method: `loss` is how much quality it loses, 0 for dense. */
function cell(random, model, method, loss, { profile = true, seed } = {}) {
  const dense = method === null;
  const name = dense ? "dense" : label(method);
  const metrics = [];
  const paired = [];
  for (const task of TASKS) {
    if (task.startsWith("wikitext2")) {
      metrics.push(score(task, "perplexity", 11 * (1 + loss), 0.3, 64), score(task, "bits_per_byte", 0.7 * (1 + loss / 4), null, 64));
      if (dense) continue;
      metrics.push(score(task, "kl_divergence", loss / 2, 0.002, 64), score(task, "top1_agreement", 1 - loss / 3, 0.004, 64));
      paired.push({ task, metric: "perplexity", n: 64, difference: Math.log(1 + loss), stderr: 0.01, told_apart: true });
      continue;
    }
    const value = 0.55 - 0.2 * loss + 0.06 * (random() - 0.5);
    const [lost, won] = [Math.round(8 + 30 * loss), Math.round(6 + 8 * random())];
    const main = ["winogrande", "mmlu"].includes(task) ? "acc" : "acc_norm";
    metrics.push(score(task, "acc", value - 0.02, 0.035));
    if (main !== "acc") metrics.push(score(task, main, value, 0.035));
    if (!dense) {
      paired.push({ task, metric: main, n: 200, difference: (won - lost) / 200, stderr: 0.02, right_to_wrong: lost, wrong_to_right: won,
        p_value: lost > 18 ? 0.0004 : 0.24, told_apart: lost > 18 });
    }
  }
  const speed = 30 + 40 * random();
  const size = Math.round((dense ? 2.6 : 0.7 + random()) * 2 ** 30);
  return { model, method: name, backend: "candle", ...(seed === undefined ? {} : { seed }),
    stages: [...(dense ? [] : [stage(random, "compress", name, null, { peak_device_bytes: Math.round((2 + random()) * 2 ** 30) })]), ...TASKS.map((task) => stage(random, "evaluate", name, task))],
    metrics, paired, weight_bytes: size, checkpoint: dense ? null : { path: "checkpoint", info: { files: [], weight_bytes: size, format: `${method[0]} as published`, zero_fraction: random() / 2, notes: [] } },
    macs: { prefill_tokens: 2048, raw: 2.7e12, counted: Math.round(2.7e12 * (dense ? 1 : 0.5 + 0.5 * random())) },
    profile: profile ? workload(1, 128, speed) : null, profiles: profile ? [workload(1, 128, speed), workload(8, 512, speed * 5)] : [] };
}

function overall(random, method, loss) {
  return TRACKS.map(([name, track]) => {
    const value = name === "OM_train" ? 20 + 80 * random() : 100 - 25 * loss + 12 * (random() - 0.5) + (name === "OM_inf" ? 40 : 0);
    return { track, method: label(method), backend: "candle", name, value, interval: { low: value - 4, high: value + 5 }, cells: 3,
      formula: "100 · sqrt(mean over cells of (compressed / dense)²)", not_measured: name === "OM_ia" ? ["QNLI", "MNLI"] : [] };
  });
}

function run(cells, methods, more = {}) {
  return { schema_version: 1, host_version: "0.1.0", abi_version: "1.0", suite: { models: [...new Set(cells.map((c) => c.model))], methods: methods.map(use),
    backends: [{ plugin: "candle", path: "libcandle.so", options: {}, label: "candle" }], engine: null, tasks: TASKS, limit: 200, shots: 0, seed: 1234, dense: true,
    calibration: { text: "wikitext2", windows: 128, length: 2048 }, profile: true, workload: { batch: 1, prompt_tokens: 128, new_tokens: 32, warm_up: 1, repetitions: 5 }, out: "results" },
  machine: { cpu: "Example CPU", cores: 16, memory_bytes: 64 * 2 ** 30, os: "Example OS 1", kernel: "Example 6.1", architecture: "x86_64" },
  started_unix: 1767225600, wall_seconds: 5421, complete: true, interrupted: false, cells, overall: [], problems: [], ...more };
}

/** Every field that the host can write: tracks with intervals, workloads, processor time, device memory, operations. */
export function everything() {
  const random = sequence(7);
  const methods = METHODS.slice(0, 6);
  const losses = methods.map((_, at) => 0.05 + 0.12 * at);
  return run([cell(random, "example/llama-1b", null, 0), ...methods.map((m, at) => cell(random, "example/llama-1b", m, losses[at]))], methods,
    { overall: methods.flatMap((m, at) => overall(random, m, losses[at])) });
}

/** The size of the paper's tables: 18 models, the dense one and 8 methods each. */
export function large() {
  const random = sequence(11);
  const models = Array.from({ length: 18 }, (_, at) => `family-${"abc"[at % 3]}/model-${"abc"[at % 3]}-${1 + at}b`);
  const cells = models.flatMap((model) => [cell(random, model, null, 0), ...METHODS.map((m, at) => cell(random, model, m, 0.04 + 0.09 * at * random()))]);
  return run(cells, METHODS, { overall: METHODS.flatMap((m, at) => overall(random, m, 0.04 + 0.05 * at)) });
}

/** Stopped by the user, with a crash, a method that does not do it, and stages that were not reached. */
export function interrupted() {
  const random = sequence(3);
  const methods = METHODS.slice(0, 3);
  const cells = [cell(random, "example/llama-1b", null, 0, { profile: false }), ...methods.map((m) => cell(random, "example/llama-1b", m, 0.1, { profile: false }))];
  const [, crashed, skipped, open] = cells;
  Object.assign(crashed.stages[2], { status: "failed", reason: "the worker was killed by signal 9 (SIGKILL)" });
  const gone = TASKS[1];
  crashed.metrics = crashed.metrics.filter((m) => m.task !== gone);
  for (const one of skipped.stages) Object.assign(one, { status: "skipped", reason: one.kind === "compress" ? "needs gradients, which this engine does not give" : "its checkpoint was not made" });
  Object.assign(skipped, { metrics: [], paired: [], weight_bytes: 0, checkpoint: null, macs: undefined });
  for (const one of open.stages.slice(3)) Object.assign(one, { status: null, wall_seconds: 0, peak_memory_bytes: 0 });
  open.metrics = open.metrics.filter((m) => TASKS.slice(0, 2).includes(m.task));
  return run(cells, methods, { complete: false, interrupted: true, problems: ["model nowhere/none: no such file"] });
}

export const MARKUP = "<img src=x onerror=\"window.broken=1\"></script><script>window.broken=1</script><b>bold</b>";

/** Names with markup, infinite and undefined numbers, missing ones, and sizes that sort differently as text. */
export function awkward() {
  const random = sequence(5);
  const sizes = [93, 513, 1075, 9, 700, 0];
  const perplexities = [21.79, "inf", 2e6, 9.5, "nan", null];
  const methods = [["plain", {}], [MARKUP, {}], ["a-method-with-a-very-long-name-that-nobody-would-type", { bits: 4, group_size: 128, symmetric: true }], ["undefined", {}], ["silent", {}]];
  const cells = [null, ...methods].map((method, at) => {
    const one = cell(random, MARKUP, method, at / 10, { profile: false });
    const value = perplexities[at];
    one.metrics = [...(value === null ? [] : [score(TASKS[0], "perplexity", value, typeof value === "number" ? value / 10 : null, 4)]), score("arc_easy", "acc_norm", 0.3 + at / 20, at === 2 ? null : 0.1, 20)];
    one.weight_bytes = sizes[at] * 2 ** 20;
    one.paired = [];
    one.stages.length = method ? 3 : 2;
    delete one.macs;
    delete one.checkpoint;
    return one;
  });
  const result = run(cells, methods);
  result.suite.tasks = TASKS.slice(0, 2);
  return result;
}

/** Cells that differ in the seed only. */
export function seeds() {
  const random = sequence(13);
  const methods = METHODS.slice(0, 2);
  return run([1, 2].flatMap((seed) => [null, ...methods].map((m) => cell(random, "example/llama-1b", m, m ? 0.1 : 0, { seed }))), methods);
}

/** Nothing could be planned; what is optional is absent. */
export function empty() {
  return { schema_version: 1, host_version: "0.1.0", abi_version: "1.0", suite: {}, machine: {}, started_unix: 0, wall_seconds: 0, complete: true, cells: [], problems: ["model nowhere: no such file"] };
}
