// Start of the page: the setup from the server, the views and their tabs, the keys.

import { get } from "./api.js";
import { $, dialog, h, replaceEntry } from "./dom.js";
import * as data from "./data.js";
import * as play from "./play.js";
import * as playlists from "./playlists.js";

const KEYS = [
  ["Enter", "in the text field: play the vibe"], ["Space", "play or pause"], ["1 … 8", "play a candidate"], ["X", "A/B: the previous candidate"],
  ["S", "surprise me"], ["M", "more like this"], ["U", "undo"], ["L", "loop"], ["W", "why this sound"], ["K", "keep on the playlist"], ["/", "go to the text field"], ["?", "show these keys"],
];
const DATA_KEYS = [
  ["J, K", "next row, previous row"], ["1 … 9", "play a candidate"], ["Space", "play or pause"], ["G, B", "mark good, bad"], ["N", "write a note"],
  ["/", "search"], ["Esc", "stop"], ["?", "these keys"],
];
let shown = "play";

function keys() {
  dialog("Keys", h("dl", { class: "keys" }, (shown === "play" ? KEYS : DATA_KEYS).map(([key, does]) => [h("dt", null, h("kbd", null, key)), h("dd", null, does)])));
}

const typing = (node) => node.matches("textarea, select, input:not([type=range], [type=checkbox])");

const ACTIONS = {
  " ": play.toggle, x: play.compare, s: play.surprise, m: play.moreLikeThis, u: () => play.stepBack(), l: play.toggleLoop, w: play.why, k: playlists.keepPiece, "/": play.focusVibe, "?": keys,
};

function pressed(event) {
  if ($("dialog").open || event.altKey || event.isComposing) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing(event.target)) {
    event.preventDefault();
    play.stepBack(!event.shiftKey);
    return;
  }
  if (event.ctrlKey || event.metaKey || typing(event.target)) return;
  if (event.key === " " && event.target.matches("button, input, summary, a")) return;
  if (event.key.startsWith("Arrow") && event.target.matches("input")) return;
  if (/^[1-9]$/.test(event.key)) return void (shown === "play" ? play.choose(Number(event.key) - 1) : data.number(Number(event.key)));
  const action = shown === "play" ? ACTIONS[event.key.toLowerCase()] : data.KEYS[event.key] || data.KEYS[event.key.toLowerCase()] || (event.key === "?" ? keys : null);
  if (action) { event.preventDefault(); action(); }
}

function show(name) {
  shown = name;
  for (const tab of $("tabs").children) {
    if (tab.dataset.view === name) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  $("data-view").hidden = name !== "data";
  play.setShown(name === "play");
  if (name === "data") data.show();
}

// Each view is an entry of the browser's history, so that Back returns to the one before, and a reload shows the same one.
function go(name) {
  if (name === shown) return;
  history.pushState({ ...history.state, view: name }, "");
  show(name);
}

const entry = () => (history.state?.view === "data" ? "data" : "play");

async function begin() {
  $("help").addEventListener("click", keys);
  let setup;
  try {
    setup = await get("/api/setup");
  } catch (error) {
    const old = error.status === 401;
    $("main").replaceChildren(h("section", { class: "card notice" }, h("h1", null, old ? "This page needs an access token" : "The studio cannot be reached"),
      h("p", null, old ? "Open the address that lsdata studio printed. It contains a token, which changes at each start." : error.message)));
    document.documentElement.dataset.ready = "refused";
    return;
  }
  $("tabs").replaceChildren(...[["play", "Play"], ["data", "Data"]].map(([name, label]) => h("button", { type: "button", "data-view": name, onclick: () => go(name) }, label)));
  $("main").replaceChildren(play.build(setup), data.build(setup));
  replaceEntry({ view: entry() });
  show(entry());
  addEventListener("popstate", () => show(entry()));
  // A link to #vibe would replace the piece in the address.
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); (shown === "play" ? ACTIONS : data.KEYS)["/"](); });
  addEventListener("keydown", pressed);
  playlists.begin();
  document.documentElement.dataset.ready = "yes";
}

begin();
