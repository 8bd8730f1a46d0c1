// Teach: pictures are collected class by class, by a camera or from files; a head is trained on them, and answers live.
// The camera is asked for by a press, its pictures go to this page's own server, and it is off when nobody looks.

import { complain, getJson, postBytes, postJson, say } from "./api.js";
import { painted } from "./colours.js";
import { byId, count, element, percent, probability, sizedCanvas } from "./dom.js";
import { doubtOf } from "./doubt.js";
import { state } from "./state.js";

const EVERY_MS = 150; // a picture, while the button is held
const LOOK_AGAIN_MS = 300;
const MOST_SHOWN = 14; // small pictures a class
const MOST_BARS = 6;
const SAID = {
  NotAllowedError: "the camera was refused: allow it beside the browser's address, or choose files",
  NotFoundError: "there is no camera: choose files, or drop them on a class",
  NotReadableError: "the camera is used by another program: end that, or choose files",
};
const rows = new Map(); // class name -> {hold, said, strip, discard, card, last: its newest burst, num: pictures}
let stream = null;
let asked = 0; // counts how often the camera was asked for, or switched off
let held = null; // {name}: the button that is, and the burst that is recorded
let isTraining = false;
let numLoading = 0; // files that are on their way
let opened = null; // takes the trained model

export function startTeach(open) {
  opened = open;
  byId("camera").addEventListener("click", () => (stream ? cameraOff("") : cameraOn()));
  byId("camera-which").addEventListener("change", cameraOn);
  byId("add-class").addEventListener("submit", (event) => { event.preventDefault(); addClass(); });
  byId("teach-train").addEventListener("click", train);
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) cameraOff(stream ? "The camera was switched off while nobody looked at this page." : "");
  });
}

export function enterTeach() { getJson("api/teach").then(show, complain); }

export function leaveTeach() { cameraOff(stream ? "The camera is off while another view is open." : ""); }

// ---------------------------------------------------------------- the camera

async function cameraOn() {
  cameraOff("");
  const note = byId("camera-note");
  if (!navigator.mediaDevices) {
    note.textContent = "a browser gives a camera to pages of this machine (localhost) or under https alone: choose files";
    return;
  }
  const which = byId("camera-which").value;
  const mine = asked;
  try {
    const found = await navigator.mediaDevices.getUserMedia({ audio: false,
      video: { width: { ideal: 640 }, height: { ideal: 480 }, ...(which ? { deviceId: { exact: which } } : {}) } });
    if (mine !== asked || document.hidden || byId("teach").hidden) { for (const track of found.getTracks()) track.stop(); return; }
    stream = found;
  } catch (error) {
    note.textContent = SAID[error.name] ?? `the camera could not be opened (${error.message || error.name}): choose files`;
    return;
  }
  for (const track of stream.getTracks()) track.addEventListener("ended", () => { if (mine === asked) cameraOff("The camera was taken away."); });
  const video = byId("video");
  video.srcObject = stream;
  await video.play().catch(() => {});
  if (mine !== asked) return;
  byId("live").hidden = false;
  byId("camera").textContent = "Camera off";
  for (const { hold } of rows.values()) hold.disabled = false;
  offerCameras().catch(() => {});
  answerLive();
}

async function offerCameras() {
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
  const now = stream?.getVideoTracks()[0]?.getSettings().deviceId;
  byId("camera-which").hidden = cameras.length < 2;
  byId("camera-which").replaceChildren(...cameras.map(({ deviceId, label }, i) =>
    element("option", { value: deviceId, selected: deviceId === now }, label || `camera ${i + 1}`)));
}

function cameraOff(why) {
  asked++;
  held = null;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  byId("video").srcObject = null;
  byId("live").hidden = true;
  byId("camera").textContent = "Camera on";
  byId("camera-note").textContent = why;
  for (const { hold } of rows.values()) hold.disabled = true;
}

// What the camera shows now, as a JPEG.
function frame() {
  const video = byId("video");
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0);
  return canvas.convertToBlob({ type: "image/jpeg", quality: 0.92 });
}

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// ---------------------------------------------------------------- live answers

