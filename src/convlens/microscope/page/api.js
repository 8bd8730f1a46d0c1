// Talking to the server: JSON, and containers of typed arrays (wire.py says how they lie).

const TYPES = { u1: Uint8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

export class Problem extends Error {
  constructor(status, said) {
    super(said.error || `the server answered ${status}`);
    this.status = status;
    this.column = said.column ?? null;
  }
}

async function answered(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: { Accept: "*/*", ...options?.headers } });
  } catch {
    throw new Problem(0, { error: "the server does not answer: was it ended?" });
  }
  if (!response.ok) {
    const said = await response.json().catch(() => ({}));
    throw new Problem(response.status, said);
  }
  return response;
}

export const getJson = async (path) => (await answered(path)).json();

export const postJson = async (path, value = {}) =>
  (await answered(path, { method: "POST", body: JSON.stringify(value) })).json();

// The header, with `arrays` as {name: {data, shape}}; nothing is copied.
export async function getArrays(path, options) {
  const buffer = await (await answered(path, options)).arrayBuffer();
  const length = new DataView(buffer).getUint32(0, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, length)));
  for (const [name, { type, shape, offset }] of Object.entries(header.arrays)) {
    const size = shape.reduce((a, b) => a * b, 1);
    header.arrays[name] = { shape, data: new TYPES[type](buffer, 4 + length + offset, size) };
  }
  return header;
}

export const postBytes = (path, body) => getArrays(path, { method: "POST", body });

let timer = 0;

// One clear line above everything, for a while.
export function complain(error) {
  const line = document.getElementById("problem");
  line.textContent = error.message;
  line.hidden = false;
  clearTimeout(timer);
  timer = setTimeout(() => { line.hidden = true; }, 8000);
  if (!(error instanceof Problem)) throw error;
}

// Tell those who listen rather than look.
export function say(text) { document.getElementById("said").textContent = text; }
