// The view Data: the rows of the workspace, one row in full, and runs and reports.

import { get, post } from "./api.js";
import { $, button, dialog, h, icon, redraw, replaceEntry, svg, toast, words } from "./dom.js";
import * as engine from "./engine.js";
import * as play from "./play.js";
import { finite, piece } from "./piece.js";

const ROW = 78, PAGE = 60;
let setup = null, wanted = {}, total = 0, pages = new Map(), loading = new Map(), at = 0, selected = null, open = null, query = 0, version = "", playingFrom = null, playingConfig = null;

const view = h("div", { id: "data-view" });
const count = h("p", { class: "soft small count", role: "status" });
const spacer = h("div", { class: "spacer" });
const scroller = h("div", { class: "rows card", tabindex: "0", role: "listbox", "aria-label": "Rows", onscroll: () => requestAnimationFrame(fill),
  onkeydown: (event) => { if (event.key === "Enter") select(at, true); } }, spacer);
const detail = h("article", { class: "detail card", "aria-label": "Row", tabindex: "-1" });
const filters = h("form", { class: "filters", role: "search", onsubmit: (event) => event.preventDefault() });
// The candidates of the row on the page, by index.
const cards = new Map();
const placesBox = h("section", { class: "places" });

export function build(known) {
  setup = known;
  engine.player.watchers.push(showPlaying);
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !view.hidden) refresh(); });
  view.append(h("h1", { class: "hidden" }, "Data"), filters, h("div", { class: "datagrid" }, h("div", { class: "left" }, count, scroller), detail), placesBox);
  return view;
}

// Show the view, at the place that this entry of the browser's history stores: the filters, and the selected row.
export async function show() {
  if (!boxes.search) drawFilters({});
  const stored = history.state?.data || { filters: {}, row: 0 };
  if (!pages.size || JSON.stringify(stored.filters) !== JSON.stringify(filled())) {
    setFilters(stored.filters);
    await search(stored.row, stored.reading);
  } else {
    await refresh();
    if (narrow() && stored.reading) await select(stored.row); else if (narrow()) closeDetail();
  }
  drawPlaces();
}

const narrow = () => innerWidth <= 900;
const filled = () => Object.fromEntries(Object.entries(boxes).filter(([, box]) => box.value && box.value !== "file" && !box.hidden).map(([name, box]) => [name, box.value]));
const place = (reading) => ({ data: { filters: filled(), row: at, reading } });

function setFilters(values) {
  for (const [name, box] of Object.entries(boxes)) {
    const value = values[name] || (name === "sort" ? "file" : "");
    // The options of a filter are known only when the rows are read.
    if (box.options && ![...box.options].some((option) => option.value === value)) box.append(h("option", { value }, value));
    box.value = value;
    if (name === "field") drawLabels();
  }
}

// ---- filters -----------------------------------------------------------------------------------------------------------

const FILTERS = [["split", "Split"], ["dataset", "Source"], ["level", "Level"], ["state", "State"]];
const boxes = {};
let searchTimer = 0, facets = null;

function drawFilters(facets) {
  if (!boxes.search) {
    boxes.search = h("input", { type: "search", class: "text", placeholder: "Search vibes, titles, tags …", "aria-label": "Search", oninput: () => { clearTimeout(searchTimer); searchTimer = setTimeout(() => search(), 160); } });
    for (const [name, label] of FILTERS) boxes[name] = choice(label, []);
    boxes.verdict = choice("Mark", [["good", "good"], ["bad", "bad"]]);
    boxes.field = choice("Field", Object.keys(setup.fields).map((f) => [f, words(f)]));
    boxes.label = choice("Value", []);
    boxes.label.hidden = true;
    boxes.field.onchange = () => { drawLabels(); search(); };
    boxes.least = h("input", { type: "number", step: "0.05", class: "text short", placeholder: "Score ≥", "aria-label": "Score at least", oninput: () => { clearTimeout(searchTimer); searchTimer = setTimeout(() => search(), 300); } });
    boxes.sort = h("select", { "aria-label": "Sort", onchange: () => search() }, [["file", "In file order"], ["score-", "Best score first"], ["score+", "Worst score first"], ["vibe+", "By vibe"], ["title+", "By title"], ["level+", "By level"]].map(([v, t]) => h("option", { value: v }, t)));
    filters.replaceChildren(boxes.search, ...FILTERS.map(([name]) => boxes[name]), boxes.verdict, boxes.field, boxes.label, boxes.least, boxes.sort);
  }
  for (const [name, label] of FILTERS) {
    const box = boxes[name], before = box.value;
    box.replaceChildren(h("option", { value: "" }, label), ...Object.entries(facets[name] || {}).map(([value, n]) => h("option", { value }, `${value} (${n.toLocaleString("en")})`)));
    box.value = before;
    if (box.selectedIndex < 0) box.value = "";
  }
}

