"use strict";
// All data comes from the JSON element of this page, and is inserted as text, never as markup.
const DATA = JSON.parse(document.getElementById("data").textContent);
const S = DATA.summary, FIELDS = DATA.fields, ROWS = DATA.rows, SOURCES = DATA.sources;
const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
const WEIGHTS = { xs: 1, sm: 2, md: 3, lg: 4, xl: 5, xxl: 6 }, WEIGHT_NAMES = Object.keys(WEIGHTS);
const LEVELS = ["xl", "lg", "m", "sm", "xs"];
const ICON = { play: "M7 4.5v15l13-7.5z", pause: "M6 5h4v14H6zM14 5h4v14h-4z" };
let scorer = S.headline;

const $ = (id) => document.getElementById(id);
const color = (s) => `var(--s${s % 8})`;
const number = (x, digits = 3) => (x === null || x === undefined ? "–" : x.toFixed(digits).replace("-", "−"));
const plain = (x) => String(x).replace("-", "−");
const signed = (x) => (x < 0 ? "−" : "+") + Math.abs(x).toFixed(3);
const percent = (x) => `${Math.round(x * 100)} %`;
const narrow = () => innerWidth < 760;
const plotWidth = () => (narrow() ? 330 : 520);

function h(tag, props, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, run] of Object.entries(value)) node.addEventListener(event, run);
    else if (name === "style") for (const [key, v] of Object.entries(value)) node.style.setProperty(key, v);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name === "fill" || name === "stroke") node.style.setProperty(name, value);
    else node.setAttribute(name, value);
  }
  node.append(...children.filter(Boolean));
  return node;
}
const icon = (path) => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, svg("path", { d: path }));
const title = (text) => { const node = svg("title"); node.textContent = text; return node; };
function label(x, y, text, anchor = "start", strong = false) {
  const node = svg("text", { x, y, "text-anchor": anchor, class: strong ? "strong" : "" });
  node.textContent = text;
  return node;
}
function switcher(names, chosen, choose, says) {
  const buttons = names.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), on: { click: () => {
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.value === value));
      choose(value);
    } }, "data-value": value }, text));
  return h("div", { class: "switch", role: "group", "aria-label": says }, ...buttons);
}
function ticks(low, high, about) {
  const raw = (high - low) / about, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const found = [];
  for (let t = Math.ceil(low / step) * step; t <= high + step * 1e-6; t += step) found.push(Number(t.toPrecision(6)));
  return found;
}
// Labels are cut in the middle, because labels with the same beginning mostly differ at the end. If two would become equal, they
// are cut around the first difference.
const cut = (text, most, end) => (text.length > most ? `${text.slice(0, most - 1 - end)}…${text.slice(text.length - end)}` : text);
function shorter(text, most) {
  const others = SOURCES.filter((other) => other !== text);
  for (const share of [1 / 3, 2 / 3]) {
    const end = Math.floor(most * share), short = cut(text, most, end);
    if (others.every((other) => cut(other, most, end) !== short)) return short;
  }
  let alike = 0;
  for (const other of others) for (let i = 0; i < other.length && other[i] === text[i]; i++) alike = Math.max(alike, i + 1);
  const from = Math.max(1, Math.min(alike - 2, text.length - most + 2));
  return `…${text.slice(from, from + most - 2)}${from + most - 2 < text.length ? "…" : ""}`;
}

