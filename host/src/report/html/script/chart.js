// What charts share: how a method looks, scales with round ticks, labels that do not overlap.

const DASHES = ["7 4", "", "2 3", "10 3 2 3", "12 4", "5 2 1 2 1 2", "1 4", "14 3 3 3"];
const STYLES = 8;

/** A method is told by colour, by shape and by dashes, each of which is enough; dense has a look of its own. */
function lookOf(method) {
  if (method === DENSE) return { colour: "var(--ink)", shape: "ring", dash: "4 3" };
  const at = methods.filter((m) => m !== DENSE).indexOf(method);
  const turn = Math.floor(at / STYLES);
  return { colour: `var(--c${(at % STYLES) + 1})`, shape: SHAPES[(at + turn) % STYLES], dash: DASHES[(at + 3 * turn) % STYLES] };
}

const SHAPES = ["circle", "square", "up", "diamond", "down", "plus", "star", "hexagon"];

function polygon(corners, radius, turn = 0) {
  return Array.from({ length: corners }, (_, at) => {
    const angle = -Math.PI / 2 + turn + (at * 2 * Math.PI) / corners;
    const r = Array.isArray(radius) ? radius[at % radius.length] : radius;
    return `${(r * Math.cos(angle)).toFixed(2)},${(r * Math.sin(angle)).toFixed(2)}`;
  }).join(" ");
}

/** A method's marker about the origin; hollow ones are filled with the page's colour, so that lines end at them. */
function marker(method, radius, hollow = false) {
  const { colour, shape } = lookOf(method);
  const paint = { fill: hollow ? "var(--page)" : colour, stroke: colour, "stroke-width": "1.6", "stroke-linejoin": "round" };
  const arm = radius * 0.38;
  switch (shape) {
    case "ring": return svg("g", {}, svg("circle", { r: radius, fill: "var(--page)", stroke: colour, "stroke-width": "1.6" }),
      svg("circle", { r: radius * 0.4, fill: colour }));
    case "circle": return svg("circle", { r: radius, ...paint });
    case "square": return svg("polygon", { points: polygon(4, radius * 1.3, Math.PI / 4), ...paint });
    case "up": return svg("polygon", { points: polygon(3, radius * 1.35), ...paint });
    case "down": return svg("polygon", { points: polygon(3, radius * 1.35, Math.PI), ...paint });
    case "diamond": return svg("polygon", { points: polygon(4, radius * 1.4), ...paint });
    case "star": return svg("polygon", { points: polygon(10, [radius * 1.5, radius * 0.65]), ...paint });
    case "hexagon": return svg("polygon", { points: polygon(6, radius * 1.15), ...paint });
    default: {
      const far = radius * 1.25;
      return svg("path", { d: `M${-arm},${-far}H${arm}V${-arm}H${far}V${arm}H${arm}V${far}H${-arm}V${arm}H${-far}V${-arm}H${-arm}Z`, ...paint });
    }
  }
}

/** Line and marker of a method beside its name. */
function swatch(method, line = true) {
  const { colour, dash } = lookOf(method);
  return svg("svg", { class: "swatch", viewBox: line ? "0 0 38 14" : "12 0 14 14", width: line ? 38 : 14, height: 14, "aria-hidden": "true" },
    line && svg("line", { x1: 1, x2: 37, y1: 7, y2: 7, stroke: colour, "stroke-width": 2, "stroke-dasharray": dash || null }),
    svg("g", { transform: "translate(19 7)" }, marker(method, 4)));
}

/** Round steps of which about `wanted` fit between two numbers. */
function roundTicks(low, high, wanted) {
  const rough = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * ([1, 2, 2.5, 5, 10].find((n) => n * power >= rough * 0.999) ?? 10);
  const ticks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at += 1) ticks.push(at * step);
  const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9) + (Math.abs(step / power - 2.5) < 1e-9 ? 1 : 0));
  return ticks.map((value) => ({ value, text: value.toFixed(decimals).replace("-", "−") }));
}

function logTicks(low, high, wanted) {
  const all = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const digit of [1, 2, 5]) all.push({ value: digit * 10 ** power, digit });
  }
  const inside = all.filter(({ value }) => value >= low * 0.999 && value <= high * 1.001);
  const decades = inside.filter(({ digit }) => digit === 1);
  let shown = inside.length <= wanted + 2 || decades.length < 2 ? inside : decades;
  while (shown.length > wanted + 2) shown = shown.filter((_, at) => at % 2 === 0);
  return shown.map(({ value }) => ({ value, text: value >= 1e5 || value < 1e-3 ? value.toExponential(0).replace("e+", "e") : String(Number(value.toPrecision(3))) }));
}

