// The pad and every other way a picture comes in. The answer follows the pen: the newest picture is sent as soon as the
// one before it is answered, so that nothing queues up behind a slow network.

import { complain, postBytes, say } from "./api.js";
import { photograph } from "./colours.js";
import { byId, element, probability } from "./dom.js";
import { doubtOf } from "./doubt.js";
import { on, state, tell } from "./state.js";

const pad = byId("pad");
const context = pad.getContext("2d");
let waiting = null; // the newest picture that is not sent yet: a function that gives the request
let newest = null; // the request behind the picture that is shown
let isSending = false;
let sheet = 0; // counts blank sheets: an answer to what was wiped away is none
let pointer = null; // the one that draws
let last = null;
let drawing = 0; // counts what the pad holds: a picture that comes too late is not drawn over the next
let isSample = false; // whether the pad holds the picture that the page opened with
let validation = null; // {position, data} of the validation image that the pad holds
let shownAt = 0; // when the maps were last fetched
const KEPT = "drawing";
const OVERTAKEN = Object.assign(new Error("something else was drawn"), { status: 410 });
const MAPS_EVERY_MS = 120; // while the pen moves

export function startDrawing() {
  clear();
  addEventListener("pagehide", keep);
  pad.addEventListener("pointerdown", begin);
  pad.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { pointer = null; });
  on("gone", (id) => { if (id === state.picture?.id && newest) send(newest); });
  byId("clear").addEventListener("click", () => { clear(); forget(); });
  byId("save").addEventListener("click", save);
  byId("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
    if (file) take(file);
  });
  const hasFiles = (event) => event.dataTransfer.types.includes("Files"); // text is dragged as ever
  document.addEventListener("dragover", (event) => { if (hasFiles(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    take(event.dataTransfer.files[0]);
  });
}

// A file that `convlens look` and `predict` take: the pad, or of a validation image the very pixels that the network sees.
function save() {
  const canvas = element("canvas", { width: pad.width, height: pad.height });
  const { data, shape: [height, width, channels] } = state.picture?.image ?? { shape: [] };
  if (validation && data) Object.assign(canvas, { width, height });
  canvas.getContext("2d").drawImage(validation && data ? photograph(data, 0, height, width, channels) : pad, 0, 0);
  const link = element("a", { href: canvas.toDataURL("image/png"), download: `${state.picture?.name?.replace(/[^\w.-]+/g, "-").replace(/\.\w+$/, "") ?? "drawing"}.png` });
  link.click();
}

// A drawing or a validation image survives a reload: this tab keeps it. (A file would come back as another picture.)
function keep() {
  try {
    if (newest === drawn) sessionStorage.setItem(KEPT, pad.toDataURL("image/png").split(",")[1]);
    else if (validation && !isSample) sessionStorage.setItem(KEPT, JSON.stringify(validation));
    else sessionStorage.removeItem(KEPT);
  } catch {
    // no room: then it is gone
  }
}

// What the page opens with: what this tab kept, else a validation image, so that there is something to look at.
export async function openPicture() {
  // Never framed a second time, as a drawing: a validation image of other data makes room for one of this model's.
  if (newest && !isSample && validation) return validation.data === dataOf() ? takeValidation(validation.position) : sample();
  if (newest && !isSample) return send(drawn);
  const kept = newest ? null : sessionStorage.getItem(KEPT);
  sessionStorage.removeItem(KEPT);
  if (kept?.startsWith("{")) {
    const { position, data } = JSON.parse(kept);
    return data === dataOf() ? takeValidation(position) : sample();
  }
  if (kept) {
    const version = drawing;
    const image = await createImageBitmap(new Blob([Uint8Array.from(atob(kept), (c) => c.charCodeAt(0))]));
    if (version !== drawing) return;
    clear();
    context.drawImage(image, 0, 0);
    send(drawn);
  } else sample();
}

function sample() {
  if (!state.model.has_validation) return;
  takeValidation(0);
  isSample = true;
}

// What tells whether positions are of the same images.
const dataOf = () => JSON.stringify([state.model.dataset?.fingerprint, state.model.dataset?.val_frac]);

function clear() {
  drawing++;
  isSample = false;
  validation = null;
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, pad.width, pad.height);
}

// A blank pad is no picture: there is no answer to it.
function forget() {
  sheet++;
  waiting = newest = state.picture = null;
  state.maps = {};
  tell("cleared");
}

function at(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}

