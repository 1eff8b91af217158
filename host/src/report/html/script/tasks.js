// Task by task: each score as a bar with its 95 % interval, and what changed item by item against the dense model.

const percent = (share) => `${(100 * share).toFixed(2)}%`;

/** A bar in a table cell. Widths are in per cent, so that it fits whatever the table's width is. */
function barPicture(row, found, dense, scale, quantity) {
  const { colour } = lookOf(row.method);
  const low = isNumber(found.low ?? NaN) ? found.low : null;
  const infinite = !Number.isFinite(found.value);
  const end = scale.at(infinite ? Infinity : found.value);
  const described = `${wayName(row)}: ${quantity.axis} ${found.text}${low === null ? "" : `, 95 % interval ${score(found.low)} to ${score(found.high)}`}`
    + `${dense && !row.dense ? `; dense ${dense.text}` : ""}`;
  return svg("svg", { class: "bar", width: "100%", height: 26, role: "img", "aria-label": described },
    svg("title", {}, described),
    scale.log ? svg("line", { class: "stem", x1: 0, x2: percent(end), y1: 13, y2: 13, stroke: colour })
      : svg("rect", { class: "fill", x: 0, y: 6, width: percent(end), height: 14, fill: colour }),
    low !== null && [
      svg("line", { class: "interval", x1: percent(scale.at(found.low)), x2: percent(scale.at(found.high)), y1: 13, y2: 13 }),
      [found.low, found.high].map((value) => svg("line", { class: "interval", x1: percent(scale.at(value)), x2: percent(scale.at(value)), y1: 9, y2: 17 }))],
    infinite ? svg("text", { class: "beyond", x: "100%", y: 17, "text-anchor": "end" }, `${found.text} →`)
      : svg("svg", { x: percent(end), y: 13, overflow: "visible", width: 1, height: 1 }, marker(row.method, 4)));
}

/** Columns beside the bar. Right and wrong answers flip; a text's likelihood shifts by nats a token. */
function besideColumns(quantity, list) {
  if (!list.some((row) => !row.dense) || !COMPARES) return [];
  const of = (row) => (row.dense ? null : pairedOf(row, quantity.task, quantity.headline.name));
  const difference = (paired) => (paired ? [signed(real(paired.difference)),
    Number.isFinite(paired.stderr ?? NaN) && el("span", { class: "error" }, ` ±${paired.stderr.toFixed(3)}`)] : "–");
  const extra = (name, text) => (row) => {
    const metric = metricOf(row, quantity.task, name);
    return row.dense || !metric || real(metric.value) === null ? "–" : text(real(metric.value));
  };
  const text = quantity.headline.name === "perplexity";
  const columns = text ? [
    ["nats a token", "log-likelihood lost a token against dense, on the same windows", (row) => difference(of(row))],
    ["ratio", "perplexity over the dense model’s", (row) => {
      const d = real(of(row)?.difference);
      return Number.isFinite(d ?? NaN) ? times(Math.exp(d)) : "–";
    }],
    ["KL", "Kullback–Leibler divergence from the dense model, nats", extra("kl_divergence", score)],
    ["same top", "share of tokens where both models have the same first choice", extra("top1_agreement", (v) => `${(100 * v).toFixed(1)} %`)],
  ] : [
    ["difference", "score less the dense model’s", (row) => difference(of(row))],
    ["p", "McNemar’s exact test, two-sided", (row) => {
      const p = of(row)?.p_value ?? null;
      return p === null ? "–" : p < 0.001 ? "< 0.001" : p.toFixed(3);
    }],
    ["flips", "items right with dense and wrong now, then wrong with dense and right now", (row) => {
      const paired = of(row);
      if (paired?.right_to_wrong === null || paired?.right_to_wrong === undefined) return "–";
      const [lost, won] = [paired.right_to_wrong, paired.wrong_to_right ?? 0];
      return [el("span", { "aria-hidden": "true" }, `−${lost} +${won}`), unseen(`${lost} right to wrong, ${won} wrong to right`)];
    }],
  ];
  return columns.filter(([, , show]) => list.some((row) => show(row) !== "–"));
}

