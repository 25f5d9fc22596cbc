// The piece on the page, its history, and its encoding in the fragment of the address, so that a link contains the piece.

export const WEIGHTS = ["xs", "sm", "md", "lg", "xl", "xxl"];
export const LENGTHS = [30, 60, 120, 300, 0];
// The length of a piece in seconds; an endless one is saved with two minutes.
export const finite = (seconds) => seconds || 120;

let fields = {};
export const piece = { vibe: "", title: "", thinking: "", config: null, palettes: [], seed: 0, seconds: 60, score: null };
export const locked = new Set();
const past = [], future = [];

export function knowFields(known) { fields = known; }

const copy = () => structuredClone(piece);

// Add the piece to the history. Call this before a change.
export function remember() {
  if (!piece.config) return;
  past.push(copy());
  if (past.length > 200) past.shift();
  future.length = 0;
}

export const canUndo = () => past.length > 0;
export const canRedo = () => future.length > 0;

export function undo() {
  if (!past.length) return false;
  future.push(copy());
  Object.assign(piece, past.pop());
  return true;
}

export function redo() {
  if (!future.length) return false;
  past.push(copy());
  Object.assign(piece, future.pop());
  return true;
}

// A config as one character per field: the index of its label in base 36.
const packConfig = (config) => Object.entries(fields).map(([name, spec]) => spec.labels.indexOf(config[name]).toString(36)).join("");

function unpackConfig(text) {
  const names = Object.keys(fields);
  if (text.length !== names.length) return null;
  const config = {};
  for (const [i, name] of names.entries()) {
    const label = fields[name].labels[parseInt(text[i], 36)];
    if (label === undefined) return null;
    config[name] = label;
  }
  return config.register_min_oct <= config.register_max_oct ? config : null;
}

const packPalettes = (palettes) => palettes.map((p) => p.colors.map((c) => c.hex.slice(1) + WEIGHTS.indexOf(c.weight)).join("")).join("");

function unpackPalettes(text) {
  if (!/^([0-9A-F]{6}[0-5]){15}$/.test(text)) return null;
  const colors = text.match(/.{7}/g).map((c) => ({ hex: `#${c.slice(0, 6)}`, weight: WEIGHTS[Number(c[6])] }));
  return [0, 5, 10].map((at) => ({ colors: colors.slice(at, at + 5) }));
}

export function toHash() {
  const parts = new URLSearchParams({ v: piece.vibe, t: piece.title, c: packConfig(piece.config), p: packPalettes(piece.palettes), s: String(piece.seed), l: String(piece.seconds) });
  if (locked.size) parts.set("k", [...locked].join("."));
  return `#${parts}`;
}

// The piece in an address, or null if there is no complete one.
export function fromHash(hash) {
  const parts = new URLSearchParams(hash.slice(1));
  const config = unpackConfig(parts.get("c") || ""), palettes = unpackPalettes(parts.get("p") || "");
  if (!config || !palettes) return null;
  const seed = Number(parts.get("s")), seconds = Number(parts.get("l"));
  return {
    vibe: (parts.get("v") || "").slice(0, 4000), title: (parts.get("t") || "").slice(0, 80), thinking: "", config, palettes, score: null,
    seed: Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32 ? seed : 0, seconds: LENGTHS.includes(seconds) ? seconds : 60,
    locked: (parts.get("k") || "").split(".").filter((name) => name in fields),
  };
}

export const payload = (of = piece) => ({ thinking: of.thinking || "", title: of.title || "Untitled", config: of.config, palettes: of.palettes });
