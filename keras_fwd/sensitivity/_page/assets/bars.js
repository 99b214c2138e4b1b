// Bars with whiskers, one row each, that may open to more.

// From where to where the axis goes; a few endless whiskers do not squeeze all the others.
function scale(rows) {
  const values = rows.flatMap((row) => [row.v]).filter(known);
  const ends = rows.flatMap((row) => [row.v, row.l, row.h]).filter(known);
  const largest = Math.max(0, ...values.map(Math.abs));
  const low = values.some((v) => v < 0) ? Math.max(Math.min(0, ...ends), -1.6 * largest) : 0;
  const high = Math.min(Math.max(0, ...ends), 1.6 * largest);
  const marks = ticks(low, high, 5);
  const [first, last] = [marks[0], marks[marks.length - 1]];
  return {
    marks,
    first,
    last,
    place: (x) => (100 * (Math.min(Math.max(x, first), last) - first)) / (last - first),
  };
}

function track(row, axis) {
  const parts = axis.marks.map((x) =>
    el("i", { class: x === 0 ? "grid zero" : "grid", style: { left: `${axis.place(x)}%` } }),
  );
  if (known(row.v)) {
    const [a, b] = [axis.place(0), axis.place(row.v)];
    const kind = row.sign > 0 ? "raises" : row.sign < 0 ? "lowers" : "";
    const box = { left: `${Math.min(a, b)}%`, width: `${Math.abs(b - a)}%` };
    parts.push(el("i", { class: `fill ${kind} ${row.v < 0 ? "left" : ""}`, style: box }));
  }
  if (known(row.l) && known(row.h) && row.h > row.l) {
    const [a, b] = [axis.place(row.l), axis.place(row.h)];
    parts.push(
      el("i", {
        class: `whisker ${row.h > axis.last ? "cut" : ""} ${row.l < axis.first ? "begun" : ""}`,
        style: { left: `${a}%`, width: `${b - a}%` },
      }),
    );
  }
  return el("span", { class: "track", "aria-hidden": "true" }, parts);
}

function valueText(row, measure) {
  if (measure === "positive" || measure === "total_index_bound") {
    const ends =
      known(row.l) && known(row.h) ? [percent(row.l).replace(" %", ""), percent(row.h)] : null;
    return [percent(row.v), ends];
  }
  const [value, low, high] = interval(row.v, row.l, row.h);
  return [value, low ? [low, high] : null];
}

// Rows: { name, v, l, h, sign, words, isSwitch, opens }. `opens` makes the content of an opened row.
function barList(rows, { label, measure, isOpen, toggled, static: fixed }) {
  const axis = scale(rows);
  const items = rows.map((row) => barRow(row, axis, { measure, isOpen, toggled }));
  const labels = axis.marks.map((x) =>
    el(
      "span",
      { style: { left: `${axis.place(x)}%` } },
      measure === "positive" || measure === "total_index_bound"
        ? `${tickText(100 * x)} %`
        : tickText(x),
    ),
  );
  const top = el(
    "div",
    { class: "axis", "aria-hidden": "true" },
    el("span"),
    el("div", { class: "ticks" }, labels),
  );
  return el(
    "div",
    { class: fixed ? "bars fixed" : "bars" },
    top,
    el("ol", { "aria-label": label }, items),
  );
}

function barRow(row, axis, { measure, isOpen, toggled }) {
  const [value, ends] = valueText(row, measure);
  const text = row.label || named(row.name, 160);
  const open = row.opens && isOpen(row.key);
  const id = `detail-${row.key}`;
  const name = row.opens
    ? el(
        "button",
        {
          type: "button",
          class: "name",
          "aria-expanded": String(open),
          "aria-controls": open ? id : null,
        },
        text,
        badge(row.isSwitch),
      )
    : el("span", { class: "name" }, text, badge(row.isSwitch));
  const line = el(
    "div",
    { class: row.opens ? "row opens" : "row" },
    name,
    track(row, axis),
    el(
      "span",
      { class: "value" },
      el("b", {}, value),
      ends ? el("small", {}, ` ${ends[0]} to ${ends[1]}`) : "",
    ),
    el("span", { class: "word" }, row.words ? [mark(row.sign), ` ${row.words}`] : ""),
  );
  const item = el("li", {}, line, open ? row.opens(id) : null);
  if (row.opens) {
    line.addEventListener("click", () => {
      const now = toggled(row.key);
      name.setAttribute("aria-expanded", String(now));
      if (now) {
        name.setAttribute("aria-controls", id);
        item.append(row.opens(id));
      } else {
        name.removeAttribute("aria-controls");
        item.lastChild.remove();
      }
    });
  }
  return item;
}
