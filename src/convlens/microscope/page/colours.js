// Two scales that keep their order for the colour-blind: dark to light from 0 up, blue to red around 0.

const RISING = [[0, 0, 4], [40, 17, 89], [114, 31, 129], [183, 55, 121], [241, 96, 93], [254, 175, 119], [252, 253, 191]];
const AROUND = [[33, 102, 172], [103, 169, 207], [209, 229, 240], [247, 247, 247], [253, 219, 199], [239, 138, 98], [178, 24, 43]];

function table(stops) {
  const colours = new Uint8Array(256 * 4);
  for (let i = 0; i < 256; i++) {
    const at = (i / 255) * (stops.length - 1);
    const low = Math.min(Math.floor(at), stops.length - 2);
    for (let c = 0; c < 3; c++) colours[4 * i + c] = Math.round(stops[low][c] + (at - low) * (stops[low + 1][c] - stops[low][c]));
    colours[4 * i + 3] = 255;
  }
  return colours;
}

const TABLES = { rising: table(RISING), around: table(AROUND) };

export const scaleFor = (low) => (low < 0 ? TABLES.around : TABLES.rising);

// WCAG's relative luminance, 0..1; from 0.179 on black is easier to read on it than white.
const linear = (part) => (part <= 10 ? part / 3294.6 : ((part / 255 + 0.055) / 1.055) ** 2.4);
const luminance = (r, g, b) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);

// The colour of a level 0..255 as CSS, and that of text on it.
export function cssOf(low, level) {
  const colours = scaleFor(low);
  const at = 4 * Math.max(0, Math.min(255, Math.round(level)));
  const [r, g, b] = [colours[at], colours[at + 1], colours[at + 2]];
  return { background: `rgb(${r} ${g} ${b})`, text: luminance(r, g, b) > 0.179 ? "#000" : "#fff" };
}

// One map, levels 0..255, as a small canvas of a pixel a value.
export function painted(levels, start, height, width, low) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const colours = scaleFor(low);
  for (let i = 0; i < width * height; i++) {
    const at = 4 * levels[start + i];
    image.data[4 * i] = colours[at];
    image.data[4 * i + 1] = colours[at + 1];
    image.data[4 * i + 2] = colours[at + 2];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

// uint8 (H, W, C) from `start` on, as it is: grey or RGB.
export function photograph(data, start, height, width, channels) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = data[start + i * channels + (channels === 3 ? c : 0)];
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
