// The view Play: the vibe, its candidates, one piece with its picture, and a control for each field of its config.

import { post, save, saveBlob } from "./api.js";
import { betterButton } from "./better.js";
import { $, button, clock, dialog, explained, h, icon, replaceEntry, svg, toast, words } from "./dom.js";
import * as engine from "./engine.js";
import * as state from "./piece.js";
import { keepPiece, panel as playlistPanel } from "./playlists.js";
import * as visual from "./visual.js";

const { piece, locked } = state;
const EXAMPLES = ["slow rain on a tin roof", "first light over a frozen lake", "neon arcade, two minutes to midnight", "grandmother's kitchen in July"];
const tabs = new BroadcastChannel("lsdata-studio");
const SLEEPS = [0, 15, 30, 60];

let setup = null, candidates = [], chosen = -1, before = -1, asking = null, changing = null, whyShown = null;
let sleepMinutes = 0, sleepTimer = 0, drawn = 0;
const controls = new Map();
const view = h("div", { id: "play-view" });

export function build(known) {
  setup = known;
  state.knowFields(setup.fields);
  view.append(askBar(), stage(), fieldsSection());
  engine.player.watchers.push(() => { showTransport(); if (engine.player.playing) tabs.postMessage("playing"); });
  // Only one tab plays at a time.
  tabs.onmessage = () => { if (engine.player.playing) { engine.pause(); toast("Another tab plays now."); } };
  engine.player.onfail = (error) => toast(error.message, "bad");
  $("deck").replaceChildren(deckPlay, h("div", { class: "now" }, deckTitle, deckSeek), deckTime);
  new IntersectionObserver(([entry]) => { stageSeen = entry.isIntersecting; showTransport(); }, { threshold: 0.15 }).observe(view.querySelector(".stage"));
  const linked = state.fromHash(location.hash);
  if (linked) adopt(linked);
  else rest();
  addEventListener("hashchange", () => {
    const other = state.fromHash(location.hash);
    if (!other || location.hash === state.toHash()) return;
    // Entries of the history that this page made have a state. Back to one of them does not start the sound.
    const starts = engine.player.playing || !history.state;
    state.remember();
    adopt(other);
    if (starts) listen(true); else engine.forget();
  });
  addEventListener("resize", grow);
  requestAnimationFrame(tick);
  return view;
}

// ---- asking ----------------------------------------------------------------------------------------------------------

const vibeBox = h("textarea", { id: "vibe", rows: "1", maxlength: "4000", placeholder: "A mood, a place, a moment …", autocomplete: "off", spellcheck: "false", enterkeyhint: "go", "aria-label": "Vibe",
  oninput: grow, onkeydown: (event) => { if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); ask(); } } });
const modelBox = h("select", { id: "model", onchange: () => { localStorage.setItem("lsdata-studio-model", modelBox.value); } });
const countBox = h("select", { id: "count" }, [1, 2, 3, 4, 6, 8].map((n) => h("option", { value: String(n), selected: n === 4 }, `${n} candidate${n > 1 ? "s" : ""}`)));
const lengthBox = h("select", { id: "length", onchange: () => { state.remember(); piece.seconds = Number(lengthBox.value); relength(); } },
  state.LENGTHS.map((s) => h("option", { value: String(s), selected: s === 60 }, s === 0 ? "Endless" : s < 60 ? `${s} s` : `${s / 60} min`)));
const askButton = h("button", { type: "submit", class: "primary", id: "ask" }, "Play");

function askBar() {
  modelBox.replaceChildren(...setup.models.map((m) => h("option", { value: m.id }, m.label + (m.note ? ` (${m.note})` : ""))));
  const wanted = localStorage.getItem("lsdata-studio-model");
  if (setup.models.some((m) => m.id === wanted)) modelBox.value = wanted;
  const label = (text, box) => h("label", { class: "pick" }, h("span", { class: "hidden" }, text), box);
  return h("form", { class: "ask", onsubmit: (event) => { event.preventDefault(); if (!view.classList.contains("busy")) ask(); } },
    h("div", { class: "askline" }, vibeBox, askButton),
    h("div", { class: "askrow" },
      label("Model", modelBox), label("Candidates", countBox), label("Length", lengthBox),
      button("Surprise me", { class: "link", id: "surprise", onclick: surprise }, icon("dice"), "Surprise me")));
}

