// Ranking: one upright axis per overall metric (or task), one line per method; better is always up.

function rankingViews() {
  const views = [];
  if (OVERALLS.length) {
    const bySeed = runs.some((run) => (run.overall ?? []).some((o) => (o.seed ?? null) !== null));
    const seen = new Set();
    const lines = rows.filter((row) => {
      const key = JSON.stringify([row.runAt, row.method, row.backend, bySeed ? row.seed : null]);
      return !seen.has(key) && seen.add(key);
    });
    views.push({ id: "overall", title: severalModels ? "overall metrics, over all models" : "overall metrics", axes: OVERALLS, lines });
  }
  if (SCORES.length) {
    for (const model of models) {
      views.push({ id: `model:${model}`, title: severalModels ? `task scores of ${model}` : "task scores", axes: SCORES,
        lines: rows.filter((row) => row.model === model) });
    }
  }
  return views.map((view) => {
    const axes = view.axes.filter((axis) => view.lines.some((row) => isNumber(axis.of(row).value)));
    const lines = view.lines.filter((row) => axes.some((axis) => isNumber(axis.of(row).value)));
    return { ...view, axes, lines };
  }).filter((view) => view.axes.length && view.lines.length);
}

const isNumber = (value) => value !== null && !Number.isNaN(value);

const HEAD = 46;
const FOOT = 16;
const PLOT = 320;

function rankingPicture(view, hidden, width, onHover) {
  const lines = view.lines.filter((row) => !hidden.has(row.method));
  const names = lines.map(wayName);
  const room = Math.min(Math.max(90, width * 0.3), 230, 24 + Math.max(60, ...names.map((name) => textWidth(name))));
  const subOf = (axis) => `${axis.sub}${axis.up ? "" : " (reversed)"}`;
  const left = Math.max(52, textWidth(subOf(view.axes[0]), 11) / 2 + 4, textWidth(view.axes[0].title) / 2 + 4);
  const narrowest = Math.max(72, ...view.axes.map((axis) => Math.max(textWidth(axis.title), textWidth(subOf(axis), 11)) + 10));
  const whole = Math.max(width, left + (view.axes.length - 1) * Math.min(120, narrowest) + room + 8);
  // Few axes stand closer than a wide page would put them: slopes are easier to compare so.
  const step = Math.min(300, (whole - left - room - 8) / Math.max(1, view.axes.length - 1));
  const x = (at) => (view.axes.length === 1 ? left + 20 : left + at * step);
  const height = HEAD + PLOT + FOOT;

  const scales = view.axes.map((axis) => scaleOver(view.lines.map((row) => axis.of(row).value), { kind: axis.kind, room: 0.05, ticks: 5 }));
  const y = (at, share) => HEAD + PLOT * (view.axes[at].up ? 1 - share : share);

  const frame = view.axes.map((axis, at) => svg("g", {},
    svg("text", { class: "axis-title", x: x(at), y: 14, "text-anchor": "middle" }, clipped(axis.title, Math.max(110, step - 8))),
    svg("text", { class: "axis-sub", x: x(at), y: 29, "text-anchor": "middle" }, subOf(axis)),
    svg("line", { class: "axis", x1: x(at), x2: x(at), y1: HEAD - 6, y2: HEAD + PLOT + 6 }),
    scales[at].ticks.map((tick) => svg("line", { class: "axis", x1: x(at) - 4, x2: x(at), y1: y(at, tick.at), y2: y(at, tick.at) }))));
  // Numbers stand over the lines, not under them.
  const ticks = view.axes.map((_, at) => scales[at].ticks.map((tick) =>
    svg("text", { class: "tick", x: x(at) - 7, y: y(at, tick.at) + 3.5, "text-anchor": "end" }, tick.text)));

  const drawn = lines.map((row) => view.axes.map((axis, at) => {
    const found = axis.of(row);
    return isNumber(found.value) ? { x: x(at), y: y(at, scales[at].at(found.value)), found } : null;
  }));
  // Labels stand at the right, by the last value of each line.
  const last = drawn.map((points) => points.filter(Boolean).pop());
  const heights = spread(last.map((point) => point.y), 15, HEAD, HEAD + PLOT);
  const labelX = x(view.axes.length - 1) + 22;

  const groups = lines.map((row, at) => {
    const look = lookOf(row.method);
    const points = drawn[at];
    const pieces = points.map((point, i) => (point ? `${points[i - 1] ? "L" : "M"}${point.x.toFixed(1)},${point.y.toFixed(1)}` : "")).join("");
    return svg("g", { class: "line", "data-method": row.method, pointerenter: () => onHover(row.method), pointerleave: () => onHover(null) },
      svg("path", { class: "grab", d: pieces }),
      svg("path", { class: "stroke", d: pieces, stroke: look.colour, "stroke-dasharray": look.dash || null }),
      svg("path", { class: "leader", d: `M${last[at].x + 6},${last[at].y}L${labelX - 4},${heights[at]}`, stroke: look.colour }),
      points.filter(Boolean).map((point) => svg("g", { transform: `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})` }, marker(row.method, 4.4))),
      points.filter(Boolean).map((point) => svg("text", { class: "reading", x: point.x + 8, y: point.y - 7 }, `${point.found.text}${point.found.star ? " *" : ""}`)),
      svg("text", { class: "label", x: labelX, y: heights[at] + 4 }, clipped(names[at], whole - labelX - 2)));
  });
  const told = lines.map((row, at) => `${names[at]}: ${view.axes.map((axis) => `${axis.title} ${axis.of(row).text}`).join(", ")}`).join(". ");
  return picture(whole, height, `Ranking of methods over ${view.title}`, told || "No method is shown.", frame, groups, ticks);
}

