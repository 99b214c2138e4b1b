// Lines over an axis, with bands: for epochs and for steps of a sequence.

const INKS = {
  light: ["#2a69b0", "#b4531f", "#2e7d57", "#8a4fa3", "#8b6a10", "#4b5563"],
  dark: ["#6aa7e8", "#e59161", "#63c295", "#c79ae0", "#d3b14f", "#b3bcc8"],
};
const isDark = () => getComputedStyle(document.documentElement).colorScheme.includes("dark");

function lineStyle(n) {
  const inks = INKS[isDark() ? "dark" : "light"];
  return { stroke: inks[n % inks.length], dash: n >= inks.length ? "6 3" : null };
}

function path(xs, ys, place) {
  let pen = "M";
  return xs
    .map((x, t) => {
      if (!known(ys[t])) {
        pen = "M";
        return "";
      }
      const text = `${pen}${place(x, ys[t])
        .map((n) => n.toFixed(1))
        .join(" ")}`;
      pen = "L";
      return text;
    })
    .join("");
}

function band(xs, low, high, place) {
  const inside = xs.map((_, t) => t).filter((t) => known(low[t]) && known(high[t]));
  if (inside.length < 2) return "";
  const there = inside.map((t) => place(xs[t], high[t]));
  const back = inside
    .slice()
    .reverse()
    .map((t) => place(xs[t], low[t]));
  return `M${[...there, ...back].map((p) => p.map((n) => n.toFixed(1)).join(" ")).join("L")}Z`;
}

// Series: { name, y, low, high }, all over `xs`. As wide as its place on the page.
function linePicture(box, xs, series, { label, below, only }) {
  const width = Math.max(280, box.clientWidth || 640);
  const height = width < 500 ? 240 : 320;
  const values = series.flatMap((line) => line.y).filter(known);
  const most = Math.max(0, ...values.map(Math.abs));
  const ends = series
    .flatMap((line) => [...line.y, ...(line.low || []), ...(line.high || [])])
    .filter(known);
  const low = values.some((y) => y < 0) ? Math.max(Math.min(0, ...ends), -1.6 * most) : 0;
  const up = ticks(low, Math.min(Math.max(0, ...ends), 1.6 * most), 5);
  const along = ticks(xs[0], xs[xs.length - 1], width < 500 ? 4 : 8).filter(
    (x) => Number.isInteger(x) && x >= xs[0] && x <= xs[xs.length - 1],
  );
  const [left, right, top, bottom] = [46, 12, 10, 44];
  const [first, last, span] = [up[0], up[up.length - 1], xs[xs.length - 1] - xs[0] || 1];
  const place = (x, y) => [
    left + ((width - left - right) * (x - xs[0])) / span,
    top + ((height - top - bottom) * (last - Math.min(Math.max(y, first), last))) / (last - first),
  ];
  const picture = svg("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": label,
  });
  for (const y of up) {
    const at = place(xs[0], y)[1];
    picture.append(
      svg("line", {
        class: y === 0 ? "rule" : "hair",
        x1: left,
        x2: width - right,
        y1: at,
        y2: at,
      }),
    );
    picture.append(svg("text", { x: left - 8, y: at + 4, "text-anchor": "end" }, tickText(y)));
  }
  for (const x of along)
    picture.append(
      svg("text", { x: place(x, first)[0], y: height - 24, "text-anchor": "middle" }, tickText(x)),
    );
  picture.append(
    svg("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, below),
  );
  series.forEach((line, n) => {
    const { stroke, dash } = lineStyle(n);
    const group = svg("g", {
      class: only !== undefined && only !== null && only !== n ? "dim" : null,
    });
    if (line.low && line.low.length)
      group.append(
        svg("path", {
          d: band(xs, line.low, line.high, place),
          fill: stroke,
          opacity: only === n ? 0.25 : 0.1,
        }),
      );
    group.append(
      svg("path", {
        d: path(xs, line.y, place),
        fill: "none",
        stroke,
        "stroke-width": 2,
        "stroke-dasharray": dash,
        "stroke-linejoin": "round",
      }),
    );
    if (xs.length < 30)
      xs.forEach((x, t) => {
        if (known(line.y[t])) {
          const [cx, cy] = place(x, line.y[t]);
          group.append(svg("circle", { cx, cy, r: 2.5, fill: stroke }));
        }
      });
    picture.append(group);
  });
  box.replaceChildren(picture);
}

// Buttons that bring one line forward.
function legend(series, chosen, pick) {
  return el(
    "ul",
    { class: "legend", "aria-label": "Lines" },
    series.map((line, n) => {
      const { stroke, dash } = lineStyle(n);
      const sample = svg(
        "svg",
        { width: 24, height: 8, "aria-hidden": "true" },
        svg("line", {
          x1: 0,
          x2: 24,
          y1: 4,
          y2: 4,
          stroke,
          "stroke-width": 2.5,
          "stroke-dasharray": dash,
        }),
      );
      const button = el(
        "button",
        {
          type: "button",
          "aria-pressed": String(chosen === n),
          on: { click: () => pick(chosen === n ? null : n) },
        },
        sample,
        named(line.name, 40),
      );
      return el("li", {}, button);
    }),
  );
}
