// The lab: a sentence is explained while it is typed, trained on the model's own data, and opened in the microscope.

import { complain, getJson, postJson, say } from "./api.js";
import { by, byId, count, element, number, percent, svg } from "./dom.js";
import { state } from "./state.js";

const LOOK_AGAIN_MS = 700;
let typing = 0;
let following = 0;

export function startLab(opened) {
  const sentence = byId("sentence");
  sentence.addEventListener("input", () => { clearTimeout(typing); typing = setTimeout(explain, 120); mark(null); });
  new ResizeObserver(() => mark(byId("caret").dataset.column)).observe(sentence);
  sentence.addEventListener("scroll", () => mark(byId("caret").dataset.column));
  byId("training").addEventListener("submit", (event) => { event.preventDefault(); train().catch(complain); });
  byId("stop").addEventListener("click", () => postJson("api/lab/stop").then(showStatus, complain));
  byId("open").addEventListener("click", () => postJson("api/lab/open").then(opened, complain));
}

export function openLab() {
  byId("sentence").value = state.model.architecture;
  for (const name of ["epochs", "batch_size", "lr"]) byId(name).value = state.model.recipe_values[name];
  explain();
  follow();
}

// ---------------------------------------------------------------- the sentence

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
  byId("table").classList.toggle("stale", Boolean(found.error));
  if (found.error) return;
  byId("lab-summary").textContent = found.summary;
  byId("remarks").replaceChildren(...found.remarks.map((remark) => element("li", {}, remark)));
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
  const request = { sentence: byId("sentence").value, epochs: value("epochs"), batch_size: value("batch_size"), lr: value("lr"), seed: value("seed") ?? 0 };
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
  if (status.state === "idle") return;
  const val = status.epochs.at(-1)?.val;
  const words = { running: "is going on", complete: "is complete", stopped: "was stopped", failed: "has failed" }[status.state];
  const state_ = byId("progress-state");
  state_.textContent = `${words}${val ? `; validation ${percent(val.accuracy)} of ${count(val.n)}` : ""}${status.num_steps ? `; in ${status.place}` : ""}`;
  state_.dataset.state = status.state;
  byId("progress-bar").value = status.num_steps ? (isRunning ? status.step : status.epochs.at(-1)?.step ?? status.step) / status.num_steps : 0;
  byId("log").textContent = status.lines.join("\n");
  byId("progress-error").textContent = status.state === "failed" ? status.lines.at(-1) ?? "it ended without a word" : status.warning ?? "";
  const points = status.epochs.filter((line) => line.val).map((line) => [line.step, line.val.accuracy]);
  byId("curves").replaceChildren(
    curve("training loss", status.curve, status.num_steps, (y) => number(y, 2)),
    curve("validation accuracy, an epoch a point", points, status.num_steps, (y) => percent(y, 1)));
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
  if (high - low < 1e-9) [low, high] = [low - 0.01, high + 0.01];
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