// Make the text field as high as its text. A hidden one has no height to measure.
function grow() {
  if (!vibeBox.isConnected || view.hidden) return;
  vibeBox.style.height = "auto";
  vibeBox.style.height = `${Math.min(vibeBox.scrollHeight, 180)}px`;
}

const newSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 100_000;

// Ask the selected model for candidates; the best one plays as soon as it is rendered.
async function ask(more = {}) {
  const vibe = vibeBox.value.trim();
  if (!vibe) { vibeBox.focus(); return; }
  engine.wake();
  // Close the keyboard on the screen: it covers the piece.
  if (matchMedia("(pointer: coarse)").matches) vibeBox.blur();
  const model = setup.models.find((m) => m.id === modelBox.value);
  const question = { vibe, model: model.id, n: Math.min(Number(countBox.value), model.most), seed: 0, ...more };
  if (model.paid) {
    const cap = await agreed(question);
    if (cap === null) return;
    question.cap_usd = cap;
  }
  await fetchCandidates("/api/answer", question, vibe, 0);
}

async function agreed(question) {
  const plan = await attempt(() => post("/api/price", question));
  if (!plan) return null;
  if (!plan.spends) return 0;
  const usd = (value) => (value === null ? "an unknown amount" : `$${value < 0.01 ? value.toFixed(5) : value.toFixed(3)}`);
  if (plan.cost_usd === null) { toast(`The price of ${plan.model} is unknown, so the studio cannot enforce a cap and does not call it.`, "bad"); return null; }
  return new Promise((resolve) => {
    const cap = Math.max(plan.worst_usd || 0, plan.cost_usd);
    const box = dialog("This costs money",
      h("p", null, `${plan.calls} call${plan.calls === 1 ? "" : "s"} to ${plan.model}: about ${usd(plan.cost_usd)}, at most ${usd(cap)}.`),
      h("p", { class: "soft small" }, plan.basis),
      h("div", { class: "row" },
        h("button", { type: "button", class: "primary", onclick: () => { resolve(cap); box.close(); } }, `Spend up to ${usd(cap)}`),
        button("Cancel", { onclick: () => box.close() })));
    box.addEventListener("close", () => resolve(null), { once: true });
  });
}

async function fetchCandidates(path, question, vibe, seed) {
  if (asking) asking.abort();
  asking = new AbortController();
  const mine = asking;
  busy(true);
  say("Composing the candidates …");
  const answer = await attempt(() => post(path, question, mine.signal));
  if (mine !== asking) return;
  busy(false);
  say("");
  if (!answer) return;
  state.remember();
  candidates = answer.candidates.map((one) => ({ ...one, vibe, seed }));
  chosen = before = -1;
  if (answer.note) toast(answer.note);
  showCandidates();
  choose(0, { fresh: true });
}

export async function attempt(work) {
  try {
    return await work();
  } catch (error) {
    if (error.name === "AbortError") return null;
    toast(error.message, "bad");
    return null;
  }
}

// The button is not disabled while it waits, because a disabled one loses the keyboard's focus.
function busy(on) {
  askButton.setAttribute("aria-disabled", String(on));
  view.classList.toggle("busy", on);
}

const working = h("p", { class: "working", role: "status" });

// Show what the page does; with `done`, only screen readers read the text.
function say(text, done = false) {
  working.textContent = text;
  working.classList.toggle("hidden", done);
}

export async function surprise() {
  engine.wake();
  const found = await attempt(() => post("/api/surprise", { seed: newSeed() }));
  if (!found) return;
  vibeBox.value = found.vibe;
  grow();
  ask();
}

export function moreLikeThis() {
  if (!piece.config) return;
  engine.wake();
  const question = { payload: state.payload(), vibe: piece.vibe, n: Math.max(Number(countBox.value), 2), locked: [...locked], seed: newSeed() };
  fetchCandidates("/api/near", question, piece.vibe, piece.seed);
}

