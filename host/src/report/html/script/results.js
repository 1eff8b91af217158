// The overview: one row per model, method and backend, sortable by every column.

const MARKS = { "+": ["better", "better than dense"], "−": ["worse", "worse than dense"], "~": ["same", "not told apart from dense"] };

function footnotes() {
  const notes = [];
  return {
    notes,
    /** The number of a note; the same note has the same number. */
    mark(text) {
      if (!notes.includes(text)) notes.push(text);
      return `[${notes.indexOf(text) + 1}]`;
    },
  };
}

function markNode(mark) {
  if (!mark) return null;
  const [tone, words] = MARKS[mark];
  return el("span", { class: `mark ${tone}`, title: words }, mark, unseen(` ${words}`));
}

function valueCell(found, notes) {
  if (found.value === null) {
    const explained = found.word && found.word !== "…";
    return el("td", { class: "number none", title: found.why }, found.text,
      explained ? el("sup", {}, notes.mark(found.why)) : unseen(` ${found.why}`));
  }
  return el("td", { class: "number", title: found.title ?? null },
    el("span", { class: "value" }, found.text, found.star && el("span", { class: "star" }, "*"),
      found.error && el("span", { class: "error" }, ` ${found.error}`)),
    COMPARES && found.marks !== false && el("span", { class: "gutter" }, markNode(found.mark)),
    found.extra && el("span", { class: "extra" }, found.extra));
}

function nameColumns() {
  const column = (title, of, when) => ({ id: `name:${title}`, title, text: true, of, when });
  return [column("model", (row) => row.model, severalModels), column("method", (row) => row.method, true),
    column("backend", (row) => row.backend, severalBackends), column("seed", (row) => (row.seed === null ? "–" : String(row.seed)), severalSeeds),
    column("run", (row) => String(row.runAt + 1), severalRuns)].filter((one) => one.when);
}

/** Rows in the order of a column. Numbers by size, text by the alphabet, what is missing last in either direction. */
function sorted(list, column, ascending) {
  const key = (row) => (column.text ? column.of(row) : column.of(row).value);
  const absent = (value) => value === null || Number.isNaN(value);
  const turn = ascending ? 1 : -1;
  return list.map((row, at) => ({ row, at, value: key(row) })).sort((a, b) => {
    if (absent(a.value) || absent(b.value)) return absent(a.value) - absent(b.value) || a.at - b.at;
    const order = column.text ? a.value.localeCompare(b.value, "en", { numeric: true }) : (a.value > b.value) - (a.value < b.value);
    return turn * order || a.at - b.at;
  }).map(({ row }) => row);
}

function legend(notes, list) {
  const items = [];
  const item = (sign, ...text) => items.push(el("li", {}, el("b", {}, sign), " ", ...text));
  item("↑ ↓", "whether more or less is better");
  if (SCORES.length) item("±", "standard error");
  if (COMPARES && SCORES.length) {
    const paired = list.some((row) => row.cell.paired?.length);
    item("+ −", "better or worse than the dense model; ", el("b", {}, "~"), " not told apart from it ", paired
      ? "on the same items (McNemar’s exact test at 5 %; where items are not right or wrong, 2 standard errors of the difference)"
      : `(within ${NOISE} standard errors)`);
  }
  const gaps = OVERALLS.map(({ overall: name }) => [name, distinct(runs.flatMap((run) => run.overall ?? []).filter((o) => o.name === name)
    .flatMap((o) => o.not_measured ?? []))]).filter(([, list]) => list.length);
  if (gaps.length) {
    item("*", `over a part of its track, not comparable with published values; not measured: ${gaps.map(([name, list]) =>
      `${gaps.length > 1 || OVERALLS.length > 1 ? `for ${name} ` : ""}${shortList(list, 10)}`).join("; ")}`);
  }
  if (OVERALLS.length) item("OM", `over all models and seeds of a run; 100 = as good as dense${OVERALLS.some((q) => q.overall === "OM_train") ? " (OM_train: 100 = cheapest method)" : ""}; below it the 95 % bootstrap interval where there is one`);
  if (COMPARES) item("×", "times the dense model’s");
  item("–", "not measured; ", el("b", {}, "…"), " not reached yet");
  notes.forEach((note, at) => items.push(el("li", {}, el("b", {}, `[${at + 1}]`), ` ${note}`)));
  return el("ul", { class: "legend" }, items);
}

/** Letters of titles that fit beside each other on paper. */
const PAPER_LETTERS = 100;

/** Columns in pieces that are no wider than paper. */
function ofPaperWidth(list) {
  const letters = (one) => Math.max(one.title.length, one.sub.length, 8) + 2;
  let room = 0;
  return list.reduce((pieces, one) => {
    room -= letters(one);
    if (room < 0) {
      pieces.push([]);
      room = PAPER_LETTERS - letters(one);
    }
    pieces.at(-1).push(one);
    return pieces;
  }, []);
}

/** A group of columns as a table for paper, where nothing scrolls. */
function paperTable(group, names, list, line) {
  const body = el("tbody");
  const arrow = (one) => (one.up ? "↑" : "↓");
  return {
    table: el("table", { class: "plain paper" }, el("caption", {}, group), el("thead", {}, el("tr", {}, names.map((one) => el("th", {}, one.title)),
      list.map((one) => el("th", { class: "number" }, `${one.title} ${one.sub} ${arrow(one)}`)))), body),
    fill: (shown) => body.replaceChildren(...shown.map(line)),
  };
}

