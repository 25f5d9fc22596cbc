// The player: one piece sounds at a time; another takes over at the next bar line or at the same second, without a gap.

import { bytes, isHere, post } from "./api.js";

const FADE = 0.06;
const KEPT = 10;
const END_FADE = 4;

const decoded = new Map();
let context = null, master = null, analyser = null, current = null, timer = 0;

export const player = {
  playing: false,
  loop: true,
  // Told when playing begins, ends or turns to another sound.
  onchange: () => {},
  // Told when an endless piece breaks off.
  onfail: () => {},
  // Asked near the end of a piece; true when another one has taken over.
  onending: () => false,
};

function open() {
  if (context) return context;
  context = new AudioContext({ latencyHint: "interactive", sampleRate: 48000 });
  master = context.createGain();
  analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  analyser.smoothingTimeConstant = 0.82;
  master.connect(analyser).connect(context.destination);
  // A laptop that was closed, or another program, may have suspended the sound.
  document.addEventListener("visibilitychange", () => { if (!document.hidden && player.playing && context.state !== "running") context.resume(); });
  return context;
}

// Call from a click or a key: browsers start sound only then.
export function wake() {
  open();
  if (context.state === "suspended") context.resume();
}

const keyOf = (piece) => JSON.stringify([piece.config, piece.seed, piece.seconds]);

export async function load(piece, signal) {
  open();
  const key = keyOf(piece);
  if (decoded.has(key)) {
    const known = decoded.get(key);
    decoded.delete(key);
    decoded.set(key, known);
    return known;
  }
  const { config, seed, seconds } = piece;
  const data = await bytes("/api/sound", { config, seed, seconds, format: isHere ? "pcm" : "flac-16" }, signal);
  const buffer = await context.decodeAudioData(data);
  decoded.set(key, buffer);
  while (decoded.size > KEPT) decoded.delete(decoded.keys().next().value);
  return buffer;
}

const EXCERPT = 10;

// A few seconds of a piece around the next bar line, in a buffer as long as the piece: what a change sounds like until the
// whole piece is rendered. Null where the piece is known already, is not playing, or is about to end.
export async function loadExcerpt(piece, bpm, signal) {
  if (!current || !player.playing || flow || decoded.has(keyOf(piece))) return null;
  const begin = Math.max(nextLine().line * barSeconds(bpm) - FADE, 0);
  if (begin + EXCERPT > piece.seconds - 3) return null;
  const { config, seed, seconds } = piece;
  const length = EXCERPT + Math.min(barSeconds(bpm), 6);
  const data = await bytes("/api/sound", { config, seed, seconds, begin, length, format: isHere ? "pcm" : "flac-16" }, signal);
  const part = await context.decodeAudioData(data);
  const whole = context.createBuffer(2, Math.round(seconds * context.sampleRate), context.sampleRate);
  for (const side of [0, 1]) whole.copyToChannel(part.getChannelData(side), side, Math.round(begin * context.sampleRate));
  return whole;
}

// ---- music without an end: blocks from the server, one after the other -------------------------------------------------

const BLOCK = 0.5, AHEAD = 1.4, MOST_FAILURES = 30;
let flow = null;

export const isEndless = () => flow !== null;

// Begin an endless piece; blocks are fetched a little ahead of what sounds.
export async function startFlow(config, seed, bpm) {
  open();
  const { stream } = await post("/api/stream", { config, seed });
  endAll(context.currentTime, 0.4);
  flow = { stream, config, seed, bpm, failures: 0, next: 0, zero: context.currentTime, rest: 0 };
  current = null;
  player.playing = true;
  clearInterval(timer);
  pump(flow);
  player.onchange();
}

// Another config for what flows, from a bar line of the server's on; false where nothing with this seed flows.
export async function changeFlow(config, seed, bpm) {
  if (!flow || flow.seed !== seed) return false;
  const mine = flow;
  Object.assign(mine, { config, bpm });
  try {
    await post("/api/stream/update", { stream: mine.stream, config });
  } catch (error) {
    if (error.status !== 400) throw error;
    await reopen(mine);
  }
  return true;
}

// The server keeps a few streams: one that others have replaced, or that a restart has ended, begins anew.
async function reopen(mine) {
  const { config, seed } = mine;
  mine.stream = (await post("/api/stream", { config, seed })).stream;
}

const later = (ms) => new Promise((done) => setTimeout(done, ms));

