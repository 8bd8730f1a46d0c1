// The lab: a sentence is explained while it is typed, trained on the model's own data, and opened in the microscope.

import { complain, getJson, postJson, say } from "./api.js";
import { accuracyOf, by, byId, count, element, number, percent, svg } from "./dom.js";
import { state } from "./state.js";

// Each layer once, as it stands in a sentence, and what it does.
const VOCABULARY = [
  ["conv(16, 3, padding=1)", "convolution: 16 filters of 3×3, which slide over all maps that come in; stride, padding, dilation, groups, bias"],
  ["maxpool(2)", "the largest of each 2×2"],
  ["avgpool(2)", "the mean of each 2×2"],
  ["globalavgpool", "the mean of each map; flatten follows"],
  ["globalmaxpool", "the largest value of each map; flatten follows"],
  ["zeropad(1, 1, 1, 1)", "zeros around each map: left, right, top, bottom"],
  ["relu", "0 for what is below 0, else as it is"],
  ["relu6", "relu, cut off at 6"],
  ["leakyrelu(0.01)", "below 0 a hundredth of it"],
  ["gelu", "a smooth relu"],
  ["silu", "x · sigmoid(x), smooth too"],
  ["hardswish", "silu, of straight pieces"],
  ["tanh", "squeezed between −1 and 1"],
  ["sigmoid", "squeezed between 0 and 1"],
  ["batchnorm", "each map brought to mean 0 and spread 1 over the batch, then weighted"],
  ["groupnorm(4)", "the same over four groups of maps of one image"],
  ["dropout(0.5)", "in training, half of the values are set to 0 by chance"],
  ["flatten", "maps to one vector: before linear"],
  ["linear(classes)", "fully connected; as the last layer, a number for each class"],
  ["scale(0.125)", "each value times a number"],
  ["repeat(2, conv(16, 3, padding=1) relu)", "the same layers several times, with weights of their own"],
  ["residual(conv(channels, 3, padding=1) relu)", "what comes in is added to what comes out"],
];
const EXAMPLES = [
  ["flatten linear(classes)", "no convolution at all: the least there is"],
  ["conv(8, 3) relu maxpool(2) flatten linear(classes)", "one convolution"],
  ["conv(16, 3, padding=1) relu maxpool(2) conv(32, 3, padding=1) relu maxpool(2) flatten linear(classes)", "two, as in most tutorials"],
  ["conv(6, 5, padding=2) tanh avgpool(2) conv(16, 5) tanh avgpool(2) flatten linear(120) tanh linear(84) tanh linear(classes)", "LeNet-5, of 1998"],
  ["conv(16, 3, padding=1) relu residual(conv(16, 3, padding=1) relu conv(16, 3, padding=1)) relu globalavgpool flatten linear(classes)", "a residual block"],
  ["tutorial", "a preset, by its name"],
];
const LOOK_AGAIN_MS = 700;
let typing = 0;
let following = 0;
const given = {}; // what this page put into the fields
const LEAST_SEEN_MS = 3000; // before it is said how long it will take
let firstSeen = null; // of the training that is followed: {place, step, at}

export function startLab(opened) {
  const sentence = byId("sentence");
  sentence.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(explain, 120); mark(null); });
  const item = ([text, what], press) => element("li", {}, element("button", { type: "button", class: "code", onclick: () => press(text) }, text), ` ${what}`);
  byId("vocabulary").replaceChildren(...VOCABULARY.map((one) => item(one, insert)));
  byId("examples").replaceChildren(...EXAMPLES.map((one) => item(one, replace)));
  new ResizeObserver(() => mark(byId("caret").dataset.column)).observe(sentence);
  sentence.addEventListener("scroll", () => mark(byId("caret").dataset.column));
  byId("training").addEventListener("submit", (event) => { event.preventDefault(); train().catch(complain); });
  byId("compare").addEventListener("click", compareBoth);
  byId("stop").addEventListener("click", () => postJson("api/lab/stop").then(showStatus, complain));
  byId("open").addEventListener("click", () => postJson("api/lab/open").then(opened, complain));
}

// The model's own sentence and values, but for what somebody has typed.
export function openLab() {
  const own = { sentence: state.model.architecture };
  for (const name of ["epochs", "batch_size", "lr"]) own[name] = String(state.model.recipe_values[name]);
  for (const [name, value] of Object.entries(own)) {
    if (byId(name).value === (given[name] ?? "")) byId(name).value = value;
    given[name] = byId(name).value === value ? value : given[name];
  }
  explain();
  follow();
}

// ---------------------------------------------------------------- the sentence

