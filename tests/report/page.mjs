// Puts the page together as the program does, and opens it as a reader would: from a file.

import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const folder = join(dirname(fileURLToPath(import.meta.url)), "../../host/src/report/html");
const read = (name) => readFileSync(join(folder, name), "utf8");

/** The page for some data. The order of the scripts is what the comment at the head of page.html says. */
export function page(data) {
  const template = read("page.html");
  const order = template.slice(0, template.indexOf("-->")).match(/script\/\w+\.js/g);
  const parts = {
    "/*STYLE*/": read("style.css"),
    "/*SCRIPT*/": order.map(read).join("\n"),
    "/*DATA*/": JSON.stringify(data).replaceAll("<", "\\u003c"),
  };
  return Object.entries(parts).reduce((text, [name, part]) => {
    if (text.split(name).length !== 2) throw new Error(`page.html must have ${name} exactly once`);
    return text.replace(name, () => part);
  }, template);
}

export function writePage(file, runs, title = "Report under test") {
  writeFileSync(file, page({ format: 1, generated_by: "llmcb-host 0.1.0", title, runs }));
  return file;
}