function drawLabels() {
  const spec = setup.fields[boxes.field.value];
  boxes.label.hidden = !spec;
  boxes.label.replaceChildren(...(spec ? spec.labels.map((l) => h("option", { value: pythonText(l) }, words(l))) : []));
}

// Labels in Python's spelling (True, False), because the server compares texts.
const pythonText = (label) => (label === true ? "True" : label === false ? "False" : String(label));

const choice = (label, options) => h("select", { "aria-label": label, onchange: () => search() }, h("option", { value: "" }, label), options.map(([value, text]) => h("option", { value }, text)));

// Read the rows that the filters select, and show them with this row in the middle; on a phone, `reading` opens it.
async function search(row = 0, reading = false) {
  const [sort, direction] = [boxes.sort.value.replace(/[+-]$/, ""), boxes.sort.value.at(-1)];
  wanted = { search: boxes.search.value.trim(), split: boxes.split.value, dataset: boxes.dataset.value, level: boxes.level.value, state: boxes.state.value, verdict: boxes.verdict.value, sort, descending: direction === "-" };
  if (boxes.field.value) Object.assign(wanted, { field: boxes.field.value, label: boxes.label.value });
  if (boxes.least.value !== "" && Number.isFinite(Number(boxes.least.value))) wanted.least = Number(boxes.least.value);
  const mine = (query += 1);
  pages = new Map();
  loading = new Map();
  const slow = setTimeout(() => { count.textContent = "Reading the rows …"; }, 400);
  await need(Math.floor(row / PAGE));
  clearTimeout(slow);
  if (mine !== query) return;
  if (!pages.size) count.textContent = "";
  at = row < total ? row : 0;
  selected = rowAt(at)?.id;
  scroller.scrollTop = Math.max(0, (at + 0.5) * ROW - scroller.clientHeight / 2);
  replaceEntry(place(reading));
  fill();
  if (!narrow() || reading) await select(at); else closeDetail();
}

// Read the visible rows again: their files may have changed.
async function refresh() {
  await need(Math.floor(scroller.scrollTop / ROW / PAGE), true);
  fill();
}

// Read a page of rows, unless it is there. Calls for a page that is being read wait for the same answer.
function need(page, again = false) {
  if (!again && pages.has(page)) return Promise.resolve(false);
  const reading = (!again && loading.get(page)) || readPage(page);
  loading.set(page, reading);
  return reading;
}

// Return true if the page was read.
async function readPage(page) {
  const mine = query;
  const answer = await play.attempt(() => post("/api/rows", { ...wanted, offset: page * PAGE }));
  if (mine !== query) return false;
  loading.delete(page);
  if (!answer) return false;
  if (answer.version !== version) pages.clear();
  version = answer.version;
  pages.set(page, answer.rows);
  total = answer.total;
  // If the files have changed, the selected row can have another place, or be gone.
  const found = answer.rows.findIndex((row) => row.id === selected);
  if (found >= 0) at = page * PAGE + found; else if (at >= total) at = Math.max(total - 1, 0);
  if (JSON.stringify(answer.facets) !== JSON.stringify(facets)) drawFilters((facets = answer.facets));
  spacer.style.height = `${total * ROW}px`;
  count.textContent = answer.all === 0 ? "" : total === answer.all ? `${total.toLocaleString("en")} rows` : `${total.toLocaleString("en")} of ${answer.all.toLocaleString("en")} rows`;
  view.classList.toggle("norows", answer.all === 0);
  if (answer.all === 0) detail.replaceChildren(h("div", { class: "nothing" }, h("h2", null, "No rows yet"), h("p", null, `${setup.workspace} contains no vibes. Make some with `, h("code", null, "lsdata run-all --sample"), " and open the studio with the same --root.")));
  return true;
}

const rowAt = (i) => pages.get(Math.floor(i / PAGE))?.[i % PAGE];

