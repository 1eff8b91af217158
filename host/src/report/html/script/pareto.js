// Quality against a cost: which methods no other one beats in both.

/** Points of the plot: rows, or for an overall metric one point per method and backend, with costs as means over the models. */
function paretoPoints(quality, cost, model) {
  if (!quality.overall || !severalModels) {
    return rows.filter((row) => model === "" || row.model === model).map((row) => {
      const [q, c] = [quality.of(row), cost.of(row)];
      return { row, name: model === "" ? rowName(row) : wayName(row), q, c };
    });
  }
  const groups = new Map();
  for (const row of rows) {
    const name = wayName(row);
    groups.set(name, [...(groups.get(name) ?? []), row]);
  }
  return [...groups].map(([name, list]) => {
    const found = list.map((row) => cost.of(row));
    const absent = found.filter((one) => one.value === null);
    const mean = found.reduce((sum, one) => sum + (one.value ?? 0), 0) / found.length;
    // A mean over some of the models would be of other models than the next method's.
    const c = absent.length ? missing(absent.length === found.length ? absent[0].why : `not measured for ${absent.length} of ${found.length} models`)
      : { value: mean, text: formatKind(cost.kind, mean) };
    return { row: list[0], name, q: quality.of(list[0]), c };
  });
}

function formatKind(kind, value) {
  return { bytes: (v) => bytes(Math.round(v)), seconds, count, number: rate, score }[kind](value);
}

/** Marks the points that no other point beats: at least as good in both, better in one. */
function markFront(points, quality, cost) {
  const better = (a, b, up) => (up ? a > b : a < b);
  const beats = (a, b) => {
    const [q, c] = [better(a.q.value, b.q.value, quality.up), better(a.c.value, b.c.value, cost.up)];
    return (q || c) && !better(b.q.value, a.q.value, quality.up) && !better(b.c.value, a.c.value, cost.up);
  };
  for (const point of points) point.front = !points.some((other) => beats(other, point));
  return points.filter((point) => point.front).sort((a, b) => a.c.value - b.c.value);
}

/** Puts labels beside their points where they cover neither points nor other labels; the front's come first. */
function placeLabels(points, width, height, left) {
  const taken = points.map((p) => [p.x - 7, p.y - 7, p.x + 7, p.y + 7]);
  const hits = (box) => taken.some((t) => box[0] < t[2] && box[2] > t[0] && box[1] < t[3] && box[3] > t[1]);
  for (const point of [...points].sort((a, b) => b.front - a.front)) {
    const text = clipped(point.name, 260);
    const long = textWidth(text) + 2;
    const spots = [[11, -4, 0], [11, 13, 0], [11, 4, 0], [-11, -4, 1], [-11, 13, 1], [0, -13, 0.5], [0, 22, 0.5], [11, -18, 0], [11, 27, 0], [-11, -18, 1], [-11, 27, 1]];
    for (const [dx, dy, side] of spots) {
      const from = point.x + dx - side * long;
      const box = [from, point.y + dy - 10, from + long, point.y + dy + 3];
      if (box[0] < left || box[2] > width || box[1] < 0 || box[3] > height || hits(box)) continue;
      taken.push(box);
      point.label = { x: from, y: point.y + dy, text };
      break;
    }
  }
}

function paretoPicture(points, front, quality, cost, width, title) {
  const [left, right, top, bottom] = [58, 16, 22, 52];
  const height = Math.round(Math.min(470, Math.max(320, width * 0.58)));
  const [w, h] = [width - left - right, height - top - bottom];
  const whiskers = points.length <= 30;
  const heights = points.flatMap(({ q }) => (whiskers ? [q.value, q.low ?? q.value, q.high ?? q.value] : [q.value]));
  const xs = scaleOver(points.map((p) => p.c.value), { kind: cost.kind, room: 0.1, ticks: width < 480 ? 3 : 6 });
  const ys = scaleOver(heights, { kind: "score", ticks: 6 });
  for (const point of points) {
    point.x = left + w * xs.at(point.c.value);
    point.y = top + h * (1 - ys.at(point.q.value));
  }
  placeLabels(points, width, top + h, left);
  const frame = [
    ys.ticks.map((tick) => [svg("line", { class: "grid", x1: left, x2: left + w, y1: top + h * (1 - tick.at), y2: top + h * (1 - tick.at) }),
      svg("text", { class: "tick", x: left - 7, y: top + h * (1 - tick.at) + 3.5, "text-anchor": "end" }, tick.text)]),
    xs.ticks.map((tick) => [svg("line", { class: "axis", x1: left + w * tick.at, x2: left + w * tick.at, y1: top + h, y2: top + h + 4 }),
      svg("text", { class: "tick", x: left + w * tick.at, y: top + h + 17, "text-anchor": "middle" }, tick.text)]),
    svg("line", { class: "axis", x1: left, x2: left + w, y1: top + h, y2: top + h }),
    svg("line", { class: "axis", x1: left, x2: left, y1: top, y2: top + h }),
    svg("text", { class: "axis-title", x: left + w / 2, y: height - 10, "text-anchor": "middle" },
      clipped(`${cost.up ? "" : "← "}${cost.axis}${xs.unit ? ` (${xs.unit})` : ""}${xs.log ? ", log scale" : ""}${cost.up ? " →" : ""}`, w + 40)),
    svg("text", { class: "axis-title", x: 2, y: 12 }, `${quality.up ? "↑" : "↓"} ${quality.axis}${ys.log ? ", log scale" : ""}`),
  ];
  // The front is a staircase: between two of its points nothing is as good as both.
  const path = front.map((p, at) => {
    if (at === 0) return `M${p.x.toFixed(1)},${p.y.toFixed(1)}`;
    return cost.up ? `V${p.y.toFixed(1)}H${p.x.toFixed(1)}` : `H${p.x.toFixed(1)}V${p.y.toFixed(1)}`;
  }).join("");
  const marks = points.map((p) => svg("g", { class: "point", "data-method": p.row.method, "data-x": p.c.value, "data-y": p.q.value },
    svg("title", {}, `${p.name}: ${quality.axis} ${p.q.text}${p.q.star ? " *" : ""}, ${cost.axis} ${p.c.text}`),
    whiskers && isNumber(p.q.low ?? NaN) && svg("line", { class: "whisker", x1: p.x, x2: p.x, y1: top + h * (1 - ys.at(p.q.low)), y2: top + h * (1 - ys.at(p.q.high)), stroke: lookOf(p.row.method).colour }),
    svg("g", { transform: `translate(${p.x.toFixed(1)} ${p.y.toFixed(1)})` }, marker(p.row.method, 5.5, !p.front)),
    p.label && svg("text", { class: `label${p.front ? " strong" : ""}`, x: p.label.x, y: p.label.y }, p.label.text)));
  return picture(width, height, title, points.map((p) => `${p.name}: ${p.q.text}, ${p.c.text}${p.front ? ", on the front" : ""}`).join(". "),
    frame, front.length > 1 && svg("path", { class: "front", d: path }), marks);
}

