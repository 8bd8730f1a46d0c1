// The model's page: what it is, how good it is on validation, what it confuses, and whether its probabilities are honest.

import { complain, getArrays } from "./api.js";
import { accuracyOf, byId, count, element, FRAMINGS, percent, svg } from "./dom.js";
import { takeValidation, thumbnails } from "./draw.js";
import { state } from "./state.js";

let isOld = true;
let show = () => {};

export function startModel(showLook) {
  show = (position) => { takeValidation(position); showLook(); };
}

export function openModel() {
  isOld = true;
  const { model, model: { dataset, origin, training } } = state; // null and undefined spread to nothing below
  const sizes = dataset?.num_samples ?? {};
  const facts = {
    sentence: element("code", {}, model.architecture),
    input: `${model.input.height}×${model.input.width}×${model.input.channels}, ${FRAMINGS[model.input.framing]} (framing ${model.input.framing})`,
    size: model.summary, ...(training && {
      "data set": `${dataset.name}: ${["train", "val", "test"].filter((s) => s in sizes).map((s) => `${count(sizes[s])} ${s}`).join(", ")} (${dataset.fingerprint.slice(0, 12)})`,
      recipe: `${model.preset ? `${model.preset}: ` : ""}${model.recipe}`, seed: String(model.seed),
      validation: model.val ? accuracyOf(model.val) : "nothing was set aside",
      test: model.test ? accuracyOf(model.test) : "no score is kept: convlens evaluate measures one, and writes down that test was looked at",
      trained: `${model.created.slice(0, 16).replace("T", " ")} UTC, ${count(training.step)} steps, ${training.weights} weights, ${training.precision}`,
    }), ...(origin && { "weights from": `${origin.name}: ${origin.source} (${origin.sha256.slice(0, 12)})`, "made with": origin.trained_on ?? "not said", licence: origin.licence ?? "not said" }),
    file: element("code", {}, model.path),
  };
  byId("facts").replaceChildren(...Object.entries(facts).flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

// Measured when it is looked at for the first time.
export async function enterModel() {
  if (!isOld) return;
  isOld = false;
  byId("cell").replaceChildren();
  try {
    const report = await getArrays("api/report");
    showConfusion(report);
    showCalibration(report);
    if (report.num_wrong) await showCell(null, null);
  } catch (error) {
    isOld = true;
    byId("confusion").replaceChildren(element("caption", {}, error.message));
    byId("calibration").replaceChildren();
  }
}

const MOST_IN_TABLE = 30;
const MOST_PAIRS = 40;

function showConfusion(report) {
  const names = state.model.class_names;
  const { data } = report.arrays.confusion;
  const num = names.length;
  if (num > MOST_IN_TABLE) {
    showWorstPairs(names, data);
    return;
  }
  const head = element("tr", {}, element("td"), ...names.map((name) => element("th", { scope: "col", title: name }, name)));
  const rows = names.map((name, t) => {
    const row = data.subarray(t * num, (t + 1) * num);
    const total = row.reduce((a, b) => a + b, 0) || 1;
    return element("tr", {}, element("th", { scope: "row", title: name }, name), ...Array.from(row, (n, p) => {
      const cell = element("td", { class: t === p ? "right" : "wrong" });
      cell.style.setProperty("--share", String(Math.min(0.9, t === p ? (0.5 * n) / total : n && 0.3 + (8 * n) / total)));
      if (n) cell.append(element("button", { onclick: () => showCell(t, p).catch(complain), "aria-label": `${n} of class ${name} answered ${names[p]}` }, count(n)));
      else cell.append("·");
      return cell;
    }));
  });
  byId("confusion").replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
}

// Of many classes the pairs that are confused most, for a table of all could not be read.
function showWorstPairs(names, data) {
  const num = names.length;
  const wrong = Array.from(data.keys()).filter((i) => data[i] && Math.floor(i / num) !== i % num);
  const worst = wrong.sort((a, b) => data[b] - data[a] || a - b).slice(0, MOST_PAIRS);
  const head = element("tr", {}, ...["class", "taken for", "times", "of"].map((title) => element("th", { scope: "col" }, title)));
  const rows = worst.map((i) => {
    const [t, p] = [Math.floor(i / num), i % num];
    const total = data.subarray(t * num, (t + 1) * num).reduce((a, b) => a + b, 0);
    const button = element("button", { onclick: () => showCell(t, p).catch(complain), "aria-label": `${data[i]} of class ${names[t]} answered ${names[p]}` }, count(data[i]));
    return element("tr", {}, element("th", { scope: "row", title: names[t] }, names[t]), element("td", {}, names[p]), element("td", {}, button), element("td", {}, count(total)));
  });
  const more = wrong.length > worst.length ? `The ${worst.length} most frequent of ${count(wrong.length)} confusions of ${num} classes` : `Every confusion of ${num} classes`;
  byId("confusion").replaceChildren(element("caption", {}, more), element("thead", {}, head), element("tbody", {}, ...rows));
}

async function showCell(label, answer) {
  const names = state.model.class_names;
  const cell = label === null ? "" : `&true=${label}&predicted=${answer}`;
  const found = await getArrays(`api/images?most=60${cell}`);
  const what = label === null ? "Misclassified" : label === answer ? `${names[label]}, predicted right` : `${names[label]}, predicted as ${names[answer]}`;
  byId("cell-title").textContent = `${what}: ${found.total > 60 ? `the 60 most confident of ${count(found.total)}` : count(found.total)}`;
  thumbnails(byId("cell"), found, names, show);
  if (label !== null) {
    byId("cell-title").scrollIntoView({ block: "start", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    byId("cell-title").focus({ preventScroll: true });
  }
}

// Accuracy against confidence; the area of a point is its share of the images.
function showCalibration(report) {
  const [size, left, top] = [250, 46, 24];
  const at = (confidence, accuracy) => [left + confidence * size, top + (1 - accuracy) * size];
  const figure = svg("svg", { viewBox: `0 0 ${left + size + 16} ${top + size + 44}`, role: "img", class: "calibration" },
    Object.assign(svg("title"), { textContent: "Accuracy against confidence" }),
    svg("rect", { class: "axis", x: left, y: top, width: size, height: size }),
    svg("path", { class: "ideal", d: `M${at(0, 0)}L${at(1, 1)}` }));
  const text = (x, y, words, anchor, turn) => figure.append(Object.assign(svg("text", { x, y, "text-anchor": anchor, ...(turn ? { transform: `rotate(-90 ${x} ${y})` } : {}) }), { textContent: words }));
  for (const share of [0, 0.5, 1]) {
    text(at(share, 0)[0], top + size + 15, `${100 * share}`, "middle");
    text(left - 5, at(0, share)[1] + 4, `${100 * share}`, "end");
  }
  text(left + size / 2, top + size + 34, "confidence in %", "middle");
  text(13, top + size / 2, "accuracy in %", "middle", true);
  for (const bin of report.bins) {
    const [x, y] = at(bin.confidence, bin.accuracy);
    const circle = svg("circle", { cx: x, cy: y, r: 2.5 + 14 * Math.sqrt(bin.n / report.n) });
    circle.append(Object.assign(svg("title"), { textContent: `${count(bin.n)} images: confidence ${percent(bin.confidence, 1)}, accuracy ${percent(bin.accuracy, 1)}` }));
    figure.append(circle);
  }
  byId("calibration").replaceChildren(figure, element("p", { class: "dim" },
    `${report.text}. Expected calibration error ${percent(report.expected_calibration_error)}: above the line it is better than it says, below it worse. Larger circles stand for more images.${state.model.is_calibrated ? " The temperature was fitted to these very images: on new ones expect a little more." : ""}`));
}
