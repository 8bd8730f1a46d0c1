// All layers as maps, from input to answer: a card each, drawn on one canvas. Hover magnifies, a click chooses a value.

import { complain, getArrays } from "./api.js";
import { MANY_LAYERS, foldedCards, openBlockOf } from "./blocks.js";
import { cssOf, painted } from "./colours.js";
import { by, byId, count, element, number, place, sizedCanvas } from "./dom.js";
import { layerAt, on, state, tell } from "./state.js";

const GAP = 5;
// A vector's cells are as large as a finger, but for those of very many.
const vectorCell = (num) => (num <= 64 ? 40 : num <= 512 ? 24 : 15);
const LENS_GAP = 10;
const cards = new Map(); // address -> {layer, canvas, note, legend, grid, cursor}
let seen = new Set(); // addresses of the cards on screen
let watcher = null;
let pointed = null; // {known, unit}: what the pointer is over

const isVector = (shape) => shape.length === 1 || shape[1] * shape[2] === 1;

export function buildCards() {
  watcher?.disconnect();
  cards.clear();
  seen = new Set();
  watcher = new IntersectionObserver(noticeVisible, { rootMargin: "300px" });
  const { input, layers } = state.model;
  const first = { address: "input", title: "normalised", output_shape: [input.channels, input.height, input.width],
    formula: "(pixel − mean) / standard deviation", padding: "", depth: 0 };
  const cardsOf = layers.length > MANY_LAYERS ? foldedCards(layers, card) : layers.map(card);
  byId("layers").replaceChildren(card(first), ...cardsOf);
}

function card(layer) {
  const canvas = element("canvas", { tabindex: 0, role: "application",
    "aria-label": `Layer ${layer.address}, ${layer.title}: ${by(layer.output_shape)} values. Arrows move, Enter chooses.` });
  const note = element("p", { class: "dim" });
  const legend = element("div", { class: "legend" });
  const made = element("article", { class: "card", "data-address": layer.address },
    element("h3", {}, element("span", { class: "address" }, layer.address), ` ${layer.title} `,
      element("span", { class: "dim" }, by(layer.output_shape))),
    element("p", { class: "dim" }, [layer.formula, layer.padding].filter(Boolean).join(" · ")), legend, canvas, note);
  if (layer.depth) made.classList.add("nested");
  const known = { layer, canvas, note, legend, grid: null, cursor: null }; // cursor: the keyboard's place
  cards.set(layer.address, known);
  canvas.addEventListener("pointermove", (event) => magnify(known, event.pointerType === "touch" ? null : valueAt(known, event)));
  canvas.addEventListener("pointerleave", () => magnify(known, null));
  canvas.addEventListener("click", (event) => { const unit = valueAt(known, event); if (unit) choose(layer.address, unit); if (getComputedStyle(byId("value")).position === "fixed") magnify(known, null); });
  canvas.addEventListener("keydown", (event) => steer(known, event));
  canvas.addEventListener("blur", () => { known.cursor = null; drawCard(known); });
  watcher.observe(made);
  return made;
}

async function noticeVisible(entries) {
  for (const entry of entries) seen[entry.isIntersecting ? "add" : "delete"](entry.target.dataset.address);
  for (const { target, isIntersecting } of entries) if (isIntersecting) drawCard(cards.get(target.dataset.address));
  await fetchMissing([...seen]);
}

// Those of some layers that are not there for the picture that is shown.
export const fetchMissing = (addresses) =>
  fetchMaps(addresses.filter((address) => cards.has(address) && state.maps[address]?.id !== state.picture?.id));

// Maps of the layers on screen alone: a deep network's others wait until they are looked at.
export async function fetchMaps(addresses = [...seen]) {
  if (!state.picture || !addresses.length) return;
  const { id } = state.picture;
  const path = `api/maps?id=${id}&layers=${addresses.map(encodeURIComponent).join(",")}`;
  const found = await getArrays(path).catch((error) => { if (error.status === 410) tell("gone", id); else complain(error); });
  if (!found || id !== state.picture?.id) return;
  for (const [address, about] of Object.entries(found.maps)) {
    state.maps[address] = { id, ...about, ...found.arrays[address] };
    if (seen.has(address)) drawCard(cards.get(address));
  }
  tell("maps");
}

// ---------------------------------------------------------------- drawing

