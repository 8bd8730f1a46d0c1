// The arithmetic of the chosen value: the window it came from, the kernel, the products, their sum, the bias, the result.

import { complain, getArrays, say } from "./api.js";
import { cssOf } from "./colours.js";
import { by, byId, count, element, number, place, short } from "./dom.js";
import { choose, fetchMissing, focusCard, keepInSight, shapeOf } from "./maps.js";
import { drawStage, player, stopPlaying } from "./play.js";
import { layerAt, on, state, tell } from "./state.js";

const MOST_CHANNELS = 6;
const MOST_TERMS = 24;
let showsAll = false;
let panel = null; // of the address that is shown: its parts, so that what has the focus stays while values change

export function startValue() {
  on("chosen", () => { showsAll = false; stopPlaying(); fetchValue(true); });
  on("cursor", say);
  byId("value-close").addEventListener("click", leave);
  byId("value-print").addEventListener("click", () => {
    const { picture, model, chosen } = state;
    byId("paper").textContent = `Network ${model.path}; ${picture.name ? `validation image ${picture.name}` : "a picture of one's own"}, answered ${model.class_names[picture.label]}; layer ${chosen.address}, ${place(chosen.unit)}`;
    document.body.classList.add("one");
    addEventListener("afterprint", () => document.body.classList.remove("one"), { once: true });
    print();
  });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && state.chosen) leave(); });
  state.afterAnswer.push(async () => { if (state.chosen) await fetchValue(false); });
}

function leave() {
  const address = state.chosen?.address;
  closeValue();
  focusCard(address);
}

export function closeValue() {
  stopPlaying();
  state.chosen = state.working = panel = null;
  byId("value").classList.remove("open");
  byId("value-close").hidden = byId("value-print").hidden = true;
  byId("value-body").replaceChildren(byId("value-hint").content.cloneNode(true));
  tell("working");
}

// True when the value is shown; `spoken` says it to those who listen.
export async function fetchValue(spoken) {
  if (!state.picture || !state.chosen) return false;
  const { id } = state.picture;
  const { address, unit } = state.chosen;
  try {
    const found = await getArrays(`api/value?id=${id}&layer=${encodeURIComponent(address)}&unit=${unit.join(",")}`);
    if (state.chosen?.address !== address || String(state.chosen.unit) !== String(unit)) return false; // overtaken
    state.working = { ...found, ...found.arrays };
    tell("working");
    show();
    if (spoken) keepInSight(state.chosen);
    if (spoken) say(`Layer ${address}, ${place(unit)}: ${number(found.value, 5)}. ${found.lines.join(". ")}`);
    await fetchMissing([found.source, address]);
    if (state.working?.address === address) panel.pictures.replaceChildren(...pictureOf(state.working).filter(Boolean));
    drawStage();
    return true;
  } catch (error) {
    if (error.status === 410) tell("gone", id);
    else complain(error);
    return false;
  }
}

function show() {
  const { working } = state;
  if (panel?.address !== working.address) build(working);
  working.unit.forEach((index, i) => { panel.fields[i].value = index; });
  panel.value.textContent = number(working.value, 6);
  panel.pictures.replaceChildren(...pictureOf(working).filter(Boolean));
  panel.lines.replaceChildren(...working.lines.map((line) => element("li", {}, line)));
  panel.check.textContent = check(working);
  byId("value").classList.add("open");
  byId("value-close").hidden = byId("value-print").hidden = false;
}

function build({ address, unit }) {
  const layer = layerAt(address);
  const title = { input: "normalisation", softmax: "softmax" }[address] ?? layer.title;
  const shape = shapeOf(address);
  const names = unit.length === 3 ? ["channel", "row", "column"] : [address === "softmax" ? "class" : "index"];
  const fields = names.map((_, i) => element("input", { type: "number", min: 0, max: shape[i] - 1, "data-part": i }));
  // The way in for those who don't point.
  const form = element("form", { class: "unit" }, ...names.map((name, i) => element("label", {}, `${name} `, fields[i])),
    element("button", {}, "Show"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    choose(address, fields.map((field) => Number(field.value)));
  });
  panel = { address, fields, value: element("p", { class: "big", id: "the-value" }), pictures: element("div", { tabindex: -1 }),
    lines: element("ul", { class: "lines" }), check: element("p", { class: "dim" }) };
  const named = [element("span", { class: "address" }, address), ...(title === address ? [] : [` ${title}`])];
  byId("value-body").replaceChildren(element("h3", {}, ...named), form, panel.value,
    panel.lines, ...(layer?.window ? [player(fetchValue)] : []), panel.pictures, panel.check);
}

