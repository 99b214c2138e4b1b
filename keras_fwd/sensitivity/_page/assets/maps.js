// Sensitivity over the pixels of an image or the steps of a sequence.

const MAP_MEASURES = {
  rms: "Rms per unit",
  standardized_rms: "Strength (standardized rms)",
  mean: "Mean per unit, with sign",
};

function rgb(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((k) => parseInt(text.slice(k, k + 2), 16));
}

// A color for -1 … 1: from the ground to blue, or to orange below zero.
function ramp() {
  const [ground, up, down] = [rgb("--band"), rgb("--up"), rgb("--down")];
  const far = isDark() ? [255, 255, 255] : [10, 20, 45];
  return (share) => {
    const size = Math.min(1, Math.abs(share));
    const target = share < 0 ? down : up;
    return ground.map((g, k) => {
      const color = target[k] + 0.35 * (far[k] - target[k]);
      return Math.round(
        size < 0.6
          ? g + (target[k] - g) * (size / 0.6)
          : target[k] + (color - target[k]) * ((size - 0.6) / 0.4),
      );
    });
  };
}

function paint(canvas, values, width, height, largest, signed) {
  const color = ramp();
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  values.forEach((value, k) => {
    const paintbox = known(value)
      ? [...color(signed ? value / largest : Math.abs(value) / largest), 255]
      : [0, 0, 0, 0];
    image.data.set(paintbox, 4 * k);
  });
  context.putImageData(image, 0, 0);
}

// Of the slice chosen, where the page has its maps.
function gridsOf(input) {
  return (state.view && input.slices[state.view - 1]) || input.grids;
}

// One number a cell for a channel, or for all of them together (`channel` -1).
function cells(input, measure, output, channel) {
  const rows = gridsOf(input)[measure][output];
  if (channel >= 0) return rows[channel];
  if (rows.length === 1) return rows[0];
  return rows[0].map((_, k) => {
    const parts = rows.map((row) => row[k]).filter(known);
    if (!parts.length) return null;
    return measure === "mean"
      ? parts.reduce((a, b) => a + b, 0)
      : Math.sqrt(parts.reduce((a, b) => a + b * b, 0));
  });
}

function ofMap(input, measure, channel) {
  const outputs = gridsOf(input)[measure].length;
  if (state.output !== POOLED)
    return state.output < outputs ? cells(input, measure, state.output, channel) : null;
  if (measure === "mean") return null;
  return together([gridsOf(input)[measure].map((_, o) => cells(input, measure, o, channel))]).v;
}

function mapFigure(input, measure, channel) {
  const values = ofMap(input, measure, channel);
  if (!values) return null;
  const { width, height, block } = input;
  const signed = measure === "mean";
  const largest = Math.max(...values.filter(known).map(Math.abs), 0) || 1;
  const top = values.indexOf(
    values.filter(known).reduce((a, b) => (Math.abs(b) > Math.abs(a) ? b : a), 0),
  );
  const where = (k) =>
    `row ${block * Math.floor(k / width)}, column ${block * (k % width)}: ${number(values[k])}`;
  const label = `${MAP_MEASURES[measure]} over the input, ${height} by ${width}. Largest at ${where(Math.max(0, top))}. Arrow keys read single places.`;
  const reading = el(
    "figcaption",
    { "aria-live": "polite" },
    `Largest: ${where(Math.max(0, top))}`,
  );
  const canvas = el("canvas", {
    role: "img",
    tabindex: "0",
    "aria-label": label,
    style: { "aspect-ratio": `${width} / ${height}`, "max-width": `${(24 * width) / height}rem` },
  });
  paint(canvas, values, width, height, largest, signed);
  let cursor = Math.max(0, top);
  const read = (k) => {
    cursor = k;
    reading.textContent = `${where(k)[0].toUpperCase()}${where(k).slice(1)}`;
  };
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = [event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight];
    read(
      Math.min(height - 1, Math.max(0, Math.floor(y * height))) * width +
        Math.min(width - 1, Math.max(0, Math.floor(x * width))),
    );
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[
      event.key
    ];
    if (!step) return;
    event.preventDefault();
    const x = Math.min(width - 1, Math.max(0, (cursor % width) + step[0]));
    const y = Math.min(height - 1, Math.max(0, Math.floor(cursor / width) + step[1]));
    read(y * width + x);
  });
  const scaleBar = el("canvas", { "aria-hidden": "true" });
  const stops = Array.from({ length: 64 }, (_, k) => (signed ? k / 31.5 - 1 : k / 63));
  paint(scaleBar, stops, 64, 1, 1, signed);
  const bar = el(
    "div",
    { class: "ramp", "aria-hidden": "true" },
    number(signed ? -largest : 0),
    scaleBar,
    number(largest),
  );
  return el("figure", {}, el("h3", {}, MAP_MEASURES[measure]), canvas, bar, reading);
}