// Where each map lies: cells of `cell` px a value, `columns` maps a row.
function gridFor(canvas, shape) {
  const room = Math.max(200, canvas.parentElement.clientWidth - 26);
  if (isVector(shape)) {
    const cell = vectorCell(shape[0]);
    const columns = Math.min(shape[0], Math.floor(room / cell));
    return { vector: true, cell, columns, width: columns * cell, height: Math.ceil(shape[0] / columns) * cell };
  }
  const [num, rows, cols] = shape;
  const wanted = num <= 4 ? 112 : 62;
  const cell = Math.min(Math.max(1, Math.round(wanted / cols)), room / cols);
  const columns = Math.max(1, Math.min(num, Math.floor((room + GAP) / (cols * cell + GAP))));
  const step = [rows * cell + GAP + 10, cols * cell + GAP];
  return { vector: false, cell, columns, rows, cols, step, width: columns * step[1] - GAP, height: Math.ceil(num / columns) * step[0] - GAP };
}

const corner = (grid, i) => [10 + Math.floor(i / grid.columns) * grid.step[0], (i % grid.columns) * grid.step[1]];

function drawCard(known) {
  const maps = state.maps[known.layer.address];
  if (!maps) return;
  const grid = (known.grid = gridFor(known.canvas, maps.shape));
  const context = sizedCanvas(known.canvas, grid.width, grid.height);
  const ink = getComputedStyle(document.body).color;
  context.clearRect(0, 0, grid.width, grid.height);
  if (grid.vector) drawVector(context, grid, maps, known.layer === state.model.layers.at(-1) ? state.model.class_names : null);
  else drawMaps(context, grid, maps, ink);
  outline(context, grid, known);
  const [numShown, total] = [maps.shape[0], maps.total];
  const parts = [];
  if (numShown < total) parts.push(`the first ${count(numShown)} of ${count(total)} are shown`);
  if (maps.num_all_zero) parts.push(`${maps.num_all_zero} all zero for this picture, crossed out`);
  known.note.textContent = parts.join("; ");
  if (known.legend.dataset.ends !== `${maps.low} ${maps.high}`) {
    known.legend.dataset.ends = `${maps.low} ${maps.high}`;
    const bar = element("span", { class: maps.low < 0 ? "around" : "rising", role: "img", "aria-label": "to" });
    known.legend.replaceChildren(number(maps.low, 3), bar, number(maps.high, 3));
  }
}

// The last layer's cells have the names of their classes, others their numbers where there is room.
function drawVector(context, grid, maps, names) {
  const { cell, columns } = grid;
  context.font = "11px system-ui, sans-serif";
  for (let i = 0; i < maps.data.length; i++) {
    const [x, y] = [(i % columns) * cell, Math.floor(i / columns) * cell];
    const { background, text } = cssOf(maps.low, maps.data[i]);
    context.fillStyle = background;
    context.fillRect(x, y, cell - 1, cell - 1);
    if (cell < 40) continue;
    context.fillStyle = text;
    context.fillText(fitting(context, names?.[i] ?? String(i), cell - 7), x + 3, y + cell - 6);
  }
}

function fitting(context, text, room) {
  let length = text.length;
  while (length > 1 && context.measureText(text.slice(0, length)).width > room) length--;
  return text.slice(0, length);
}

function drawMaps(context, grid, maps, ink) {
  const [num, rows, cols] = maps.shape;
  const allZero = new Set(maps.all_zero);
  context.font = "9px system-ui, sans-serif";
  for (let i = 0; i < num; i++) {
    const [y, x] = corner(grid, i);
    const [width, height] = [cols * grid.cell, rows * grid.cell];
    context.fillStyle = ink;
    context.globalAlpha = 0.7;
    context.fillText(String(i), x, y - 2);
    context.globalAlpha = 1;
    if (!allZero.has(i)) context.drawImage(painted(maps.data, i * rows * cols, rows, cols, maps.low), x, y, width, height);
    else {
      context.strokeStyle = "#8a929b";
      context.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
      context.beginPath();
      for (const [from, to] of [[y, y + height], [y + height, y]]) { context.moveTo(x, from); context.lineTo(x + width, to); }
      context.stroke();
    }
  }
}

// The box of a value on its canvas, [x, y, width, height].
function boxOf(grid, unit) {
  if (grid.vector) return [(unit[0] % grid.columns) * grid.cell, Math.floor(unit[0] / grid.columns) * grid.cell, grid.cell, grid.cell];
  const [y, x] = corner(grid, unit[0]);
  return [x + unit[2] * grid.cell, y + unit[1] * grid.cell, grid.cell, grid.cell];
}