const improvable = () => (piece.config && piece.vibe ? { vibe: piece.vibe, payload: state.payload(), locked: [...locked] } : null);

// Switch to a new best of the search, at the same second. Undo goes back.
function improve(payload, score, vibe) {
  if (piece.vibe !== vibe) return;
  state.remember();
  adopt({ ...payload, vibe, score, seed: piece.seed, seconds: piece.seconds, locked: [...locked] });
  listen(true, engine.position());
}

// ---- candidates -------------------------------------------------------------------------------------------------------

const list = h("ol", { class: "candidates", "aria-label": "Candidates, the best first" });

// Candidates of the offline model have the same title; then their names are the two style fields that differ most.
const NAMED = ["melody", "pad", "rhythm", "texture", "accent", "bass"];

function nameOf(one) {
  if (candidates.length < 2 || candidates.some((other) => other.payload.title !== one.payload.title)) return one.payload.title;
  const kinds = (field) => new Set(candidates.map((other) => other.payload.config[field])).size;
  const said = (field) => { const label = words(one.payload.config[field]); return label === "none" ? `no ${field}` : label; };
  const [first, second] = [...NAMED].sort((a, b) => kinds(b) - kinds(a)).slice(0, 2).sort((a, b) => NAMED.indexOf(a) - NAMED.indexOf(b));
  return capital(`${said(first)}, ${said(second)}`);
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function showCandidates() {
  list.replaceChildren(...candidates.map((one, i) => {
    const wave = h("span", { class: "wave", "aria-hidden": "true" });
    one.node = h("li", { class: "candidate" },
      h("button", { type: "button", class: "pickone", onclick: () => choose(i) },
        h("span", { class: "rank" }, h("span", { class: "hidden" }, "Candidate "), String(i + 1)),
        h("span", { class: "who" }, h("span", { class: "name" }, nameOf(one)), h("span", { class: "sum" }, summary(one.payload.config)), h("span", { class: "hidden" }, ", score ")),
        h("span", { class: "points" }, one.score === null ? h("span", { class: "soft", title: one.failure || "" }, "–") : one.score.toFixed(2)),
        strip(one.payload.palettes[0]), wave));
    return one.node;
  }));
  view.classList.toggle("many", candidates.length > 1);
}

const layer = (name, style) => (style === "none" ? `no ${name}` : words(style));
const summary = (c) => `${Math.round(setup.bpm[c.tempo])} bpm · ${c.root.toUpperCase()} ${c.mode} · ${layer("rhythm", c.rhythm)} · ${layer("texture", c.texture)}`;

export const strip = (palette) => h("span", { class: "strip", "aria-hidden": "true" }, palette.colors.map((c) => h("i", { title: c.hex, style: { background: c.hex, "flex-grow": String(1 + state.WEIGHTS.indexOf(c.weight)) } })));

// Play a candidate. After another one, it starts at the same second, for comparison; all have the same loudness.
export async function choose(i, { fresh = false } = {}) {
  const one = candidates[i];
  if (!one) return;
  engine.wake();
  if (!fresh) state.remember();
  if (chosen !== i) before = chosen;
  chosen = i;
  const at = fresh ? 0 : engine.position();
  adopt({ vibe: one.vibe, title: one.payload.title, thinking: one.payload.thinking, config: one.payload.config, palettes: one.payload.palettes, score: one.score, seed: one.seed, seconds: piece.seconds, locked: [...locked] });
  if (fresh) say("Rendering the sound …");
  await listen(true, at);
  say(fresh && chosen === i && engine.player.playing ? `Candidate 1 of ${candidates.length} plays.` : "", true);
  markChosen();
}

export function compare() {
  if (before >= 0 && candidates[before]) choose(before);
  else if (candidates.length > 1) choose(chosen === 0 ? 1 : 0);
}

function markChosen() {
  const here = candidates[chosen];
  const same = here && piece.config && JSON.stringify(here.payload.config) === JSON.stringify(piece.config);
  candidates.forEach((one, i) => {
    one.node.classList.toggle("chosen", i === chosen && same);
    one.node.firstChild.setAttribute("aria-pressed", String(i === chosen && Boolean(same)));
  });
  abButton.hidden = candidates.length < 2;
}

// ---- the piece --------------------------------------------------------------------------------------------------------

// Show a complete piece: from a candidate, the address, the history or a playlist.
function adopt(other) {
  Object.assign(piece, other);
  if (other.locked) { locked.clear(); for (const name of other.locked) locked.add(name); }
  delete piece.locked;
  whyShown = null;
  if (document.activeElement !== vibeBox || !vibeBox.value) { vibeBox.value = piece.vibe; grow(); }
  lengthBox.value = String(piece.seconds);
  show();
}

function show() {
  view.classList.toggle("empty", !piece.config);
  if (!piece.config) return;
  title.textContent = piece.title || "Untitled";
  subtitle.textContent = piece.vibe;
  const c = piece.config;
  facts.replaceChildren(...[`${Math.round(setup.bpm[c.tempo])} bpm`, `${c.root.toUpperCase()} ${c.mode}`, `seed ${piece.seed}`, piece.score === null ? null : `${setup.scorer} ${piece.score.toFixed(2)}`].filter(Boolean).map((text) => h("li", null, text)));
  visual.paint(piece.palettes[0].colors);
  tint(piece.palettes[0].colors);
  for (const [name, control] of controls) control.show(piece.config[name]);
  freeButton.hidden = locked.size === 0;
  replaceEntry({}, state.toHash());
  document.title = `${piece.title || "Untitled"} · LatentScore studio`;
  deckTitle.textContent = piece.title;
  markChosen();
  showHistory();
}

// Use the palette's colour with the highest chroma as the accent of the page.
function tint(colors) {
  const chroma = (hex) => { const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)); return Math.max(r, g, b) - Math.min(r, g, b); };
  const hue = [...colors].sort((a, b) => chroma(b.hex) - chroma(a.hex))[0].hex;
  document.documentElement.style.setProperty("--hue", chroma(hue) > 14 ? hue : "#5b7fa6");
}