// After a failed block: wait a little longer each time (a laptop that was closed, a network that is away), then go on.
async function recover(mine, error) {
  mine.failures += 1;
  if (mine.failures > MOST_FAILURES || error.status === 401) throw error;
  await later(Math.min(200 * 2 ** mine.failures, 5000));
  if (error.status === 400 && flow === mine) await reopen(mine);
}

async function nextBlock(mine) {
  const samples = await bytes("/api/stream/read", { stream: mine.stream, seconds: BLOCK });
  mine.failures = 0;
  return new Int16Array(samples);
}

async function pump(mine) {
  if (mine.pumping) return;
  mine.pumping = true;
  try {
    while (flow === mine && player.playing) {
      if (mine.next - context.currentTime > AHEAD) { await later(120); continue; }
      let samples = null;
      try { samples = await nextBlock(mine); } catch (error) { await recover(mine, error); continue; }
      if (flow !== mine || !player.playing) break;
      const frames = samples.length / 2, buffer = context.createBuffer(2, frames, 48000);
      for (const side of [0, 1]) {
        const out = buffer.getChannelData(side);
        for (let i = 0; i < frames; i += 1) out[i] = samples[2 * i + side] / 32768;
      }
      if (mine.next < context.currentTime + 0.02) mine.next = context.currentTime + 0.08;
      start(buffer, mine.next, 0, 0);
      mine.next += frames / 48000;
    }
  } catch (error) {
    if (flow === mine) { flow = null; player.playing = false; player.onfail(error); player.onchange(); }
  } finally {
    mine.pumping = false;
  }
}

export const barSeconds = (bpm) => 240 / bpm;

export function position() {
  if (flow) return player.playing ? context.currentTime - flow.zero : flow.rest;
  if (!current) return 0;
  if (!player.playing) return current.offset;
  return Math.min(Math.max(context.currentTime - current.zero, 0), current.buffer.duration);
}

export const duration = () => (flow ? Infinity : current ? current.buffer.duration : 0);

// Everything that sounds or is about to: at a change two overlap.
const voices = new Set();

function start(buffer, when, offset, fade) {
  const source = context.createBufferSource(), gain = context.createGain();
  source.buffer = buffer;
  source.connect(gain).connect(master);
  const at = Math.max(when, context.currentTime);
  const from = Math.min(Math.max(offset + (at - when), 0), Math.max(buffer.duration - 0.05, 0));
  gain.gain.setValueAtTime(fade ? 0 : 1, at);
  if (fade) gain.gain.setValueCurveAtTime(RISE, at, fade);
  source.start(at, from);
  const voice = { source, gain, zero: at - from, at, buffer };
  voices.add(voice);
  source.onended = () => { voices.delete(voice); gain.disconnect(); };
  return voice;
}

const steps = Array.from({ length: 33 }, (_, i) => i / 32);
const RISE = new Float32Array(steps.map((x) => Math.sin((x * Math.PI) / 2)));
const FALL = new Float32Array(steps.map((x) => Math.cos((x * Math.PI) / 2)));

function end(voice, when, fade) {
  const at = Math.max(when, context.currentTime);
  if (voice.at >= at) {
    voice.source.stop();
    return;
  }
  if (voice.ends && voice.ends <= at + fade) return;
  voice.ends = at + fade;
  voice.gain.gain.cancelScheduledValues(at);
  try {
    voice.gain.gain.setValueCurveAtTime(FALL, at, fade);
  } catch {
    voice.gain.gain.setTargetAtTime(0, at, fade / 4);
  }
  voice.source.stop(at + fade + 0.01);
}

const endAll = (when, fade) => { for (const voice of [...voices]) end(voice, when, fade); };

function watch() {
  clearInterval(timer);
  timer = setInterval(() => {
    if (!player.playing || !current) return;
    const left = current.buffer.duration - position();
    if (left < END_FADE && player.onending()) return;
    if (left > 0.12) return;
    if (player.loop) return play(current.buffer, current.bpm);
    player.playing = false;
    current.offset = 0;
    player.onchange();
  }, 60);
}

// From the beginning, or from a second of it; what sounds before fades out.
export function play(buffer, bpm, { at = 0, fade = FADE } = {}) {
  open();
  flow = null;
  const now = context.currentTime + 0.02, sounding = voices.size > 0;
  endAll(now, fade);
  current = { ...start(buffer, now, at, sounding || at ? fade : 0), bpm, offset: at };
  player.playing = true;
  watch();
  player.onchange();
}