// Add only the visible rows to the document.
function fill() {
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW) - 4), last = Math.min(total, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW) + 4);
  for (let page = Math.floor(first / PAGE); page <= Math.floor(Math.max(last - 1, 0) / PAGE); page += 1) {
    if (!pages.has(page) && !loading.has(page) && page * PAGE < Math.max(total, 1)) need(page).then((read) => { if (read) requestAnimationFrame(fill); });
  }
  const seen = [];
  for (let i = first; i < last; i += 1) {
    const row = rowAt(i);
    if (row) seen.push(line(row, i));
  }
  spacer.replaceChildren(...seen);
  scroller.setAttribute("aria-activedescendant", `row-${at}`);
  if (!total && pages.has(0)) spacer.replaceChildren(h("p", { class: "soft nothing" }, "No row matches."));
}

function line(row, i) {
  return h("div", { class: `rowline ${row.id === selected ? "current" : ""}`, role: "option", id: `row-${i}`, "aria-selected": String(row.id === selected), style: { top: `${i * ROW}px` }, onclick: () => select(i, true) },
    h("span", { class: "vibeline" }, row.vibe),
    h("span", { class: "meta" },
      row.score === null ? h("span", { class: row.state === "failed" ? "badtext" : "" }, row.state) : h("b", null, row.score.toFixed(2)),
      h("span", null, row.split), h("span", null, row.level), row.title ? h("span", { class: "grow" }, row.title) : h("span", { class: "grow" }),
      row.noted ? h("span", { title: "has a note" }, "✎") : null,
      row.verdict === "none" ? null : h("span", { class: row.verdict === "good" ? "goodtext" : "badtext" }, row.verdict === "good" ? "good" : "bad")),
    h("span", { class: "strip", "aria-hidden": "true" }, row.colors.map((hex, k) => h("i", { style: { background: hex, "flex-grow": String(6 - k) } }))));
}

// ---- one row ------------------------------------------------------------------------------------------------------------

// Show a row. With `chosen` (by a click, not by a key that steps through the rows) a phone shows it instead of the list, as a new
// entry of the history, so that Back returns to the list.
async function select(i, chosen = false) {
  if (i < 0 || i >= total) return;
  await need(Math.floor(i / PAGE));
  at = i;
  selected = rowAt(i)?.id;
  const reading = Boolean(history.state?.data?.reading);
  if (chosen && narrow() && !reading) history.pushState({ ...history.state, ...place(true) }, "");
  else replaceEntry(place(reading));
  reveal();
  const row = rowAt(i);
  if (!row) return;
  const found = await play.attempt(() => post("/api/row", { id: row.id }));
  if (!found || selected !== row.id) return;
  open = found;
  // The same pair until it is answered: a listener goes back and forth between the two.
  const usable = usableOf(open);
  open.pair = usable.length > 1 ? drawTwo(usable) : null;
  drawDetail();
  if (chosen && narrow()) { detail.focus({ preventScroll: true }); scrollTo(0, 0); }
}

const usableOf = (row) => row.candidates.map((one, i) => [one, i]).filter(([one]) => one.payload);

function drawTwo(usable) {
  const pairs = usable.flatMap(([, a], k) => usable.slice(k + 1).map(([, b]) => [a, b]));
  return pairs[Math.floor(Math.random() * pairs.length)];
}