function begin(event) {
  if (!event.isPrimary || event.button !== 0) return;
  event.preventDefault();
  pad.setPointerCapture(event.pointerId);
  if (isSample) clear();
  pointer = event.pointerId;
  last = at(event);
  stroke(last);
}

function move(event) {
  if (event.pointerId !== pointer) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length ? events : [event]) stroke(at(one));
}

function stroke(to) {
  drawing++;
  validation = null;
  context.strokeStyle = byId("ink").value;
  context.lineWidth = Number(byId("pen").value);
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(...last);
  context.lineTo(...to);
  context.stroke();
  last = to;
  send(drawn);
}

async function drawn() {
  return postBytes("api/see", await new Promise((done) => pad.toBlob(done, "image/png")));
}

// A file as it is goes to the server; the pad shows it, if the browser can read it.
async function take(file) {
  if (!file) return;
  clear();
  forget();
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(pad.width / image.width, pad.height / image.height);
    const [width, height] = [image.width * scale, image.height * scale];
    context.drawImage(image, (pad.width - width) / 2, (pad.height - height) / 2, width, height);
  } catch {
    // the server says what is wrong with it
  }
  send(() => postBytes("api/see", file));
}

// A validation image, by its position.
export function takeValidation(position) {
  clear();
  const version = drawing;
  validation = { position, data: dataOf() };
  send(async () => {
    const answer = await postBytes(`api/see?val=${position}`);
    if (version !== drawing) throw OVERTAKEN;
    const { data, shape: [height, width, channels] } = answer.arrays.image;
    context.imageSmoothingEnabled = false;
    const scale = Math.min(pad.width / width, pad.height / height);
    const box = [(pad.width - width * scale) / 2, (pad.height - height * scale) / 2, width * scale, height * scale];
    context.drawImage(photograph(data, 0, height, width, channels), ...box);
    context.imageSmoothingEnabled = true;
    return answer;
  });
}

export function send(request) {
  waiting = request;
  if (!isSending) sendWaiting();
}

async function sendWaiting() {
  isSending = true;
  try {
    await sendAll();
  } finally {
    isSending = false;
  }
}

async function sendAll() {
  while (waiting) {
    const request = waiting;
    waiting = null;
    const drawnOn = sheet;
    try {
      const answer = await request();
      if (drawnOn !== sheet) continue;
      if (answer.model !== state.model.path) continue; // to the model before
      newest = request;
      byId("problem").hidden = true;
      state.picture = { ...answer, ...answer.arrays };
      tell("answer"); // the bars first: they must keep up with the pen
      await new Promise(requestAnimationFrame);
      if (!waiting || performance.now() - shownAt > MAPS_EVERY_MS) {
        await Promise.all(state.afterAnswer.map((then) => then()));
        shownAt = performance.now();
      }
      if (!waiting) await Promise.all(state.afterStroke.map((then) => then()));
      if (waiting || !state.picture) continue;
      const { label, probabilities } = state.picture;
      say(`Prediction: ${state.model.class_names[label]}, ${probability(probabilities.data[label])} percent. ${doubtOf(state.picture)}`);
    } catch (error) {
      if (error.status === 503) { // the worker is busy: the same again, unless there is something newer
        waiting ??= request;
        await new Promise((done) => setTimeout(done, 300));
      } else if (error.status !== 410) complain(error); // 410: the picture was overtaken
    }
  }
}

// Small pictures as buttons; each is a validation image.
export function thumbnails(box, found, names, chosen) {
  const { data, shape: [num, height, width, channels] } = found.arrays.images;
  box.replaceChildren(...Array.from({ length: num }, (_, i) => {
    const canvas = element("canvas", { width: 48, height: 48 });
    const view = canvas.getContext("2d");
    view.imageSmoothingEnabled = width > 48;
    view.drawImage(photograph(data, i * height * width * channels, height, width, channels), 0, 0, 48, 48);
    const [label, answer] = [found.arrays.labels.data[i], found.arrays.answers.data[i]].map((k) => names[k]);
    const name = found.names[i];
    const said = `${label === answer ? label : `${label}, predicted as ${answer}`}; held out for validation (${name} in the data)`;
    const words = element("span", {}, label === answer ? label : `${label} → ${answer}`);
    const doubt = found.doubtful[i] ? [element("span", { class: "file" }, "check the label")] : [];
    return element("button", { title: said,
      onclick: () => chosen(found.arrays.positions.data[i]) }, canvas, words, ...doubt, element("span", { class: "file" }, name.split("/").at(-1)));
  }));
}
