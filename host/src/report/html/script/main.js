// The page: parts in their order, navigation, theme, print.

/** Light or dark by hand; until then the system's choice holds. Nothing is stored. */
function themeButton() {
  const root = document.documentElement;
  const systemDark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemDark.matches);
  const button = el("button", { type: "button", class: "quiet theme", click: () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    name();
  } });
  const name = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  systemDark.addEventListener("change", name);
  name();
  return button;
}

/** Paper has no disclosure triangles: everything is open while printing, and as it was afterwards. */
function openForPrint() {
  let opened = [];
  const open = () => {
    const closed = [...document.querySelectorAll("details:not([open])")];
    opened = [...opened, ...closed];
    for (const one of closed) one.open = true;
  };
  const close = () => {
    for (const one of opened) one.open = false;
    opened = [];
  };
  addEventListener("beforeprint", open);
  addEventListener("afterprint", close);
  matchMedia("print").addEventListener("change", (event) => (event.matches ? open() : close()));
}

const PARTS = [
  ["results", "Results", resultsSection],
  ["ranking", "Ranking over tracks", rankingSection],
  ["tradeoffs", "Quality against cost", paretoSection],
  ["tasks", "Task by task", tasksSection],
  ["costs", "Speed and resources", costsSection],
  ["formulas", "Formulas of the overall metrics", formulasSection],
  ["settings", "Settings", settingsSection],
];

function report() {
  const sections = (rows.length ? PARTS : PARTS.slice(-1)).map(([id, title, make]) => ({ id, title, content: make() })).filter(({ content }) => content);
  const nav = el("nav", { "aria-label": "Parts of the report" }, el("div", { class: "inner" },
    el("ul", {}, sections.map(({ id, title }) => el("li", {}, el("a", { href: `#${id}` }, title)))), themeButton()));
  const main = el("main", { id: "main" }, header(),
    !rows.length && el("p", { class: "caption", style: "margin-top: 1.5rem" }, "Nothing was measured: no model could be planned."),
    sections.map(({ id, title, content }, at) => el("section", { id, "aria-labelledby": `${id}-title` },
      el("h2", { id: `${id}-title` }, el("span", { class: "count", "aria-hidden": "true" }, String(at + 1)), title), content)));
  document.getElementById("report").append(el("a", { class: "skip", href: "#main" }, "Skip to the report"), nav, main,
    el("footer", {}, el("p", {}, `Made by ${data.generated_by ?? "llmcb-host"}. Every number is in the run’s result files with how it was measured; in this page they are in the element “data”, as JSON.`)));
}

report();
openForPrint();