// One picture at a time, the next when the answer to the one before is drawn.
async function answerLive() {
  const mine = stream;
  while (stream === mine) {
    if (held !== null || isTraining || !byId("answers").checked || !byId("video").videoWidth) {
      if (!byId("answers").checked) clearLive();
      await pause(EVERY_MS);
      continue;
    }
    try {
      const started = performance.now();
      const wish = byId("cam").checked ? "?grad_cam=1" : "";
      const answer = await postBytes(`api/live${wish}`, await frame());
      if (stream !== mine) return;
      if (answer.model !== state.model.path) { opened(await getJson("api/model")); continue; } // of another tab
      showLive(answer, performance.now() - started);
      await new Promise(requestAnimationFrame);
    } catch (error) {
      if (error.status !== 503) complain(error);
      await pause(10 * EVERY_MS);
    }
  }
}

function clearLive() {
  byId("live-answer").replaceChildren();
  byId("live-note").textContent = "";
  const { width, height } = byId("overlay");
  byId("overlay").getContext("2d").clearRect(0, 0, width, height);
}

function showLive(answer, ms) {
  const { label, place, arrays } = answer;
  const data = arrays.probabilities.data;
  const names = state.model.class_names;
  const order = Array.from(data.keys()).sort((a, b) => data[b] - data[a]).slice(0, MOST_BARS);
  if (data.length <= MOST_BARS) order.sort((a, b) => a - b);
  byId("live-answer").replaceChildren(...order.map((k) => {
    const bar = element("span", { class: "bar" });
    bar.style.width = `${100 * data[k]}%`;
    return element("li", { class: k === label ? "best" : "" }, element("span", { class: "name" }, names[k]),
      element("span", { class: "track" }, bar), element("span", { class: "share" }, probability(data[k])));
  }));
  byId("live-answer").dataset.label = names[label];
  byId("live-note").textContent = `${doubtOf(answer)} ${state.model.path}; ${Math.round(ms)} ms a picture`;
  const video = byId("video");
  const context = sizedCanvas(byId("overlay"), video.clientWidth, video.clientHeight);
  if (!arrays.map) return;
  const { data: levels, shape: [height, width] } = arrays.map;
  context.globalAlpha = 0.45;
  context.imageSmoothingEnabled = true;
  const scale = video.clientWidth / video.videoWidth;
  const [left, top, right, bottom] = place.map((at) => at * scale);
  context.drawImage(painted(levels, 0, height, width, 0), left, top, right - left, bottom - top);
}

// ---------------------------------------------------------------- the classes

function addClass() {
  const name = byId("class-name").value.trim().normalize("NFC");
  if (!name) return;
  row(name);
  byId("class-name").value = "";
  tellWhatIsMissing();
}

// A class's row, made where there is none.
function row(name) {
  if (rows.has(name)) return rows.get(name);
  const hold = element("button", { type: "button", class: "main hold", "data-hold": name }, "Hold to record");
  const file = element("input", { type: "file", accept: "image/*", multiple: true, class: "unseen", id: `files-${rows.size}` });
  const discard = element("button", { type: "button", hidden: true, onclick: () => discardLast(name) }, "Discard the last take");
  const remove = element("button", { type: "button", onclick: () => removeClass(name) }, "Remove the class");
  const said = element("span", { class: "dim" });
  const strip = element("div", { class: "thumbs", "aria-hidden": "true" });
  const card = element("article", { class: "card", "data-class": name }, element("h3", {}, name, " ", said),
    element("div", { class: "tools" }, hold, element("label", { class: "button", for: file.id }, "Choose files…"), file, discard, remove), strip);
  const made = { hold, said, strip, discard, card, last: null, num: 0 };
  hold.disabled = !stream;
  rows.set(name, made);
  byId("classes").append(card);
  hold.addEventListener("pointerdown", (event) => { if (event.button === 0) { hold.setPointerCapture(event.pointerId); record(name); } });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture", "blur", "keyup"]) {
    hold.addEventListener(end, () => { if (held?.name === name) held = null; }); // another's may be held already
  }
  hold.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press is one on phones
  hold.addEventListener("keydown", (event) => { if ([" ", "Enter"].includes(event.key) && !event.repeat) record(name); });
  file.addEventListener("change", () => { addFiles(name, [...file.files]); file.value = ""; });
  card.addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    event.stopPropagation(); // or the view Look takes it
    addFiles(name, [...event.dataTransfer.files]);
  });
  return made;
}

// What the camera sees, picture after picture, as one burst, until the button is let go. The next one begins when this
// one is over: two at once would be one take in two groups.
async function record(name) {
  const made = rows.get(name);
  if (held !== null || isTraining || !stream || document.querySelector(".recording")) return;
  const mine = (held = { name });
  made.hold.classList.add("recording");
  let burst = "new";
  try {
    do {
      const until = performance.now() + EVERY_MS;
      const picture = await frame();
      const found = await keep(name, picture, `&burst=${burst}&suffix=.jpg`);
      made.last = burst = found.burst;
      show(found);
      await thumbnail(made, picture);
      await pause(until - performance.now());
    } while (held === mine);
  } catch (error) {
    if (stream) complain(error);
  } finally {
    if (held === mine) held = null;
    made.hold.classList.remove("recording");
  }
  prepare();
}

