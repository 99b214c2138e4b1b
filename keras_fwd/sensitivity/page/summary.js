// What follows from the numbers, in a few sentences.

function leadSentence(k, strength) {
  const [value, low, high] = interval(strength.v[k], strength.l[k], strength.h[k]);
  const output = state.output === POOLED ? "the outputs" : named(outputName(), 60);
  const many = state.output === POOLED;
  const sure = low ? ` (${report.confidence} % interval ${low} to ${high})` : "";
  const doing = report.switches[k]
    ? [
        " The switch from its first value to the second typically moves ",
        many ? "them" : "it",
        ` by ${value} of ${many ? "their" : "its"} own standard deviation${sure}.`,
      ]
    : [
        " One standard deviation of it typically moves ",
        many ? "them" : "it",
        ` by ${value} of ${many ? "their" : "its"} own standard deviation${sure}.`,
      ];
  return el(
    "p",
    { class: "lead" },
    named(report.features[k], 60),
    " drives ",
    output,
    " most.",
    doing,
  );
}

// Whether the first place is settled: which other intervals reach that of the first.
function rivals(order, strength) {
  const [first, ...others] = order;
  if (!known(strength.l[first]) || !others.length) return null;
  const near = others.filter((k) => known(strength.h[k]) && strength.h[k] >= strength.l[first]);
  if (!near.length) {
    const second = others[0];
    return el(
      "p",
      {},
      "The first place is clear: no other feature’s interval reaches it. Next ",
      others.length > 1 ? "come " : "comes ",
      listed(
        others.slice(0, 2).map((k) => named(report.features[k], 40)),
        2,
      ),
      ` (${number(strength.v[second])}${others.length > 1 ? ` and ${number(strength.v[others[1]])}` : ""}).`,
    );
  }
  return el(
    "p",
    {},
    "The first place is not settled: the ",
    near.length === 1 ? "interval of " : "intervals of ",
    listed(
      near.map((k) => named(report.features[k], 40)),
      3,
    ),
    near.length === 1 ? " reaches" : " reach",
    " into that of the first.",
  );
}

function signSentence(k) {
  const found = direction(k);
  const share = column("positive").v[k];
  if (!found || !known(share) || found[1] === "no effect") return null;
  const output = named(outputName(), 60);
  if (report.switches[k])
    return el(
      "p",
      {},
      "The switch ",
      found[0] ? found[1] : "has no clear direction; it raises",
      " ",
      output,
      `: the effect is positive in ${percent(share)} of the examples.`,
    );
  if (found[0] === 0)
    return el(
      "p",
      {},
      "On average it shows no clear direction: ",
      output,
      ` rises with it in ${percent(share)} of the examples.`,
    );
  return el(
    "p",
    {},
    "A higher value ",
    mark(found[0]),
    ` ${found[1].split(" ")[0]} `,
    output,
    found[1].includes("average") ? " on average" : "",
    `: both rise together in ${found[0] < 0 ? "only " : ""}${percent(share)} of the examples.`,
  );
}

function littleSentence() {
  const counts = report.views[state.view].little;
  const n = counts[state.output === POOLED ? counts.length - 1 : state.output];
  if (!n) return null;
  return el(
    "p",
    { class: "soft" },
    `${n === report.total ? "All" : n.toLocaleString("en")} of ${count(report.total, "feature")} surely hardly matter${n === 1 ? "s" : ""}: `,
    `${n === 1 ? "it has" : "each has"} a part in less than ${percent(report.little)} of the variance of `,
    state.output === POOLED ? "the outputs" : named(outputName(), 60),
    ", if the features vary independently.",
  );
}

function drawSummary() {
  const strength = column("standardized_rms");
  const order = ordered(
    report.features.map((_, k) => k),
    (k) => strength.v[k],
    true,
  ).filter((k) => known(strength.v[k]));
  const box = byId("short");
  if (!order.length || !(strength.v[order[0]] > 0)) {
    box.replaceChildren(
      el(
        "p",
        { class: "lead" },
        "No feature moves ",
        state.output === POOLED ? "the outputs" : named(outputName(), 60),
        " on these examples.",
      ),
    );
    return;
  }
  const first = order[0];
  const parts = [
    leadSentence(first, strength),
    signSentence(first),
    rivals(order, strength),
    littleSentence(),
  ];
  box.replaceChildren(...parts.filter(Boolean));
}
