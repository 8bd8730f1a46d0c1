// Small helpers: elements from names, numbers as people read them. Text is always text, never markup.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (key === "class") made.className = value;
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function svg(name, attributes = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// So many significant digits, with a real minus sign.
export function number(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text = size >= 1e5 || size < 1e-4 ? value.toExponential(digits - 2) : String(Number(value.toPrecision(digits)));
  return text.replace(/-/g, "−");
}

// A number for a narrow cell: three decimals, or its size where those say nothing.
export function short(value) {
  const size = Math.abs(value);
  if (value === 0) return "0";
  const text = size >= 1000 || size < 5e-4 ? value.toExponential(0) : value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3);
  return text.replace(/-/g, "−");
}

// An accuracy, never alone.
export const accuracyOf = (score) => `${percent(score.accuracy)} (95 % interval ${(100 * score.interval[0]).toFixed(2)} to ${(100 * score.interval[1]).toFixed(2)}, n = ${count(score.n)})`;

// How a picture becomes the input, in words.
export const FRAMINGS = { ink: "the drawing cut out and centred", pad: "all of it, with bars", crop: "its middle", stretch: "stretched" };
export const by = (values) => values.join("×");
export const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)} %`;
// A probability in percent: nothing is certain, or impossible, for softmax.
export const probability = (share) => (share >= 0.9995 ? ">99.9" : share < 0.0005 ? "<0.1" : (100 * share).toFixed(1));
export const count = (value) => value.toLocaleString("en");

// The place of a value in words, for people and screen readers.
export const place = (unit) => (unit.length === 3 ? `channel ${unit[0]}, row ${unit[1]}, column ${unit[2]}` : `index ${unit[0]}`);

export function sizedCanvas(canvas, width, height) {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.imageSmoothingEnabled = false;
  return context;
}
