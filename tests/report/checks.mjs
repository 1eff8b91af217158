// What must hold of a page. Each check gets a fresh page and throws with what it saw instead.

function must(condition, message) {
  if (!condition) throw new Error(message);
}

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

/** Every interactive element can be reached by Tab, and has a name and a visible focus. */
export async function reachable(page) {
  const expected = await page.evaluate(() => {
    const all = [...document.querySelectorAll("a[href], button, select, input, textarea, summary, [tabindex='0']")];
    const shown = all.filter((one) => one.checkVisibility() && !one.disabled && !one.hidden);
    shown.forEach((one, at) => { one.dataset.stop = at; });
    return shown.map((one) => `${one.tagName} ${one.textContent.trim().slice(0, 40)}`);
  });
  const seen = new Set();
  for (let at = 0; at < expected.length + 5; at += 1) {
    await page.keyboard.press("Tab");
    const stop = await page.evaluate(() => {
      const one = document.activeElement;
      return { at: one?.dataset.stop ?? null, outlined: one ? getComputedStyle(one).outlineStyle !== "none" : true };
    });
    if (stop.at === null) continue;
    must(stop.outlined, `no visible focus on ${expected[stop.at]}`);
    seen.add(Number(stop.at));
  }
  const lost = expected.filter((_, at) => !seen.has(at));
  must(!lost.length, `not reached by Tab: ${lost.join(" | ")}`);

  const session = await page.context().newCDPSession(page);
  const { nodes } = await session.send("Accessibility.getFullAXTree");
  const nameless = nodes.filter((node) => !node.ignored && node.properties?.some((p) => p.name === "focusable" && p.value.value)
    && node.role.value !== "RootWebArea" && !node.name?.value?.trim());
  must(!nameless.length, `without an accessible name: ${nameless.map((node) => node.role.value).join(", ")}`);
}

/** Text against what is behind it, by WCAG's formula: 4.5 to 1. */
export async function contrast(page) {
  const weak = await page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    const rgba = (colour) => {
      canvas.clearRect(0, 0, 1, 1);
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      return canvas.getImageData(0, 0, 1, 1).data;
    };
    const luminance = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, weight, at) => {
      const share = c[at] / 255;
      return sum + weight * (share <= 0.03928 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4);
    }, 0);
    const behind = (element) => {
      for (let one = element; one; one = one.parentElement) {
        const colour = rgba(getComputedStyle(one).backgroundColor);
        if (colour[3] > 250) return colour;
      }
      return rgba("white");
    };
    const found = new Map();
    for (const one of document.querySelectorAll("body *")) {
      const own = [...one.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.textContent.trim());
      if (!own || !one.checkVisibility({ visibilityProperty: true }) || one.disabled || one.tagName === "TITLE") continue;
      const style = getComputedStyle(one);
      const [a, b] = [luminance(rgba(one instanceof SVGElement ? style.fill : style.color)), luminance(behind(one))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < 4.5) found.set(`${one.tagName}.${one.getAttribute("class")}`, ratio.toFixed(2));
    }
    return [...found];
  });
  must(!weak.length, `weak contrast: ${weak.map((pair) => pair.join(" ")).join(", ")}`);
}

export async function noSidewaysScroll(page) {
  const { whole, window } = await page.evaluate(() => {
    for (const one of document.querySelectorAll("details")) one.open = true;
    return { whole: document.documentElement.scrollWidth, window: innerWidth };
  });
  must(whole <= window, `the page is ${whole} px wide in a window of ${window}`);
  const first = page.locator(".results tbody .method").first();
  if (await first.count() === 0) return;
  await page.evaluate(() => { document.querySelector(".wide").scrollLeft = 10000; });
  const [box, holder] = [await first.boundingBox(), await page.locator(".wide").boundingBox()];
  const model = await page.locator(".results tbody .model").count() ? await page.locator(".results tbody .model").first().boundingBox() : null;
  const from = holder.x + (model && model.x >= holder.x ? model.width : 0);
  must(Math.abs(box.x - from) < 2, `the methods do not stay when the table scrolls: ${box.x}, not ${from}`);
}

