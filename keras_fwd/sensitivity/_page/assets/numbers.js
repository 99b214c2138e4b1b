// Numbers as text, and round steps for axes.

const known = (value) => typeof value === "number";

function minus(text) {
  return text.replace("-", "−");
}

// Three significant digits, without an exponent where that reads well.
function number(value) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-4 || size >= 1e6) return minus(value.toExponential(2));
  return minus(value.toFixed(Math.max(0, 2 - Math.floor(Math.log10(size)))));
}

// A value and the ends of its interval with matching decimals: [value, low, high].
function interval(value, low, high) {
  const error = (high - low) / 2;
  if (!known(low) || !known(high)) return [number(value), "", ""];
  if (!(error >= 1e-5 && error < 1e3 && error > 1e-4 * Math.abs(value)))
    return [value, low, high].map(number);
  const decimals = Math.max(0, 1 - Math.floor(Math.log10(error)));
  return [value, low, high].map((x) => minus(x.toFixed(decimals)).replace(/^−(0\.?0*)$/, "$1"));
}

function percent(share) {
  if (!known(share)) return "–";
  const text = (100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0).replace(/\.0$/, "");
  if (share > 0 && text === "0") return "< 0.1 %";
  return `${share < 1 && text === "100" ? "> 99" : text} %`;
}

function count(n, noun) {
  return `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
}

// Multiples of a round step that cover low to high: about `most` of them.
function ticks(low, high, most) {
  if (!(high > low)) return low === 0 ? [0, 1] : [Math.min(0, low), Math.max(0, low)];
  const raw = (high - low) / most;
  const power = Math.pow(10, Math.floor(Math.log10(raw)));
  const step = power * [1, 2, 5, 10].find((m) => raw <= m * power * 1.000001);
  const first = Math.floor(low / step + 1e-9);
  const last = Math.ceil(high / step - 1e-9);
  return Array.from({ length: last - first + 1 }, (_, k) => (first + k) * step);
}

function tickText(value) {
  return minus(Number(value.toPrecision(6)).toString());
}

// A list in a sentence, only the first of many: nodes.
function listed(nodes, limit) {
  const shown = nodes.slice(0, limit);
  const more = nodes.length - shown.length;
  const parts = more ? [...shown, `${more} more`] : shown;
  return parts.flatMap((part, k) =>
    k === 0 ? [part] : [k === parts.length - 1 ? " and " : ", ", part],
  );
}
