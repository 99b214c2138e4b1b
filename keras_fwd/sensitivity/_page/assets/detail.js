// What an opened row shows: the distribution of the derivative, its numbers, the slices.

const PLOT = { height: 150, base: 122 };

function histogramPicture(low, high, counts, mean, name) {
  const { height, base } = PLOT;
  const width = innerWidth < 752 ? 300 : 520; // so that its text is about as large as the page's
  const marks = ticks(low, high, 4).filter((x) => x >= low && x <= high);
  const place = (x) => (width * (x - low)) / (high - low);
  const most = Math.max(...counts);
  const step = (high - low) / counts.length;
  const picture = svg("svg", {
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": `Histogram of the derivative for ${name}, from ${number(low)} to ${number(high)}`,
  });
  counts.forEach((n, k) => {
    const middle = low + (k + 0.5) * step;
    const tall = (100 * n) / most;
    const kind = Math.abs(middle) < step / 2 ? "none" : middle > 0 ? "up" : "down";
    picture.append(
      svg("rect", {
        class: `bin-${kind}`,
        x: (k * width) / counts.length + 0.75,
        y: base - tall,
        width: width / counts.length - 1.5,
        height: tall,
      }),
    );
  });
  picture.append(svg("line", { class: "rule", x1: 0, x2: width, y1: base, y2: base }));
  if (low < 0 && high > 0)
    picture.append(svg("line", { class: "rule", x1: place(0), x2: place(0), y1: 8, y2: base }));
  for (const x of marks) {
    picture.append(
      svg(
        "text",
        {
          x: place(x),
          y: base + 17,
          "text-anchor": place(x) < 20 ? "start" : place(x) > width - 20 ? "end" : "middle",
        },
        tickText(x),
      ),
    );
  }
  if (known(mean) && mean >= low && mean <= high) {
    const right = place(mean) < width - 110;
    picture.append(
      svg("line", { class: "mean-rule", x1: place(mean), x2: place(mean), y1: 8, y2: base }),
    );
    picture.append(
      svg(
        "text",
        { x: place(mean) + (right ? 5 : -5), y: 14, "text-anchor": right ? "start" : "end" },
        `mean ${number(mean)}`,
      ),
    );
  }
  return picture;
}

function distribution(k) {
  const content = histogram(k);
  const noun = report.switches[k] ? "effect of the switch" : "derivative";
  if (!content) return el("p", {}, `There is no sample of the ${noun}.`);
  const [low, high, counts] = content;
  const whole = (name) => column(name).v[k];
  if (!(high > low))
    return el("p", {}, `The ${noun} is the same at every example: ${number(low)}.`);
  const sentence = known(whole("q05"))
    ? ` Nine tenths of the examples lie between ${number(whole("q05"))} and ${number(whole("q95"))}, half of them between ${number(whole("q25"))} and ${number(whole("q75"))}.`
    : "";
  const share = whole("positive");
  return [
    histogramPicture(low, high, counts, whole("mean"), report.features[k]),
    el(
      "p",
      { class: "soft" },
      known(share) ? `Positive in ${percent(share)} of the examples.` : "",
      sentence,
    ),
  ];
}

const FACTS = [
  ["standardized_rms", "strength"],
  ["standardized_mean", "standardized mean"],
  ["mean", "mean, per unit"],
  ["mean_abs", "mean size, per unit"],
  ["rms", "rms, per unit"],
  ["elasticity", "elasticity"],
  ["positive", "positive in"],
  ["total_index_bound", "share of variance, at most"],
];

function facts(k) {
  const entries = FACTS.filter(([key]) => available(key)).flatMap(([key, words]) => {
    const [value, ends] = valueText(at(column(key), k), key);
    return [
      el("dt", {}, words),
      el("dd", {}, value, ends ? el("small", {}, ` ${ends[0]} to ${ends[1]}`) : ""),
    ];
  });
  const feature = [
    el("dt", {}, "feature’s mean"),
    el("dd", {}, number(report.views[state.view].means[k])),
    el("dt", {}, "feature’s std. dev."),
    el("dd", {}, number(report.views[state.view].spreads[k])),
  ];
  return el("dl", { class: "facts" }, entries, report.switches[k] ? [] : feature);
}

function compared(heading, rows, text) {
  if (rows.length < 2 || !rows.some((row) => known(row.v))) return null;
  return el(
    "div",
    { class: "compare" },
    el("h3", {}, heading),
    text ? el("p", { class: "soft" }, text) : null,
    barList(rows, { label: heading, measure: state.measure, static: true }),
  );
}

function slicesOf(k) {
  if (report.views.length < 2) return null;
  const rows = report.views.map((view, v) => {
    const [sign, words] = state.output === POOLED ? [0, ""] : view.directions[state.output][k];
    return {
      ...at(column(state.measure, v), k),
      sign,
      words,
      label: el(
        "span",
        {},
        named(view.label, 60),
        el("small", {}, ` ${count(view.examples, "example")}`),
      ),
    };
  });
  const own = state.measure.startsWith("standardized")
    ? "By the spreads of feature and output within each slice; those per unit compare as they are."
    : "";
  return compared("In slices of the data", rows, own);
}

function outputsOf(k) {
  if (report.outputs.length < 2) return null;
  const rows = report.outputs.map((name, o) => {
    const [sign, words] = report.views[state.view].directions[o][k];
    return { ...at(column(state.measure, state.view, o), k), sign, words, name };
  });
  return compared("For each output", rows.slice(0, 30));
}

function detail(k, id) {
  const name = report.features[k];
  const noun = report.switches[k]
    ? "Effect of the switch over the examples"
    : "Distribution of the derivative over the examples";
  const long = name.length > 60 ? el("p", {}, named(name)) : null;
  const left =
    state.output === POOLED
      ? el("p", { class: "soft" }, "Choose one output to see the distribution of its derivative.")
      : el("div", {}, el("h3", {}, noun), distribution(k));
  return el(
    "div",
    { class: "detail", id, role: "group", "aria-label": `More on ${name}` },
    long,
    el("div", { class: "pair" }, left, facts(k)),
    slicesOf(k),
    outputsOf(k),
  );
}
