// The page's beginning: the model, the views and their tabs.

import { complain, getJson } from "./api.js";
import { byId } from "./dom.js";
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
  const score = model.val ? `, ${(100 * model.val.accuracy).toFixed(2)} % on validation` : "";
  byId("model-line").textContent = `${model.path}${score}`;
  openLook();
  openLab();
  openModel();
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

startDrawing();
startLook();
startValue();
startLab((model) => { open(model); enter("look"); });
startTeach(open);
startModel(() => enter("look"));
try {
  open(await getJson("api/model"));
  enter(VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "look");
  document.body.dataset.ready = "yes";
} catch (error) {
  complain(error);
}
