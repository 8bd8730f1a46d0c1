// Labels in doubt, one by one: what is it? Keys decide, and each decision is kept by the server before the next comes.

import { complain, getBlob, getJson, postJson, say } from "./api.js";
import { byId, element } from "./dom.js";

const MOST_BUTTONS = 10; // classes with a key of their own
let rows = [];
let classes = [];
let at = 0;
let isSending = false;
let shownUrl = null;
let isSeen = false; // nothing is decided on a picture that is not there yet

async function showPicture(number) {
  const url = URL.createObjectURL(await getBlob(`api/review/picture?number=${number}`));
  if (rows[at].number !== number) { URL.revokeObjectURL(url); return; }
  byId("picture").src = url;
  await byId("picture").decode();
  if (rows[at].number !== number) return;
  isSeen = true;
  document.body.dataset.shown = number;
  if (shownUrl) URL.revokeObjectURL(shownUrl);
  shownUrl = url;
}

function words(row) {
  if (row.blind) return row.decision === "skip" ? "Skipped so far." : "";
  const parts = [`The data says ${row.label}`];
  if (row.suggested && row.suggested !== row.label) parts.push(`networks that did not learn from it say ${row.suggested}`);
  const now = { keep: "kept", drop: "dropped", skip: "skipped", change: `changed to ${row.new_label}` }[row.decision];
  return `${parts.join("; ")}.${now ? ` Decided: ${now}.` : ""}`;
}

function show() {
  const row = rows[at];
  isSeen = false;
  delete document.body.dataset.shown;
  byId("picture").removeAttribute("src");
  byId("question").textContent = `What is it? ${at + 1} of ${rows.length}${row.split ? ` (${row.split})` : ""}`;
  byId("about").textContent = words(row);
  byId("name").textContent = row.path ?? "";
  byId("keep").hidden = byId("take").hidden = row.blind;
  byId("take").hidden ||= !row.suggested || row.suggested === row.label;
  byId("back").disabled = at === 0;
  byId("forward").disabled = at === rows.length - 1;
  for (const button of byId("classes").children) {
    const name = button.dataset.name;
    button.classList.toggle("main", !row.blind && name === (row.new_label || row.label));
  }
  showPicture(row.number).catch(complain);
  say(`${byId("question").textContent}. ${words(row)}`);
}

function go(step) {
  at = Math.max(0, Math.min(rows.length - 1, at + step));
  show();
}

function count(decided) {
  byId("progress").max = rows.length;
  byId("progress").value = decided;
  const skipped = rows.filter((row) => row.decision === "skip").length;
  byId("count").textContent = `${decided} of ${rows.length} decided${skipped ? `, ${skipped} of them skipped` : ""}`;
}

async function decide(decision, label = "") {
  if (isSending || !isSeen) return;
  isSending = true;
  const wasBlind = rows[at].blind;
  try {
    const { row, decided } = await postJson("api/review/decide", { number: rows[at].number, decision, label });
    rows[at] = row;
    count(decided);
    byId("outcome").textContent = wasBlind && !row.blind ? `The one before: you said ${label || decision}. ${words(row)}` : "";
    if (at < rows.length - 1) go(1); else { show(); byId("outcome").textContent += " That was the last one; every decision is in the file. Next: convlens train DATA --labels FILE."; }
  } catch (error) {
    complain(error);
  } finally {
    isSending = false;
  }
}

const keep = () => { if (!rows[at].blind) decide("is", rows[at].label); };
const take = () => { if (!byId("take").hidden) decide("is", rows[at].suggested); };
const KEYS = { k: keep, t: take, d: () => decide("drop"), s: () => decide("skip"), ArrowLeft: () => go(-1), ArrowRight: () => go(1) };

function press(event) {
  if (event.repeat || event.ctrlKey || event.metaKey || event.altKey || event.target === byId("find")) return;
  const key = /^[0-9]$/.test(event.key) ? classes[(Number(event.key) + 9) % 10] : null;
  if (key && classes.length <= MOST_BUTTONS) decide("is", key);
  else if (KEYS[event.key]) KEYS[event.key]();
  else return;
  event.preventDefault();
}

try {
  const found = await getJson("api/review");
  ({ rows, classes } = found);
  byId("file").textContent = found.file;
  const few = classes.length <= MOST_BUTTONS;
  byId("find-line").hidden = few;
  byId("all").replaceChildren(...classes.map((name) => element("option", { value: name })));
  const digits = "1234567890";
  // Digits as classes have the keys of their own names.
  if (few && classes.every((name) => /^[0-9]$/.test(name))) classes.sort((a, b) => ((Number(a) + 9) % 10) - ((Number(b) + 9) % 10));
  const isDigits = few && classes.every((name, i) => name === digits[i]);
  byId("classes").replaceChildren(...(few ? classes : []).map((name, i) => element("button", { "data-name": name, onclick: () => decide("is", name) },
    name, ...(isDigits ? [] : [" ", element("kbd", {}, digits[i])]))));
  byId("find").addEventListener("change", (event) => {
    const name = event.target.value;
    if (classes.includes(name)) { event.target.value = ""; event.target.blur(); decide("is", name); }
  });
  for (const [id, then] of [["keep", keep], ["take", take], ["drop", KEYS.d], ["skip", KEYS.s], ["back", KEYS.ArrowLeft], ["forward", KEYS.ArrowRight]]) {
    byId(id).addEventListener("click", then);
  }
  document.addEventListener("keydown", press);
  const first = rows.findIndex((row) => !row.decision);
  at = first < 0 ? 0 : first;
  count(found.decided);
  show();
  document.body.dataset.ready = "yes";
} catch (error) {
  complain(error);
}