// Load and play the piece: from the second `at` with `begin`, else (after a change) from the next bar line on.
export async function listen(begin, at = 0, fade = undefined) {
  if (changing) changing.abort();
  changing = new AbortController();
  const mine = changing, wanted = { config: { ...piece.config }, seed: piece.seed, seconds: piece.seconds };
  view.classList.add("loading");
  if (!piece.seconds) return flowOn(begin, mine, wanted);
  const bpm = setup.bpm[wanted.config.tempo];
  // A change plays as an excerpt first, which the whole piece then replaces.
  const excerpt = begin ? null : await attempt(() => engine.loadExcerpt(wanted, bpm, mine.signal));
  if (mine !== changing) return;
  if (excerpt) engine.changeAtBar(excerpt, bpm);
  const buffer = await attempt(() => engine.load(wanted, mine.signal));
  if (mine !== changing) return;
  view.classList.remove("loading");
  if (!buffer) return;
  if (excerpt) engine.complete(buffer);
  else if (begin) engine.play(buffer, bpm, { at: at < buffer.duration - 2 ? at : 0, fade });
  else engine.changeAtBar(buffer, bpm);
  drawWave(buffer);
  const here = candidates[chosen];
  if (here && begin) here.node.querySelector(".wave").replaceChildren(waveform(buffer, 40));
}

// An endless piece: change the stream that plays, or start a new one.
async function flowOn(begin, mine, { config, seed }) {
  waveBox.replaceChildren();
  const bpm = setup.bpm[config.tempo];
  const done = begin || engine.isEndless() ? await attempt(async () => (await engine.changeFlow(config, seed, bpm)) || (await engine.startFlow(config, seed, bpm), true)) : true;
  if (mine === changing) view.classList.remove("loading");
  return done;
}

// Apply another length: a finite piece continues at the same second; to and from an endless one, playback starts again.
function relength() {
  if (!piece.config) return;
  const was = engine.player.playing, endless = engine.isEndless();
  show();
  if (!was) { if (endless || !piece.seconds) engine.forget(); return; }
  if (!piece.seconds || endless) { engine.forget(); listen(true); } else listen(false);
}