export async function wellFormed(page) {
  const problems = await page.evaluate(() => {
    const ids = [...document.querySelectorAll("[id]")].map((one) => one.id);
    const twice = ids.filter((id, at) => ids.indexOf(id) !== at);
    const unnamed = [...document.querySelectorAll("svg[role=img]")].filter((one) => !one.querySelector("title")?.textContent);
    const mute = [...document.querySelectorAll("svg:not([role=img]):not([aria-hidden])")].filter((one) => !one.parentElement.closest("svg"));
    const broken = [...document.querySelectorAll("svg *")].filter((one) => [...one.attributes].some((a) => /NaN|undefined|Infinity/.test(a.value) && !["data-method", "data-y", "data-x", "aria-label"].includes(a.name)));
    const loose = [...document.querySelectorAll("td, dd, li, p, h1, h2, h3")].filter((one) => /\bundefined\b|\bNaN\b|\[object/.test(one.textContent) && !/undefined/.test(document.title + document.getElementById("data").textContent));
    return [...twice.map((id) => `id ${id} twice`), ...unnamed.map(() => "a picture without a title"), ...mute.map(() => "a picture without a role"),
      ...broken.map((one) => `broken ${one.outerHTML.slice(0, 120)}`), ...loose.map((one) => `text ${one.textContent.slice(0, 80)}`)];
  });
  must(!problems.length, problems.slice(0, 5).join("; "));
}

const background = (page) => page.evaluate(() => getComputedStyle(document.body).backgroundColor);

export async function theme(page) {
  const before = await background(page);
  const button = page.locator(".theme");
  await button.click();
  const after = await background(page);
  must(before !== after, `the background stays ${before}`);
  must(await button.textContent() === "Light colours", "the button does not name what it does next");
  await button.press("Enter");
  must(await background(page) === before, "the theme does not go back");
}

/** On paper everything is open, on white, without controls; on the screen it is then as it was. */
export async function print(page) {
  const state = () => page.evaluate(() => [...document.querySelectorAll("details")].map((one) => one.open));
  const before = await state();
  await page.emulateMedia({ media: "print" });
  await page.waitForFunction(() => [...document.querySelectorAll("details")].every((one) => one.open), null, { timeout: 20000 })
    .catch(() => { throw new Error("details stay closed in print"); });
  must(await background(page) === "rgb(255, 255, 255)", `paper is ${await background(page)}`);
  must(await page.locator("nav, .controls, .toggles").evaluateAll((all) => all.every((one) => !one.checkVisibility())), "controls are printed");
  const hidden = await page.locator("#report svg[role=img], #report .plain").evaluateAll((all) => all.filter((one) => !one.checkVisibility()).length);
  must(hidden === 0, `${hidden} charts or tables are not printed`);
  const cut = await page.evaluate(() => [...document.querySelectorAll(".plain, .bars")].filter((one) => one.getBoundingClientRect().right > innerWidth + 1).length);
  must(cut === 0, `${cut} tables are wider than the paper`);
  await page.emulateMedia({ media: "screen" });
  await page.waitForFunction((open) => [...document.querySelectorAll("details")].every((one, at) => one.open === open[at]), before, { timeout: 20000 })
    .catch(() => { throw new Error("details are not as they were before printing"); });
}

export async function noScript(page) {
  must((await page.locator("body").innerText()).includes("JavaScript"), "nothing is said to a reader without scripts");
}

const column = (page, title) => page.locator(".results thead th", { has: page.locator(`.column:text-is("${title}")`) });
const lastWord = (page) => page.locator(".results tbody tr").evaluateAll((all) => all.map((row) => row.dataset.at));
const number = (page) => page.locator(".results tbody tr").evaluateAll((all) => all.forEach((row, at) => { row.dataset.at = at; }));

/** Perplexities of the sample: 21.79, inf, 2e6, 9.5, nan, missing. Sizes in MiB: 93, 513, 1075, 9, 700, missing. */
export async function sorting(page, press) {
  await number(page);
  const head = column(page, "wikitext2");
  const button = head.locator("button");
  const expected = [["ascending", "3,0,2,1,4,5"], ["descending", "1,2,0,3,4,5"], ["none", "0,1,2,3,4,5"]];
  for (const [direction, order] of expected) {
    await press(button);
    must(await head.getAttribute("aria-sort") === direction, `aria-sort is ${await head.getAttribute("aria-sort")}, not ${direction}`);
    must((await lastWord(page)).join() === order, `${direction}: rows ${await lastWord(page)}, not ${order}`);
  }
  await press(column(page, "weights").locator("button"));
  must((await lastWord(page)).join() === "3,0,1,4,2,5", `by size: rows ${await lastWord(page)}`);
  must(await page.locator('.results [aria-sort="ascending"], .results [aria-sort="descending"]').count() === 1, "two columns claim to be sorted");
  must(await page.locator(".results tr.dense").count() === 1, "the dense row lost its mark");
}

/** More is better: the first click puts the best on top. */
export async function sortedByNumber(page) {
  const values = async (title) => {
    const at = await column(page, title).evaluate((th) => [...th.parentElement.children].indexOf(th));
    return page.locator(`.results tbody tr > :nth-child(${at + 1}) .value`).evaluateAll((all) => all.map((one) => parseFloat(one.textContent)));
  };
  await column(page, "arc_easy").locator("button").click();
  const found = await values("arc_easy");
  must(found.length === 162 && found.every((value, at) => at === 0 || value <= found[at - 1]), `arc_easy does not fall: ${found.slice(0, 5)}`);
  must(await page.locator(".results tr.dense").count() === 18, "dense rows lost their mark");
}

export async function markup(page, text) {
  must(await page.evaluate(() => window.broken) === undefined, "markup in a name was run");
  must(await page.locator("img, #report b:text-is('bold')").count() === 0, "markup in a name became elements");
  must((await page.locator("h1").textContent()).includes(text), "the title does not show the markup");
  must((await page.locator(".facts").textContent()).includes("bold</b>"), "a model's name does not show its markup");
}

export async function toggles(page) {
  const lines = page.locator("#ranking .line");
  const before = await lines.count();
  must(before === 7, `${before} lines, not 7`);
  const box = page.locator(".toggle input").nth(2);
  const name = await box.getAttribute("value");
  await box.focus();
  await page.keyboard.press("Space");
  must(await lines.count() === before - 1, "switching a method off does not hide its line");
  must(!(await lines.evaluateAll((all) => all.map((one) => one.dataset.method))).includes(name), "the wrong line is hidden");
  await page.keyboard.press("Space");
  must(await lines.count() === before, "the line does not come back");
  await page.getByRole("button", { name: "hide all" }).click();
  must(await lines.count() === 0, "hide all leaves lines");
  await page.getByRole("button", { name: "show all" }).click();
  must(await lines.count() === before, "show all does not show all");
  const text = await page.locator("#ranking svg[role=img] .label").allTextContents();
  must(text.length === before, "lines are not labelled directly");
  const dashes = await page.locator("#ranking .line .stroke").evaluateAll((all) => all.map((one) => one.getAttribute("stroke-dasharray")));
  must(new Set(dashes).size === before, "two lines have the same dashes");
}

export async function highlight(page) {
  const box = page.locator(".toggle input").nth(1);
  await box.focus();
  must(await page.locator("#ranking .line.lit").count() === 1, "focus does not light a line up");
  must(await page.locator("#ranking .line.lit .reading").first().isVisible(), "the lit line does not show its values");
  await page.locator("#ranking select").focus();
  must(await page.locator("#ranking .line.lit").count() === 0, "the line stays lit");
  await page.locator(".toggle").nth(3).hover();
  must(await page.locator("#ranking .line.lit").count() === 1, "hovering does not light a line up");
}

const points = (page) => page.locator("#tradeoffs .point").evaluateAll((all) => all.map((one) => ({ x: Number(one.dataset.x), y: Number(one.dataset.y), method: one.dataset.method })));
const chosen = (page, label) => page.locator("#tradeoffs label", { hasText: label }).locator("select");

export async function selections(page) {
  const before = await points(page);
  const title = () => page.locator("#tradeoffs svg[role=img] > title").textContent();
  must(before.length === 7, `${before.length} points, not 7`);
  for (const cost of ["compress-time", "evaluate-memory", "decode", "macs", "size"]) {
    const name = await title();
    await chosen(page, "Against").selectOption(cost);
    must(await title() !== name, `the picture stays "${name}" for ${cost}`);
    must(!same((await points(page)).map((p) => p.x), before.map((p) => p.x)) || cost === "size", `${cost} does not move points`);
  }
  await chosen(page, "Quality").selectOption("task:arc_easy");
  must(!same((await points(page)).map((p) => p.y), before.map((p) => p.y)), "another quality does not move points");
  const rows = await page.locator("#tradeoffs table tbody tr").count();
  must(rows === 7, `the table beside the plot has ${rows} rows`);
}

/** The front said in text is the one that the points' numbers give, whichever way is better. */
export async function front(page) {
  for (const [quality, cost, qUp, cUp] of [["om:OM_perf", "size", 1, -1], ["task:arc_easy", "decode", 1, 1], ["task:wikitext2:seqlen=2048", "evaluate-memory", -1, -1]]) {
    await chosen(page, "Quality").selectOption(quality);
    await chosen(page, "Against").selectOption(cost);
    const all = await points(page);
    const beaten = (p) => all.some((o) => o.y * qUp >= p.y * qUp && o.x * cUp >= p.x * cUp && (o.y !== p.y || o.x !== p.x));
    const expected = all.filter((p) => !beaten(p)).map((p) => p.method).sort();
    const table = await page.locator("#tradeoffs table tbody tr").evaluateAll((lines) => lines.filter((line) => line.lastElementChild.textContent === "yes").map((line) => line.firstElementChild.textContent));
    must(same(table.sort(), expected), `${quality} against ${cost}: front ${table}, not ${expected}`);
    const text = await page.locator("#tradeoffs [role=status]").textContent();
    must(expected.every((name) => text.includes(name)), `the text does not name ${expected}: ${text}`);
  }
}

export async function models(page) {
  must(await page.locator(".results tbody tr").count() === 162, "not all rows are shown at first");
  await page.locator("#results select").selectOption({ index: 3 });
  must(await page.locator(".results tbody tr").count() === 9, "selecting a model does not leave its rows");
  await chosen(page, "Quality").selectOption("task:arc_easy");
  must((await points(page)).length === 9, `${(await points(page)).length} points of one model, not 9`);
  await chosen(page, "Model").selectOption("");
  must((await points(page)).length === 162, "all models are not 162 points");
  await page.locator("#tasks select").selectOption({ index: 2 });
  must(await page.locator('#tasks tr[data-task="arc_easy"]').count() === 9, "bars are not of one model");
  await page.locator("#ranking select").selectOption({ index: 4 });
  must(await page.locator("#ranking .line").count() === 9, "lines are not of one model");
}

export async function interrupted(page) {
  const state = await page.locator(".state").textContent();
  for (const words of ["Interrupted", "SIGKILL", "1 failed", "skipped", "not reached", "needs gradients", "nowhere/none: no such file"]) must(state.includes(words), `the head does not say "${words}": ${state}`);
  const table = await page.locator(".results").textContent();
  must(table.includes("failed[1]") && table.includes("skipped[2]") && table.includes("…"), `cells do not say why they are empty: ${table}`);
  must((await page.locator("#results .legend").first().textContent()).includes("SIGKILL"), "the reason is not below the table");
}

export async function missing(page) {
  const row = await page.locator(".results tbody tr").last().locator("td").allTextContents();
  must(row[0].startsWith("–") && row[0].includes("not measured"), `a missing score reads "${row[0]}"`);
  must(!row.some((text) => /^0( |$|\.0)/.test(text)), `something missing reads as zero: ${row}`);
  const text = await page.locator("#tradeoffs [role=status]").textContent();
  must(text.includes("Not drawn"), "points that cannot be drawn are not named");
  const bars = await page.locator("#tasks article").first().textContent();
  must(bars.includes("inf") && bars.includes("nan") && bars.includes("not measured"), `bars do not say what is not finite: ${bars}`);
}

export async function beside(page) {
  const row = await page.locator('#tasks tr[data-task="arc_easy"]').nth(4).textContent();
  must(/right to wrong, \d+ wrong to right/.test(row) && /0\.\d{3}/.test(row), `flips and p are not beside the bar: ${row}`);
  const text = await page.locator('#tasks tr[data-task^="wikitext2"]').nth(1).textContent();
  must(/98\.3 %/.test(text) && /×1\.05/.test(text), `KL, agreement and ratio are not beside the bar: ${text}`);
  must(await page.locator("#tasks .interval").count() > 60, "bars have no intervals");
}

export async function seeds(page) {
  const heads = await page.locator(".results thead .column").allTextContents();
  must(heads.includes("seed"), `no column for the seed: ${heads}`);
  must((await page.locator("#tasks tbody th").allTextContents()).some((text) => text.includes("seed 2")), "bars do not name the seed");
}

export async function copy(page) {
  await page.locator("#settings summary", { hasText: "Suite" }).click();
  await page.getByRole("button", { name: "Copy the suite as JSON" }).click();
  await page.waitForTimeout(100);
  const [label, area] = [await page.locator("#settings .controls button").first().textContent(), page.locator("#settings textarea").first()];
  must(label === "Copied" || (await area.isVisible() && (await area.inputValue()).includes('"tasks"')), "the suite is neither copied nor shown");
}

export async function resize(page) {
  const wide = await page.locator("#tradeoffs svg[role=img]").getAttribute("width");
  await page.setViewportSize({ width: 375, height: 812 });
  await page.waitForFunction((before) => document.querySelector("#tradeoffs svg[role=img]").getAttribute("width") !== before, wide, { timeout: 2000 })
    .catch(() => { throw new Error("the plot keeps its width"); });
}
