// The page's beginning: the model, the views and their tabs.

import { complain, getJson, modelInUse, useModel } from "./api.js";
import { accuracyOf, byId, element } from "./dom.js";
import { startDrawing } from "./draw.js";
import { openLab, startLab } from "./lab.js";
import { openLook, startLook } from "./look.js";
import { redraw } from "./maps.js";
import { enterModel, openModel, startModel } from "./model.js";
import { stopPlaying } from "./play.js";
import { state } from "./state.js";
import { enterTeach, leaveTeach, startTeach } from "./teach.js";
import { startValue } from "./value.js";

const VIEWS = ["look", "teach", "lab", "model"];

function enter(view) {
  for (const name of VIEWS) {
    const tab = byId(`tab-${name}`);
    tab.setAttribute("aria-selected", String(name === view));
    tab.tabIndex = name === view ? 0 : -1;
    byId(name).hidden = name !== view;
  }
  if (location.hash !== `#${view}`) history.replaceState(null, "", `#${view}`);
  if (view !== "look") stopPlaying();
  if (view === "model") enterModel();
  if (view === "teach") enterTeach(); else leaveTeach();
  if (view === "look") redraw();
}

function open(model) {
  state.model = model;
  useModel(model.path);
  byId("model-line").textContent = model.val ? `${accuracyOf(model.val)} on validation` : "";
  listModels().catch(complain);
  openLook();
  openLab();
  openModel();
}

// What else this tab can look into.
async function listModels() {
  const found = await getJson("api/models");
  const menu = byId("models");
  menu.replaceChildren(...found.map(({ name, val }) => element("option", { value: name }, `${name.replace(/\/model\.safetensors$/, "")}${val && ` (${val})`}`)));
  menu.value = state.model.path;
}

async function change() {
  const before = modelInUse();
  useModel(byId("models").value);
  try {
    open(await getJson("api/model"));
    if (!byId("model").hidden) enterModel();
  } catch (error) {
    useModel(before);
    byId("models").value = state.model.path;
    complain(error);
  }
}

// This tab's model, or, where that is gone, the one that was named at the start.
async function firstModel() {
  try {
    return await getJson("api/model");
  } catch (error) {
    if (!modelInUse()) throw error;
    useModel(null);
    return getJson("api/model");
  }
}

for (const [i, name] of VIEWS.entries()) {
  const tab = byId(`tab-${name}`);
  tab.addEventListener("click", () => enter(name));
  tab.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = VIEWS[(i + step + VIEWS.length) % VIEWS.length];
    enter(next);
    byId(`tab-${next}`).focus();
  });
}

byId("models").addEventListener("change", change);
byId("models").addEventListener("focus", () => listModels().catch(complain));
startDrawing();
startLook();
startValue();
startLab((model) => { open(model); enter("look"); });
startTeach(open);
startModel(() => enter("look"));
try {
  open(await firstModel());
  enter(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "look");
  document.body.dataset.ready = "yes";
} catch (error) {
  complain(error);
}
