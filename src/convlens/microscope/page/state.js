// What the views share: the model, the picture that is looked at, and the chosen value. Views listen; nobody polls.

const listeners = {};

export const state = {
  model: null, // as api/model says
  picture: null, // {id, label, image, probabilities, logits}
  maps: {}, // address -> {shape, data, low, high, total, all_zero}
  chosen: null, // {address, unit}
  working: null, // the arithmetic of the chosen value
  afterAnswer: [], // what is fetched for a new picture once its bars are shown: functions that give promises
  afterStroke: [], // the same, for what takes long: only while the pen rests
};

export const layerAt = (address) => state.model.layers.find((layer) => layer.address === address);

export function on(event, listener) { (listeners[event] ??= []).push(listener); }

export function tell(event, detail) { for (const listener of listeners[event] ?? []) listener(detail); }