function bestOf(view, axis) {
  const rated = view.lines.filter((row) => !row.dense).map((row) => ({ row, found: axis.of(row) })).filter(({ found }) => isNumber(found.value));
  if (!rated.length) return null;
  const best = rated.reduce((a, b) => ((axis.up ? b.found.value > a.found.value : b.found.value < a.found.value) ? b : a));
  return [el("li", {}, `${axis.title}: `, el("b", {}, wayName(best.row)), ` (${best.found.text}${best.found.star ? " *" : ""})`)];
}

function rankingSection() {
  const views = rankingViews();
  if (!views.length) return null;
  // Parallel lines say little on one or two axes: then the tasks come first.
  let view = views.find((one) => one.axes.length > 2) ?? views[0];
  const hidden = new Set();
  let chart = null;

  const highlight = (method) => {
    chart.holder.querySelector("svg").classList.toggle("dimmed", method !== null);
    for (const line of chart.holder.querySelectorAll(".line")) line.classList.toggle("lit", line.getAttribute("data-method") === method);
  };
  chart = responsive((width) => rankingPicture(view, hidden, width, highlight));

  const toggles = el("fieldset", { class: "toggles" });
  const words = el("div");
  const table = el("div");
  const showAll = (on) => {
    for (const box of toggles.querySelectorAll("input")) {
      box.checked = on;
      hidden[on ? "delete" : "add"](box.value);
    }
    chart.redraw();
  };
  const fill = () => {
    const shown = methods.filter((method) => view.lines.some((row) => row.method === method));
    toggles.replaceChildren(el("legend", {}, "Methods shown"), ...shown.map((method) => el("label", {
      class: "toggle", pointerenter: () => highlight(method), pointerleave: () => highlight(null), focusin: () => highlight(method), focusout: () => highlight(null) },
    el("input", { type: "checkbox", value: method, checked: !hidden.has(method), change: (event) => {
      hidden[event.target.checked ? "delete" : "add"](method);
      chart.redraw();
      if (event.target.checked) highlight(method);
    } }), swatch(method), el("span", {}, method))),
    ...(shown.length > 4 ? [el("div", { class: "both" }, el("button", { type: "button", class: "quiet", click: () => showAll(true) }, "show all"),
      el("button", { type: "button", class: "quiet", click: () => showAll(false) }, "hide all"))] : []));
    const best = view.axes.map((axis) => bestOf(view, axis)).filter(Boolean);
    words.replaceChildren(...(best.length ? [el("div", { class: "reading-aid" }, el("p", {}, "Best value of a compressed model on each axis, by point estimate:"),
      el("ul", {}, best))] : []));
    table.replaceChildren(disclosure("The same numbers as a table", plainTable(`Ranking over ${view.title}`, ["method", ...view.axes.map((axis) => `${axis.title} ${axis.up ? "↑" : "↓"}`)],
      view.lines.map((row) => [wayName(row), ...view.axes.map((axis) => {
        const found = axis.of(row);
        return found.value === null ? `${found.text} (${found.why})` : `${found.text}${found.star ? " *" : ""}${found.error ? ` ${found.error}` : ""}${found.low !== null && found.low !== undefined && !found.error ? ` (${found.extra})` : ""}`;
      })]))));
    chart.redraw();
  };
  const controls = views.length > 1 ? el("div", { class: "controls" }, selectBox("Axes", views.map((one) => [one.id, one.title]), view.id, (id) => {
    view = views.find((one) => one.id === id);
    fill();
  })) : null;
  fill();
  return [numbered("Figure", "Methods side by side. Up is better on every axis; each axis has its own scale; a line has a gap where something was not measured."),
    controls, el("div", { class: "figure" }, chart.holder, el("div", { class: "aside" }, toggles, words)), table];
}