// Scroll the list to the selected row.
function reveal() {
  const top = at * ROW;
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  if (top + ROW > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + ROW - scroller.clientHeight;
  fill();
}

function closeDetail() {
  const focused = detail.contains(document.activeElement);
  open = null;
  detail.replaceChildren();
  view.classList.remove("reading");
  reveal();
  if (focused) scroller.focus();
}

function drawDetail() {
  view.classList.add("reading");
  const row = open;
  const noteBox = h("textarea", { class: "text", rows: "1", maxlength: "2000", placeholder: "Note", "aria-label": "Note", id: "note", "data-key": "note", onchange: () => mark(row.verdict, noteBox.value) });
  noteBox.value = row.note;
  const verdict = (name, label) => button(label, { class: name, "data-key": name, "aria-pressed": String(row.verdict === name), onclick: () => mark(row.verdict === name ? "none" : name, noteBox.value) });
  const usable = usableOf(row);
  cards.clear();
  redraw(detail,
    button("Back to the rows", { class: "link back", onclick: () => { if (history.state?.data?.reading) history.back(); else closeDetail(); } }),
    h("h2", { class: "hidden" }, "Row"),
    h("p", { class: "bigvibe" }, row.vibe),
    h("p", { class: "meta soft small" }, [row.split, row.level, row.document, row.model].filter(Boolean).map((text) => h("span", null, text))),
    row.noisy ? h("p", { class: "small soft" }, `With typing errors: ${row.noisy}`) : null,
    row.tags.length ? h("p", { class: "tags" }, row.tags.map((tag) => h("span", { class: "tag" }, tag))) : null,
    row.failure || row.error ? h("p", { class: "small badtext" }, row.failure || row.error) : null,
    h("div", { class: "marking" }, verdict("good", "Good"), verdict("bad", "Bad"), noteBox),
    usable.length ? h("div", { class: "cards" }, usable.map(([one, i]) => candidate(row, one, i))) : h("p", { class: "soft" }, "No candidates yet: lsdata configs makes them."),
    row.pair ? pairing(row) : null,
    more("The question", [["System", row.prompt.system], ["User", row.prompt.user], ["Sampling", JSON.stringify(row.sampling)]].map(([name, text]) => [h("h3", null, name), h("pre", { tabindex: "0" }, typeof text === "string" ? text : JSON.stringify(text, null, 2))])),
    row.attempts.length ? more(`${row.attempts.length} answer${row.attempts.length > 1 ? "s" : ""} in the cache`, row.attempts.map(attemptBox)) : null);
  showPlaying();
}

// The parts that are open stay open when the row is drawn again.
const unfolded = new Set();
const more = (title, content) => h("details", { open: unfolded.has(title), ontoggle: (event) => { if (event.target.open) unfolded.add(title); else unfolded.delete(title); } },
  h("summary", { "data-key": title }, title), h("div", { class: "inside" }, content));

function attemptBox(one) {
  const cost = one.cost_usd === null ? "cost unknown" : `$${one.cost_usd.toFixed(5)}`;
  return [h("h3", null, `Candidate ${one.candidate + 1}${one.problem ? `: ${one.problem}` : ""}`),
    h("p", { class: "small soft" }, `${one.tokens_in} tokens in, ${one.tokens_out} out, ${cost}, ${one.seconds.toFixed(1)} s, ${one.created}`),
    h("p", { class: "small soft mono" }, one.key), h("pre", { tabindex: "0" }, one.answer)];
}

function candidate(row, one, i) {
  const best = i === row.best, c = one.payload.config;
  const card = h("div", { class: `cand ${best ? "best" : ""}` },
    h("button", { type: "button", class: "play small", "data-key": `play ${i}`, onclick: () => hear(i) }),
    h("div", { class: "who" }, h("span", { class: "name" }, one.payload.title), h("span", { class: "sum" }, `${Math.round(setup.bpm[c.tempo])} bpm · ${c.root.toUpperCase()} ${c.mode} · ${words(c.pad)} · ${words(c.melody)}`)),
    h("span", { class: "points", title: Object.entries(one.all_scores).map(([n, s]) => `${n} ${s}`).join(", ") }, one.score === null ? "–" : one.score.toFixed(2), best ? h("span", { class: "soft small" }, " best") : null,
      one.people ? h("span", { class: "peoplesay", title: `people: ${one.people.in_words}` }, `people ${signed(one.people.strength)}`) : null),
    h("div", { class: "three" }, one.payload.palettes.map(play.strip)),
    h("p", { class: "small soft thinking" }, one.payload.thinking),
    h("div", { class: "row" },
      button("Change it in Play", { class: "link", onclick: () => { hear(i); play.showView("play"); } }),
      button("Config", { class: "link", onclick: () => dialog(one.payload.title, h("dl", { class: "configlist" }, Object.entries(c).map(([k, v]) => [h("dt", null, words(k)), h("dd", null, words(v))]))) })));
  cards.set(i, card);
  return card;
}

const isCurrent = (i) => playingFrom === `${open?.id}\n${i}` && piece.config === playingConfig;

// Show which candidate plays. It changes while a note is being typed, so the row is not drawn again.
function showPlaying() {
  for (const [i, card] of cards) {
    const on = isCurrent(i) && engine.player.playing, button = card.querySelector(".play");
    card.classList.toggle("chosen", on);
    button.replaceChildren(icon(on ? "pause" : "play"));
    button.setAttribute("aria-label", `${on ? "Pause" : "Play"} candidate ${i + 1}`);
  }
}

function pairing(row) {
  const [a, b] = row.pair;
  return h("div", { class: "pairing" }, h("h3", null, "Which fits better?"), h("div", { class: "row" },
    ...[[a, b, 0], [b, a, 0], [a, b, 1]].map(([better, worse, tied]) => button("", { "data-key": `prefer ${tied ? "none" : better === a ? "first" : "second"}`, onclick: async () => {
      if (!await play.attempt(() => post("/api/prefer", { id: row.id, better, worse, tied }))) return;
      toast(tied ? `Noted: no difference between candidates ${a + 1} and ${b + 1}.` : `Noted: candidate ${better + 1} fits better than ${worse + 1}.`);
      select(at);
      drawPlaces();
    } }, tied ? "No difference" : `Candidate ${better + 1}`)), h("span", { class: "soft small" }, "Listen to both first.")));
}

async function mark(verdict, note) {
  const row = open;
  if (!row) return;
  if (!await play.attempt(() => post("/api/mark", { id: row.id, verdict, note }))) return;
  row.verdict = verdict;
  row.note = note;
  for (const one of [...pages.values()].flat()) if (one.id === row.id) Object.assign(one, { verdict, noted: Boolean(note.trim()) });
  fill();
  if (open === row) drawDetail();
}

export async function hear(i) {
  const one = open?.candidates[i];
  if (!one?.payload) return;
  engine.wake();
  if (isCurrent(i) && engine.duration()) {
    if (engine.player.playing) engine.pause(); else engine.resume();
  } else {
    const keeps = playingFrom?.startsWith(`${open.id}\n`) ? engine.position() : 0;
    playingFrom = `${open.id}\n${i}`;
    play.takeOver({ ...structuredClone(one.payload), vibe: open.vibe, seed: setup.scored_seed, seconds: finite(piece.seconds), score: one.score });
    playingConfig = piece.config;
    await play.listen(true, keeps);
  }
  showPlaying();
}

// ---- runs, benchmarks, reports --------------------------------------------------------------------------------------------

async function drawPlaces() {
  const [found, people] = await Promise.all([play.attempt(() => get("/api/places")), play.attempt(() => get("/api/preferences"))]);
  const cards = [...(people?.answers ? [peopleCard(people)] : []), ...(found?.rounds || []).map(roundsCard), ...(found?.runs || []).map(runCard), ...(found?.pages || []).map(pageCard)];
  placesBox.replaceChildren(...(cards.length ? [h("h2", null, people?.answers ? "Answers, runs and reports" : "Runs and reports"), h("div", { class: "placegrid" }, cards)] : []));
}

// The strengths of the sources on one axis: a dot, and a line for the 95 % interval.
function peopleCard(people) {
  const percent = (x) => `${Math.round(x * 100)} %`;
  const ends = people.sources.flatMap((s) => [s.low ?? s.strength, s.high ?? s.strength, 0]), [low, high] = [Math.min(...ends), Math.max(...ends)];
  const x = (value) => 6 + ((value - low) / (high - low || 1)) * 148;
  return h("div", { class: "card place people" }, h("h3", null, "Which fits better?"),
    h("p", { class: "small soft" }, `${people.answers} answer${people.answers > 1 ? "s" : ""} on ${people.rows} row${people.rows > 1 ? "s" : ""}${people.ties ? `, ${people.ties} of them without a difference` : ""}.`,
      people.scored ? ` The scorer agrees with ${people.agree} of ${people.scored} (95 %: ${percent(people.agree_interval[0])} to ${percent(people.agree_interval[1])}).` : ""),
    people.sources.length ? h("ul", { class: "strengths" }, people.sources.map((s) => h("li", { title: s.in_words },
      h("span", null, s.label),
      svg("svg", { viewBox: "0 0 160 14", role: "img", "aria-label": s.in_words }, svg("line", { x1: x(0), x2: x(0), y1: 0, y2: 14, class: "zero" }),
        ...(s.low === null ? [] : [svg("line", { x1: x(s.low), x2: x(s.high), y1: 7, y2: 7 })]), svg("circle", { cx: x(s.strength), cy: 7, r: 4 })),
      h("b", null, signed(s.strength))))) : null,
    people.sources.length ? h("p", { class: "small soft" }, people.sources[0].low === null ? "Log strengths (Bradley and Terry). Intervals need answers on eight documents." : "Log strengths (Bradley and Terry) with 95 % intervals.") : null);
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

function runCard(run) {
  const curve = run.curves.reward || run.curves.loss || [];
  return h("div", { class: "card place" }, h("h3", null, run.id), h("p", { class: "small soft" }, [run.kind, run.base_model, run.status].filter(Boolean).join(" · ")),
    curve.length > 1 ? picture(run.curves) : h("p", { class: "small soft" }, "No steps logged yet."));
}

const figure = (value, sign = false) => (typeof value !== "number" ? "–" : sign ? signed(value) : value.toFixed(3));

// The rounds of `lsdata improve`, one line each; the best one is marked.
function roundsCard(one) {
  const heads = ["Round", one.judge, one.guide, "against round 0", "entropy", "learned from"];
  const interval = (line) => (typeof line.low === "number" && typeof line.high === "number" ? ` [${signed(line.low)}, ${signed(line.high)}]` : "");
  return h("div", { class: "card place rounds" }, h("h3", null, one.id), h("p", { class: "small soft" }, one.status || [one.judge ? `judge ${one.judge}, guide ${one.guide}` : "", one.stopped].filter(Boolean).join(" · ")),
    one.rounds.length ? h("div", { class: "scrolls", tabindex: "0", role: "region", "aria-label": `Rounds of ${one.id}` }, h("table", null,
      h("thead", null, h("tr", null, heads.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, one.rounds.map((line) => h("tr", { class: line.model === one.best ? "best" : "" },
        h("th", { scope: "row", title: line.model }, `${line.round}${line.model === one.best ? " (best)" : ""}`),
        [figure(line.judge), figure(line.guide), line.round ? figure(line.against_round_0, true) + interval(line) : "–", figure(line.entropy), line.learned ? String(line.learned) : "–"].map((text) => h("td", null, text))))))) : null);
}

function picture(curves) {
  const names = Object.keys(curves).filter((name) => name !== "reward" || !curves.loss), all = names.flatMap((name) => curves[name]);
  const [x0, x1] = [Math.min(...all.map((p) => p[0])), Math.max(...all.map((p) => p[0]))], [y0, y1] = [Math.min(...all.map((p) => p[1])), Math.max(...all.map((p) => p[1]))];
  const box = svg("svg", { viewBox: "0 0 300 90", class: "curve", role: "img", "aria-label": `${names.join(" and ")} from ${y1.toPrecision(3)} to ${y0.toPrecision(3)}` });
  for (const name of names) {
    const points = curves[name].map(([x, y]) => `${((x - x0) / (x1 - x0 || 1)) * 292 + 4},${84 - ((y - y0) / (y1 - y0 || 1)) * 76}`);
    box.append(svg("polyline", { points: points.join(" "), class: name }));
  }
  return h("div", null, box, h("p", { class: "small soft" }, names.map((name) => `${words(name)} ${curves[name].at(-1)[1].toPrecision(3)}`).join(", ")));
}

function pageCard(page) {
  return h("div", { class: "card place" }, h("h3", null, page.name), h("p", { class: "small soft" }, [page.kind, page.title, page.scorer].filter(Boolean).join(" · ")),
    page.sources ? h("ul", { class: "means" }, page.sources.slice(0, 6).map((s) => h("li", null, h("span", null, s.label), h("b", null, s.mean === null ? "–" : s.mean.toFixed(3))))) : null,
    button("Open", { onclick: async () => {
      // The tab must be opened during the click; its address is set when the server has answered.
      const tab = window.open("about:blank", "_blank");
      const answer = await play.attempt(() => post("/api/open", { id: page.id }));
      if (answer && tab) tab.location = answer.address; else tab?.close();
      if (!tab) toast("The browser does not allow a new tab for this page.", "bad");
    } }));
}

// ---- keys -------------------------------------------------------------------------------------------------------------------

export const KEYS = {
  j: () => select(at + 1), k: () => select(at - 1), ArrowDown: () => select(at + 1), ArrowUp: () => select(at - 1),
  g: () => open && mark(open.verdict === "good" ? "none" : "good", open.note), b: () => open && mark(open.verdict === "bad" ? "none" : "bad", open.note),
  n: () => $("note")?.focus(), "/": () => boxes.search.focus(), " ": play.toggle, Escape: () => engine.pause(),
};

export const number = (n) => {
  const usable = open ? usableOf(open) : [];
  if (usable[n - 1]) hear(usable[n - 1][1]);
};
