// The report, what is chosen of it, and the numbers that follow from the choice.

const report = JSON.parse(byId("data").textContent);
const POOLED = -1;
const state = {
  view: 0,
  output: 0,
  measure: "standardized_rms",
  filter: "",
  sort: "standardized_rms",
  descending: true,
  open: new Set(),
  all: false,
};

const MEASURES = {
  standardized_rms: {
    name: "Strength (standardized rms)",
    head: "Strength",
    text: "Typical change when a feature moves by one of its standard deviations, as a share of the output’s standard deviation.",
  },
  standardized_mean_abs: {
    name: "Standardized mean size",
    head: "Mean size",
    text: "Average size of the change when a feature moves by one of its standard deviations, as a share of the output’s.",
  },
  standardized_mean: {
    name: "Standardized mean, with sign",
    head: "Mean",
    signed: true,
    text: "Average change when a feature grows by one of its standard deviations, as a share of the output’s. Opposite effects cancel.",
  },
  total_index_bound: {
    name: "Share of variance, at most",
    head: "At most",
    text: "Upper bound on the share of the output’s variance that a feature has a part in, for inputs that vary independently.",
  },
  positive: {
    name: "Share of examples with a rise",
    head: "Positive",
    text: "Share of the examples at which the output rises with the feature.",
  },
  mean: {
    name: "Mean per unit, with sign",
    head: "Mean",
    signed: true,
    text: "Average change of the output per unit of the feature. Features of different units do not compare.",
  },
  mean_abs: {
    name: "Mean size per unit",
    head: "Mean size",
    text: "Average size of the change per unit of the feature. Features of different units do not compare.",
  },
  rms: {
    name: "Rms per unit",
    head: "Rms",
    text: "Typical change of the output per unit of the feature. Features of different units do not compare.",
  },
  elasticity: {
    name: "Elasticity, with sign",
    head: "Elasticity",
    signed: true,
    text: "By how many percent the output changes when the feature grows by one percent, on average.",
  },
  dgsm: { head: "Mean square" },
  q05: { head: "5 %" },
  q25: { head: "25 %" },
  q50: { head: "Median" },
  q75: { head: "75 %" },
  q95: { head: "95 %" },
};

const NOTHING = { v: [], l: [], h: [] };

function bars(triple, o) {
  const [v, l, h] = triple;
  return { v: v[o] || [], l: (l && l[o]) || [], h: (h && h[o]) || [] };
}

// The column of a measure: arrays of values, low and high ends, one entry a feature.
function column(measure, view = state.view, output = state.output) {
  const part = report.views[view];
  const source = output === POOLED ? part.pooled[measure] : part.measures[measure];
  return source ? bars(source, output === POOLED ? 0 : output) : NOTHING;
}

function available(measure) {
  return column(measure).v.length > 0;
}

function at(triple, k) {
  return { v: triple.v[k], l: triple.l[k], h: triple.h[k] };
}

function direction(k) {
  return state.output === POOLED ? null : report.views[state.view].directions[state.output][k];
}

// For parts of the page that slices do not have.
function ofWhole() {
  return state.view ? " Of all examples, not of the slice chosen above." : "";
}

function histogram(k, output = state.output) {
  return output === POOLED ? null : report.views[state.view].histograms[output][k];
}

function outputName() {
  return state.output === POOLED ? "the outputs" : report.outputs[state.output];
}

// Features whose names hold every word of the filter.
function found() {
  const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
  return report.features
    .map((_, k) => k)
    .filter((k) => {
      const name = report.features[k].toLowerCase();
      return words.every((word) => name.includes(word));
    });
}

// Indices in the order of `key`, unknown values last whichever way it goes.
function ordered(indices, key, descending) {
  return indices.slice().sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    const [gone, away] = [x === undefined || x === null, y === undefined || y === null];
    if (gone || away) return gone - away || a - b;
    const order = typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y;
    return (descending ? -order : order) || a - b;
  });
}

// Several outputs as one: the root of the mean square of their values, without an interval.
function together(triple) {
  const v = triple[0][0].map((_, k) => {
    const values = triple[0].map((row) => row[k]).filter(known);
    return values.length
      ? Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length)
      : null;
  });
  return { v, l: [], h: [] };
}

function ofOutput(triple) {
  return state.output === POOLED ? together(triple) : bars(triple, state.output);
}