/** In what unit an axis counts, so that its ticks are round numbers of it. */
function axisUnit(kind, most) {
  const pick = (units) => units.filter(([size]) => most >= size).pop() ?? units[0];
  if (kind === "bytes") return pick([[1, "B"], [1024, "KiB"], [1024 ** 2, "MiB"], [1024 ** 3, "GiB"], [1024 ** 4, "TiB"]]);
  if (kind === "seconds") return pick([[1, "s"], [300, "min", 60], [3 * 3600, "h", 3600]]);
  if (kind === "count") return pick([[1, ""], [1e3, "thousand"], [1e6, "million"], [1e9, "billion"], [1e12, "trillion"]]);
  return [1, ""];
}

/** A scale over numbers: `at(value)` is 0 to 1. Logarithmic where they span more than an order of magnitude. */
function scaleOver(values, { kind = "number", fromZero = false, room = 0.06, ticks = 5, linear = false } = {}) {
  const finite = values.filter(Number.isFinite);
  let [low, high] = [Math.min(...finite), Math.max(...finite)];
  const log = !linear && low > 0 && high / low > 12;
  const entry = axisUnit(kind, high);
  const size = entry[2] ?? entry[0];
  [low, high] = [low / size, high / size];
  if (log) {
    const spare = (high / low) ** room;
    [low, high] = [low / spare, high * spare];
  } else {
    if (low === high) [low, high] = [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
    const spare = (high - low) * room;
    [low, high] = [fromZero && low >= 0 ? 0 : low - spare, high + spare];
  }
  const toUnit = (value) => (log ? (Math.log(value / size) - Math.log(low)) / (Math.log(high) - Math.log(low))
    : (value / size - low) / (high - low));
  return { log, unit: entry[1], at: (value) => Math.min(1, Math.max(0, toUnit(value))),
    ticks: (log ? logTicks : roundTicks)(low, high, ticks).map(({ value, text }) => ({ text, at: toUnit(value * size) })) };
}

/** Width of a text of the charts' size: an estimate is enough to keep labels apart. */
function textWidth(text, size = 12) {
  return [...text].reduce((sum, c) => sum + ("iljt.,:;|'() f".includes(c) ? 0.36 : "mwMW%@".includes(c) ? 0.95 : 0.61), 0) * size;
}

function clipped(text, width, size = 12) {
  let shown = text;
  while (shown.length > 4 && textWidth(shown, size) > width) shown = `${shown.slice(0, -2).trimEnd()}…`;
  return shown;
}

/** Moves wanted heights as little as keeps them `gap` apart, between `top` and `bottom`. */
function spread(heights, gap, top, bottom) {
  const order = heights.map((y, at) => ({ y, at })).sort((a, b) => a.y - b.y);
  const need = Math.min(gap, (bottom - top) / Math.max(1, order.length - 1));
  order.forEach((one, at) => { one.y = Math.max(one.y, at === 0 ? top : order[at - 1].y + need); });
  for (let at = order.length - 1; at >= 0; at -= 1) {
    order[at].y = Math.min(order[at].y, at === order.length - 1 ? bottom : order[at + 1].y - need);
  }
  const placed = [];
  for (const { y, at } of order) placed[at] = y;
  return placed;
}

/** A drawing as wide as its holder, drawn anew when the holder's width changes. */
function responsive(draw) {
  const holder = el("div", { class: "scroller chart", tabindex: "0", role: "region", "aria-label": "chart" });
  let drawn = 0;
  const redraw = () => {
    // In print the picture is scaled instead: the page's width is not known here.
    drawn = holder.clientWidth || drawn || 640;
    const picture = draw(drawn);
    holder.setAttribute("aria-label", picture.getAttribute("data-name") ?? "chart");
    holder.replaceChildren(picture);
  };
  new ResizeObserver(() => {
    if (holder.clientWidth > 0 && Math.abs(holder.clientWidth - drawn) > 2) redraw();
  }).observe(holder);
  return { holder, redraw };
}

/** An SVG picture with a name and a description for those who do not see it. */
function picture(width, height, name, description, ...children) {
  const [title, desc] = [freshId("title"), freshId("desc")];
  return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-labelledby": title, "aria-describedby": desc,
    "data-name": name }, svg("title", { id: title }, name), svg("desc", { id: desc }, description), ...children);
}
