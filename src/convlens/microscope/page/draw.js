// The pad and every other way a picture comes in. The answer follows the pen: the newest picture is sent as soon as the
// one before it is answered, so that nothing queues up behind a slow network.

import { complain, postBytes } from "./api.js";
import { byId, element } from "./dom.js";
import { photograph } from "./colours.js";
import { state, tell } from "./state.js";

const pad = byId("pad");
const context = pad.getContext("2d", { willReadFrequently: false });
let waiting = null; // the newest picture that is not sent yet: a function that gives the request
let isSending = false;
let isDrawing = false;
let last = null;
let shownAt = 0; // when the maps were last fetched
const MAPS_EVERY_MS = 120; // while the pen moves

export function startDrawing() {
  clear();
  pad.addEventListener("pointerdown", begin);
  pad.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"]) pad.addEventListener(end, () => { isDrawing = false; });
  byId("clear").addEventListener("click", () => { clear(); send(drawn); });
  byId("file").addEventListener("change", (event) => { take(event.target.files[0]); event.target.value = ""; });
  document.addEventListener("paste", (event) => {
    const file = [...event.clipboardData.files].find((f) => f.type.startsWith("image/"));
    if (file) take(file);
  });
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => { event.preventDefault(); take(event.dataTransfer.files[0]); });
}

function clear() {
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, pad.width, pad.height);
}

function at(event) {
  const box = pad.getBoundingClientRect();
  return [((event.clientX - box.left) / box.width) * pad.width, ((event.clientY - box.top) / box.height) * pad.height];
}

function begin(event) {
  event.preventDefault();
  pad.setPointerCapture(event.pointerId);
  isDrawing = true;
  last = at(event);
  stroke(last);
}

function move(event) {
  if (!isDrawing) return;
  const events = event.getCoalescedEvents?.() ?? [];
  for (const one of events.length ? events : [event]) stroke(at(one));
}

function stroke(to) {
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
  send(async () => {
    const answer = await postBytes(`api/see?val=${position}`);
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
  while (waiting) {
    const request = waiting;
    waiting = null;
    try {
      const answer = await request();
      state.picture = { ...answer, ...answer.arrays };
      tell("answer"); // the bars first: they must keep up with the pen
      await new Promise(requestAnimationFrame);
      if (!waiting || performance.now() - shownAt > MAPS_EVERY_MS) {
        await Promise.all(state.afterAnswer.map((then) => then()));
        shownAt = performance.now();
      }
      if (!waiting) await Promise.all(state.afterStroke.map((then) => then()));
    } catch (error) {
      if (error.status === 503) { // the worker is busy: the same again, unless there is something newer
        waiting ??= request;
        await new Promise((done) => setTimeout(done, 300));
      } else if (error.status !== 410) complain(error); // 410: the picture was overtaken
    }
  }
  isSending = false;
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
    const said = label === answer ? label : `${label}, taken for ${answer}`;
    const words = element("span", {}, label === answer ? label : `${label} → ${answer}`);
    return element("button", { title: said, "aria-label": `Look at this picture: ${said}`,
      onclick: () => chosen(found.arrays.positions.data[i]) }, canvas, words);
  }));
}