function replace(text) {
  byId("sentence").value = text;
  byId("sentence").focus();
  explain();
}

// A layer at the caret, with spaces around it.
function insert(text) {
  const field = byId("sentence");
  const { value, selectionStart: from, selectionEnd: to } = field;
  const [before, after] = [value.slice(0, from), value.slice(to)];
  const words = `${/\S$/.test(before) ? " " : ""}${text}${/^\S/.test(after) ? " " : ""}`;
  field.setRangeText(words, from, to, "end");
  field.focus();
  explain();
}

async function explain() {
  const sentence = byId("sentence").value;
  try {
    const found = await postJson("api/explain", { sentence });
    if (sentence === byId("sentence").value) show(found);
  } catch (error) {
    complain(error);
  }
}

function show(found) {
  mark(found.error ? found.column : null);
  const mistakes = found.error ? [found, ...found.others] : [];
  byId("sentence-error").textContent = mistakes.map(({ column, error }) => `${column ? `column ${column}: ` : ""}${error}`).join("\n");
  byId("sentence").setAttribute("aria-invalid", String(Boolean(found.error)));
  byId("train").disabled = Boolean(found.error);
  const isOld = Boolean(found.error) && !found.layers.length; // while a word is typed the table of before stays
  byId("table").classList.toggle("stale", isOld);
  byId("remarks").replaceChildren();
  byId("lab-summary").textContent = isOld ? "of the last sentence that could be read" : found.error ? "as far as they go" : found.summary;
  if (isOld) return;
  byId("remarks").replaceChildren(...(found.remarks ?? []).map((remark) => element("li", {}, remark)));
  const heads = ["address", "layer", "output", "output-size formula", "parameters", "multiply-adds", "receptive field", "total stride"];
  const bar = (value, total) => element("td", { class: "amount" }, value ? count(value) : "–",
    value ? element("meter", { min: 0, max: 1, value: value / total, title: percent(value / total, 1), "aria-label": `${percent(value / total, 1)} of all` }) : null);
  const rows = found.layers.map((layer) => element("tr", {},
    element("td", { class: "dim" }, layer.address),
    element("td", { class: "code" }, "\u00a0\u00a0".repeat(layer.depth), layer.title),
    element("td", {}, by(layer.output_shape)),
    element("td", {}, layer.formula, layer.padding ? element("div", { class: "dim" }, layer.padding) : null),
    ...(layer.kind === "residual" ? [element("td"), element("td")]
      : [bar(layer.num_parameters, found.num_parameters), bar(layer.multiply_adds, found.multiply_adds)]),
    element("td", {}, by(layer.receptive_field)), element("td", {}, String(layer.total_stride[0]))));
  byId("table").replaceChildren(element("thead", {}, element("tr", {}, ...heads.map((head) => element("th", { scope: "col" }, head)))),
    element("tbody", {}, ...rows));
}

// Puts the caret under the very column (from 1): a hidden copy of the text breaks its lines where the field does.
function mark(column) {
  const caret = byId("caret");
  const at = Number(column);
  caret.hidden = !at;
  caret.dataset.column = column ?? "";
  if (!at) return;
  const text = Array.from(byId("sentence").value); // columns count characters, of which an emoji is one
  const spot = element("span", {}, text[at - 1] ?? " ");
  byId("mirror").replaceChildren(text.slice(0, at - 1).join(""), spot, text.slice(at).join(""));
  caret.style.left = `${spot.offsetLeft}px`;
  caret.style.top = `${spot.offsetTop + spot.offsetHeight - 2 - byId("sentence").scrollTop}px`;
}

// ---------------------------------------------------------------- training

async function train() {
  const value = (name) => (byId(name).value === "" ? null : Number(byId(name).value));
  const request = { sentence: byId("sentence").value, epochs: value("epochs"), time: value("time"), batch_size: value("batch_size"), lr: value("lr"), seed: value("seed") ?? 0 };
  showStatus(await postJson("api/lab/train", request));
  say("The training has begun.");
  follow();
}

async function follow() {
  clearTimeout(following);
  try {
    const status = await getJson("api/lab");
    showStatus(status);
    if (status.state === "running") following = setTimeout(follow, LOOK_AGAIN_MS);
  } catch (error) {
    complain(error);
    following = setTimeout(follow, 5 * LOOK_AGAIN_MS);
  }
}

