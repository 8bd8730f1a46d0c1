// Talking to the server: JSON, and containers of typed arrays (wire.py says how they lie).

const TYPES = { u1: Uint8Array, i4: Int32Array, f4: Float32Array, f8: Float64Array };

export class Problem extends Error {
  constructor(status, said) {
    super(said.error || `the server answered ${status}`);
    this.status = status;
    this.column = said.column ?? null;
  }
}

// The token stands behind the address's `#`, which is never sent; this tab keeps it, and shows it with each request.
const KEPT_AS = "convlens-token";
const inAddress = location.hash.match(/^#token=([\w.~-]+)/);
if (inAddress) {
  sessionStorage.setItem(KEPT_AS, inAddress[1]);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem(KEPT_AS);
// So does the model that this tab looks into; another tab may look into another.
const MODEL_KEPT_AS = "convlens-model";

export function useModel(name) {
  if (name) sessionStorage.setItem(MODEL_KEPT_AS, name); else sessionStorage.removeItem(MODEL_KEPT_AS);
}

export const modelInUse = () => sessionStorage.getItem(MODEL_KEPT_AS);

function headers() {
  const model = modelInUse();
  return { ...(token && { Authorization: `Bearer ${token}` }), ...(model && { "Convlens-Model": encodeURIComponent(model) }) };
}

const BUSY_MS = 300;
const MOST_TRIES = 10;

// The body of an answer, by the response's method `read`. A busy server is asked again, unless something is sent to it.
async function answered(path, read, options, tries = 1) {
  let response;
  let body;
  try {
    response = await fetch(path, { ...options, headers: headers() });
    body = response.ok ? await response[read]() : await response.json().catch(() => ({}));
  } catch {
    throw new Problem(0, { error: "the server does not answer: was it ended?" });
  }
  if (response.ok) return body;
  if (response.status === 503 && !options && tries < MOST_TRIES) {
    await new Promise((done) => setTimeout(done, BUSY_MS));
    return answered(path, read, options, tries + 1);
  }
  throw new Problem(response.status, body);
}

export const getJson = (path, options) => answered(path, "json", options);

export const getBlob = (path) => answered(path, "blob");

export const postJson = (path, value = {}) => answered(path, "json", { method: "POST", body: JSON.stringify(value) });

// The header, with `arrays` as {name: {data, shape}}; nothing is copied.
export async function getArrays(path, options) {
  const buffer = await answered(path, "arrayBuffer", options);
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
  if (error instanceof Error && !(error instanceof Problem)) console.error(error);
}

// Tell those who listen rather than look.
export function say(text) { document.getElementById("said").textContent = text; }
