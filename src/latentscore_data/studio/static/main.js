// Start: the setup from the server, the views behind their tabs, the keys.

import { get } from "./api.js";
import { $, dialog, h } from "./dom.js";
import * as play from "./play.js";

const KEYS = [
  ["Enter", "in the text field: play the vibe"], ["Space", "play or pause"], ["1 … 8", "play a candidate"], ["X", "A/B: the candidate before"],
  ["S", "surprise me"], ["M", "more like this"], ["U", "undo"], ["L", "loop"], ["W", "why this sound"], ["/", "to the text field"], ["?", "these keys"],
];

function keys() {
  dialog("Keys", h("dl", { class: "keys" }, KEYS.map(([key, does]) => [h("dt", null, h("kbd", null, key)), h("dd", null, does)])));
}

const typing = (node) => node.matches("textarea, select, [type=search], [type=text]") || node.isContentEditable;

const ACTIONS = {
  " ": play.toggle, x: play.compare, s: play.surprise, m: play.moreLikeThis, u: () => play.stepBack(), l: play.toggleLoop, w: play.why, "/": play.focusVibe, "?": keys,
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
  if (/^[1-8]$/.test(event.key)) return void play.choose(Number(event.key) - 1);
  const action = ACTIONS[event.key.toLowerCase()];
  if (action) { event.preventDefault(); action(); }
}

async function begin() {
  $("help").addEventListener("click", keys);
  let setup;
  try {
    setup = await get("/api/setup");
  } catch (error) {
    const old = error.status === 401;
    $("main").replaceChildren(h("section", { class: "card notice" }, h("h1", null, old ? "This page needs its token" : "The studio cannot be reached"),
      h("p", null, old ? "Open the address that lsdata studio has printed; it holds a token that is new at each start." : `${error.message} ${error.remedy || ""}`)));
    document.documentElement.dataset.ready = "refused";
    return;
  }
  $("main").replaceChildren(play.build(setup));
  addEventListener("keydown", pressed);
  document.documentElement.dataset.ready = "yes";
}

begin();
