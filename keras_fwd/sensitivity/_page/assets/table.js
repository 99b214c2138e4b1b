// The table of all numbers: sorted by any column.

// [heading of a group of columns, [key, …]]; a key may be a measure.
const COLUMNS = [
  ["", ["name"]],
  ["Standardized, no unit", ["standardized_rms", "standardized_mean_abs", "standardized_mean"]],
  ["Derivative", ["direction", "histogram", "positive"]],
  ["Share of variance", ["total_index_bound"]],
  ["Per unit of the feature", ["mean", "mean_abs", "rms", "dgsm"]],
  ["Relative", ["elasticity"]],
  ["Quantiles, per unit of the feature", ["q05", "q25", "q50", "q75", "q95"]],
  ["Feature", ["center", "spread"]],
];
const OWN = {
  name: { head: "Feature", key: (k) => report.features[k] },
  direction: {
    head: "Direction",
    key: (k) => {
      const d = direction(k);
      return d && `${1 - d[0]} ${d[1]}`;
    },
  },
  histogram: { head: "Distribution" },
  center: { head: "Mean", key: (k) => report.views[state.view].means[k] },
  spread: { head: "Std. dev.", key: (k) => report.views[state.view].spreads[k] },
};

function shownColumns() {
  return COLUMNS.map(([group, keys]) => [
    group,
    keys.filter((key) =>
      key === "direction" || key === "histogram"
        ? state.output !== POOLED
        : OWN[key] || available(key),
    ),
  ]).filter(([, keys]) => keys.length);
}

function sortKey(key) {
  if (OWN[key]) return OWN[key].key;
  const values = column(key).v;
  return (k) => values[k];
}

function headCell(key, first) {
  const { head } = OWN[key] || MEASURES[key];
  const sorted = state.sort === key;
  const content =
    key === "histogram"
      ? head
      : el("button", { type: "button", "data-key": key, on: { click: () => sortBy(key) } }, head);
  return el(
    "th",
    {
      scope: "col",
      class: `${first ? "first" : ""} ${key === "direction" ? "text" : ""}`,
      "aria-sort": sorted ? (state.descending ? "descending" : "ascending") : null,
    },
    content,
  );
}

function head(columns) {
  const over = columns.map(([group, keys], g) =>
    el("th", { scope: "colgroup", colspan: keys.length, class: g ? "span first" : "span" }, group),
  );
  if (columns[0][0] === "") over[0] = el("td", { class: "corner" });
  const cells = columns.flatMap(([, keys], g) =>
    keys.map((key, n) => headCell(key, g > 0 && n === 0)),
  );
  return el("thead", {}, el("tr", {}, over), el("tr", {}, cells));
}

// A picture the size of a word.
function spark(k) {
  const content = histogram(k);
  if (!content) return "–";
  const [low, high, counts] = content;
  const most = Math.max(...counts);
  const place = (x) => (72 * (x - low)) / (high - low || 1);
  const label = `from ${number(low)} to ${number(high)}`;
  const picture = svg(
    "svg",
    { width: 72, height: 24, viewBox: "0 0 72 24", role: "img", "aria-label": label },
    svg("title", {}, label),
  );
  const steps = counts.map((n, i) => `L${3 * i} ${24 - (22 * n) / most}h3`).join("");
  if (high > low) picture.append(svg("path", { class: "bin-none", d: `M0 24${steps}V24Z` }));
  else picture.append(svg("rect", { class: "bin-none", x: 34, y: 2, width: 3, height: 22 }));
  if (low < 0 && high > 0)
    picture.append(svg("line", { class: "mean-rule", x1: place(0), x2: place(0), y1: 0, y2: 24 }));
  return picture;
}

function cell(key, k, columns, first) {
  const kind = first ? "first" : null;
  if (key === "name")
    return el(
      "th",
      { scope: "row", title: report.features[k] },
      named(report.features[k], 400),
      badge(report.switches[k]) ? " " : "",
      badge(report.switches[k]),
    );
  if (key === "direction")
    return el("td", { class: `text ${kind || ""}` }, mark(direction(k)[0]), ` ${direction(k)[1]}`);
  if (key === "histogram") return el("td", { class: kind }, spark(k));
  if (OWN[key]) return el("td", { class: kind }, number(OWN[key].key(k)));
  const [value, ends] = valueText(at(columns[key], k), key);
  return el("td", { class: kind }, value, ends ? el("small", {}, `${ends[0]} to ${ends[1]}`) : "");
}

function sortBy(key) {
  state.descending = state.sort === key ? !state.descending : key !== "name";
  state.sort = key;
  drawTable();
  byId("table").querySelector(`button[data-key="${key}"]`).focus();
  byId("status").textContent =
    `Sorted by ${(OWN[key] || MEASURES[key]).head}, ${state.descending ? "descending" : "ascending"}.`;
}

function drawTable() {
  const columns = shownColumns();
  const keys = columns.flatMap(([, part]) => part);
  if (!keys.includes(state.sort))
    Object.assign(state, { sort: "standardized_rms", descending: true });
  const starts = new Set(columns.slice(1).map(([, part]) => part[0]));
  const values = Object.fromEntries(
    keys.filter((key) => !OWN[key]).map((key) => [key, column(key)]),
  );
  const rows = ordered(found(), sortKey(state.sort), state.descending);
  const body = rows.map((k) =>
    el(
      "tr",
      {},
      keys.map((key) => cell(key, k, values, starts.has(key))),
    ),
  );
  if (!rows.length)
    body.push(
      el(
        "tr",
        {},
        el("td", { class: "text", colspan: keys.length }, "No feature has this in its name."),
      ),
    );
  const caption = el(
    "caption",
    { class: "hidden-text" },
    `Sensitivity of ${outputName()}, ${report.views[state.view].label}`,
  );
  byId("table").replaceChildren(caption, head(columns), el("tbody", {}, body));
  byId("all-text").textContent =
    `For ${outputName()}${state.view ? `, ${report.views[state.view].label}` : ""}. Below a figure stands its ${report.confidence} % interval. The headings sort.`;
}