function paretoSection() {
  const qualities = [...OVERALLS, ...SCORES].filter(measuredSomewhere);
  if (!qualities.length || !MEASURED_COSTS.length) return null;
  const state = { quality: qualities[0], cost: MEASURED_COSTS[0], model: severalModels && rows.length > 24 ? models[0] : "" };
  const words = el("div", { role: "status" });
  const details = el("div");
  const keys = el("ul", { class: "keys" });
  let current = { points: [], front: [] };

  const chart = responsive((width) => {
    const title = `${state.quality.axis} against ${state.cost.axis}`;
    if (!current.points.length) return picture(width, 60, title, "No method has both numbers.", svg("text", { class: "label", x: 8, y: 34 }, "No method has both numbers."));
    return paretoPicture(current.points, current.front, state.quality, state.cost, width, title);
  });
  const update = () => {
    const all = paretoPoints(state.quality, state.cost, state.model);
    const points = all.filter(({ q, c }) => Number.isFinite(q.value ?? NaN) && Number.isFinite(c.value ?? NaN));
    const left = all.filter((point) => !points.includes(point));
    const front = markFront(points, state.quality, state.cost);
    current = { points, front };
    chart.redraw();
    const beaten = points.length - front.length;
    const reason = ({ q, c }) => (c.value === null ? `${state.cost.axis}: ${c.why}` : q.value === null ? `${state.quality.axis}: ${q.why}` : `${state.quality.axis} is ${q.text}`);
    words.replaceChildren(
      el("p", {}, el("b", {}, "Pareto front: "), front.length ? `${listed(front.map((p) => p.name))}. ` : "empty. ",
        beaten ? `${plural(beaten, "other point is", "other points are")} beaten by one of these: no better in either, worse in at least one.` : "No point beats another in both."),
      el("p", { class: "fine" }, `The front is of point estimates${points.some((p) => isNumber(p.q.low ?? NaN)) ? "; upright lines are 95 % intervals" : ""}.`,
        points.some((p) => p.q.star) ? " Overall metrics are over a part of their track." : "",
        state.quality.overall && severalModels ? " Overall metrics are over all models: each point is a method, its cost the mean over the models." : ""),
      ...(left.length ? [el("p", { class: "fine" }, `Not drawn: ${shortList(left.map((p) => `${p.name} (${reason(p)})`), 8)}.`)] : []));
    keys.replaceChildren(...distinct(points.map((p) => p.row.method)).map((method) => el("li", {}, swatch(method, false), el("span", {}, method))));
    details.replaceChildren(disclosure("The same numbers as a table", plainTable(`${state.quality.axis} against ${state.cost.axis}`,
      [severalModels && state.model === "" && !state.quality.overall ? "model and method" : "method", `${state.quality.axis} ${state.quality.up ? "↑" : "↓"}`, `${state.cost.axis} ${state.cost.up ? "↑" : "↓"}`, "on the front"],
      all.map((p) => [p.name, p.q.value === null ? `– (${p.q.why})` : [p.q.text, p.q.star && "*", p.q.error].filter(Boolean).join(" "),
        p.c.value === null ? `– (${p.c.why})` : p.c.text, p.front ? "yes" : points.includes(p) ? "no" : "–"]))));
    if (modelBox) modelBox.querySelector("select").disabled = Boolean(state.quality.overall);
  };
  const pick = (name, label, list, text) => selectBox(label, list.map((one) => [one.id, text(one)]), state[name].id, (id) => {
    state[name] = list.find((one) => one.id === id);
    update();
  });
  const modelBox = severalModels ? selectBox("Model", [["", "all models"], ...models.map((m) => [m, m])], state.model, (value) => {
    state.model = value;
    update();
  }) : null;
  const controls = el("div", { class: "controls" }, pick("quality", "Quality", qualities, (one) => `${one.title}${one.overall ? "" : ` (${one.sub})`}`),
    pick("cost", "Against", MEASURED_COSTS, (one) => one.axis), modelBox);
  update();
  return [numbered("Figure", "What quality costs. Filled points are on the Pareto front, hollow ones are beaten; arrows at the axes point to what is better."),
    controls, el("div", { class: "figure" }, chart.holder, el("div", { class: "aside" }, keys, words)), details];
}
