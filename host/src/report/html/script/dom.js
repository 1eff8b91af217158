// Elements from data. Text only ever becomes a text node or an attribute, so that a name may contain markup.

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

/** An HTML element; attributes that are functions are event listeners, null and false ones are left out. */
function el(name, attributes, ...children) {
  return build(document.createElement(name), attributes, children);
}

/** An SVG element. */
function svg(name, attributes, ...children) {
  return build(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

let lastId = 0;
function freshId(prefix) {
  lastId += 1;
  return `${prefix}-${lastId}`;
}

/** A labelled drop-down; `options` are [value, text] pairs. */
function selectBox(label, options, chosen, onChange) {
  const select = el("select", { change: () => onChange(select.value) },
    options.map(([value, text]) => el("option", { value, selected: value === chosen }, text)));
  return el("label", { class: "field" }, el("span", {}, label), select);
}

/** A part of the page that scrolls sideways by itself, also by keyboard. */
function scroller(label, ...children) {
  return el("div", { class: "scroller", tabindex: "0", role: "region", "aria-label": label }, ...children);
}

function disclosure(summary, ...children) {
  return el("details", {}, el("summary", {}, summary), ...children);
}

/** A plain table: strings and nodes; the first column names the row. `numeric` columns are right-aligned. */
function plainTable(caption, head, rows, numeric = () => true) {
  const side = (at) => (at > 0 && numeric(at) ? "number" : null);
  const holder = scroller(caption, el("table", { class: "plain" },
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, el("tr", {}, head.map((text, at) => el("th", { scope: "col", class: side(at) }, text)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((value, at) => (at === 0
      ? el("th", { scope: "row" }, value)
      : el("td", { class: side(at) }, value))))))));
  // A long table scrolls in its place, under its own headings.
  if (rows.length > 40) holder.classList.add("tall");
  return holder;
}

const counters = {};
/** A numbered caption, as in a paper: `Table 1`. */
function numbered(kind, ...text) {
  counters[kind] = (counters[kind] ?? 0) + 1;
  return el("p", { class: "caption" }, el("b", {}, `${kind} ${counters[kind]}.`), " ", ...text);
}

function unseen(text) {
  return el("span", { class: "unseen" }, text);
}
