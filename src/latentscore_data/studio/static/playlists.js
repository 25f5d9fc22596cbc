// The playlist beside the candidates: pieces that are played with cross-fades, saved and loaded.

import { get, post } from "./api.js";
import { button, h, icon, redraw, toast } from "./dom.js";
import * as engine from "./engine.js";
import * as play from "./play.js";
import { finite, piece } from "./piece.js";

const CROSSFADE = 4;
let pieces = [], at = -1, running = false, turning = false, name = "";

const place = h("section", { class: "playlist card", "aria-labelledby": "playlist-title", hidden: true });
export const panel = place;

const snapshot = () => structuredClone({ vibe: piece.vibe, title: piece.title, thinking: piece.thinking, config: piece.config, palettes: piece.palettes, seed: piece.seed, seconds: finite(piece.seconds) });

export function keepPiece() {
  if (!piece.config) return;
  pieces.push(snapshot());
  show();
  toast("Kept on the playlist.");
}

export async function begin() {
  engine.player.onending = ending;
  await show();
}

async function show() {
  const saved = (await play.attempt(() => get("/api/playlists")))?.playlists || [];
  draw(saved);
}

function draw(saved) {
  place.hidden = !pieces.length && !saved.length;
  play.setKept(!place.hidden);
  const nameBox = h("input", { type: "text", class: "text", maxlength: "80", placeholder: "Name", "data-key": "name", "aria-label": "Name of the playlist", value: name, oninput: () => { name = nameBox.value; } });
  const loadBox = h("select", { "aria-label": "Saved playlists", "data-key": "saved", onchange: () => load(loadBox.value) },
    h("option", { value: "" }, "Saved playlists"), saved.map((one) => h("option", { value: one.name }, `${one.name} (${one.pieces})`)));
  redraw(place,
    h("div", { class: "listhead" }, h("h2", { id: "playlist-title" }, "Playlist"),
      pieces.length ? button("", { class: running ? "on" : "", "aria-pressed": String(running), "data-key": "play all", onclick: toggle }, icon(running ? "pause" : "next"), h("span", null, running ? "Stop" : "Play all")) : null),
    h("ol", { class: "kept" }, pieces.map((one, i) => h("li", { class: i === at ? "chosen" : "" },
      h("button", { type: "button", class: "keptone", "data-key": `play ${i}`, onclick: () => go(i) }, h("span", { class: "dot", style: { background: one.palettes[0].colors[0].hex } }), h("span", { class: "name" }, one.title || "Untitled")),
      h("button", { type: "button", class: "lock", "data-key": `remove ${i}`, "aria-label": `Take ${one.title || "Untitled"} off the playlist`, onclick: () => { pieces.splice(i, 1); if (at >= i) at -= 1; draw(saved); } }, icon("close"))))),
    pieces.length ? h("div", { class: "row" }, nameBox, button("Save", { "data-key": "save", onclick: () => save(nameBox.value) })) : null,
    saved.length ? h("div", { class: "row" }, loadBox, name && saved.some((one) => one.name === name) ? button("Delete", { class: "link", onclick: () => remove(name) }) : null) : null);
}

async function save(as) {
  const answer = await play.attempt(() => post("/api/playlist", { do: "save", name: as, pieces }));
  if (answer) { name = as.trim(); draw(answer.playlists); toast(`Saved as “${name}”.`); }
}

async function load(wanted) {
  if (!wanted) return;
  const answer = await play.attempt(() => post("/api/playlist", { do: "load", name: wanted }));
  if (!answer) return;
  pieces = answer.pieces;
  name = wanted;
  at = -1;
  await show();
}

async function remove(wanted) {
  const answer = await play.attempt(() => post("/api/playlist", { do: "delete", name: wanted }));
  if (answer) { name = ""; draw(answer.playlists); }
}

function toggle() {
  running = !running;
  if (running) go(0);
  else show();
}

async function go(i, fade) {
  at = i;
  play.takeOver({ ...structuredClone(pieces[i]), score: null });
  await play.listen(true, 0, fade);
  show();
}

// Start the next piece with a cross-fade near the end of this one; true if there is one.
function ending() {
  if (!running || !pieces.length || turning) return running;
  turning = true;
  go((at + 1) % pieces.length, CROSSFADE).finally(() => { turning = false; });
  return true;
}