function showStatus(status) {
  const isRunning = status.state === "running";
  byId("progress").hidden = status.state === "idle";
  byId("train").hidden = isRunning;
  byId("stop").hidden = !isRunning;
  byId("open").hidden = !status.can_open;
  byId("open").textContent = `Open ${status.place} in the microscope`;
  if (status.state === "idle") return;
  const val = status.epochs.at(-1)?.val;
  const words = { running: "is going on", complete: "is complete", stopped: "was stopped", failed: "has failed" }[status.state];
  const state_ = byId("progress-state");
  state_.textContent = `${words}${val ? `; validation ${accuracyOf(val)}` : ""}${status.num_steps ? `; in ${status.place}` : ""}`;
  state_.dataset.state = status.state;
  byId("progress-of").textContent = `${status.sentence}${isRunning ? remaining(status) : ""}`;
  offerOthers(status).catch(complain);
  byId("progress-bar").value = status.num_steps ? (isRunning ? status.step : status.epochs.at(-1)?.step ?? status.step) / status.num_steps : 0;
  byId("log").textContent = status.lines.join("\n");
  byId("progress-error").textContent = status.state === "failed" ? status.lines.at(-1) ?? "it ended without a word" : status.warning ?? "";
  const points = status.epochs.filter((line) => line.val).map((line) => [line.step, line.val.accuracy]);
  byId("curves").replaceChildren(
    curve(state.model.recipe_values.label_smoothing ? "training loss (of smoothed labels: never near 0)" : "training loss", status.curve, status.num_steps, (y) => number(y, 2)),
    curve("validation accuracy, whenever it was measured", points, status.num_steps, (y) => percent(y, 1)));
}

// What the trained network can be compared with: the other networks here.
async function offerOthers({ state: how, place }) {
  byId("versus").hidden = how !== "complete";
  if (how !== "complete" || byId("versus").dataset.place === place) return;
  byId("versus").dataset.place = place;
  byId("verdict").textContent = "";
  const others = (await getJson("api/models")).filter(({ name }) => name !== `${place}/model.safetensors`);
  byId("other").replaceChildren(...others.map(({ name, val }) => element("option", { value: name }, `${name.replace(/\/model\.safetensors$/, "")}${val && ` (${val})`}`)));
}

async function compareBoth() {
  byId("verdict").textContent = "measuring both…";
  try {
    const one = `${byId("versus").dataset.place}/model.safetensors`;
    const { lines, rows } = await postJson("api/compare", { one, other: byId("other").value });
    byId("verdict").textContent = [...rows.map((cells) => cells.join(": ")), ...lines].join("\n");
  } catch (error) {
    byId("verdict").textContent = error.message;
  }
}

// How long it will take, by the steps since this page saw the first of them, which is slow; once there are enough.
function remaining({ place, step, num_steps: total }) {
  if (firstSeen?.place !== place) firstSeen = { place, step: 0 };
  if (!firstSeen.step) Object.assign(firstSeen, { step, at: performance.now() });
  const done = step - firstSeen.step;
  if (!total || !done || performance.now() - firstSeen.at < LEAST_SEEN_MS) return "";
  if (total - step < total / 100) return "; the last steps, then it is measured on the validation images and calibrated";
  const seconds = Math.max(1, Math.round(((performance.now() - firstSeen.at) / 1000 / done) * (total - step)));
  return `; about ${seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`} left`;
}

// A small line chart, steps along, values up, with both ends labelled.
function curve(title, points, numSteps, label) {
  const [width, height, left, bottom] = [420, 170, 58, 34];
  const figure = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", class: "curve" }, svg("title", {}, title));
  const text = (x, y, words, anchor = "start") => figure.append(Object.assign(svg("text", { x, y, "text-anchor": anchor }), { textContent: words }));
  text(left, 13, title);
  text(width - 8, height - 4, "steps", "end");
  figure.append(svg("path", { class: "axis", d: `M${left} 20V${height - bottom}H${width - 8}` }));
  if (!points.length || !numSteps) { text(left + 12, height / 2, "nothing yet"); return figure; }
  const values = points.map(([, y]) => y);
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (high - low < 1e-9) low = 0.99 * high;  // no number that no value has
  const x = (step) => left + (step / numSteps) * (width - 8 - left);
  const y = (value) => 24 + ((high - value) / (high - low)) * (height - bottom - 30);
  text(left - 6, y(high) + 4, label(high), "end");
  text(left - 6, y(low) + 4, label(low), "end");
  text(left, height - bottom + 14, "0");
  text(width - 8, height - bottom + 14, count(numSteps), "end");
  figure.append(svg("polyline", { points: points.map(([step, value]) => `${x(step)},${y(value)}`).join(" ") }));
  if (points.length < 30) figure.append(...points.map(([step, value]) => svg("circle", { cx: x(step), cy: y(value), r: 3 })));
  return figure;
}