/* ---------- leaderboard ---------- */
function drawBoard() {
  const marks = [S.floor[scorer], S.ceiling[scorer]].filter(Boolean);
  const ends = S.sources.flatMap(({ scores: { [scorer]: e } }) => [e.low ?? e.mean, e.high ?? e.mean]);
  for (const mark of marks) ends.push(mark.low ?? mark.mean, mark.high ?? mark.mean);
  let low = Math.min(...ends), high = Math.max(...ends);
  const margin = (high - low) * 0.07 || 0.1; low -= margin; high += margin;
  const W = 360, x = (v) => 6 + ((v - low) / (high - low)) * (W - 12);
  const floor = S.floor[scorer], ceiling = S.ceiling[scorer];
  const grid = () => [floor, ceiling].filter(Boolean).map((m) =>
    svg("line", { x1: x(m.mean), x2: x(m.mean), y1: 0, y2: 34, stroke: "var(--soft)", "stroke-dasharray": "2 3", "stroke-width": 1, opacity: 0.75 }));
  const bar = (e, paint, text) => svg("svg", { class: "interval", viewBox: `0 0 ${W} 34`, preserveAspectRatio: "none", role: "img", "aria-label": text },
    title(text), ...grid(),
    e.low !== null && svg("rect", { x: x(e.low), width: Math.max(1, x(e.high) - x(e.low)), y: 12.5, height: 9, rx: 4.5, fill: paint, opacity: 0.32 }),
    svg("rect", { x: x(e.mean) - 2, width: 4, y: 7, height: 20, rx: 2, fill: paint }));
  const says = (e) => e.low === null ? number(e.mean) : `${number(e.mean)}, 95 % interval ${number(e.low)} to ${number(e.high)}`;
  const interval = (e) => h("div", null, h("span", { class: "bigger num" }, number(e.mean)), e.low === null ? null : h("div", { class: "soft small num nowrap" }, `${number(e.low)} to ${number(e.high)}`));
  const suite = S.sources.some((source) => source.fields);
  const timed = S.sources.some((source) => source.generate_seconds), paid = S.sources.some((source) => source.cost_usd !== null);

  const heads = [["Source"], ["", true], ["Mean score"], suite && ["Requested fields", true], [`Against ${S.baseline}`, true], ["Scored", true], timed && ["Time per vibe", true], paid && ["Cost", true]].filter(Boolean);
  $("board").querySelector("thead").replaceChildren(h("tr", null, ...heads.map(([text, right]) => h("th", { scope: "col", class: right ? "right" : null, style: text.startsWith("Against") ? { "white-space": "normal" } : {} }, text || h("span", { class: "hidden-label" }, "Interval")))));

  const ranked = [...S.sources].sort((a, b) => !a.scores[scorer].scored - !b.scores[scorer].scored || b.scores[scorer].mean - a.scores[scorer].mean);
  const body = ranked.map((source) => {
    const s = SOURCES.indexOf(source.label), e = source.scores[scorer], d = source.versus_baseline[scorer];
    const badges = [];
    if (source.chosen_by.includes(scorer)) badges.push(h("span", { class: "badge", title: "Its answers were selected by the scorer that judges here, so its score is biased upwards." }, `chosen by ${scorer}`));
    if (scorer === "acoustic" && readsWords(source)) badges.push(h("span", { class: "badge plain", title: "The acoustic scorer interprets words as builtin/keywords does, so it favours this source." }, "reads words as acoustic does"));
    if (source.label === S.baseline) badges.push(h("span", { class: "badge plain" }, "baseline"));
    if (source.raw_valid_rate !== null) badges.push(h("span", { class: "badge plain" }, `free answers valid: ${percent(source.raw_valid_rate)}`));
    const seconds = source.generate_seconds;
    return h("tr", { style: { "--c": color(s) } },
      h("td", null, h("div", { class: "source" }, h("span", { class: "dot" }), h("div", null, h("div", { class: "name" }, source.label), h("div", { class: "about" }, source.note), ...badges))),
      h("td", { class: "barcell" }, bar(e, color(s), `${source.label}: ${says(e)}`)),
      h("td", null, interval(e)),
      suite && h("td", { class: "right num", "data-label": "fields as asked" }, source.fields ? h("b", null, percent(source.fields.mean)) : "–"),
      h("td", { class: "right num", "data-label": `against ${S.baseline}` }, ...versus(d)),
      h("td", { class: "right num", "data-label": "scored" }, percent(e.scored / source.rows)),
      timed && h("td", { class: "right num", "data-label": "time" }, seconds ? duration(seconds.median) : "–"),
      paid && h("td", { class: "right num", "data-label": "cost" }, source.cost_usd === null ? "–" : money(source.cost_usd)));
  });
  const scale = (name, about, e) => h("tr", { class: "scale" },
    h("td", null, h("div", { class: "source" }, h("span", { class: "dot", style: { background: "transparent", border: "1.5px dashed var(--soft)" } }), h("div", null, h("span", { class: "name" }, name), " ", h("span", { class: "about" }, about)))),
    h("td", null, bar(e, "var(--soft)", `${name}: ${says(e)}`)), h("td", { class: "num" }, number(e.mean)), h("td", { colspan: heads.length - 3 }));
  if (ceiling) body.unshift(scale("Ceiling", S.ceiling_of, ceiling));
  if (floor) body.push(scale("Floor", floor.of, floor));
  const axis = svg("svg", { class: "interval axis", viewBox: `0 0 ${W} 22`, preserveAspectRatio: "none", "aria-hidden": "true" },
    ...ticks(low, high, 4).flatMap((t) => [svg("line", { x1: x(t), x2: x(t), y1: 0, y2: 4, stroke: "var(--soft)" }), label(Math.min(Math.max(x(t), 12), W - 12), 17, plain(t), "middle")]));
  body.push(h("tr", { class: "axisrow" }, h("td"), h("td", { style: { "border-top": "0", "padding-top": "0" } }, axis), h("td", { colspan: heads.length - 2 })));
  $("board").querySelector("tbody").replaceChildren(...body);

  const notes = [];
  if (S.few_documents) notes.push(`No intervals and no tests: ${S.few_documents}.`);
  const least = S.detectable[scorer];
  if (least >= 0.0005) notes.push(`With ${S.documents} source documents, differences to ${S.baseline} below ${number(least)} are often not detected (80 % power): "no difference seen" does not mean "the same".`);
  else if (least === null && !S.few_documents && S.sources.length > 1) notes.push(`With ${S.documents} source documents and ${S.sources.length - 1} comparisons, no difference can be significant. Compare fewer sources, or use more documents.`);
  if (S.sources.some((source) => source.chosen_by.includes(scorer))) notes.push(`Sources marked "chosen by ${scorer}" were selected by the scorer that judges them here. Compare them at N = 1, or under another scorer.`);
  const below = floor ? S.sources.filter((source) => source.scores[scorer].mean < floor.mean).map((source) => source.label) : [];
  if (below.length) notes.push(`${below.join(", ")} ${below.length > 1 ? "are" : "is"} below the floor. The floor is the mean score of many sounds against vibes of other texts; sounds that fit no vibe, such as those of random configs, can score lower.`);
  $("notes").replaceChildren(...notes.map((text) => h("p", { class: "soft small", style: { "margin-top": "10px", "max-width": "90ch" } }, text)));
}
function versus(d) {
  if (!d) return ["–"];
  const shown = h("span", null, signed(d.mean));
  if (d.p_holm === null) return [shown];
  const sure = d.p_holm < 0.05;
  if (sure) shown.className = d.mean > 0 ? "up" : "down";
  const p = d.p_holm < 0.001 ? "p < 0.001" : `p = ${d.p_holm.toFixed(3)}`;
  return [h("b", null, shown), h("br"), h("span", { class: "soft small", title: `95 % interval ${number(d.low)} to ${number(d.high)}; p after Holm's correction` }, sure ? p : `no difference seen, ${p}`)];
}
const duration = (s) => (s >= 1 ? `${s.toFixed(1)} s` : s >= 0.001 ? `${Math.round(s * 1000)} ms` : "< 1 ms");
const money = (usd) => (usd === 0 ? "free" : usd < 0.01 ? `$${usd.toFixed(4)}` : `$${usd.toFixed(2)}`);

