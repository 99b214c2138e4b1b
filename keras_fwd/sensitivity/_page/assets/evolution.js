// How strengths changed from epoch to epoch.

let brought = null; // the line brought forward

function evolutionSeries() {
  const { lines, features } = report.evolution;
  const [v, l, h] = lines;
  if (state.output !== POOLED) {
    return features.map((name, k) => ({
      name,
      y: v[state.output][k],
      low: l[state.output][k],
      high: h[state.output][k],
    }));
  }
  return features.map((name, k) => ({ name, y: together([v.map((rows) => rows[k])]).v }));
}

function evolutionTable(series) {
  const { epochs, examples } = report.evolution;
  const heads = ["Epoch", "Examples"].map((text) => el("th", { scope: "col" }, text));
  const names = series.map((line) => el("th", { scope: "col" }, named(line.name, 40)));
  const rows = epochs.map((epoch, t) =>
    el(
      "tr",
      {},
      el("th", { scope: "row" }, String(epoch)),
      el("td", {}, examples[t].toLocaleString("en")),
      series.map((line) => {
        const [value, low, high] = interval(
          line.y[t],
          line.low && line.low[t],
          line.high && line.high[t],
        );
        return el("td", {}, value, low ? el("small", {}, `${low} to ${high}`) : "");
      }),
    ),
  );
  const table = el("table", {}, el("thead", {}, el("tr", {}, heads, names)), el("tbody", {}, rows));
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": "Strengths over the epochs" },
    table,
  );
}

function drawEvolution() {
  if (!report.evolution) return;
  const { epochs } = report.evolution;
  const series = evolutionSeries();
  const place = byId("evolution-plot");
  const wasOpen = place.querySelector("details[open]") !== null;
  const box = el("div", {});
  const numbers = el(
    "details",
    { open: wasOpen },
    el("summary", {}, "As a table"),
    evolutionTable(series),
  );
  const pick = (n) => {
    brought = n;
    const focused = [...place.querySelectorAll(".legend button")].indexOf(document.activeElement);
    drawEvolution();
    if (focused >= 0) place.querySelectorAll(".legend button")[focused].focus();
  };
  place.replaceChildren(el("figure", {}, box), legend(series, brought, pick), numbers);
  const label = `Strength of ${count(series.length, "feature")} over the epochs ${epochs[0]} to ${epochs[epochs.length - 1]}; the table below has the numbers`;
  linePicture(box, epochs, series, { label, below: "epoch", only: brought });
  const bands = state.output === POOLED ? "" : ` The bands are ${report.confidence} % intervals.`;
  byId("evolution-text").textContent =
    `Strength (standardized rms) for ${outputName()} after each epoch, over all examples measured.${bands}${report.total > series.length ? ` Drawn are the ${series.length} features that are strongest at the end.` : ""} A name brings its line forward.`;
}
