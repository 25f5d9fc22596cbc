// The player: plays one piece at a time, and switches to another at the next bar line or at the same second, without a gap.

import { bytes, isHere, post } from "./api.js";

const FADE = 0.06;
// Decoded sound takes 0.4 MB per second, and a phone closes pages that need too much memory.
const KEPT_SECONDS = 480;
const END_FADE = 4;

const decoded = new Map();
let context = null, master = null, analyser = null, current = null, timer = 0;

export const player = {
  playing: false,
  loop: true,
  // Each is called when playback starts, stops or changes to another sound.
  watchers: [],
  // Called with the error when an endless piece stops.
  onfail: () => {},
  // Called near the end of a piece; returns true if another one has started.
  onending: () => false,
};

const changed = () => player.watchers.forEach((watcher) => watcher());

function open() {
  if (context) return context;
  // On iPhones, this kind of sound is not muted by the mute switch.
  if (navigator.audioSession) navigator.audioSession.type = "playback";
  context = new AudioContext({ latencyHint: "interactive", sampleRate: 48000 });
  master = context.createGain();
  analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  analyser.smoothingTimeConstant = 0.82;
  master.connect(analyser).connect(context.destination);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) wakeAgain(); });
  return context;
}

// The browser suspends the context when a laptop is closed, a phone is locked, or for a call. If it does not start again without a
// tap, the page shows that nothing plays.
async function wakeAgain() {
  if (!player.playing || context.state === "running") return;
  context.resume();
  await later(1000);
  if (player.playing && context.state !== "running") pause();
}

// Call this in the handler of a click or a key: browsers start sound only there.
export function wake() {
  open();
  if (context.state !== "running") context.resume();
}

const keyOf = (piece) => JSON.stringify([piece.config, piece.seed, piece.seconds]);

async function fetchSound({ config, seed, seconds }, signal, excerpt = {}) {
  const format = isHere ? "pcm" : "flac-16";
  return context.decodeAudioData(await bytes("/api/sound", { config, seed, seconds, format, ...excerpt }, signal));
}

// The decoded sound of a piece, from the cache of the last ones or from the server.
export async function load(piece, signal) {
  open();
  const key = keyOf(piece);
  const buffer = decoded.get(key) || (await fetchSound(piece, signal));
  decoded.delete(key);
  decoded.set(key, buffer);
  const seconds = () => [...decoded.values()].reduce((sum, one) => sum + one.duration, 0);
  while (decoded.size > 1 && seconds() > KEPT_SECONDS) decoded.delete(decoded.keys().next().value);
  return buffer;
}

const EXCERPT = 10;

// A few seconds of a piece from the next bar line on, in a buffer as long as the piece. It plays after a change until the
// whole piece is rendered. Null if the piece is in the cache, if nothing plays, or if the end is near.
export async function loadExcerpt(piece, bpm, signal) {
  if (!current || !player.playing || flow || decoded.has(keyOf(piece))) return null;
  const begin = Math.max(nextLine().line * barSeconds(bpm) - FADE, 0);
  if (begin + EXCERPT > piece.seconds - 3) return null;
  const part = await fetchSound(piece, signal, { begin, length: EXCERPT + Math.min(barSeconds(bpm), 6) });
  const whole = context.createBuffer(2, Math.round(piece.seconds * context.sampleRate), context.sampleRate);
  for (const side of [0, 1]) whole.copyToChannel(part.getChannelData(side), side, Math.round(begin * context.sampleRate));
  return whole;
}

// ---- endless music: blocks from the server --------------------------------------------------------------------------

const BLOCK = 0.5, AHEAD = 1.4, MOST_FAILURES = 30;
let flow = null;

export const isEndless = () => flow !== null;

// Start an endless piece. Blocks are fetched AHEAD seconds before they play.
export async function startFlow(config, seed, bpm) {
  open();
  const { stream } = await post("/api/stream", { config, seed });
  endAll(context.currentTime, 0.4);
  flow = { stream, config, seed, bpm, failures: 0, next: 0, zero: context.currentTime, rest: 0 };
  current = null;
  player.playing = true;
  clearInterval(timer);
  pump(flow);
  changed();
}

// Change the config of the endless piece at its next bar line; false if no endless piece with this seed plays.
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

// Start a new stream: the server drops old streams, and all of them when it restarts.
async function reopen(mine) {
  const { config, seed } = mine;
  mine.stream = (await post("/api/stream", { config, seed })).stream;
}

