// The picture: hills in the colours of the palette that move with five frequency bands of the sound.

import { hear } from "./engine.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");
let canvas = null, colors = [], wanted = [], smooth = [0, 0, 0, 0, 0], level = 0, frame = 0, last = 0, time = 0;

const toRgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
const luminance = ([r, g, b]) => 0.2126 * r + 0.7152 * g + 0.0722 * b;
const css = (c, alpha = 1) => `rgb(${c.map(Math.round).join(" ")} / ${alpha})`;
const mix = (a, b, t) => a.map((x, i) => x + (b[i] - x) * t);

export function attach(node) {
  canvas = node;
  new ResizeObserver(fit).observe(node);
  still.addEventListener("change", kick);
  document.addEventListener("visibilitychange", kick);
  kick();
}

function fit() {
  const scale = Math.min(devicePixelRatio || 1, 2);
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * scale));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * scale));
  draw();
}

// Use the five colours of a palette, sorted by luminance: the sky gets the dark ones.
export function paint(palette) {
  wanted = palette.map((c) => toRgb(c.hex)).sort((a, b) => luminance(a) - luminance(b));
  if (!colors.length || still.matches) colors = wanted.map((c) => [...c]);
  kick();
}

export function kick() {
  cancelAnimationFrame(frame);
  if (still.matches || document.hidden) return draw();
  last = performance.now();
  frame = requestAnimationFrame(step);
}

function step(now) {
  const seconds = Math.min((now - last) / 1000, 0.1);
  frame = requestAnimationFrame(step);
  if (now - last < 30) return;
  last = now;
  const heard = hear(), ease = 1 - Math.exp(-seconds * 5);
  smooth = smooth.map((old, i) => old + (heard.bands[i] - old) * ease);
  level += (heard.level - level) * ease;
  time += seconds * (0.16 + 0.3 * level);
  colors = colors.map((c, i) => mix(c, wanted[i], 1 - Math.exp(-seconds * 2.2)));
  draw();
}

function draw() {
  if (!canvas || !colors.length) return;
  const g = canvas.getContext("2d"), W = canvas.width, H = canvas.height;
  const [night, deep, mid, light, glow] = colors;
  const sky = g.createLinearGradient(0, 0, 0, H);
  sky.addColorStop(0, css(mix(night, [10, 12, 22], 0.28)));
  sky.addColorStop(0.55, css(mix(deep, mid, 0.35)));
  sky.addColorStop(1, css(mix(mid, light, 0.45)));
  g.fillStyle = sky;
  g.fillRect(0, 0, W, H);
  const x = W * (0.68 + 0.03 * Math.sin(time * 0.6)), y = H * (0.4 - 0.03 * Math.sin(time * 0.9)), r = H * (0.13 + 0.05 * level);
  const halo = g.createRadialGradient(x, y, 0, x, y, r * 5.2);
  halo.addColorStop(0, css(glow, 0.55 + 0.3 * level));
  halo.addColorStop(0.18, css(glow, 0.32));
  halo.addColorStop(1, css(glow, 0));
  g.fillStyle = halo;
  g.fillRect(0, 0, W, H);
  g.fillStyle = css(mix(glow, [255, 255, 255], 0.35), 0.85);
  g.beginPath();
  g.arc(x, y, r * 0.62, 0, Math.PI * 2);
  g.fill();
  for (let i = 4; i >= 0; i -= 1) hill(g, W, H, i);
}

// Draw hill i: the nearest (0) is the darkest and moves with the lowest band, the farthest (4) with the highest.
function hill(g, W, H, i) {
  const far = i / 4, base = H * (0.88 - 0.3 * far), swing = H * (0.035 + 0.03 * (1 - far)) * (1 + 2.6 * smooth[i]);
  const color = mix(mix(colors[0], colors[1], 0.4), mix(colors[2], colors[3], 0.4), far);
  g.fillStyle = css(color, 0.94 - 0.42 * far);
  g.beginPath();
  g.moveTo(0, H);
  for (let k = 0; k <= 48; k += 1) {
    const u = k / 48, phase = time * (0.9 - 0.5 * far) + i * 1.9;
    const wave = Math.sin(u * (3.1 + i) + phase) * 0.62 + Math.sin(u * (6.7 + 1.3 * i) - phase * 0.7) * 0.28 + Math.sin(u * 15 + phase * 1.3) * 0.1 * smooth[i];
    g.lineTo(u * W, base + wave * swing - smooth[i] * H * 0.05);
  }
  g.lineTo(W, H);
  g.fill();
}
