// The left column: what the network sees, its answer as bars, and the validation images that it gets wrong.

import { complain, getArrays, say } from "./api.js";
import { fetchThumbnails } from "./blocks.js";
import { cssOf, photograph } from "./colours.js";
import { doubtOf } from "./doubt.js";
import { byId, count, element, FRAMINGS, number, probability, sizedCanvas } from "./dom.js";
import { openPicture, takeValidation, thumbnails } from "./draw.js";
import { buildCards, choose, fetchMaps, fetchMissing, redrawAll } from "./maps.js";
import { on, state, tell } from "./state.js";
import { closeValue } from "./value.js";

const MOST_BARS = 10;
const LEAST_EVIDENCE = 1e-6; // of Grad-CAM, in units of the logit: below is what rounding leaves of nothing
let overlay = null, explained = null; // the latter: the class whose bar was pressed, of which picture

export function startLook() {
  state.afterAnswer.push(() => fetchMaps(), fetchThumbnails);
  state.afterStroke.push(fetchOverlay);
  byId("method").addEventListener("change", fetchOverlay);
  byId("rather").addEventListener("change", () => { byId("method").value ||= "occlusion"; fetchOverlay(); });
  byId("print").addEventListener("click", () => printAll().catch(complain));
  on("cleared", () => {
    closeValue();
    byId("answer").replaceChildren(element("li", { class: "dim" }, "Nothing is drawn: there is nothing to predict."));
    byId("mirrored").hidden = byId("doubt").hidden = byId("badge").hidden = true;
    for (const part of byId("answer-note").children) part.textContent = "";
    say("");
    delete byId("answer").dataset.label;
    byId("seen").width = byId("seen").height = 0;
    byId("seen-note").textContent = "";
  });
  on("answer", () => { overlay = null; showAnswer(); showSeen(); });
}

// With the maps of all layers, those too that nobody has scrolled to.
async function printAll() {
  await fetchMissing(["input", ...state.model.layers.map((layer) => layer.address)]);
  redrawAll();
  print();
}

// A model was opened: everything begins anew.
export function openLook() {
  closeValue();
  state.maps = {};
  state.picture = null;
  const others = state.model.class_names.map((name, k) => element("option", { value: String(k) }, name));
  byId("rather").replaceChildren(element("option", { value: "" }, "(its class alone)"), ...others);
  byId("ink").hidden = state.model.input.channels !== 3;
  byId("answer").replaceChildren();
  byId("mirrored").hidden = byId("doubt").hidden = byId("badge").hidden = true;
  buildCards();
  openPicture().catch(complain);
  showMisclassified();
}

function showAnswer() {
  const { probabilities: { data }, label } = state.picture;
  const order = Array.from(data.keys()).sort((a, b) => data[b] - data[a]).slice(0, MOST_BARS);
  if (data.length <= MOST_BARS) order.sort((a, b) => a - b); // few classes keep their places while the pen moves
  const list = byId("answer");
  if (list.children.length !== order.length) {
    list.replaceChildren(...order.map(() => element("li", {}, element("button", {}, element("span", { class: "name" }),
      element("span", { class: "track" }, element("span", { class: "bar" })), element("span", { class: "share" })))));
  }
  order.forEach((k, i) => {
    const button = list.children[i].firstChild;
    const name = state.model.class_names[k];
    button.querySelector(".name").textContent = k === state.picture.true ? `${name} ✓` : name;
    button.title = k === state.picture.true ? "the true class" : "";
    button.querySelector(".bar").style.width = `${100 * data[k]}%`;
    button.querySelector(".share").textContent = probability(data[k]);
    button.classList.toggle("best", k === label);
    button.onclick = () => { explained = { id: state.picture.id, k }; choose("softmax", [k]); fetchOverlay(); };
  });
  list.dataset.label = state.model.class_names[label];
  list.dataset.id = state.picture.id;
  const mirrored = byId("mirrored"), both = state.picture.mirrored;
  mirrored.hidden = !both;
  const doubt = doubtOf(state.picture);
  byId("doubt").hidden = !doubt;
  byId("doubt").textContent = doubt;
  byId("badge").textContent = [state.picture.blank ? "no ink found" : state.picture.unfamiliar && "unfamiliar", state.picture.uncertain && "uncertain"].filter(Boolean).join(", ");
  byId("badge").hidden = !byId("badge").textContent;
  if (both) mirrored.textContent = `With its mirror image, as predict answers: ${state.model.class_names[both.label]}, ${probability(both.probability)} %`;
  byId("answer-note").firstChild.textContent = `${state.picture.true === undefined ? "" : "✓ the true class. "}Press a bar to see its arithmetic`;
  byId("answer-note").lastChild.textContent = `, and under Attribution what speaks for its class.${state.picture.unfamiliar === false ? " No warning is no proof: some pictures of other things are called unfamiliar, others are not." : state.picture.unfamiliar === true ? "" : " This network cannot tell what is unfamiliar."}`;
}