function resultsSection() {
  const names = nameColumns();
  const quantities = [...SCORES, ...OVERALLS, ...MEASURED_COSTS];
  const columns = [...names, ...quantities];
  const notes = footnotes();
  const groups = distinct(quantities.map((q) => q.group)).map((group) => [group, quantities.filter((q) => q.group === group)]);

  const line = (row, list) => el("tr", { class: row.dense ? "dense" : null },
    names.map((column, at) => el(at === 0 ? "th" : "td", { scope: at === 0 ? "row" : null, class: `name ${column.title}` },
      column.of(row), column.title === "method" && row.dense && el("span", { class: "tag" }, "reference"))),
    list.map((quantity, at) => {
      const cell = valueCell(quantity.of(row), notes);
      if (at > 0 && quantity.group !== list[at - 1].group) cell.classList.add("first");
      return cell;
    }));
  const lines = new Map(rows.map((row) => [row, line(row, quantities)]));
  const paper = groups.flatMap(([group, list]) => ofPaperWidth(list).map((some) => paperTable(group, names, some, (row) => line(row, some))));

  const body = el("tbody");
  const status = el("p", { class: "unseen", role: "status" });
  let [order, ascending, model] = [null, true, ""];
  const show = () => {
    const kept = rows.filter((row) => model === "" || row.model === model);
    const list = order ? sorted(kept, order, ascending) : kept;
    body.replaceChildren(...list.map((row) => lines.get(row)));
    for (const one of paper) one.fill(list);
  };
  const heads = new Map();
  // First what is best, then the other way round, then the order of the run.
  const sortBy = (column) => {
    const bestFirst = column.text || column.up === false;
    if (order !== column) [order, ascending] = [column, bestFirst];
    else if (ascending === bestFirst) ascending = !bestFirst;
    else order = null;
    for (const [one, head] of heads) head.setAttribute("aria-sort", one === order ? (ascending ? "ascending" : "descending") : "none");
    status.textContent = order ? `sorted by ${column.title} ${column.sub ?? ""}, ${ascending ? "ascending" : "descending"}` : "in the order of the run";
    show();
  };
  const head = (column, at) => {
    const first = at > names.length && column.group !== columns[at - 1].group;
    const th = el("th", { scope: "col", "aria-sort": "none", class: `${column.text ? `name ${column.title}` : "number"}${first ? " first" : ""}` },
      el("button", { type: "button", class: "sort", click: () => sortBy(column) }, el("span", { class: "column" }, column.title),
        el("span", { class: "sub" }, column.sub ?? "", column.up === undefined ? null : el("span", { title: column.up ? "more is better" : "less is better" },
          ` ${column.up ? "↑" : "↓"}`), unseen(column.up === undefined ? "" : column.up ? " more is better" : " less is better"),
        el("span", { class: "arrow", "aria-hidden": "true" }))));
    heads.set(column, th);
    return th;
  };
  const table = el("table", { class: `results${COMPARES ? " compares" : ""}` },
    el("caption", { class: "unseen" }, "Results by model, method and backend"),
    el("thead", {},
      groups.length > 1 && el("tr", { class: "groups" }, el("td", { colspan: names.length }),
        groups.map(([group, list], at) => el("th", { scope: "colgroup", colspan: list.length, class: at > 0 ? "first" : null }, group))),
      el("tr", {}, columns.map(head))),
    body);
  show();
  const controls = severalModels && el("div", { class: "controls" }, selectBox("Model", [["", "all models"], ...models.map((m) => [m, m])], "", (value) => {
    model = value;
    show();
  }));
  const tall = rows.length > 30 ? " tall" : "";
  const holder = scroller("Results", table);
  // Where models have a column of their own, the methods stay beside it.
  const beside = heads.get(names[0]);
  new ResizeObserver(() => table.style.setProperty("--beside", `${severalModels ? beside.offsetWidth : 0}px`)).observe(beside);
  holder.className += ` wide${tall}`;
  return [numbered("Table", "Scores, overall metrics and costs. Every heading sorts."), controls || null, holder, paper.map((one) => one.table), status, legend(notes.notes, rows), tableNotes()];
}

/** What a reader of the table should know about the checkpoints and the data. */
function tableNotes() {
  const lines = [];
  for (const row of rows.filter((r) => !r.dense && r.cell.checkpoint?.info?.format)) {
    const { format, notes } = row.cell.checkpoint.info;
    const line = `On disk, ${severalModels ? `${row.model} ` : ""}${row.method}: ${[format, ...(notes ?? [])].join("; ")}`;
    if (!lines.includes(line)) lines.push(line);
  }
  for (const one of data.facts ?? []) lines.push(...(one.warnings ?? []).filter((text) => !lines.includes(text)));
  if (!lines.length) return null;
  const list = el("ul", { class: "legend" }, lines.map((line) => el("li", {}, line)));
  return lines.length > 8 ? disclosure(`${lines.length} notes on checkpoints and data`, list) : list;
}
