// Elements of the page. Text only ever becomes a text node: names may hold anything.

function put(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on")
      for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (key === "style")
      for (const [name, text] of Object.entries(value)) node.style.setProperty(name, text);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(
    ...children.flat().filter((child) => child !== null && child !== undefined && child !== ""),
  );
  return node;
}

function el(tag, attributes, ...children) {
  return put(document.createElement(tag), attributes, children);
}

function svg(tag, attributes, ...children) {
  return put(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function byId(id) {
  return document.getElementById(id);
}

// A name, kept apart from the writing direction of the text around it.
function named(name, limit) {
  const short = limit && name.length > limit ? name.slice(0, limit - 1) + "…" : name;
  return el("bdi", { title: short === name ? null : name }, short);
}

function badge(isSwitch) {
  if (!isSwitch) return null;
  const title =
    "No derivative: the exact effect of switching a discrete input from the first value to the second";
  return el("span", { class: "badge", title }, "switch");
}

function mark(sign) {
  const kind = sign > 0 ? "up" : sign < 0 ? "down" : "";
  return el(
    "span",
    { class: `mark ${kind}`, "aria-hidden": "true" },
    sign > 0 ? "▲" : sign < 0 ? "▼" : "◆",
  );
}

function choose(select, entries, current, changed) {
  select.replaceChildren(
    ...entries.map(([value, text, off]) =>
      el("option", { value, disabled: off, selected: String(value) === String(current) }, text),
    ),
  );
  if (changed) select.onchange = () => changed(select.value);
}
