// The arithmetic of the chosen value: the window it came from, the kernel, the products, their sum, the bias, the result.

import { complain, getArrays, say } from "./api.js";
import { cssOf } from "./colours.js";
import { by, byId, count, element, number, place, short } from "./dom.js";
import { choose, shapeOf } from "./maps.js";
import { player, stopPlaying } from "./play.js";
import { layerAt, on, state, tell } from "./state.js";

const MOST_CHANNELS = 6;
const MOST_TERMS = 24;
let showsAll = false;

export function startValue() {
  on("chosen", ({ scroll }) => { showsAll = false; stopPlaying(); fetchValue(scroll); });
  on("cursor", say);
  byId("value-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.chosen) close(); });
  state.afterAnswer.push(async () => { if (state.chosen) await fetchValue(false); });
}

function close() {
  stopPlaying();
  state.chosen = state.working = null;
  byId("value").classList.remove("open");
  byId("value-close").hidden = true;
  tell("working");
}

export async function fetchValue(scroll) {
  const { address, unit } = state.chosen;
  if (!state.picture) return;
  try {
    const path = `api/value?id=${state.picture.id}&layer=${encodeURIComponent(address)}&unit=${unit.join(",")}`;
    const found = await getArrays(path);
    if (state.chosen?.address !== address || String(state.chosen.unit) !== String(unit)) return; // overtaken
    state.working = { ...found, ...found.arrays };
    tell("working");
    show();
    byId("value").classList.add("open");
    byId("value-close").hidden = false;
    if (scroll) say(`Layer ${address}, ${place(unit)}: ${number(found.value, 5)}. ${found.lines.join(". ")}`);
  } catch (error) {
    if (error.status !== 410) complain(error);
  }
}

function show() {
  const working = state.working;
  const layer = layerAt(working.address);
  const title = { input: "normalisation", softmax: "softmax" }[working.address] ?? (layer.kind === "residual" ? "sum of the residual" : layer.layer);
  const parts = [
    element("h3", {}, element("span", { class: "address" }, working.address), ` ${title}`),
    unitFields(working),
    element("p", { class: "big", id: "the-value" }, number(working.value, 6)),
    ...(layer?.window ? [player()] : []),
    ...pictureOf(working),
    element("ul", { class: "lines" }, ...working.lines.map((line) => element("li", {}, line))),
    check(working),
  ];
  byId("value-body").replaceChildren(...parts.filter(Boolean));
  tell("shown");
}

// The unit as numbers that can be typed: the way in for those who don't point.
function unitFields(working) {
  const shape = shapeOf(working.address);
  const names = shape.length === 3 ? ["channel", "row", "column"] : [working.address === "softmax" ? "class" : "index"];
  const fields = names.map((name, i) => element("label", {}, `${name} `,
    element("input", { type: "number", min: 0, max: shape[i] - 1, value: working.unit[i], "data-part": i })));
  const form = element("form", { class: "unit" }, ...fields, element("button", {}, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    choose(working.address, [...form.querySelectorAll("input")].map((field) => Number(field.value)));
  });
  return form;
}

function check(working) {
  const difference = Math.abs(working.result - working.value);
  return element("p", { class: "dim" }, `Re-computed in double precision: ${number(working.result, 8)}; the network's own float32 value: `
    + `${number(working.value, 8)}; they differ by ${number(difference, 2)}.`
    + (working.agrees ? "" : " That is more than rounding explains: please report it."));
}

function pictureOf(working) {
  switch (working.operation) {
    case "sum": return working.kernel ? convolution(working) : products(working, "input", "weight", "product");
    case "mean": case "maximum": return [pooling(working)];
    case "share": return products(working, "logit", null, "e^(logit − largest)");
    default: return [];
  }
}

// ---------------------------------------------------------------- windows

function convolution(working) {
  const [channels, high, wide] = working.window.shape;
  const size = high * wide;
  const sums = Array.from({ length: channels }, (_, c) => working.products.data.subarray(c * size, (c + 1) * size).reduce((a, b) => a + b, 0));
  let order = sums.map((_, c) => c);
  if (channels > MOST_CHANNELS && !showsAll) {
    order = order.sort((a, b) => Math.abs(sums[b]) - Math.abs(sums[a])).slice(0, MOST_CHANNELS).sort((a, b) => a - b);
  }
  const reach = ["window", "kernel", "products"].map((name) => working[name].data.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12));
  const blocks = order.map((c) => element("div", { class: "product" },
    element("p", {}, `channel ${working.channels[0] + c}: Σ = ${number(sums[c])}`),
    element("div", { class: "factors" },
      grid(working.window, c, reach[0], "window", working.inside), element("span", {}, "·"),
      grid(working.kernel, c, reach[1], "kernel"), element("span", {}, "="),
      grid(working.products, c, reach[2], "products"))));
  return [...blocks, more(channels, order.length, "channels")];
}

function pooling(working) {
  const reach = working.window.data.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  return grid(working.window, 0, reach, "window", working.inside, working.winner);
}

// One channel of an array (C, h, w) as a table of numbers on their colours. Places in the padding are hatched.
function grid(array, channel, reach, caption, inside = null, winner = null) {
  const [, high, wide] = array.shape;
  if (high * wide > 900) return element("p", { class: "dim" }, `${by([high, wide])} values: too many to write down`);
  const working = state.working;
  const rows = Array.from({ length: high }, (_, i) => element("tr", {}, ...Array.from({ length: wide }, (_, j) => {
    const value = array.data[(channel * high + i) * wide + j];
    const cell = element("td", { title: String(value) }, short(value));
    if (inside && !inside.data[i * wide + j]) {
      cell.className = "padding";
      cell.title = "padding: outside of the map";
      if (working.operation !== "sum") cell.textContent = working.operation === "mean" ? "0" : "–";
    } else {
      const { background, isLight } = cssOf(-1, 127.5 * (1 + value / reach));
      cell.style.background = background;
      cell.style.color = isLight ? "#111" : "#fff";
      if (winner && working.rows[i] === winner[1] && working.columns[j] === winner[2]) cell.className = "winner";
    }
    return cell;
  })));
  return element("table", { class: "numbers" }, element("caption", {}, caption), element("tbody", {}, ...rows));
}

// ---------------------------------------------------------------- vectors

function products(working, first, second, result) {
  const num = working.products.data.length;
  let order = Array.from({ length: num }, (_, i) => i);
  const size = (i) => Math.abs(working.products.data[i]);
  order.sort((a, b) => size(b) - size(a));
  if (!showsAll) order = order.slice(0, MOST_TERMS);
  order = order.slice(0, 2000);
  const names = working.address === "softmax" ? state.model.class_names : null;
  const head = ["", first, ...(second ? [second] : []), result];
  const rows = order.map((i) => element("tr", { class: working.address === "softmax" && i === working.unit[0] ? "winner" : null },
    element("th", {}, names ? names[i] : i), element("td", {}, number(working.inputs.data[i])),
    second ? element("td", {}, number(working.weights.data[i])) : null, element("td", {}, number(working.products.data[i]))));
  return [element("p", { class: "dim" }, "largest first"), element("table", { class: "terms" },
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", {}, name)))), element("tbody", {}, ...rows)),
    more(num, order.length, "terms")];
}

function more(total, shown, what) {
  if (shown === total) return null;
  return element("button", { onclick: () => { showsAll = true; show(); } }, `${count(shown)} of ${count(total)} ${what} are shown: show all`);
}
