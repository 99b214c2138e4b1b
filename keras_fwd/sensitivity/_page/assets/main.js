// What is chosen, and what is drawn anew when that changes.

const FEW = 25; // bars before "show all"

function drawBars() {
  const measure = MEASURES[state.measure];
  const values = column(state.measure);
  const every = ordered(found(), (k) => (known(values.v[k]) ? Math.abs(values.v[k]) : null), true);
  const shown = state.all ? every : every.slice(0, FEW);
  const rows = shown.map((k) => {
    const [sign, words] = direction(k) || [0, ""];
    return {
      ...at(values, k),
      key: k,
      name: report.features[k],
      sign,
      words,
      isSwitch: report.switches[k],
      opens: (id) => detail(k, id),
    };
  });
  const toggled = (k) => (state.open.delete(k) ? false : Boolean(state.open.add(k)));
  const list = barList(rows, {
    label: `${measure.name} of each feature`,
    measure: state.measure,
    isOpen: (k) => state.open.has(k),
    toggled,
  });
  const parts = [
    every.length ? list : el("p", { class: "empty" }, "No feature has this in its name."),
  ];
  if (every.length > FEW) {
    const text = state.all ? `Show only the first ${FEW}` : `Show all ${every.length}`;
    parts.push(el("button", { type: "button", class: "more", on: { click: showAll } }, text));
  }
  byId("bars").replaceChildren(...parts);
  byId("strength-heading").replaceChildren(
    "How strongly ",
    named(outputName(), 80),
    state.output === POOLED ? " react to each feature" : " reacts to each feature",
  );
  byId("strength-text").textContent =
    `${measure.text} Whiskers: ${report.confidence} % intervals. A name opens the distribution behind it.`;
}

function showAll() {
  state.all = !state.all;
  drawBars();
  byId("bars").querySelector(".more").focus();
}

function drawGroups() {
  if (!report.groups) return;
  const { names, members, sizes, measures, total } = report.groups;
  const measure = state.measure === "total_index_bound" ? "total_index_bound" : "standardized_rms";
  const values = ofOutput(measures[measure]);
  const rows = ordered(
    names.map((_, k) => k),
    (k) => values.v[k],
    true,
  ).map((k) => {
    const rest = sizes[k] > members[k].length ? ` and ${sizes[k] - members[k].length} more` : "";
    return {
      ...at(values, k),
      name: names[k],
      sign: 0,
      label: el(
        "span",
        { title: members[k].join(", ") + rest },
        named(names[k], 120),
        el("small", {}, ` ${count(sizes[k], "feature")}`),
      ),
    };
  });
  const more = total > names.length ? ` The ${names.length} strongest of ${total} groups.` : "";
  const meaning =
    measure === "total_index_bound"
      ? "Upper bound on the share of the output’s variance that a group has a part in."
      : "Strength of several features moved together, each by one of its standard deviations.";
  byId("groups-text").textContent = meaning + more + ofWhole();
  byId("group-bars").replaceChildren(
    barList(rows, { label: "Strength of each group", measure, static: true }),
  );
}

function drawPairs() {
  if (!report.interactions) return;
  const { pairs, examples, measures, total } = report.interactions;
  const values = ofOutput(measures.standardized_rms);
  const order = ordered(
    pairs.map((_, k) => k),
    (k) => values.v[k],
    true,
  ).slice(0, 20);
  const rows = order.map((k) => {
    const [a, b] = pairs[k];
    return { ...at(values, k), sign: 0, label: el("span", {}, named(a, 32), " × ", named(b, 32)) };
  });
  const atZero = values.v.every((v) => v === 0)
    ? "All are 0, as in any piecewise linear model (ReLU, max pooling), where features may act together all the same."
    : "At 0 the two act independently.";
  byId("interactions-text").textContent =
    `How much the effect of one feature depends on the other: typical mixed second derivative, standardized, from ${count(examples, "example")}. ${atZero}${total > order.length ? ` The ${order.length} strongest of ${total} pairs.` : ""}${ofWhole()}`;
  byId("pair-bars").replaceChildren(
    barList(rows, { label: "Strength of each pair", measure: "standardized_rms", static: true }),
  );
}

function drawStatus() {
  const n = found().length;
  const all = report.features.length;
  const hidden = report.total - all;
  byId("status").textContent =
    (n === all ? count(all, "feature") : `${n} of ${count(all, "feature")}`) +
    (hidden ? ` (${hidden.toLocaleString("en")} weaker not shown)` : "") +
    `, ${count(report.views[state.view].examples, "example")}`;
}

function drawControls() {
  const many = report.outputs.length > 1;
  byId("output-field").hidden = !many;
  const outputs = report.outputs.map((name, o) => [
    o,
    name.length > 80 ? `${name.slice(0, 79)}…` : name,
  ]);
  choose(byId("output"), [...outputs, [POOLED, "all outputs together"]], state.output, (value) =>
    change({ output: Number(value) }),
  );
  byId("view-field").hidden = report.views.length < 2;
  const views = report.views.map((view, v) => [
    v,
    `${view.label} (${view.examples.toLocaleString("en")})`,
  ]);
  choose(byId("view"), views, state.view, (value) => change({ view: Number(value) }));
  const entries = Object.entries(MEASURES)
    .filter(([, measure]) => measure.name)
    .map(([key, measure]) => [key, measure.name, !available(key)]);
  choose(byId("measure"), entries, state.measure, (measure) => change({ measure }));
}

function change(choice) {
  Object.assign(state, choice);
  if (!available(state.measure)) state.measure = "standardized_rms";
  draw();
}

function draw() {
  drawControls();
  drawSummary();
  drawBars();
  drawTable();
  drawGroups();
  drawPairs();
  drawMaps();
  drawEvolution();
  drawStatus();
}

function drawPictures() {
  drawMaps();
  drawEvolution();
}

function drawTheme() {
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute(
    "aria-label",
    isDark() ? "Switch to light colors" : "Switch to dark colors",
  );
}

function start() {
  byId("unscripted").remove();
  for (const node of document.querySelectorAll("[data-script]")) {
    const part = report[node.dataset.part];
    node.hidden = Boolean(node.dataset.part) && !(Array.isArray(part) ? part.some(Boolean) : part);
  }
  byId("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    drawBars();
    drawTable();
    drawStatus();
  });
  byId("theme").addEventListener("click", () => {
    byId("dark").media = isDark() ? "not all" : "all";
    drawTheme();
    drawPictures();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    drawTheme();
    drawPictures();
  });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) {
      width = innerWidth;
      drawPictures();
    }
  });
  drawTheme();
  draw();
  const parts = [...document.querySelectorAll("main > section[id]")].filter(
    (part) => !part.hidden && part.querySelector("h2"),
  );
  byId("sections").append(
    ...parts.map((part) =>
      el("a", { href: `#${part.id}` }, part.dataset.name || part.querySelector("h2").textContent),
    ),
  );
}

start();