// The chosen value, the window that it read in the layer before, its receptive field in the input, and the keyboard's place.
function outline(context, grid, known) {
  const { address } = known.layer;
  const { chosen, working } = state;
  const numShown = state.maps[address].shape[0];
  const frame = (box, colour, width) => {
    context.lineWidth = width + 2; context.strokeStyle = "#ffffff"; context.strokeRect(...box);
    context.lineWidth = width; context.strokeStyle = colour; context.strokeRect(...box);
  };
  if (working && working.source === address && working.rows && !grid.vector) {
    const inside = (taps) => taps.filter((tap) => tap !== null);
    const [rows, columns] = [inside(working.rows), inside(working.columns)];
    const [firstChannel, num] = working.channels;
    for (let c = firstChannel; c < Math.min(firstChannel + num, numShown) && rows.length && columns.length; c++) {
      const [x, y] = boxOf(grid, [c, Math.min(...rows), Math.min(...columns)]);
      const span = [Math.max(...columns) - Math.min(...columns) + 1, Math.max(...rows) - Math.min(...rows) + 1];
      frame([x, y, span[0] * grid.cell, span[1] * grid.cell], "#e08214", 1.5);
    }
    if (working.winner && working.winner[0] < numShown) frame(boxOf(grid, working.winner), "#1b7837", 2);
  } else if (working && address === "input" && working.receptive_field && working.address !== "input") {
    const [top, left, bottom, right] = working.receptive_field;
    for (let c = 0; c < numShown; c++) {
      const [x, y] = boxOf(grid, [c, top, left]);
      frame([x, y, (right - left) * grid.cell, (bottom - top) * grid.cell], "#e08214", 2);
    }
  }
  if (chosen?.address === address && chosen.unit[0] < numShown) frame(boxOf(grid, chosen.unit), "#d0006f", 2);
  if (known.cursor) frame(boxOf(grid, known.cursor), "#00639c", 2);
}

export function redrawAll() { for (const known of cards.values()) drawCard(known); }

export function redraw() { for (const known of cards.values()) if (seen.has(known.layer.address)) drawCard(known); }

// ---------------------------------------------------------------- pointing

const unitOf = (known, index) => (known.layer.output_shape.length === 3 ? [index, 0, 0] : [index]);

function valueAt(known, event) {
  const { grid } = known;
  const maps = state.maps[known.layer.address];
  if (!grid || !maps) return null;
  const box = known.canvas.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  if (grid.vector) {
    const index = Math.floor(y / grid.cell) * grid.columns + Math.floor(x / grid.cell);
    return x < grid.width && index >= 0 && index < maps.shape[0] ? unitOf(known, index) : null;
  }
  const [down, along] = [Math.floor(y / grid.step[0]), Math.floor(x / grid.step[1])];
  const channel = down * grid.columns + along;
  const row = Math.floor((y - 10 - down * grid.step[0]) / grid.cell);
  const column = Math.floor((x - along * grid.step[1]) / grid.cell);
  const inside = along < grid.columns && channel < maps.shape[0] && row >= 0 && row < grid.rows && column >= 0 && column < grid.cols;
  return inside ? [channel, row, column] : null;
}

const indexOf = (maps, unit) => (unit.length === 3 ? (unit[0] * maps.shape[1] + unit[1]) * maps.shape[2] + unit[2] : unit[0]);

// The very value, once the layer's are here: what is drawn are 256 levels of them. Null until then.
function exactly(address, unit) {
  const maps = state.maps[address];
  if (maps.values) return maps.values[indexOf(maps, unit)];
  maps.asked ??= fetchExact(maps, address);
  return null;
}

async function fetchExact(maps, address) {
  try {
    const found = await getArrays(`api/values?id=${maps.id}&layer=${encodeURIComponent(address)}`);
    maps.values = found.arrays.values.data;
  } catch (error) {
    if (error.status === 410) tell("gone", maps.id); else complain(error);
    return;
  }
  if (state.maps[address] !== maps) return;
  if (pointed?.known.layer.address === address) magnify(pointed.known, pointed.unit);
  const { cursor } = cards.get(address);
  if (cursor) tellValue(address, cursor);
}

const inWords = (address, unit) => {
  const value = exactly(address, unit);
  const name = address === state.model.layers.at(-1).address && unit.length === 1 ? `${state.model.class_names[unit[0]]}, ` : "";
  return value === null ? null : `${name}${place(unit)}: ${number(value, 6)}`;
};

function tellValue(address, unit) {
  const words = inWords(address, unit);
  if (words) tell("cursor", words);
}

