// A deep network's layers folded by the size of their maps, with a strip of thumbnails that leads to each block.

import { complain, getArrays } from "./api.js";
import { painted } from "./colours.js";
import { by, byId, element, sizedCanvas } from "./dom.js";
import { state, tell } from "./state.js";

export const MANY_LAYERS = 40;
const SIDE = 52;
let blocks = []; // {name, layers, leads: the address of the thumbnail, details, canvases}

const sizeOf = ({ output_shape: shape }) => (shape.length === 3 && shape[1] * shape[2] > 1 ? by(shape.slice(1)) : "vectors");

// Layers in a row with maps of one size; padding belongs to what comes after it.
export function blocksOf(layers) {
  const found = [];
  let waiting = [];
  for (const layer of layers) {
    if (layer.title.startsWith("zeropad")) { waiting.push(layer); continue; }
    if (found.at(-1)?.name !== sizeOf(layer)) found.push({ name: sizeOf(layer), layers: [], leads: null });
    const block = found.at(-1);
    block.layers.push(...waiting, layer);
    waiting = [];
    if (block.name !== "vectors") block.leads = layer.address;
  }
  found.at(-1)?.layers.push(...waiting);
  return found;
}

// The strip, and the blocks closed; `card` makes a layer's card.
export function foldedCards(layers, card) {
  blocks = blocksOf(layers);
  const strip = element("nav", { class: "strip", "aria-label": "Blocks of layers" });
  const folded = blocks.map((block) => {
    const [first, last] = [block.layers[0].address, block.layers.at(-1).address];
    const words = `layers ${first} to ${last}`;
    block.canvases = [0, 1].map(() => element("canvas", { "aria-hidden": "true", width: SIDE, height: SIDE }));
    block.details = element("details", { class: "block card" },
      element("summary", {}, block.canvases[1], element("strong", {}, block.name), element("span", { class: "dim" }, ` ${words}`)),
      element("div", { class: "layers" }, ...block.layers.map(card)));
    strip.append(element("button", { title: words, "data-block": block.name, onclick: () => unfold(block) },
      block.canvases[0], element("span", {}, block.name)));
    return block.details;
  });
  return [strip, ...folded];
}

function unfold(block) {
  block.details.open = true;
  block.details.scrollIntoView({ block: "start", behavior: "smooth" });
  block.details.querySelector("summary").focus({ preventScroll: true });
}

// A layer that is asked for lies in an open block.
export function openBlockOf(address) {
  const block = blocks.find(({ layers }) => layers.some((layer) => layer.address === address));
  if (block) block.details.open = true;
}

export async function fetchThumbnails() {
  const wanted = blocks.filter((block) => block.leads !== null);
  if (!state.picture || !wanted.length || !byId("layers").contains(wanted[0].details)) return;
  const { id } = state.picture;
  const path = `api/thumbnails?id=${id}&layers=${wanted.map((block) => encodeURIComponent(block.leads)).join(",")}`;
  const found = await getArrays(path).catch((error) => { if (error.status === 410) tell("gone", id); else complain(error); });
  if (!found || id !== state.picture?.id) return;
  for (const block of wanted) {
    const { data, shape: [height, width] } = found.arrays[block.leads];
    const map = painted(data, 0, height, width, found.maps[block.leads].low);
    for (const canvas of block.canvases) sizedCanvas(canvas, SIDE, SIDE).drawImage(map, 0, 0, SIDE, SIDE);
  }
}
