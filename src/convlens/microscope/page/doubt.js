// What must be known beside an answer: that it is none, or another than the likeliest class.

import { state } from "./state.js";

export function doubtOf({ blank, unfamiliar, uncertain, answer, label, mirrored }) {
  if (blank) return "No ink was found: the network sees a blank picture, and its answer means nothing.";
  const said = unfamiliar ? ["Unfamiliar: unlike the training images. The answer may mean nothing."] : [];
  if (uncertain) said.push("Uncertain: the model gives no answer here, to keep what it promises.");
  else if (answer !== (mirrored?.label ?? label)) said.push(`Called ${state.model.class_names[answer]}, to keep what the model promises.`);
  return said.join(" ");
}