// The map that is pointed at, larger, beside it, with the value; null takes it away.
function magnify(known, unit) {
  pointed = unit ? { known, unit } : null;
  const lens = byId("lens");
  const words = unit && inWords(known.layer.address, unit);
  lens.hidden = !words;
  if (lens.hidden) return;
  const { grid } = known;
  const maps = state.maps[known.layer.address];
  const canvas = lens.querySelector("canvas");
  canvas.hidden = grid.vector;
  if (!grid.vector) {
    const { rows, cols } = grid;
    const size = 176 / Math.max(rows, cols);
    const context = sizedCanvas(canvas, cols * size, rows * size);
    context.drawImage(painted(maps.data, unit[0] * rows * cols, rows, cols, maps.low), 0, 0, cols * size, rows * size);
    context.lineWidth = 2;
    context.strokeStyle = "#d0006f";
    context.strokeRect(unit[2] * size, unit[1] * size, size, size);
  }
  lens.querySelector("p").textContent = words;
  const map = mapOnScreen(known, unit);
  const [width, height] = [lens.offsetWidth, lens.offsetHeight];
  const left = map.right + LENS_GAP + width < window.innerWidth ? map.right + LENS_GAP : Math.max(4, map.left - LENS_GAP - width);
  lens.style.left = `${left}px`;
  lens.style.top = `${Math.max(4, Math.min(map.top, window.innerHeight - height - 8))}px`;
}

// Where a value's map (of a vector its cell) is on the screen.
function mapOnScreen(known, unit) {
  const { grid } = known;
  const canvas = known.canvas.getBoundingClientRect();
  const [x, y, width, height] = grid.vector ? boxOf(grid, unit) : [...corner(grid, unit[0]).reverse(), grid.cols * grid.cell, grid.rows * grid.cell];
  return { left: canvas.left + x, top: canvas.top + y, right: canvas.left + x + width, bottom: canvas.top + y + height };
}

// What was tapped stays in sight above the sheet that opens below it.
export function keepInSight({ address, unit }) {
  const known = cards.get(address);
  const sheet = byId("value");
  if (!known?.grid || getComputedStyle(sheet).position !== "fixed" || unit[0] >= state.maps[address].shape[0]) return;
  const map = mapOnScreen(known, unit);
  const room = sheet.getBoundingClientRect().top - LENS_GAP;
  if (map.bottom > room) window.scrollBy({ top: Math.min(map.bottom - room, map.top - LENS_GAP) });
}

function steer(known, event) {
  const maps = state.maps[known.layer.address];
  if (!maps || event.ctrlKey || event.metaKey || event.altKey) return;
  const shape = maps.shape.length === 3 ? maps.shape : [maps.shape[0]];
  const at = known.cursor ?? (state.chosen?.address === known.layer.address ? [...state.chosen.unit] : shape.map(() => 0));
  const vector = isVector(maps.shape);
  const steps = vector
    ? { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [0, -known.grid.columns], ArrowDown: [0, known.grid.columns] }
    : { ArrowLeft: [2, -1], ArrowRight: [2, 1], ArrowUp: [1, -1], ArrowDown: [1, 1], PageUp: [0, -1], PageDown: [0, 1] };
  if (event.key === "Enter" || event.key === " ") {
    const isShown = state.working?.address === known.layer.address && String(state.working.unit) === String(at);
    if (isShown) byId("value").querySelector("input, button")?.focus(); // a second time: on to the arithmetic
    else choose(known.layer.address, [...at]);
  }
  else if (steps[event.key]) {
    const [axis, by_] = steps[event.key];
    at[axis] = Math.max(0, Math.min(shape[axis] - 1, at[axis] + by_));
    known.cursor = at;
    drawCard(known);
    tellValue(known.layer.address, at);
  } else return;
  event.preventDefault();
}

export function choose(address, unit) {
  state.chosen = { address, unit };
  tell("chosen");
}

export function focusCard(address) {
  openBlockOf(address);
  cards.get(address)?.canvas.focus({ preventScroll: true });
}

export function shapeOf(address) {
  if (address === "input") { const { input } = state.model; return [input.channels, input.height, input.width]; }
  return address === "softmax" ? [state.model.class_names.length] : layerAt(address).output_shape;
}

on("working", redraw);
on("cleared", () => {
  for (const { canvas, note, legend } of cards.values()) {
    canvas.width = canvas.height = 0;
    note.textContent = legend.textContent = legend.dataset.ends = "";
  }
});
window.addEventListener("resize", () => redraw());