/* ---------- panels ---------- */
function panel(name, says, tools, drawing) {
  return h("div", { class: "card pad" }, h("div", { class: "panelhead" }, h("h3", null, name), tools), says && h("p", { class: "soft small", style: { margin: "-6px 0 8px" } }, says), drawing);
}
function drawPanels() {
  $("panels").replaceChildren(distributions(), groups(), scatter());
  if (S.sources.some((source) => source.fields)) $("panels").append(askedFields());
}
function distributions() {
  const edges = S.edges[scorer], W = plotWidth(), left = narrow() ? 8 : 160, over = narrow() ? 14 : 0, band = Math.min(150, Math.max(50, 600 / S.sources.length)) + over, H = S.sources.length * band + 26;
  const x = (v) => left + ((v - edges[0]) / (edges[edges.length - 1] - edges[0])) * (W - left - 8);
  const shares = (source) => (source.scores[scorer].histogram || []).map((c) => c / source.scores[scorer].scored), most = Math.max(...S.sources.flatMap(shares));
  const plot = svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Histograms of the scores of each source" });
  let top = 0;
  for (const t of ticks(edges[0], edges[edges.length - 1], 5)) plot.append(svg("line", { x1: x(t), x2: x(t), y1: 4, y2: H - 22, stroke: "var(--line)" }), label(x(t), H - 6, plain(t), "middle"));
  for (const source of S.sources) {
    const e = source.scores[scorer], base = top + band - 10, paint = color(SOURCES.indexOf(source.label));
    plot.append(label(0, over ? top + 15 : base - 6, shorter(source.label, over ? 44 : 23), "start", true));
    if (e.histogram) {
      let path = `M${x(edges[0])},${base}`;
      shares(source).forEach((share, i) => {
        const top = base - (share / most) * (band - 16 - over);
        path += `L${x(edges[i])},${top}L${x(edges[i + 1])},${top}`;
      });
      plot.append(svg("path", { d: path + `L${x(edges[edges.length - 1])},${base}Z`, fill: paint, opacity: 0.4 }));
      const [, q1, q2, q3] = e.quantiles;
      plot.append(svg("line", { x1: x(q1), x2: x(q3), y1: base + 3, y2: base + 3, stroke: paint, "stroke-width": 3, "stroke-linecap": "round" }),
        svg("circle", { cx: x(q2), cy: base + 3, r: 3.5, fill: paint }, title(`${source.label}: median ${number(q2)}, interquartile range ${number(q1)} to ${number(q3)}`)));
    } else plot.append(label(left, base - 6, "nothing scored"));
    top += band;
  }
  return panel("Distribution of the scores", "Histogram; the line below is the interquartile range, the dot the median.", null, plot);
}
function groups() {
  let by = "by_level";
  const box = h("div");
  const draw = () => {
    const seen = new Map();
    for (const source of S.sources) for (const [name, group] of Object.entries(source.scores[scorer][by])) seen.set(name, group.rows);
    const names = [...seen.keys()].sort((a, b) => LEVELS.indexOf(a) - LEVELS.indexOf(b) || a.localeCompare(b));
    const means = S.sources.flatMap((source) => Object.values(source.scores[scorer][by]).map((g) => g.mean));
    const low = Math.min(...means), high = Math.max(...means), margin = (high - low) * 0.08 || 0.1;
    const W = plotWidth(), left = 104, band = 40, H = names.length * band + 26;
    const x = (v) => left + ((v - low + margin) / (high - low + 2 * margin)) * (W - left - 10);
    const plot = svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Mean score of each source by " + (by === "by_level" ? "level" : "scope") });
    for (const t of ticks(low - margin, high + margin, 5)) plot.append(svg("line", { x1: x(t), x2: x(t), y1: 4, y2: H - 22, stroke: "var(--line)" }), label(x(t), H - 6, plain(t), "middle"));
    names.forEach((name, i) => {
      const y = i * band + 22;
      plot.append(label(0, y + 4, `${name}`, "start", true), label(left - 14, y + 4, `${seen.get(name)} rows`, "end"));
      const here = S.sources.map((source) => source.scores[scorer][by][name]?.mean).filter((v) => v !== undefined);
      plot.append(svg("line", { x1: x(Math.min(...here)), x2: x(Math.max(...here)), y1: y, y2: y, stroke: "var(--line)", "stroke-width": 3 }));
      for (const source of S.sources) {
        const g = source.scores[scorer][by][name];
        if (g) plot.append(svg("circle", { cx: x(g.mean), cy: y, r: 6, fill: color(SOURCES.indexOf(source.label)), stroke: "var(--card)", "stroke-width": 1.5 }, title(`${source.label}, ${name}: ${number(g.mean)}`)));
      }
    });
    box.replaceChildren(plot, legend());
  };
  draw();
  return panel("By kind of vibe", "xl is the longest wording of a scene, xs one to three words.", switcher([["by_level", "Level"], ["by_scope", "Scope"]], by, (value) => { by = value; draw(); }, "Group by"), box);
}
function legend() {
  return h("div", { class: "legend" }, ...S.sources.map((source) => h("span", { style: { "--c": color(SOURCES.indexOf(source.label)) } }, h("span", { class: "dot" }), source.label)));
}
function scatter() {
  const kinds = [["seconds", "Time", (source) => source.generate_seconds?.median], ["cost", "Cost", (source) => (source.cost_usd === null ? undefined : source.cost_usd / source.rows)], ["render", "Render", (source) => source.render_seconds?.median]];
  const there = kinds.filter(([, , value]) => S.sources.some((source) => value(source) !== undefined && value(source) !== null));
  const box = h("div");
  const draw = (kind) => {
    const value = kinds.find(([name]) => name === kind)[2];
    const points = S.sources.map((source) => [source, value(source)]).filter(([, v]) => v !== undefined && v !== null);
    const W = plotWidth(), H = 250, left = 46, bottom = 34, right = 16;
    const unit = kind === "cost" ? money : duration;
    const least = kind === "cost" ? -7 : -5;
    const log = (v) => Math.max(Math.log10(v), least);
    let a = Math.min(...points.map(([, v]) => log(v))), b = Math.max(...points.map(([, v]) => log(v)));
    a = Math.max(Math.floor(a - 0.2), least); b = Math.max(Math.ceil(b + 0.2), a + 1);
    const ends = points.flatMap(([source]) => [source.scores[scorer].low ?? source.scores[scorer].mean, source.scores[scorer].high ?? source.scores[scorer].mean]);
    let low = Math.min(...ends), high = Math.max(...ends); const margin = (high - low) * 0.12 || 0.1; low -= margin; high += margin;
    const x = (v) => left + ((log(v) - a) / (b - a)) * (W - left - right), y = (v) => 10 + ((high - v) / (high - low)) * (H - bottom - 10);
    const plot = svg("svg", { class: "plot", viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Mean score against " + kind });
    for (const t of ticks(low, high, 4)) plot.append(svg("line", { x1: left, x2: W - right, y1: y(t), y2: y(t), stroke: "var(--line)" }), label(left - 8, y(t) + 4, plain(t), "end"));
    const mark = (v) => (kind === "cost" ? "$" + Number(v.toPrecision(1)) : v < 0.001 ? `${Math.round(v * 1e6)} µs` : duration(v));
    for (let p = a; p <= b; p += Math.max(1, Math.round((b - a) / 5))) plot.append(svg("line", { x1: x(10 ** p), x2: x(10 ** p), y1: 10, y2: H - bottom, stroke: "var(--line)" }), label(x(10 ** p), H - bottom + 18, mark(10 ** p), "middle"));
    const taken = [];
    for (const [source, v] of points) {
      const e = source.scores[scorer], paint = color(SOURCES.indexOf(source.label));
      if (e.low !== null) plot.append(svg("line", { x1: x(v), x2: x(v), y1: y(e.low), y2: y(e.high), stroke: paint, "stroke-width": 2, opacity: 0.5 }));
      plot.append(svg("circle", { cx: x(v), cy: y(e.mean), r: 6.5, fill: paint, stroke: "var(--card)", "stroke-width": 1.5 }, title(`${source.label}: ${number(e.mean)}, ${unit(v)}`)));
      const end = x(v) > W * 0.62; let at = y(e.mean) - 10;
      while (taken.some((t) => Math.abs(t - at) < 13)) at += 13;
      taken.push(at);
      const room = Math.floor((end ? x(v) - 10 : W - x(v) - 10) / 7);
      plot.append(label(x(v) + (end ? -10 : 10), at, shorter(source.label, Math.min(30, room)), end ? "end" : "start", true));
    }
    box.replaceChildren(plot);
    if (points.length < S.sources.length) box.append(h("p", { class: "soft small" }, `Not shown, nothing measured: ${S.sources.filter((s) => !points.some(([p]) => p === s)).map((s) => s.label).join(", ")}.`));
  };
  if (there.length) draw(there[0][0]); else box.append(h("p", { class: "soft small" }, "This run has no times."));
  const what = "Median per vibe, on a logarithmic scale; bars are 95 % intervals.";
  return panel("Score against effort", what, there.length > 1 ? switcher(there, there[0][0], draw, "Effort") : null, box);
}
function askedFields() {
  const names = [...new Set(S.sources.flatMap((source) => Object.keys(source.fields?.by_field || {})))].sort();
  const shown = S.sources.filter((source) => source.fields);
  return h("div", { class: "card pad", style: { "grid-column": "1 / -1" } }, h("div", { class: "panelhead" }, h("h3", null, "Fields with the requested value")),
    h("div", { class: "scrolls" }, heat(names, shown, (source, name) => { const f = source.fields.by_field[name]; return f ? [f.right / f.asked, `${f.right}/${f.asked}`] : null; })));
}
function heat(names, sources, value) {
  return h("table", { class: "heat" }, h("thead", null, h("tr", null, h("th", { scope: "col" }, "Field"), ...sources.map((source) => h("th", { scope: "col", colspan: 2 }, shorter(source.label, 26))))),
    h("tbody", null, ...names.map((name) => h("tr", null, h("th", { scope: "row" }, name.replaceAll("_", " ")), ...sources.flatMap((source) => {
      const found = value(source, name);
      if (!found) return [h("td"), h("td", { class: "num" }, "–")];
      return [h("td", { style: { "--c": color(SOURCES.indexOf(source.label)) } }, h("div", { class: "bar" }, h("i", { style: { width: `${found[0] * 100}%` } }))), h("td", { class: "num" }, found[1])];
    })))));
}
function drawFields() {
  const box = h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Field by field" });
  const draw = (kind) => {
    const shown = S.sources.filter((source) => source[kind]);
    box.replaceChildren(heat(FIELDS.map((f) => f[0]), shown, (source, name) => [source[kind].by_field[name], percent(source[kind].by_field[name])]));
  };
  draw("variety");
  const both = S.sources.some((source) => source.agreement);
  $("fields").replaceChildren(h("details", { class: "card" }, h("summary", null, h("h3", null, "Field by field"), h("span", { class: "soft small" }, "how varied each source's choices are" + (both ? ", and how often they agree with the data" : ""))),
    h("div", { class: "inside" }, h("div", { style: { margin: "0 0 10px" } }, both ? switcher([["variety", "Variety"], ["agreement", "Agreement with the data"]], "variety", draw, "Show") : null),
      h("p", { class: "soft small", style: { "margin-bottom": "10px" } }, "Variety is the entropy of a field's labels over the rows: 0 % is always the same label, 100 % uses all labels equally."), box)));
}

const readsWords = (source) => /keywords/.test(source.name + source.note);

/* ---------- vibes and players ---------- */
const holder = $("rows"), CHUNK = 16;
let shown = [], drawn = 0;
ROWS.forEach((row, i) => {
  row.n = i;
  row.text = [row.v, row.d, row.c || "", ...row.x.map((sample) => sample?.t || "")].join("\n").toLowerCase();
});
const scoreOf = (row, s, by = scorer) => row.x[s]?.y?.[by] ?? null;
function option(select, value, text) { select.append(h("option", { value }, text)); }
function fillSelects() {
  const levels = [...new Set(ROWS.map((r) => r.l))].sort((a, b) => LEVELS.indexOf(a) - LEVELS.indexOf(b));
  const scopes = [...new Set(ROWS.map((r) => r.s))];
  option($("level"), "", "All levels"); levels.forEach((l) => option($("level"), l, `Level ${l}`));
  option($("scope"), "", "All scopes"); scopes.forEach((s) => option($("scope"), s, s));
  if (scopes.length < 2) $("scope").hidden = true;
  if (levels.length < 2) $("level").hidden = true;
  option($("sort"), "data", "In order");
  option($("sort"), "vibe", "A to Z");
  if (S.headline) {
    if (SOURCES.length > 1) option($("sort"), "gap", "Largest differences");
    SOURCES.forEach((name, s) => { option($("sort"), `high${s}`, `Best: ${shorter(name, 32)}`); option($("sort"), `low${s}`, `Worst: ${shorter(name, 32)}`); });
  }
  if (ROWS.some((row) => row.x.some((sample) => sample && sample.f))) option($("sort"), "failed", "Failures only");
  for (const id of ["level", "scope", "sort"]) $(id).addEventListener("change", filter);
  $("search").addEventListener("input", filter);
}
function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const level = $("level").value, scope = $("scope").value, sort = $("sort").value;
  shown = ROWS.filter((row) => (!level || row.l === level) && (!scope || row.s === scope) && words.every((word) => row.text.includes(word)));
  if (sort === "vibe") shown.sort((a, b) => a.v.localeCompare(b.v));
  else if (sort === "failed") shown = shown.filter((row) => row.x.some((sample) => sample && sample.f));
  else if (sort === "gap") shown.sort((a, b) => gap(b) - gap(a));
  else if (sort !== "data") {
    const s = Number(sort.replace(/\D+/, "")), up = sort.startsWith("low") ? 1 : -1;
    const key = (row) => scoreOf(row, s) ?? Infinity * up;
    shown.sort((a, b) => (key(a) === key(b) ? a.n - b.n : up * (key(a) - key(b))));
  }
  holder.replaceChildren(); drawn = 0; drawMore();
  $("count").textContent = shown.length === ROWS.length ? `${ROWS.length} vibes` : `${shown.length} of ${ROWS.length}`;
  if (!shown.length) holder.append(h("p", { class: "empty" }, "No vibe matches. Try fewer words or all levels."));
}
function gap(row) {
  const known = row.x.map((_, s) => scoreOf(row, s)).filter((v) => v !== null);
  return known.length > 1 ? Math.max(...known) - Math.min(...known) : -1;
}
function drawMore(until = drawn + CHUNK) {
  const more = shown.slice(drawn, until);
  holder.append(...more.map(vibeCard)); drawn += more.length;
  for (const row of more) for (const canvas of holder.querySelectorAll(`#vibe-${row.n} canvas`)) watch.observe(canvas);
}
new IntersectionObserver((entries) => { if (entries.some((e) => e.isIntersecting) && drawn < shown.length) drawMore(); }, { rootMargin: "900px" }).observe($("sentinel"));
const watch = new IntersectionObserver((entries) => { for (const e of entries) if (e.isIntersecting) paint(e.target); });

function vibeCard(row) {
  const text = h("p", { class: "vibetext" + (row.v.length > 160 ? " long" : "") + (row.v.length > 260 ? " clamped" : "") }, row.v);
  const more = row.v.length > 260 ? h("button", { class: "more", type: "button", "aria-expanded": "false", on: { click: (event) => {
    const open = text.classList.toggle("clamped"); event.target.textContent = open ? "Show all" : "Show less"; event.target.setAttribute("aria-expanded", String(!open));
  } } }, "Show all") : null;
  const known = row.x.map((_, s) => scoreOf(row, s)), best = known.filter((v) => v !== null).length > 1 ? Math.max(...known.filter((v) => v !== null)) : null;
  const card = h("article", { class: "card vibe", id: `vibe-${row.n}`, "aria-label": shorter(row.v, 80) },
    h("div", { class: "vibehead" }, h("div", null, text, row.c ? h("p", { class: "soft small" }, `meant: ${row.c}`) : null, more), h("div", { class: "chips" }, h("span", { class: "chip" }, row.l), row.s !== "scene" ? h("span", { class: "chip" }, row.s) : null)),
    h("div", { class: "players" }, ...row.x.map((sample, s) => player(row, s, sample, best))));
  if (row.x.filter((sample) => sample?.g).length) card.append(comparer(row));
  if (row.n === now.row) card.classList.add("current");
  return card;
}
function player(row, s, sample, best) {
  const score = scoreOf(row, s), playing = now.row === row.n && now.source === s;
  const box = h("div", { class: "player" + (playing ? " playing" : "") + (best !== null && score === best ? " best" : ""), style: { "--c": color(s) }, "data-source": s },
    h("div", { class: "who" }, h("span", { class: "dot" }), h("span", { class: "label", title: SOURCES[s] }, shorter(SOURCES[s], 20)), score === null ? null : h("span", { class: "score num", title: Object.entries(sample.y).map(([k, v]) => `${k} ${number(v)}`).join(", ") }, number(score))));
  if (!sample) { box.append(h("p", { class: "soft small" }, "not asked")); return box; }
  if (sample.a) {
    const canvas = h("canvas", { class: "wave", role: "img", "aria-label": `Waveform by ${SOURCES[s]}`, on: { click: (event) => {
      const at = event.offsetX / event.currentTarget.clientWidth;
      if (now.row === row.n && now.source === s && audio.duration) audio.currentTime = at * audio.duration; else start(row.n, s, at);
    } } });
    canvas.peaks = sample.w || ""; canvas.row = row.n; canvas.source = s;
    box.append(h("div", { class: "playline" }, h("button", { class: "play", type: "button", "aria-label": `${playing && !audio.paused ? "Pause" : "Play"} ${sample.t || "the piece"} by ${SOURCES[s]}`, on: { click: () => toggle(row.n, s) } }, icon(playing && !audio.paused ? ICON.pause : ICON.play)), canvas));
  }
  if (sample.t) box.append(h("p", { class: "piece", title: sample.t }, sample.t));
  if (sample.p) box.append(palette(sample.p[0]));
  if (sample.f) box.append(h("p", { class: "failed", title: sample.f }, sample.f));
  if (row.e && sample.g) box.append(h("p", { class: "asked" }, ...Object.entries(row.e).flatMap(([name, allowed]) => {
    const value = fieldValue(sample, name), right = allowed.includes(value);
    return [h("span", { class: right ? "yes" : "no" }, right ? "✓ " : "✗ "), h("b", null, name.replaceAll("_", " ")), ` ${value}`, right ? "" : ` (asked ${allowed.join(" or ")})`, h("br")];
  })));
  return box;
}
function palette(text) {
  const colors = [...text.matchAll(/([0-9A-F]{6})(\d)/g)];
  return h("div", { class: "palette", role: "img", "aria-label": "Palette " + colors.map((c) => "#" + c[1]).join(" ") }, ...colors.map((c) => h("i", { style: { background: "#" + c[1], flex: WEIGHTS[WEIGHT_NAMES[c[2]]] } })));
}
const fieldValue = (sample, name) => { const i = FIELDS.findIndex((f) => f[0] === name); return FIELDS[i][1][parseInt(sample.g[i], 36)]; };
function comparer(row) {
  const box = h("div", { class: "compare" }), inside = h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": "Configs side by side", hidden: true });
  const button = h("button", { type: "button", "aria-expanded": "false", on: { click: () => {
    const open = inside.hidden; inside.hidden = !open; button.setAttribute("aria-expanded", String(open));
    button.textContent = open ? "Hide the configs" : "Compare the configs";
    if (open && !inside.firstChild) inside.append(configTable(row));
  } } }, "Compare the configs");
  box.append(button, inside);
  return box;
}
function configTable(row) {
  const columns = row.x.map((sample, s) => [sample, s]).filter(([sample]) => sample?.g);
  const cells = (f, i) => {
    const values = columns.map(([sample]) => f[1][parseInt(sample.g[i], 36)]);
    const same = values.every((v) => v === values[0]);
    return h("tr", { class: same ? "same" : null }, h("th", { scope: "row" }, f[0].replaceAll("_", " ")), ...values.map((v) => h("td", { class: v !== values[0] ? "other" : null }, h("span", null, String(v)))));
  };
  const rows = FIELDS.map(cells), different = rows.filter((r) => !r.classList.contains("same")), same = rows.filter((r) => r.classList.contains("same"));
  const body = h("tbody", null,
    h("tr", null, h("th", { scope: "row" }, "palettes"), ...columns.map(([sample]) => h("td", null, h("div", { class: "palettes" }, ...(sample.p || []).map(palette))))),
    ...different, ...same,
    h("tr", { class: "thinking" }, h("th", { scope: "row" }, "thinking"), ...columns.map(([sample]) => h("td", null, sample.k || "–"))));
  return h("table", { class: "diff" }, h("caption", { class: "soft small", style: { "text-align": "left", padding: "6px 0" } }, columns.length > 1 ? `${different.length} of ${FIELDS.length} fields differ; marked where a value is not that of ${SOURCES[columns[0][1]]}.` : `${FIELDS.length} fields`),
    h("thead", null, h("tr", null, h("td"), ...columns.map(([, s]) => h("th", { scope: "col" }, SOURCES[s])))), body);
}
function paint(canvas) {
  const ratio = Math.min(devicePixelRatio || 1, 2), w = canvas.clientWidth, height = canvas.clientHeight;
  if (!w || !canvas.peaks) return;
  canvas.width = w * ratio; canvas.height = height * ratio;
  const g = canvas.getContext("2d"), style = getComputedStyle(canvas).color;
  g.scale(ratio, ratio); g.fillStyle = style;
  const here = now.row === canvas.row && now.source === canvas.source && audio.duration ? audio.currentTime / audio.duration : -1;
  const bars = Math.min(canvas.peaks.length, Math.floor(w / 3)), step = w / bars;
  for (let i = 0; i < bars; i++) {
    const a = Math.floor((i * canvas.peaks.length) / bars), b = Math.max(a + 1, Math.floor(((i + 1) * canvas.peaks.length) / bars));
    let peak = 0;
    for (let k = a; k < b; k++) peak = Math.max(peak, LETTERS.indexOf(canvas.peaks[k]) / 63);
    const tall = Math.max(2, peak * (height - 2));
    g.globalAlpha = here < 0 ? 0.62 : i / bars < here ? 1 : 0.32;
    g.beginPath(); g.roundRect(i * step, (height - tall) / 2, Math.max(1, step - 1.2), tall, 1); g.fill();
  }
}

/* ---------- one sound at a time ---------- */
const audio = $("audio"), now = { row: -1, source: -1 };
let startAt = 0;
function toggle(n, s) {
  if (now.row === n && now.source === s) { if (audio.paused) play(); else audio.pause(); } else start(n, s, 0);
}
function play() {
  audio.play().catch((error) => { if (error.name !== "AbortError") $("now2").textContent = "This sound cannot be played: " + (error.name === "NotSupportedError" ? "its file is missing beside the page" : error.message); });
}
function start(n, s, at) {
  const sample = ROWS[n].x[s];
  if (!sample?.a) return;
  const before = now.row; now.row = n; now.source = s; startAt = at;
  audio.src = DATA.audio + sample.a;
  play();
  const row = ROWS[n];
  $("deck").hidden = false; $("deck").style.setProperty("--c", color(s));
  $("now1").textContent = sample.t || "Untitled"; $("now2").textContent = `${SOURCES[s]} · ${row.v}`;
  if (sample.p) document.documentElement.style.setProperty("--tint", "#" + sample.p[0].slice(0, 6));
  for (const m of [before, n]) refresh(m);
}
function refresh(n) {
  const card = document.getElementById(`vibe-${n}`);
  if (!card) return;
  card.classList.toggle("current", n === now.row);
  for (const box of card.querySelectorAll(".player")) {
    const s = Number(box.dataset.source), on = n === now.row && s === now.source, button = box.querySelector(".play"), running = on && !audio.paused;
    box.classList.toggle("playing", on);
    if (button) { button.replaceChildren(icon(running ? ICON.pause : ICON.play)); button.setAttribute("aria-label", `${running ? "Pause" : "Play"} ${ROWS[n].x[s].t || "the piece"} by ${SOURCES[s]}`); }
    const canvas = box.querySelector("canvas"); if (canvas) paint(canvas);
  }
}
const clock = (t) => `${Math.floor(t / 60)}:${String(Math.floor(t % 60)).padStart(2, "0")}`;
audio.addEventListener("loadedmetadata", () => { if (startAt) { audio.currentTime = startAt * audio.duration; startAt = 0; } });
for (const event of ["play", "pause", "ended"]) audio.addEventListener(event, () => {
  $("toggle").replaceChildren(icon(audio.paused ? ICON.play : ICON.pause)); $("toggle").setAttribute("aria-label", audio.paused ? "Play" : "Pause"); refresh(now.row); tick();
});
function tick() {
  if (audio.duration) { $("seek").value = String((audio.currentTime / audio.duration) * 1000); $("seek").setAttribute("aria-valuetext", clock(audio.currentTime)); $("time").textContent = `${clock(audio.currentTime)} / ${clock(audio.duration)}`; }
  const canvas = document.querySelector(`#vibe-${now.row} .player[data-source="${now.source}"] canvas`);
  if (canvas) paint(canvas);
  if (!audio.paused) requestAnimationFrame(tick);
}
function step(by) {
  let at = shown.findIndex((row) => row.n === now.row);
  const s = Math.max(0, now.source);
  for (at += by; at >= 0 && at < shown.length; at += by) if (shown[at].x[s]?.a) {
    if (at >= drawn) drawMore(at + 4);
    start(shown[at].n, s, 0);
    document.getElementById(`vibe-${shown[at].n}`)?.scrollIntoView({ block: "nearest" });
    return;
  }
}
function stop() { audio.pause(); $("deck").hidden = true; const n = now.row; now.row = now.source = -1; document.documentElement.style.removeProperty("--tint"); refresh(n); }
$("toggle").append(icon(ICON.play));
$("toggle").addEventListener("click", () => (audio.paused ? play() : audio.pause()));
$("prev").addEventListener("click", () => step(-1)); $("next").addEventListener("click", () => step(1));
$("seek").addEventListener("input", () => { if (audio.duration) audio.currentTime = ($("seek").value / 1000) * audio.duration; });
document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input[type=search], select, textarea"), on = event.target.matches("button, summary, a, input");
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (event.key === "Escape") { if (typing) event.target.blur(); else if (now.row >= 0) stop(); return; }
  if (typing) return;
  const key = event.key.toLowerCase();
  if (key === " " && !on) { if (now.row >= 0) toggle(now.row, now.source); else step(1); }
  else if (key === "j") step(1);
  else if (key === "k") step(-1);
  else if (key === "/") $("search").focus();
  else if (key === "?") $("help").showModal();
  else if (key === "arrowright" && !event.target.matches("input")) audio.currentTime += 2;
  else if (key === "arrowleft" && !event.target.matches("input")) audio.currentTime -= 2;
  else if (/^[1-9]$/.test(key) && Number(key) <= SOURCES.length) start(now.row >= 0 ? now.row : (shown[0]?.n ?? 0), Number(key) - 1, 0);
  else return;
  event.preventDefault();
});

