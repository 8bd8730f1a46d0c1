// Play: the window slides across the map step by step, with the layer's real stride and padding.

import { painted } from "./colours.js";
import { byId, element, sizedCanvas } from "./dom.js";
import { layerAt, state } from "./state.js";

const STAGE = 190; // px of the longer side of either map
let timer = 0;
let speed = 4; // steps a second
let isPlaying = false;

let fetchValue = null; // shows the chosen value; true when that succeeded

export function player(show) {
  fetchValue = show;
  const stage = element("canvas", { id: "stage", role: "img", "aria-label": "The window on the map before, and the map as far as it is made" });
  const button = (id, words, face, act) => element("button", { id, type: "button", title: words, onclick: act }, face);
  const dial = element("input", { type: "range", min: 1, max: 20, value: speed, "aria-label": "Steps a second" });
  dial.addEventListener("input", () => { speed = Number(dial.value); });
  return element("div", { class: "player" }, stage, element("div", { class: "tools" },
    button("play-back", "One step back", "◀ Back", () => { stopPlaying(); step(-1); }),
    button("play", "Slide the window across the map", "▶ Play", toggle),
    button("play-step", "One step on", "On ▶", () => { stopPlaying(); step(1); }),
    element("label", {}, "Speed ", dial)));
}

export function stopPlaying() {
  isPlaying = false;
  clearTimeout(timer);
  face("▶ Play");
}

function face(text) {
  const button = byId("play");
  if (button) button.textContent = text;
}

function toggle() {
  if (isPlaying) { stopPlaying(); return; }
  isPlaying = true;
  face("❚❚ Pause");
  go();
}

async function go() {
  const started = performance.now();
  const isShown = await step(1);
  if (!isPlaying) return;
  if (!isShown) { stopPlaying(); return; }
  clearTimeout(timer);
  timer = setTimeout(go, Math.max(0, 1000 / speed - (performance.now() - started)));
}

// The next value of the same map, row by row; after the last comes the first.
async function step(by) {
  if (!state.chosen) return false;
  const { address, unit: [channel, row, column] } = state.chosen;
  const [, rows, columns] = layerAt(address).output_shape;
  const next = (row * columns + column + by + rows * columns) % (rows * columns);
  state.chosen = { address, unit: [channel, Math.floor(next / columns), next % columns] };
  return fetchValue(false);
}

export function drawStage() {
  const stage = byId("stage");
  const { working } = state;
  if (!stage || !working) return;
  stage.hidden = false;
  const layer = layerAt(working.address);
  const before = state.maps[working.source];
  const after = state.maps[working.address];
  const [channel, row, column] = working.unit;
  const from = working.channels[0];
  const isOld = (maps) => maps?.id !== state.picture.id;
  if (isOld(before) || isOld(after) || before.shape.length !== 3 || from >= before.shape[0] || channel >= after.shape[0]) { stage.hidden = true; return; }
  const { kernel, stride, dilation, padding } = layer.window;
  const [, high, wide] = before.shape;
  const [, outHigh, outWide] = after.shape;
  // The ring of padding that windows reach, above and left as given, below and right as far as the last window goes.
  const reach = [0, 1].map((a) => ([outHigh, outWide][a] - 1) * stride[a] - padding[a] + dilation[a] * (kernel[a] - 1) + 1);
  const [below, right] = [Math.max(0, reach[0] - high), Math.max(0, reach[1] - wide)];
  const cell = STAGE / Math.max(high + padding[0] + below, wide + padding[1] + right);
  const [fullHigh, fullWide] = [(high + padding[0] + below) * cell, (wide + padding[1] + right) * cell];
  const out = STAGE / Math.max(outHigh, outWide);
  const context = sizedCanvas(stage, fullWide + 24 + outWide * out, Math.max(fullHigh, outHigh * out) + 16);
  context.font = "10px system-ui, sans-serif";
  context.fillStyle = getComputedStyle(document.body).color;
  context.fillText(`${working.source}, channel ${from}`, 0, 10);
  context.fillText(`${working.address}, channel ${channel}, so far`, fullWide + 24, 10);
  context.translate(0, 16);
  context.fillStyle = "#b9c0c8"; // padding
  context.fillRect(0, 0, fullWide, fullHigh);
  context.drawImage(painted(before.data, from * high * wide, high, wide, before.low), padding[1] * cell, padding[0] * cell, wide * cell, high * cell);
  context.lineWidth = 1;
  context.strokeStyle = "#e08214";
  for (let i = 0; i < kernel[0]; i++) {
    for (let j = 0; j < kernel[1]; j++) {
      context.strokeRect((column * stride[1] + j * dilation[1]) * cell, (row * stride[0] + i * dilation[0]) * cell, cell, cell);
    }
  }
  const span = [0, 1].map((a) => (dilation[a] * (kernel[a] - 1) + 1) * cell);
  context.lineWidth = 2.5;
  context.strokeRect(column * stride[1] * cell, row * stride[0] * cell, span[1], span[0]);
  const x = fullWide + 24;
  context.fillStyle = "#b9c0c8"; // not made yet
  context.fillRect(x, 0, outWide * out, outHigh * out);
  context.save(); // the map, as far as the window has come
  context.beginPath();
  context.rect(x, 0, outWide * out, row * out);
  context.rect(x, row * out, (column + 1) * out, out);
  context.clip();
  context.drawImage(painted(after.data, channel * outHigh * outWide, outHigh, outWide, after.low), x, 0, outWide * out, outHigh * out);
  context.restore();
  context.lineWidth = 1;
  context.strokeStyle = "#8a929b";
  context.strokeRect(x, 0, outWide * out, outHigh * out);
  context.lineWidth = 2;
  context.strokeStyle = "#d0006f";
  context.strokeRect(x + column * out, row * out, out, out);
}
