// What follows from the numbers, in a few sentences.

function sentence(kind, ...parts) {
  return el("p", { class: kind }, ...parts);
}

function theOutput() {
  return state.output === POOLED ? "the outputs" : named(outputName(), 60);
}

function leadSentence(k, strength) {
  const [value, low, high] = interval(strength.v[k], strength.l[k], strength.h[k]);
  const many = state.output === POOLED;
  const sure = low ? ` (${report.confidence}\u00a0% interval ${low} to ${high})` : "";
  const slice = state.view
    ? ["In the slice ", named(report.views[state.view].label, 60), ", "]
    : [];
  const effect = report.switches[k]
    ? [` most: its strength is ${value}`]
    : [
        " most. When it moves by one of its standard deviations, ",
        theOutput(),
        ` typically ${many ? "move" : "moves"} by ${value} of ${many ? "theirs" : "its own"}`,
      ];
  return sentence(
    "lead",
    slice,
    named(report.features[k], 60),
    " drives ",
    theOutput(),
    effect,
    `${sure}.`,
  );
}

// Whether the first place is settled: which other intervals reach that of the first.
function rivalSentence(order, strength) {
  const [first, ...others] = order;
  if (!known(strength.l[first]) || !others.length) return null;
  const names = (indices) => indices.map((k) => named(report.features[k], 40));
  const near = others.filter((k) => known(strength.h[k]) && strength.h[k] >= strength.l[first]);
  if (near.length) {
    return sentence(
      null,
      `The first place is not settled: the ${near.length === 1 ? "interval" : "intervals"} of `,
      listed(names(near), 3),
      near.length === 1 ? " reaches into that of the first." : " reach into that of the first.",
    );
  }
  const next = others.slice(0, 2);
  return sentence(
    null,
    "The first place is clear: no other feature’s interval reaches it. Next ",
    next.length > 1 ? "come " : "comes ",
    listed(names(next), 2),
    ` (${next.map((k) => number(strength.v[k])).join(" and ")}).`,
  );
}

function signSentence(k) {
  const [sign, words] = direction(k) || [0, "no effect"];
  const share = column("positive").v[k];
  if (!known(share) || words === "no effect") return null;
  const verb = words.split(" ")[0];
  const often = words.includes("average") ? " on average" : "";
  const some = `${sign < 0 ? "only " : ""}${percent(share)} of the examples.`;
  const rise = share === 0 ? "none of the examples." : share === 1 ? "all examples." : some;
  if (sign === 0) {
    const how = report.switches[k] ? " rises with the switch in " : " rises with it in ";
    return sentence(null, "On average it shows no clear direction: ", theOutput(), how, rise);
  }
  if (report.switches[k]) {
    return sentence(
      null,
      "The switch ",
      mark(sign),
      ` ${verb} `,
      theOutput(),
      often,
      `: it rises in ${rise}`,
    );
  }
  return sentence(
    null,
    "A higher value ",
    mark(sign),
    ` ${verb} `,
    theOutput(),
    often,
    `: both rise together in ${rise}`,
  );
}

function littleSentence() {
  const counts = report.views[state.view].little;
  const n = counts[state.output === POOLED ? counts.length - 1 : state.output];
  if (!n) return null;
  const who =
    n === report.total
      ? `All ${count(n, "feature")}`
      : `${n.toLocaleString("en")} of ${count(report.total, "feature")}`;
  return sentence(
    "soft",
    `${who} hardly ${n === 1 ? "matters" : "matter"}: with ${report.confidence} % confidence `,
    `${n === 1 ? "it has" : "each has"} a part in less than ${percent(report.little)} of the variance of `,
    theOutput(),
    ", if the features vary independently.",
  );
}

// No strength is above zero: either nothing has an effect, or nothing varies.
function withoutStrength() {
  const sizes = column("mean_abs").v;
  if (sizes.length && sizes.every((size) => size === 0)) {
    return sentence("lead", "No feature moves ", theOutput(), " on these examples.");
  }
  return sentence(
    "lead",
    "Strengths cannot be compared: the features, or ",
    theOutput(),
    ", do not vary over these examples. The measures per unit hold.",
  );
}

function drawSummary() {
  const strength = column("standardized_rms");
  const every = report.features.map((_, k) => k).filter((k) => known(strength.v[k]));
  const order = ordered(every, (k) => strength.v[k], true);
  const first = order[0];
  const parts =
    order.length && strength.v[first] > 0
      ? [
          leadSentence(first, strength),
          signSentence(first),
          rivalSentence(order, strength),
          littleSentence(),
        ]
      : [withoutStrength()];
  const notes = report.views[state.view].notes.map((note) => sentence("soft", note));
  byId("short").replaceChildren(...parts.filter(Boolean), ...notes);
}
