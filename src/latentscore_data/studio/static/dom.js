// Helpers for DOM elements. They insert text as text, never as markup.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function h(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && typeof value !== "string") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(3).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

const ICONS = {
  play: "M8 5.2v13.6c0 .8.9 1.3 1.6.9l10.6-6.8c.6-.4.6-1.4 0-1.8L9.600 4.300C8.900 3.900 8 4.400 8 5.200z",
  pause: "M7 4.500h3.200v15H7zM13.800 4.500H17v15h-3.200z",
  lock: "M12 2.500a4.500 4.500 0 0 0-4.500 4.500v3H6.500A1.500 1.500 0 0 0 5 11.500v8A1.500 1.500 0 0 0 6.500 21h11a1.500 1.500 0 0 0 1.500-1.500v-8a1.500 1.500 0 0 0-1.500-1.500h-1V7A4.500 4.500 0 0 0 12 2.500zm-2.500 7.500V7a2.500 2.500 0 0 1 5 0v3z",
  open: "M12 2.500a4.500 4.500 0 0 0-4.500 4.500h2a2.500 2.500 0 0 1 5 0v3h-8A1.500 1.500 0 0 0 5 11.500v8A1.500 1.500 0 0 0 6.500 21h11a1.500 1.500 0 0 0 1.500-1.500v-8a1.500 1.500 0 0 0-1.500-1.500h-1V7A4.500 4.500 0 0 0 12 2.500z",
  undo: "M9 5 3.500 10.500 9 16v-4h5a4 4 0 0 1 0 8H9v2h5a6 6 0 0 0 0-12H9z",
  redo: "m15 5 5.500 5.500L15 16v-4h-5a4 4 0 0 0 0 8h5v2h-5a6 6 0 0 1 0-12h5z",
  loop: "M7 7h9V4l4.500 4L16 12V9H8v3.500L6 14V8a1 1 0 0 1 1-1zm10 10H8v3l-4.500-4L8 12v3h8v-3.500l2-1.500v6a1 1 0 0 1-1 1z",
  star: "m12 3.500 2.600 5.400 5.900.8-4.300 4.100 1 5.900-5.200-2.800-5.200 2.800 1-5.900L3.500 9.700l5.900-.8z",
  dice: "M6 3.500h12A2.500 2.500 0 0 1 20.500 6v12a2.500 2.500 0 0 1-2.500 2.500H6A2.500 2.500 0 0 1 3.500 18V6A2.500 2.500 0 0 1 6 3.500zM8.500 7a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zm7 7a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3zM12 10.500a1.500 1.500 0 1 0 0 3 1.500 1.500 0 0 0 0-3z",
  down: "M11 3h2v9.200l3.300-3.300 1.400 1.400L12 16l-5.700-5.700 1.400-1.400 3.300 3.300zM4 18h16v2H4z",
  moon: "M20 14.500A8.500 8.500 0 0 1 9.500 4a8.500 8.500 0 1 0 10.500 10.500z",
  near: "M4 12a8 8 0 0 1 8-8v3a5 5 0 0 0-5 5zm16 0a8 8 0 0 1-8 8v-3a5 5 0 0 0 5-5zM12 9.500a2.500 2.500 0 1 0 0 5 2.500 2.500 0 0 0 0-5z",
  up: "M12 4l7 7h-4v8H9v-8H5z",
  why: "M4 18h3V11H4zm6.500 0h3V4h-3zM17 18h3v-9h-3z",
  close: "m6.400 5 5.600 5.600L17.600 5 19 6.400 13.400 12l5.600 5.600-1.400 1.400-5.600-5.600L6.400 19 5 17.600 10.600 12 5 6.400z",
  next: "M6 5v14l9-7zm10 0h2.500v14H16z",
  list: "M4 6h16v2H4zm0 5h16v2H4zm0 5h10v2H4z",
};

export const icon = (name) => svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "icon" }, svg("path", { d: ICONS[name] }));

export const button = (label, attributes, ...children) => h("button", { type: "button", ...attributes, class: `button ${attributes?.class || ""}` }, ...(children.length ? children : [label]));

export const words = (name) => String(name).replaceAll("_", " ");

export const clock = (seconds) => `${Math.floor(Math.max(seconds, 0) / 60)}:${String(Math.floor(Math.max(seconds, 0) % 60)).padStart(2, "0")}`;

// Change the state of this entry of the browser's history, and its address. Safari allows 100 changes in 30 s and throws then;
// the next change stores what is missing.
export function replaceEntry(change, address = "") {
  try { history.replaceState({ ...history.state, ...change }, "", address || undefined); } catch { /* see above */ }
}

let toastTimer = 0;

// An open dialog covers the page, and screen readers do not read what is below it. So it has a message box of its own.
export function toast(text, kind = "") {
  const box = $($("dialog").open ? "dialog-toast" : "toast");
  box.textContent = text;
  box.className = `toast shown ${kind}`;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => { for (const id of ["toast", "dialog-toast"]) $(id).classList.remove("shown"); }, kind === "bad" ? 9000 : 4000);
}

export function dialog(title, ...content) {
  const box = $("dialog");
  const shut = h("button", { type: "button", class: "shut", "aria-label": "Close", onclick: () => box.close() }, icon("close"));
  $("dialog-toast").className = "toast";
  $("dialog-content").replaceChildren(h("h2", { id: "dialog-title" }, title), ...content, shut);
  box.showModal();
  return box;
}

// Replace the content of a node. The focus stays on the element with the same `data-key`, if the new content has one.
export function redraw(node, ...content) {
  const key = node.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  node.replaceChildren(...content.filter(Boolean));
  if (key) node.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

// The tooltip, one for all elements: shown on hover, focus and tap.
export function explained(node, text) {
  const tip = $("tip");
  const show = () => {
    tip.textContent = text;
    tip.hidden = false;
    const box = node.getBoundingClientRect(), own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, box.left), innerWidth - own.width - 8);
    const above = box.top - own.height - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  const hide = () => { tip.hidden = true; };
  node.addEventListener("mouseenter", show);
  node.addEventListener("mouseleave", hide);
  node.addEventListener("focus", show);
  node.addEventListener("blur", hide);
  node.addEventListener("click", show);
  node.setAttribute("aria-description", text);
  return node;
}
addEventListener("scroll", () => { $("tip").hidden = true; }, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") $("tip").hidden = true; });
