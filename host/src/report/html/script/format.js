// Quantities as people read them, by the rules of the terminal's table (report/numbers.rs).

/** A number of the result file: JSON has no infinities, so these are written as words. Absent is null. */
function real(value) {
  if (typeof value === "number") return value;
  return { inf: Infinity, "-inf": -Infinity, nan: NaN }[value] ?? null;
}

function threeDigits(value) {
  const size = Math.abs(value);
  return value.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let unit = 0;
  // 999.5 would be written as 1000.
  while (value >= 999.5 && unit + 1 < units.length) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${count} B` : `${threeDigits(value)} ${units[unit]}`;
}

function seconds(value) {
  if (!Number.isFinite(value) || value < 0) return "?";
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  const two = (n) => String(n).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${two(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${two(Math.floor((whole % 3600) / 60))} min`;
}

/** Latencies are far below a second. */
function milliseconds(value) {
  return value >= 9.995 ? seconds(value) : `${threeDigits(value * 1000)} ms`;
}

function count(value) {
  if (value < 999.5) return String(value);
  for (const [size, suffix] of [[1e3, "K"], [1e6, "M"], [1e9, "B"]]) {
    if (value < 999.5 * size) return threeDigits(value / size) + suffix;
  }
  return `${threeDigits(value / 1e12)}T`;
}

function score(value) {
  if (Number.isNaN(value)) return "nan";
  if (!Number.isFinite(value)) return value > 0 ? "inf" : "-inf";
  const size = Math.abs(value);
  if (size < 2) return value.toFixed(3);
  if (size < 1e3) return value.toFixed(2);
  return size < 1e6 ? value.toFixed(0) : value.toExponential(2).replace("e+", "e");
}

function decimalsOf(text) {
  return text.includes("e") ? 0 : (text.split(".")[1] ?? "").length;
}

/** The standard error with the decimals of its score, or null. */
function errorText(value, stderr) {
  const shown = score(value);
  if (!Number.isFinite(stderr ?? NaN) || !Number.isFinite(value) || shown.includes("e")) return null;
  return `±${stderr.toFixed(decimalsOf(shown))}`;
}

function scoreAndError(value, stderr) {
  return [score(value), errorText(value, stderr)].filter(Boolean).join(" ");
}

/** A difference with its sign, which is never a hyphen. */
function signed(value, decimals = 3) {
  if (!Number.isFinite(value)) return score(value);
  const text = Math.abs(value).toFixed(decimals);
  if (Number(text) === 0) return `±${text}`;
  return (value < 0 ? "−" : "+") + text;
}

function rate(value) {
  return threeDigits(value);
}

/** How many times the dense model's. */
function times(value) {
  return `×${threeDigits(value)}`;
}

function instant(unix) {
  if (!Number.isFinite(unix) || unix <= 0) return "not recorded";
  return `${new Date(unix * 1000).toISOString().slice(0, 16).replace("T", " ")} UTC`;
}

function plural(n, one, many = `${one}s`) {
  return `${n} ${n === 1 ? one : many}`;
}

function listed(words) {
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} and ${words[words.length - 1]}`;
}