let changeTimer = 0, changedAt = 0;

// Apply a changed field: show it now, play it from the next bar line on.
function changed() {
  if (!piece.config) return;
  piece.score = null;
  whyShown = null;
  show();
  clearTimeout(changeTimer);
  // A single change is rendered at once; of many in a short time (a dragged slider), only the last one.
  const wait = performance.now() - changedAt > 300 ? 0 : 70;
  changedAt = performance.now();
  changeTimer = setTimeout(() => listen(false), wait);
}

export function stepBack(back = true) {
  if (!(back ? state.undo() : state.redo())) return;
  show();
  lengthBox.value = String(piece.seconds);
  listen(false);
}

function rest() {
  view.classList.add("empty");
  visual.paint(["#1f2a44", "#3e5c76", "#748cab", "#e8c6a0", "#f7ead2"].map((hex) => ({ hex })));
}

// ---- the stage ----------------------------------------------------------------------------------------------------------

const title = h("h1", { class: "title" }), subtitle = h("p", { class: "subtitle" }), facts = h("ul", { class: "facts" });
const playButton = h("button", { type: "button", class: "play", onclick: toggle, "aria-label": "Play" }, icon("play"));
const deckPlay = h("button", { type: "button", class: "play small", onclick: toggle, "aria-label": "Play" }, icon("play"));
const deckTitle = h("div", { class: "line" }), deckTime = h("span", { class: "time" });
const seekBar = slider("Position"), deckSeek = slider("Position");
const timeNow = h("span", { class: "time" }, "0:00"), timeAll = h("span", { class: "time" }, "1:00");
const waveBox = h("div", { class: "wavebox", "aria-hidden": "true" });
const undoButton = button("", { class: "round", "aria-label": "Undo", title: "Undo (U)", onclick: () => stepBack() }, icon("undo"));
const redoButton = button("", { class: "round", "aria-label": "Redo", title: "Redo", onclick: () => stepBack(false) }, icon("redo"));
const loopButton = button("", { class: "round", "aria-label": "Loop", title: "Loop (L)", "aria-pressed": "true", onclick: toggleLoop }, icon("loop"));
const sleepButton = button("", { "aria-label": "Sleep timer", title: "Sleep timer", onclick: nextSleep }, icon("moon"), h("span", null, "Sleep"));
const abButton = button("A/B", { title: "Compare with the previous candidate (X)", hidden: true, onclick: compare });
let stageSeen = true, stageCard = null, freeButton = null;

function slider(label) {
  return h("input", { type: "range", class: "seek", min: "0", max: "1000", value: "0", step: "1", "aria-label": label, oninput: (event) => engine.seek((event.target.value / 1000) * engine.duration()) });
}

function stage() {
  const canvas = h("canvas", { class: "picture", "aria-hidden": "true" });
  visual.attach(canvas);
  const invitation = h("div", { class: "invitation" },
    h("h1", null, "What should it sound like?"),
    h("p", null, "Type a sentence above and press Play, or begin with one of these."),
    h("div", { class: "chips" }, EXAMPLES.map((text) => button(text, { class: "chip", onclick: () => { vibeBox.value = text; grow(); ask(); } }))));
  const front = h("div", { class: "front" }, h("div", { class: "heading" }, title, subtitle, facts), playButton);
  const transport = h("div", { class: "transport" },
    h("div", { class: "progress" }, waveBox, seekBar),
    h("div", { class: "times" }, timeNow, timeAll),
    h("div", { class: "actions" },
      h("div", { class: "cluster" }, undoButton, redoButton, loopButton, abButton),
      h("div", { class: "cluster" },
        button("More like this", { onclick: moreLikeThis, title: "Variations of this piece (M)" }, icon("near"), h("span", null, "More like this")),
        betterButton(improvable, improve),
        button("Keep", { onclick: () => keepPiece(), title: "Put it on the playlist (K)" }, icon("star"), h("span", null, "Keep")),
        sleepButton,
        button("Take away", { onclick: takeAway, "aria-haspopup": "dialog" }, icon("down"), h("span", null, "Take away")))));
  stageCard = h("div", { class: "stagecard card" }, h("div", { class: "stage" }, canvas, front, invitation, working), transport);
  return h("section", { class: "stagegrid", "aria-label": "Piece" }, stageCard,
    h("aside", { class: "side", "aria-label": "Candidates" }, h("h2", { class: "hidden" }, "Candidates"), list, playlistPanel));
}

