// Each input with a shape: its maps or its profile, and the choice between them.

const choicesOf = []; // for each input: { channel, image, measure }

function profile(input, choice, box) {
  const { width, height, block } = input;
  const values = ofMap(input, choice.measure, -1);
  if (!values) return false;
  const xs = Array.from({ length: height }, (_, t) => block * t);
  const line = (c) => xs.map((_, t) => values[t * width + c]);
  const all = xs.map((_, t) => {
    const parts = values.slice(t * width, (t + 1) * width).filter(known);
    return choice.measure === "mean"
      ? parts.reduce((a, b) => a + b, 0)
      : Math.sqrt(parts.reduce((a, b) => a + b * b, 0));
  });
  const single = width === 1 ? 0 : choice.channel;
  const [low, high] =
    single >= 0 && input.ends && gridsOf(input) === input.grids && state.output !== POOLED
      ? input.ends[choice.measure].map((grid) =>
          xs.map((_, t) => grid[state.output][0][t * width + single]),
        )
      : [[], []];
  const series = [
    {
      low,
      high,
      name: choice.channel < 0 ? "All channels together" : `Channel ${choice.channel}`,
      y: choice.channel < 0 ? all : line(choice.channel),
    },
  ];
  linePicture(box, xs, series, {
    label: `${MAP_MEASURES[choice.measure]} over the ${height} steps of ${input.name}`,
    below: low.length ? `step (band: ${report.confidence} % intervals)` : "step",
  });
  return true;
}

function field(text, entries, current, changed) {
  const select = el("select", {});
  choose(select, entries, current, changed);
  return el("label", {}, text, select);
}

function drawInput(input, n, place) {
  const choice =
    choicesOf[n] ||
    (choicesOf[n] = { channel: -1, image: input.image, measure: "standardized_rms" });
  const again = (change) => (value) => {
    const label = document.activeElement.parentNode.firstChild.textContent;
    Object.assign(choice, change(value));
    drawInput(input, n, place);
    const back = [...place.querySelectorAll("label")].find(
      (item) => item.firstChild.textContent === label,
    );
    if (back) back.querySelector("select").focus();
  };
  const channels = input.shape.length === 2 && !choice.image ? input.width : input.channels;
  const choices = [];
  if (input.shape.length === 2)
    choices.push(
      field(
        "Shown as",
        [
          [0, "profile over the steps"],
          [1, "map"],
        ],
        Number(choice.image),
        again((v) => ({ image: v === "1", channel: -1 })),
      ),
    );
  if (!choice.image) {
    const entries = Object.entries(MAP_MEASURES).map(([key, text]) => [
      key,
      text,
      key === "mean" && state.output === POOLED,
    ]);
    choices.push(
      field(
        "Measure",
        entries,
        choice.measure,
        again((measure) => ({ measure })),
      ),
    );
  }
  if (channels > 1)
    choices.push(
      field(
        "Channel",
        [[-1, "all together"], ...Array.from({ length: channels }, (_, c) => [c, `channel ${c}`])],
        choice.channel,
        again((v) => ({ channel: Number(v) })),
      ),
    );
  const blocks =
    input.block > 1 ? ` Each place stands for ${input.block} × ${input.block}, averaged.` : "";
  const shape = `${input.shape.join(" × ")}.${gridsOf(input) === input.grids ? ofWhole() : ""}${choice.channel < 0 && channels > 1 ? " Channels together: root of the sum of squares, or the sum of means." : ""}${blocks}`;
  const content = el("div", {});
  place.replaceChildren(
    el("h3", {}, named(input.name, 80)),
    el("p", { class: "soft" }, shape),
    el("div", { class: "choices" }, choices),
    content,
  );
  if (choice.image) {
    const figures = ["standardized_rms", "rms", "mean"]
      .map((measure) => mapFigure(input, measure, choice.channel))
      .filter(Boolean);
    content.append(
      figures.length
        ? el("div", { class: "maps" }, figures)
        : el("p", { class: "soft" }, "There is no map of this output on the page."),
    );
    if (state.output === POOLED)
      content.append(
        el("p", { class: "soft" }, "Choose one output to see the mean with its sign."),
      );
  } else if (!profile(input, choice, content)) {
    content.append(el("p", { class: "soft" }, "There is no profile of this choice on the page."));
  }
}

function drawMaps() {
  const list = byId("map-list");
  const shown = report.inputs.map((input, n) => [input, n]).filter(([input]) => input);
  if (!list.children.length) list.append(...shown.map(() => el("div", {})));
  shown.forEach(([input, n], k) => drawInput(input, n, list.children[k]));
}
