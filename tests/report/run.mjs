// Does the HTML report do what a reader needs? Opens pages made of real and made-up runs in a headless Chromium.
//   node tests/report/run.mjs [--browser PATH] [--modules FOLDER] [--shots FOLDER] [RUN.json ...]

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import * as checks from "./checks.mjs";
import { writePage } from "./page.mjs";
import * as samples from "./samples.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const given = { browser: "/usr/bin/chromium", modules: join(root, "target/report"), shots: null, files: [] };
for (let at = 2; at < process.argv.length; at += 1) {
  const flag = process.argv[at].match(/^--(browser|modules|shots)$/)?.[1];
  if (flag) given[flag] = process.argv[at += 1];
  else given.files.push(process.argv[at]);
}

const { chromium } = createRequire(join(resolve(given.modules), "package.json"))("playwright-core");
const folder = mkdtempSync(join(tmpdir(), "report-"));
// A browser's sandbox does not start as the superuser, which is what containers of tests run as.
const browser = await chromium.launch({ executablePath: given.browser, args: process.getuid?.() === 0 ? ["--no-sandbox"] : [] });
let failures = 0;
let passed = 0;

/** A page of its own that notes what it says and what it asks for. */
async function open(file, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1440, height: 900 }, colorScheme: "light", ...options });
  const page = await context.newPage();
  const noise = [];
  const address = pathToFileURL(file).href;
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) noise.push(`console: ${message.text()}`); });
  page.on("pageerror", (error) => noise.push(`error: ${error.message}`));
  page.on("request", (request) => { if (request.url().split("#")[0] !== address && !request.url().startsWith("data:")) noise.push(`request: ${request.url()}`); });
  await page.goto(address);
  // Charts are drawn once their width is known.
  if (options.javaScriptEnabled !== false) await page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  return { page, noise, context };
}

async function check(name, file, test, options) {
  const { page, noise, context } = await open(file, options);
  try {
    await test(page);
    if (noise.length) throw new Error(noise.join("; "));
    passed += 1;
  } catch (error) {
    failures += 1;
    console.error(`FAILED ${name}: ${error.message}`);
  }
  await context.close();
}

const pages = {
  everything: [samples.everything()],
  interrupted: [samples.interrupted()],
  awkward: [samples.awkward()],
  seeds: [samples.seeds()],
  large: [samples.large()],
  merged: [samples.everything(), samples.interrupted()],
  empty: [samples.empty()],
};
given.files.forEach((file, at) => { pages[`given-${at + 1}`] = [JSON.parse(readFileSync(file, "utf8"))]; });

const files = Object.fromEntries(Object.entries(pages).map(([name, runs]) =>
  [name, writePage(join(folder, `${name}.html`), runs, name === "awkward" ? `Report of ${samples.MARKUP}` : `Report: ${name}`)]));

const NARROW = { viewport: { width: 375, height: 812 } };
// A4 at 96 dots an inch less its margins.
const PAPER = { width: 690, height: 980 };
const WIDE = { viewport: { width: 1600, height: 1000 } };
for (const [name, file] of Object.entries(files)) {
  await check(`${name}: keyboard and names`, file, checks.reachable);
  await check(`${name}: contrast`, file, checks.contrast);
  await check(`${name}: contrast in the dark`, file, checks.contrast, { colorScheme: "dark" });
  await check(`${name}: fits 375 px`, file, checks.noSidewaysScroll, NARROW);
  await check(`${name}: fits 1600 px`, file, checks.noSidewaysScroll, WIDE);
  await check(`${name}: pictures have names, elements have ids of their own`, file, checks.wellFormed);
  await check(`${name}: theme`, file, checks.theme);
  await check(`${name}: print`, file, checks.print, { colorScheme: "dark", viewport: PAPER });
  await check(`${name}: without scripts`, file, checks.noScript, { javaScriptEnabled: false });
}
await check("sorting by click", files.awkward, (page) => checks.sorting(page, (button) => button.click()));
await check("sorting by keyboard", files.awkward, (page) => checks.sorting(page, async (button) => {
  await button.focus();
  await page.keyboard.press("Enter");
}));
await check("sorting in several columns", files.large, checks.sortedByNumber);
await check("markup in names is text", files.awkward, (page) => checks.markup(page, samples.MARKUP));
await check("toggles hide lines", files.everything, checks.toggles);
await check("lines light up", files.everything, checks.highlight);
await check("selections redraw the plot", files.everything, checks.selections);
await check("the front is the front", files.everything, checks.front);
await check("models are selected", files.large, checks.models);
await check("an interrupted run says so", files.interrupted, checks.interrupted);
await check("nothing missing is shown as zero", files.awkward, checks.missing);
await check("comparison beside the bars", files.everything, checks.beside);
await check("seeds and runs name their rows", files.seeds, checks.seeds);
await check("the suite can be copied", files.everything, checks.copy);
await check("a narrow window is drawn anew", files.everything, checks.resize);

if (given.shots) {
  mkdirSync(given.shots, { recursive: true });
  const looks = { light: {}, dark: { colorScheme: "dark" }, 375: NARROW, 1600: WIDE };
  for (const [name, file] of Object.entries(files)) {
    for (const [look, options] of Object.entries(looks)) {
      const { page, context } = await open(file, options);
      await page.screenshot({ path: join(given.shots, `${name}-${look}.png`), fullPage: true });
      if (look === "light") await page.pdf({ path: join(given.shots, `${name}-print.pdf`), format: "A4", printBackground: true });
      await context.close();
    }
    const { page, context } = await open(file, { viewport: PAPER });
    await page.emulateMedia({ media: "print" });
    await page.screenshot({ path: join(given.shots, `${name}-print.png`), fullPage: true });
    await context.close();
  }
}

await browser.close();
rmSync(folder, { recursive: true });
console.log(`${passed} checks passed, ${failures} failed`);
process.exitCode = failures ? 1 : 0;