function taskFigure(quantity, list) {
  const found = new Map(list.map((row) => [row, quantity.of(row)]));
  const numbers = [...found.values()].flatMap((f) => [f.value, f.low, f.high]).filter((v) => Number.isFinite(v ?? NaN));
  if (!numbers.length) {
    const reasons = distinct([...found.values()].map((f) => f.why));
    return el("article", { class: "task" }, el("h3", {}, quantity.title), el("p", { class: "fine" }, `No score: ${shortList(reasons, 4)}.`));
  }
  const scale = scaleOver(numbers, { fromZero: true, ticks: 4, room: 0.04, linear: quantity.headline.unit === "fraction" });
  const beside = besideColumns(quantity, list);
  const counts = distinct([...found.values()].map((f) => f.n).filter((n) => n > 0)).sort((a, b) => a - b);
  const lines = list.map((row) => {
    const one = found.get(row);
    const base = row.dense ? null : baselineOf(row);
    const dense = row.dense ? one : base && found.get(base);
    const known = dense && Number.isFinite(dense.value ?? NaN);
    return el("tr", { class: row.dense ? "dense" : null, "data-task": quantity.task },
      el("th", { scope: "row" }, swatch(row.method, false), el("span", {}, wayName(row))),
      // The dense line runs through all rows, also where a name takes two lines.
      el("td", { class: known ? "plot against" : "plot", style: known ? `--dense:${percent(scale.at(dense.value))}` : null }, one.value === null || Number.isNaN(one.value) ? el("span", { class: "nobar" }, one.text === "–" ? "not measured" : one.text)
        : barPicture(row, one, known ? dense : null, scale, quantity)),
      el("td", { class: "number" }, one.value === null ? "–" : [score(one.value), one.error && el("span", { class: "error" }, ` ${one.error}`),
        el("span", { class: "gutter" }, markNode(one.mark))]),
      row.dense && beside.length ? el("td", { class: "number none", colspan: beside.length }, "reference")
        : beside.map(([title, , show]) => el("td", { class: "number beside", "data-title": title }, show(row))));
  });
  const axis = el("tr", { class: "axis-row", "aria-hidden": "true" }, el("td"), el("td", { class: "plot" },
    el("div", { class: "ticks" }, scale.ticks.filter((tick) => tick.at <= 0.995).map((tick) => el("span", { style: `left:${percent(tick.at)}` }, tick.text)))), el("td"), beside.map(() => el("td")));
  return el("article", { class: "task" },
    el("h3", {}, quantity.title, el("span", { class: "sub" }, ` ${quantity.headline.name} ${quantity.up ? "↑" : "↓"}`,
      counts.length > 0 && `, ${counts.length > 1 ? `${counts[0]} to ${counts[counts.length - 1]}` : counts[0]} items`, scale.log && ", log scale")),
    el("table", { class: "bars" },
      el("caption", { class: "unseen" }, `${quantity.axis} with 95 % intervals`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "method"), el("th", { scope: "col" }, "value and 95 % interval"),
        el("th", { scope: "col", class: "number" }, quantity.headline.name), beside.map(([title, meaning]) => el("th", { scope: "col", class: "number", title: meaning }, title)))),
      el("tbody", {}, lines), el("tfoot", {}, axis)),
    allNumbers(quantity, list));
}

/** Every metric of a task, also of its parts. */
function allNumbers(quantity, list) {
  const of = (row) => (row.cell.metrics ?? []).filter((m) => m.task === quantity.task);
  const key = (m) => (m.subset ? `${m.subset}: ${m.name}` : m.name);
  const names = distinct(list.flatMap((row) => of(row).map(key)));
  if (names.length < 2) return null;
  const heading = (name) => {
    const m = list.flatMap(of).find((one) => key(one) === name);
    return `${name}${m.unit && m.unit !== "fraction" ? ` (${m.unit})` : ""} ${m.higher_is_better ? "↑" : "↓"}`;
  };
  // Many parts (the subjects of MMLU) read better downwards.
  const down = names.length > 8;
  const text = (row, name) => {
    const m = of(row).find((one) => key(one) === name);
    return m && real(m.value) !== null ? scoreAndError(real(m.value), m.stderr) : "–";
  };
  const table = down ? plainTable(`All numbers of ${quantity.title}`, ["metric", ...list.map(wayName)], names.map((name) => [heading(name), ...list.map((row) => text(row, name))]))
    : plainTable(`All numbers of ${quantity.title}`, ["method", ...names.map(heading)], list.map((row) => [wayName(row), ...names.map((name) => text(row, name))]));
  return disclosure(`All ${names.length} metrics of ${quantity.title}`, table);
}

function tasksSection() {
  if (!SCORES.length) return null;
  const grid = el("div", { class: "tasks" });
  const show = (model) => {
    const list = rows.filter((row) => row.model === model);
    grid.replaceChildren(...SCORES.map((quantity) => taskFigure(quantity, list)));
  };
  show(models[0]);
  return [numbered("Figure", "Scores task by task. Whiskers are 95 % intervals (1.96 standard errors); the dashed upright line is the dense model. ",
    COMPARES && rows.some((row) => row.cell.paired?.length) ? "Beside them the comparison with the dense model on the same items: difference with its standard error, p of McNemar’s exact test, and flips (− right→wrong, + wrong→right)." : ""),
    severalModels ? el("div", { class: "controls" }, selectBox("Model", models.map((m) => [m, m]), models[0], show)) : null, grid];
}
