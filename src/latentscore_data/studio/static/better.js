// The button Better: runs a search on the server batch by batch; each new best plays.

import { post } from "./api.js";
import { button, h, icon, toast } from "./dom.js";

const RENDERS = 128;

// `start()` returns {vibe, payload, locked}, or null without a piece; `found(payload, score, vibe)` is called for each new best.
export function betterButton(start, found) {
  let running = null, last = "", seed = 0;
  const bar = h("progress", { max: String(RENDERS), value: "0", "aria-label": "Search for something better", hidden: true });
  const label = h("span", null, "Better");
  const node = button("", { id: "better", title: "Search for something that fits the vibe better", onclick: () => (running ? stop() : search()) }, icon("up"), label);

  function show(on) {
    bar.hidden = !on;
    label.textContent = on ? "Cancel" : "Better";
    node.setAttribute("aria-pressed", String(on));
  }

  function stop() {
    running.abort();
    running = null;
    show(false);
  }

  async function search() {
    const from = start();
    if (!from) return;
    const mine = (running = new AbortController());
    bar.value = 0;
    show(true);
    try {
      let best = JSON.stringify(from.payload.config), better = 0;
      const piece = from.vibe + best;
      seed = piece === last ? seed + 1 : 0;  // with the same seed, another search from the same piece renders the same configs
      last = piece;
      const { search: name } = await post("/api/better", { ...from, renders: RENDERS, seed }, mine.signal);
      for (let done = false; !done; ) {
        const step = await post("/api/better/step", { search: name }, mine.signal);
        if (mine !== running) return;
        done = step.done;
        bar.value = step.spent;
        if (step.improved && JSON.stringify(step.payload.config) !== best) {
          best = JSON.stringify(step.payload.config);
          better += 1;
          found(step.payload, step.score, from.vibe);
        }
      }
      toast(better ? "Now playing the best result of the search." : "The search found no better piece. Press Better again to try others.");
    } catch (error) {
      if (error.name !== "AbortError") toast(error.message, "bad");
    } finally {
      if (mine === running) { running = null; show(false); }
    }
  }

  return [node, bar];
}