const later = (ms) => new Promise((done) => setTimeout(done, ms));

// After a failed block: wait longer each time (a closed laptop, a network error), then try again.
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
    if (flow === mine) { flow = null; player.playing = false; player.onfail(error); changed(); }
  } finally {
    mine.pumping = false;
  }
}

const barSeconds = (bpm) => 240 / bpm;

export function position() {
  if (flow) return player.playing ? context.currentTime - flow.zero : flow.rest;
  if (!current) return 0;
  if (!player.playing) return current.offset;
  return Math.min(Math.max(context.currentTime - current.zero, 0), current.buffer.duration);
}

export const duration = () => (flow ? Infinity : current ? current.buffer.duration : 0);

// All sources that play or are scheduled: two of them overlap at a change.
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
    changed();
  }, 60);
}

// Play a buffer from the second `at`; the sound before it fades out.
export function play(buffer, bpm, { at = 0, fade = FADE } = {}) {
  open();
  flow = null;
  const now = context.currentTime + 0.02, sounding = voices.size > 0;
  endAll(now, fade);
  current = { ...start(buffer, now, at, sounding || at ? fade : 0), bpm, offset: at };
  player.playing = true;
  watch();
  changed();
}

// The next bar line at which a change can start: its number and time. A newer change replaces one that is still scheduled.
function nextLine() {
  const soon = context.currentTime + 0.05, bar = barSeconds(current.bpm);
  if (current.line && current.at > soon) return { line: current.line, when: current.at };
  const line = Math.floor((soon - current.zero) / bar) + 1;
  return { line, when: current.zero + line * bar - FADE / 2 };
}

// Seconds until the scheduled change starts at its bar line.
export const heardIn = () => (current?.at ? Math.max(current.at - context.currentTime, 0) : 0);

// Switch to the buffer of a changed config at the next bar line, at the same bar. Returns the seconds until then.
export function changeAtBar(buffer, bpm) {
  if (!current || !player.playing) {
    const bar = current ? current.offset / barSeconds(current.bpm) : 0;
    current = { buffer, bpm, offset: Math.min(bar * barSeconds(bpm), Math.max(buffer.duration - 1, 0)) };
    changed();
    return 0;
  }
  const { line, when } = nextLine();
  let offset = line * barSeconds(bpm) - FADE / 2;
  if (offset > buffer.duration - 3) offset = 0;
  endAll(when, FADE);
  current = { ...start(buffer, when, Math.max(offset, 0), FADE), bpm, offset, line };
  changed();
  return when - context.currentTime;
}

// Replace an excerpt by the whole piece, at the same second.
export function complete(buffer) {
  if (!current) return;
  if (!player.playing) { current.buffer = buffer; return changed(); }
  const { bpm, line } = current, soon = context.currentTime + 0.02;
  const when = Math.max(soon, current.at), fade = current.at > soon ? FADE : 2 * FADE, offset = when - current.zero;
  endAll(when, fade);
  current = { ...start(buffer, when, offset, fade), bpm, offset, line };
  changed();
}

export function pause() {
  if (!player.playing) return;
  if (flow) Object.assign(flow, { rest: position(), next: 0 });
  else current.offset = position();
  endAll(context.currentTime, 0.08);
  player.playing = false;
  changed();
}

export function resume() {
  if (player.playing || !(current || flow)) return;
  wake();
  if (flow) {
    flow.zero = context.currentTime - flow.rest;
    player.playing = true;
    pump(flow);
    return changed();
  }
  const { buffer, bpm, offset } = current;
  play(buffer, bpm, { at: offset >= buffer.duration - 0.2 ? 0 : offset });
}

// Stop, without a position to resume at.
export function forget() {
  if (player.playing) pause();
  flow = current = null;
  changed();
}

export function seek(second) {
  if (!current) return;
  if (player.playing) play(current.buffer, current.bpm, { at: second });
  else { current.offset = second; changed(); }
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

// The level of five frequency bands from low to high, and of the whole sound, each from 0 to 1.
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

// The heights of a waveform's bars: the peak of each part, on a square-root scale.
export function peaks(buffer, bars) {
  const left = buffer.getChannelData(0), step = left.length / bars;
  return Array.from({ length: bars }, (_, i) => {
    let top = 0;
    for (let k = Math.floor(i * step); k < (i + 1) * step; k += 16) top = Math.max(top, Math.abs(left[k]));
    return Math.sqrt(top);
  });
}