function check(working) {
  const difference = Math.abs(working.result - working.value);
  const rounded = working.products || working.window ? `Cells are rounded, sums are of the full values${byHand(working)}. ` : "";
  return `${rounded}Re-computed in double precision: ${number(working.result, 8)}; the network's own float32 value: ${number(working.value, 8)}; `
    + `they differ by ${number(difference, 2)}.${working.agrees ? "" : " That is more than rounding explains: please report it."}`;
}

// What a calculator gives for the cells as they stand there.
function byHand({ kernel, products: cells }) {
  if (!kernel || cells.data.length > 150) return "";
  const asShown = (value) => Number(short(value).replaceAll("−", "-"));
  return `; the products alone, rounded like these, of ${cells.shape[0] === 1 ? "the one channel" : `all ${cells.shape[0]} channels`}, add up to ${number(cells.data.reduce((sum, one) => sum + asShown(one), 0), 4)}`;
}

function pictureOf(working) {
  switch (working.operation) {
    case "sum": return working.kernel ? convolution(working) : products(working, "input", "weight", "product");
    case "mean": case "maximum": return [pooling(working)];
    case "share": return products(working, "logit", null, "e^(as above)");
    default: return [];
  }
}

// ---------------------------------------------------------------- windows

// A scale of colours: its ends. Kernel and products have one each, around 0; a window has that of the maps it is cut from.
function around(array) {
  const high = array.data.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  return { low: -high, high };
}

const scaleOfSource = () => state.maps[state.working.source] ?? around(state.working.window);

function convolution(working) {
  const [channels, high, wide] = working.window.shape;
  const size = high * wide;
  const sums = Array.from({ length: channels }, (_, c) => working.products.data.subarray(c * size, (c + 1) * size).reduce((a, b) => a + b, 0));
  let order = sums.map((_, c) => c);
  if (channels > MOST_CHANNELS && !showsAll) {
    order = order.sort((a, b) => Math.abs(sums[b]) - Math.abs(sums[a])).slice(0, MOST_CHANNELS).sort((a, b) => a - b);
  }
  const [kernel, products] = ["kernel", "products"].map((name) => around(working[name]));
  const blocks = order.map((c) => element("div", { class: "product" },
    element("p", {}, `input channel ${working.channels[0] + c}: Σ = ${number(sums[c])}`),
    element("div", { class: "factors" },
      grid(working.window, c, scaleOfSource(), "window", working.inside), element("span", {}, "·"),
      grid(working.kernel, c, kernel, "kernel"), element("span", {}, "="),
      grid(working.products, c, products, "products"))));
  return [more(channels, order.length, "channels"), ...blocks];
}

const pooling = (working) => grid(working.window, 0, scaleOfSource(), "window", working.inside, working.winner);

// One channel of an array (C, h, w) as a table of numbers on their colours. Places in the padding are hatched.
function grid(array, channel, { low, high: top }, caption, inside = null, winner = null) {
  const [, high, wide] = array.shape;
  if (high * wide > 900) return element("p", { class: "dim" }, `${by([high, wide])} values: too many to write down`);
  const { working } = state;
  const rows = Array.from({ length: high }, (_, i) => element("tr", {}, ...Array.from({ length: wide }, (_, j) => {
    const value = array.data[(channel * high + i) * wide + j];
    const cell = element("td", { title: String(value) }, short(value));
    if (inside && !inside.data[i * wide + j]) {
      cell.className = "padding";
      cell.title = "padding: outside of the map";
      if (working.operation !== "sum") cell.textContent = working.operation === "mean" ? "0" : "–";
    } else {
      const { background, text } = cssOf(low, (255 * (value - low)) / (top - low));
      cell.style.background = background;
      cell.style.color = text;
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
  order = order.slice(0, showsAll ? 2000 : MOST_TERMS);
  const names = working.address === "softmax" ? state.model.class_names : null;
  const head = [names ? "class" : "index", first, ...(second ? [second] : []), result];
  const rows = order.map((i) => element("tr", { class: names && i === working.unit[0] ? "winner" : null },
    element("th", { scope: "row" }, names ? names[i] : i), element("td", {}, number(working.inputs.data[i])),
    second ? element("td", {}, number(working.weights.data[i])) : null, element("td", {}, number(working.products.data[i]))));
  return [element("p", { class: "dim" }, "largest first"), element("table", { class: "terms" },
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { scope: "col" }, name)))), element("tbody", {}, ...rows)),
    more(Math.min(num, 2000), order.length, "terms")];
}

function more(total, shown, what) {
  if (shown === total) return null;
  const all = () => { showsAll = true; show(); panel.pictures.focus(); };
  return element("button", { onclick: all }, `${count(shown)} of ${count(total)} ${what} are shown: show all`);
}