async function fetchOverlay() {
  const method = byId("method").value;
  overlay = null;
  if (method && state.picture) {
    const { id } = state.picture;
    const label = explained?.id === id ? explained.k : state.picture.label;
    const other = byId("rather").value, versus = other === String(label) ? "" : other;
    const found = await getArrays(`api/attribution?id=${id}&method=${method}&label=${label}&versus=${versus}`).catch((error) => {
      if (error.status === 410) tell("gone", id); else complain(error);
    });
    if (found && id === state.picture?.id) overlay = found;
  }
  showSeen();
}

function showSeen() {
  if (!state.picture) return;
  const { data, shape: [height, width, channels] } = state.picture.image;
  const size = 168 / Math.max(height, width);
  const context = sizedCanvas(byId("seen"), width * size, height * size);
  context.globalAlpha = overlay ? 0.4 : 1;
  context.drawImage(photograph(data, 0, height, width, channels), 0, 0, width * size, height * size);
  const { input } = state.model, { true: truth, name: sample } = state.picture;
  const known = truth === undefined ? "" : `; a validation image, held out from training (${sample} in the data), in truth ${state.model.class_names[truth]}`;
  byId("seen-note").textContent = `${height}×${width} pixels, ${state.picture.blank ? "no ink found" : FRAMINGS[input.framing]}${known}`;
  if (!overlay) return;
  const values = overlay.arrays.map.data;
  const reach = values.reduce((a, b) => Math.max(a, Math.abs(b)), 1e-12);
  const low = overlay.method === "grad_cam" ? 0 : -1;
  const [name, other] = [overlay.label, overlay.versus].map((k) => state.model.class_names[k]);
  const what = overlay.versus === null ? name : `${name} rather than ${other}`;
  if (!low && reach <= LEAST_EVIDENCE) {
    byId("seen-note").textContent = `Grad-CAM: nothing speaks for ${what} in these maps`;
    return;
  }
  context.globalAlpha = 0.75;
  values.forEach((value, i) => {
    context.fillStyle = cssOf(low, low ? 127.5 * (1 + value / reach) : (255 * value) / reach).background;
    context.fillRect((i % width) * size, Math.floor(i / width) * size, Math.ceil(size), Math.ceil(size));
  });
  const ends = low ? `blue −${number(reach, 2)}, white 0, red +${number(reach, 2)}` : `dark 0, bright ${number(reach, 2)}`;
  const coarse = low ? "" : `; ${overlay.size.join("×")} values of layer ${overlay.layer}, enlarged: coarse, occlusion tells more`;
  byId("seen-note").textContent = `${low ? "red speaks for" : "for"} ${what}, in units of ${overlay.versus === null ? "its logit" : "the difference of their logits"}: ${ends}${coarse}`;
}

async function showMisclassified() {
  const note = byId("misclassified-note");
  byId("misclassified").replaceChildren();
  note.textContent = "measuring…";
  try {
    const found = await getArrays("api/images?most=24");
    thumbnails(byId("misclassified"), found, state.model.class_names, (position) => { takeValidation(position); byId("look").scrollIntoView(); });
    const doubt = found.num_doubtful ? `; in ${count(found.num_doubtful)} perhaps not the network but the label is wrong` : "";
    note.textContent = `${count(found.total)} in all; the most confident first: true class → predicted${doubt}`;
  } catch (error) {
    note.textContent = error.message;
  }
}