export function toggle() {
  if (engine.player.playing) engine.pause();
  else if (engine.duration() && engine.isEndless() === !piece.seconds) engine.resume();
  else if (piece.config) { engine.wake(); listen(true); }
  else ask();
}

export function toggleLoop() {
  engine.player.loop = !engine.player.loop;
  loopButton.setAttribute("aria-pressed", String(engine.player.loop));
}

function nextSleep() {
  sleepMinutes = SLEEPS[(SLEEPS.indexOf(sleepMinutes) + 1) % SLEEPS.length];
  clearTimeout(sleepTimer);
  sleepButton.lastChild.textContent = sleepMinutes ? `${sleepMinutes} min` : "Sleep";
  sleepButton.classList.toggle("on", sleepMinutes > 0);
  if (!sleepMinutes) return;
  sleepTimer = setTimeout(() => { engine.fadeOut(12); sleepMinutes = SLEEPS.at(-1); nextSleep(); }, sleepMinutes * 60_000);
  toast(`The music fades out in ${sleepMinutes} minutes.`);
}

function showTransport() {
  const on = engine.player.playing;
  for (const node of [playButton, deckPlay]) {
    node.replaceChildren(icon(on ? "pause" : "play"));
    node.setAttribute("aria-label", on ? "Pause" : "Play");
  }
  $("deck").hidden = stageSeen || !piece.config;
  document.documentElement.classList.toggle("playing", on);
  visual.kick();
}

function showHistory() {
  undoButton.disabled = !state.canUndo();
  redoButton.disabled = !state.canRedo();
}

function tick() {
  requestAnimationFrame(tick);
  const now = performance.now();
  if (now - drawn < 100) return;
  drawn = now;
  const all = engine.duration() || piece.seconds || Infinity, at = engine.position();
  stageCard?.classList.toggle("endless", all === Infinity);
  $("deck").classList.toggle("endless", all === Infinity);
  for (const bar of [seekBar, deckSeek]) {
    if (document.activeElement !== bar || engine.player.playing) bar.value = String(Math.round((at / all) * 1000));
    bar.setAttribute("aria-valuetext", `${clock(at)} of ${span(all)}`);
  }
  seekBar.style.setProperty("--done", `${(at / all) * 100}%`);
  waveBox.style.setProperty("--done", `${(at / all) * 100}%`);
  timeNow.textContent = clock(at);
  timeAll.textContent = span(all);
  deckTime.textContent = `${clock(at)} / ${span(all)}`;
}

const span = (seconds) => (seconds === Infinity ? "endless" : clock(seconds));

function waveform(buffer, bars) {
  const W = bars * 4, box = svg("svg", { viewBox: `0 0 ${W} 40`, preserveAspectRatio: "none" });
  engine.peaks(buffer, bars).forEach((top, i) => {
    const tall = Math.max(2, top * 38);
    box.append(svg("rect", { x: i * 4 + 0.6, y: 20 - tall / 2, width: 2.6, height: tall, rx: 1.3 }));
  });
  return box;
}

function drawWave(buffer) {
  waveBox.replaceChildren(h("div", { class: "base" }, waveform(buffer, 120)), h("div", { class: "over" }, waveform(buffer, 120)));
}

// ---- take away ----------------------------------------------------------------------------------------------------------

const FILES = [
  ["wav", "WAV", "24 bit, uncompressed"], ["flac", "FLAC", "24 bit, lossless"], ["mp3", "MP3", "small, plays everywhere"],
  ["stems", "Stems", "one FLAC per layer, in a ZIP"], ["midi", "MIDI", "the notes, one track per layer"], ["json", "Payload", "title, config and palettes as JSON"],
];
const ENDINGS = { stems: "zip", midi: "mid" };
const slug = (text) => text.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "").slice(0, 48) || "piece";