/* ---------- the page ---------- */
const dark = () => { const set = document.documentElement.style.colorScheme; return set ? set === "dark" : matchMedia("(prefers-color-scheme: dark)").matches; };
function theme(name) { document.documentElement.style.colorScheme = name; $("theme").textContent = name === "dark" ? "Light" : "Dark"; for (const canvas of document.querySelectorAll("canvas")) paint(canvas); }
$("theme").textContent = dark() ? "Light" : "Dark";
try { const kept = localStorage.getItem("lsdata-theme"); if (kept === "dark" || kept === "light") theme(kept); } catch { /* a page that was opened as a file may have no storage */ }
$("theme").addEventListener("click", () => { const name = dark() ? "light" : "dark"; theme(name); try { localStorage.setItem("lsdata-theme", name); } catch { /* as above */ } });
$("keys").addEventListener("click", () => $("help").showModal());
let wasNarrow = narrow();
addEventListener("resize", () => { if (S.headline && narrow() !== wasNarrow) { wasNarrow = narrow(); drawPanels(); } for (const canvas of document.querySelectorAll("canvas")) paint(canvas); });
if (S.headline) {
  if (S.scorers.length > 1) $("scorers").append(switcher(S.scorers.map((name) => [name, name === S.headline ? `${name} (headline)` : name]), scorer, (name) => { scorer = name; drawBoard(); drawPanels(); filter(); }, "Judged by"));
  drawBoard(); drawPanels(); drawFields();
}
fillSelects(); filter();
document.documentElement.dataset.ready = "yes";