// The bar line at which a change can begin, by number and time. A change that waits for its bar line is replaced by the newer one.
function nextLine() {
  const soon = context.currentTime + 0.05, bar = barSeconds(current.bpm);
  if (current.line && current.at > soon) return { line: current.line, when: current.at };
  const line = Math.floor((soon - current.zero) / bar) + 1;
  return { line, when: current.zero + line * bar - FADE / 2 };
}

// Seconds until the newest change is heard: it waits for its bar line.
export const heardIn = () => (current?.at ? Math.max(current.at - context.currentTime, 0) : 0);

// The same piece with another config: from the next bar line on, at the same bar of the new one. Returns the seconds until then.
export function changeAtBar(buffer, bpm) {
  if (!current || !player.playing) {
    const bar = current ? current.offset / barSeconds(current.bpm) : 0;
    current = { buffer, bpm, offset: Math.min(bar * barSeconds(bpm), Math.max(buffer.duration - 1, 0)) };
    player.onchange();
    return 0;
  }
  const { line, when } = nextLine();
  let offset = line * barSeconds(bpm) - FADE / 2;
  if (offset > buffer.duration - 3) offset = 0;
  endAll(when, FADE);
  current = { ...start(buffer, when, Math.max(offset, 0), FADE), bpm, offset, line };
  player.onchange();
  return when - context.currentTime;
}

// The whole piece in the place of its excerpt, at the same second.
export function complete(buffer) {
  if (!current) return;
  if (!player.playing) { current.buffer = buffer; return player.onchange(); }
  const { bpm, line } = current, soon = context.currentTime + 0.02;
  const when = Math.max(soon, current.at), fade = current.at > soon ? FADE : 2 * FADE, offset = when - current.zero;
  endAll(when, fade);
  current = { ...start(buffer, when, offset, fade), bpm, offset, line };
  player.onchange();
}

export function pause() {
  if (!player.playing) return;
  if (flow) Object.assign(flow, { rest: position(), next: 0 });
  else current.offset = position();
  endAll(context.currentTime, 0.08);
  player.playing = false;
  player.onchange();
}

export function resume() {
  if (player.playing || !(current || flow)) return;
  wake();
  if (flow) {
    flow.zero = context.currentTime - flow.rest;
    player.playing = true;
    pump(flow);
    return player.onchange();
  }
  const { buffer, bpm, offset } = current;
  play(buffer, bpm, { at: offset >= buffer.duration - 0.2 ? 0 : offset });
}

// Stop, and hold nothing that could be resumed.
export function forget() {
  if (player.playing) pause();
  flow = current = null;
  player.onchange();
}

export function seek(second) {
  if (!current) return;
  if (player.playing) play(current.buffer, current.bpm, { at: second });
  else { current.offset = second; player.onchange(); }
}

export function fadeOut(seconds) {
  if (!context || !player.playing) return;
  master.gain.setTargetAtTime(0, context.currentTime, seconds / 5);
  setTimeout(() => {
    pause();
    master.gain.cancelScheduledValues(0);
    master.gain.setValueAtTime(1, context.currentTime + 0.2);
  }, seconds * 1000);
}

const spectrum = new Uint8Array(1024), samples = new Float32Array(2048);
const EDGES = [0, 5, 14, 40, 110, 320];

// Five bands from low to high and the level, each 0 to 1.
export function hear() {
  if (!analyser || !player.playing) return { bands: [0, 0, 0, 0, 0], level: 0 };
  analyser.getByteFrequencyData(spectrum);
  analyser.getFloatTimeDomainData(samples);
  let sum = 0;
  for (const x of samples) sum += x * x;
  const bands = EDGES.slice(1).map((high, i) => {
    let top = 0;
    for (let k = EDGES[i]; k < high; k += 1) top += spectrum[k];
    return top / (high - EDGES[i]) / 255;
  });
  return { bands, level: Math.min(Math.sqrt(sum / samples.length) * 3.2, 1) };
}

// Bars for a picture of the sound: the loudest sample of each stretch, on a square-root scale.
export function peaks(buffer, bars) {
  const left = buffer.getChannelData(0), step = left.length / bars;
  return Array.from({ length: bars }, (_, i) => {
    let top = 0;
    for (let k = Math.floor(i * step); k < (i + 1) * step; k += 16) top = Math.max(top, Math.abs(left[k]));
    return Math.sqrt(top);
  });
}