function takeAway() {
  if (!piece.config) return;
  const rows = FILES.map(([format, name, note]) => h("li", null,
    button(name, { class: "file", onclick: async (event) => {
      const pressed = event.currentTarget;
      pressed.disabled = true;
      await attempt(() => download(format));
      pressed.disabled = false;
    } }, h("b", null, name), h("span", null, note))));
  const address = h("input", { type: "text", class: "text", readonly: true, value: location.href, "aria-label": "Link to this piece", onfocus: () => address.select() });
  const link = button("Copy link", { onclick: async () => { if (await copy(address)) toast("The link is copied."); else toast("The browser does not allow copying. Copy the selected link yourself.", "bad"); } });
  dialog("Take away", h("ul", { class: "files" }, rows), h("p", { class: "soft small" }, "The link contains the whole piece: vibe, config, palettes, seed and length. It needs this studio and its access token."),
    h("div", { class: "row link" }, address, link));
}

// navigator.clipboard exists only on this machine: browsers give it to no other page without HTTPS.
async function copy(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    field.focus();
    field.select();
    return document.execCommand("copy");
  }
}

async function download(format) {
  const name = `${slug(piece.title)}-${piece.seed}`;
  if (format === "json") return saveJson(name);
  return save("/api/sound", { config: piece.config, seed: piece.seed, seconds: state.finite(piece.seconds), format, title: piece.title || "Untitled" }, `${name}.${ENDINGS[format] || format}`);
}

function saveJson(name) {
  const text = JSON.stringify({ ...state.payload(), vibe: piece.vibe, seed: piece.seed, seconds: piece.seconds }, null, 2);
  saveBlob(new Blob([text], { type: "application/json" }), `${name}.json`);
}

// ---- the fields -----------------------------------------------------------------------------------------------------------

function fieldsSection() {
  const groups = Object.entries(setup.groups).map(([name, fields]) => h("fieldset", { class: "group card" }, h("legend", null, name), fields.map(fieldRow)));
  const whyButton = button("Why this sound?", { id: "why", onclick: why, title: "How much each field contributes to the score (W)" }, icon("why"), h("span", null, "Why this sound?"));
  const randomButton = button("Shuffle", { title: "Random labels for every unlocked field", onclick: shuffle }, icon("dice"), h("span", null, "Shuffle"));
  freeButton = button("Unlock all", { class: "link", hidden: true, onclick: () => { locked.clear(); show(); } });
  return h("section", { class: "fields", "aria-labelledby": "fields-title" },
    h("div", { class: "sectionhead" }, h("h2", { id: "fields-title" }, "Sound"), h("div", { class: "cluster" }, whyButton, randomButton, freeButton)),
    whyNote, h("div", { class: "groups" }, groups));
}

const whyNote = h("p", { class: "soft small whynote", role: "status" });

function fieldRow(name) {
  const spec = setup.fields[name], id = `field-${name}`;
  const value = h("span", { class: "value" });
  const label = explained(h("button", { type: "button", class: "fieldname" }, words(name)), `${words(name)}: ${spec.meaning}.`);
  const lock = h("button", { type: "button", class: "lock", "aria-pressed": "false", "aria-label": `Lock ${words(name)}`, onclick: () => {
    if (locked.has(name)) locked.delete(name); else locked.add(name);
    show();
  } }, icon("open"));
  const set = (label) => { if (!piece.config || piece.config[name] === label) return; state.remember(); change(name, label); };
  const [input, put] = widget(name, spec, id, set, value);
  const bar = h("i", { class: "carry" });
  const row = h("div", { class: `field ${spec.ordered ? "scale" : spec.kind}` }, label, value, input, lock, h("span", { class: "carrybox", "aria-hidden": "true" }, bar));
  controls.set(name, {
    show(label) {
      put(label);
      const on = locked.has(name);
      row.classList.toggle("locked", on);
      lock.setAttribute("aria-pressed", String(on));
      lock.replaceChildren(icon(on ? "lock" : "open"));
      const carried = whyShown?.fields[name];
      row.classList.toggle("weighed", Boolean(whyShown));
      bar.style.setProperty("--carry", carried ? String(Math.min(Math.abs(carried) / whyShown.most, 1)) : "0");
      bar.classList.toggle("minus", (carried || 0) < 0);
      row.title = whyShown ? (carried === undefined ? "at its default" : `${carried >= 0 ? "+" : "−"}${Math.abs(carried).toFixed(3)} of the score`) : "";
    },
  });
  return row;
}