const keep = (name, body, more) => getJson(`api/teach/picture?name=${encodeURIComponent(name)}${more}`, { method: "POST", body });

async function addFiles(name, files) {
  const failed = [];
  numLoading += files.length;
  for (const file of files) {
    const suffix = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
    try {
      show(await keep(name, file, `&suffix=${encodeURIComponent(suffix)}`));
      await thumbnail(rows.get(name), file);
    } catch (error) {
      failed.push(`${file.name}: ${error.message}`);
    }
    numLoading--;
  }
  tellWhatIsMissing();
  if (failed.length) complain({ message: failed.length > 1 ? `${failed.length} of ${files.length} files were not kept; the first, ${failed[0]}` : failed[0] });
  prepare();
}

// The network looks at what is there already, so that training takes a moment. Where it cannot, training says why.
function prepare() {
  if (!isTraining && !byId("teach-train").disabled) postJson("api/teach/prepare").catch(() => {});
}

async function thumbnail({ strip }, picture) {
  const image = await createImageBitmap(picture).catch(() => null); // TIFF is none of a browser's
  if (!image) return;
  const canvas = element("canvas", { width: 48, height: 48 });
  canvas.getContext("2d").drawImage(image, 0, 0, 48, 48);
  strip.prepend(canvas);
  while (strip.children.length > MOST_SHOWN) strip.lastChild.remove();
}

async function discardLast(name) {
  const made = rows.get(name);
  try {
    show(await postJson("api/teach/discard", { name, burst: made.last }));
    made.last = null;
    made.discard.hidden = true;
    made.strip.replaceChildren();
  } catch (error) {
    complain(error);
  }
}

async function removeClass(name) {
  const { num, card } = rows.get(name);
  if (num && !confirm(`Remove ${name} and its ${count(num)} ${num === 1 ? "picture" : "pictures"} from the disk? Networks that learned from them stay.`)) return;
  try {
    const found = num ? await postJson("api/teach/remove", { name }) : await getJson("api/teach");
    card.remove();
    rows.delete(name);
    show(found);
  } catch (error) {
    complain(error);
  }
}

// ---------------------------------------------------------------- training

async function train() {
  isTraining = true;
  byId("teach-train").disabled = true;
  const followed = follow();
  try {
    opened(await postJson("api/teach/train"));
    say("The network is trained.");
  } catch (error) {
    complain(error);
  }
  isTraining = false;
  await followed;
  tellWhatIsMissing();
  getJson("api/teach").then(show, complain);
}

async function follow() {
  while (isTraining) {
    const { training } = await getJson("api/teach").catch(() => ({}));
    if (training && isTraining) byId("teach-state").textContent = `${training.what}: ${percent(training.done, 0)}`;
    byId("teach-progress").hidden = !isTraining;
    byId("teach-progress").value = training?.done ?? 0;
    await pause(LOOK_AGAIN_MS);
  }
  byId("teach-progress").hidden = true;
}

function show({ folder, classes, result }) {
  byId("collected").textContent = folder;
  for (const [name, made] of rows) {
    made.num = classes.find((one) => one.name === name)?.num_pictures ?? 0;
    if (!made.num) made.said.textContent = "no pictures yet";
  }
  for (const { name, num_pictures: num, num_groups: groups } of classes) {
    const made = row(name);
    made.num = num;
    made.said.textContent = `${count(num)} ${num === 1 ? "picture" : "pictures"}, ${groups === 1 ? "in one take" : `in ${count(groups)} takes`}`;
    made.discard.hidden = made.last === null;
  }
  tellWhatIsMissing();
  if (!result || isTraining) return;
  const { score, note, run } = result;
  byId("teach-score").textContent = score ? `${score.text}: ${note}` : note;
  byId("teach-run").textContent = `kept in ${run}`;
}

function tellWhatIsMissing() {
  const filled = [...rows.values()].filter(({ num }) => num).length;
  byId("teach-train").disabled = isTraining || numLoading > 0 || filled < 2;
  if (!isTraining) byId("teach-state").textContent = filled < 2 ? "collect pictures of two classes or more" : "";
}