// The input of a field, and the function that shows a label in it: a slider for ordered labels, else a list or a switch.
function widget(name, spec, id, set, value) {
  const common = { id, "aria-label": words(name) };
  if (spec.ordered) {
    const input = h("input", { type: "range", min: "0", max: String(spec.labels.length - 1), step: "1", ...common, oninput: () => { say(spec.labels[input.value]); set(spec.labels[input.value]); } });
    const say = (label) => { value.textContent = words(label); input.setAttribute("aria-valuetext", words(label)); input.style.setProperty("--done", `${(input.value / input.max) * 100}%`); };
    return [input, (label) => { input.value = String(spec.labels.indexOf(label)); say(label); }];
  }
  if (spec.kind === "switch") {
    const input = h("input", { type: "checkbox", role: "switch", class: "switch", ...common, onchange: () => set(input.checked) });
    return [input, (label) => { input.checked = label; value.textContent = label ? "on" : "off"; }];
  }
  const input = h("select", { ...common, onchange: () => set(input.value) }, spec.labels.map((label) => h("option", { value: label }, words(label))));
  return [input, (label) => { input.value = label; }];
}

// A register that would cross the other one moves it, as in MusicConfigPrompt.step.
function change(name, label) {
  const config = { ...piece.config, [name]: label };
  if (config.register_min_oct > config.register_max_oct) {
    config[name === "register_min_oct" ? "register_max_oct" : "register_min_oct"] = label;
  }
  piece.config = config;
  changed();
}

function shuffle() {
  if (!piece.config) return;
  engine.wake();
  state.remember();
  const config = { ...piece.config };
  for (const [name, spec] of Object.entries(setup.fields)) {
    if (!locked.has(name)) config[name] = spec.labels[Math.floor(Math.random() * spec.labels.length)];
  }
  if (config.register_min_oct > config.register_max_oct) {
    const [free, fixed] = locked.has("register_max_oct") ? ["register_min_oct", "register_max_oct"] : ["register_max_oct", "register_min_oct"];
    config[free] = config[fixed];
  }
  piece.config = config;
  changed();
}

export async function why() {
  if (!piece.config) return;
  whyNote.textContent = "Scoring the piece with each field at its default …";
  const of = piece.config;
  const answer = await attempt(() => post("/api/why", { vibe: piece.vibe || piece.title, config: of }));
  whyNote.textContent = "";
  if (!answer || of !== piece.config) return;
  const sizes = Object.values(answer.fields).map(Math.abs);
  whyShown = { ...answer, most: Math.max(...sizes, 1e-9) };
  const top = Object.entries(answer.fields).filter(([, x]) => x > 0).sort((a, b) => b[1] - a[1]).slice(0, 3).map(([name]) => words(name));
  whyNote.textContent = answer.note || `${setup.scorer} ${answer.score.toFixed(2)}. ${top.length ? `Largest contributions: ${top.join(", ")}.` : "No field contributes."} A filled bar shows how much the score falls with that field at its default; a hollow bar shows how much it would rise.`;
  show();
}

// Show a piece of a playlist or a row, without candidates. Undo goes back.
export function takeOver(other) {
  state.remember();
  candidates = [];
  chosen = before = -1;
  showCandidates();
  vibeBox.value = other.vibe;
  grow();
  adopt(other);
}

export const setKept = (on) => view.classList.toggle("kept", on);
export const setShown = (on) => { view.hidden = !on; grow(); stageSeen = on && stageSeen; showTransport(); };
export const showView = (name) => { $("tabs").querySelector(`[data-view=${name}]`).click(); };

export const focusVibe = () => { vibeBox.focus(); vibeBox.select(); };
