// Calls to the server. The token is in the fragment of the printed address; then it is stored for this origin.

const KEY = "lsdata-studio-token";
const given = new URLSearchParams(location.hash.slice(1)).get("token");
if (given) {
  localStorage.setItem(KEY, given);
  history.replaceState(history.state, "", location.pathname);
}

// The server's messages begin with a small letter and have no full stop.
const sentence = (text) => (/^(?!lsdata)[a-z]+ /.test(text) ? text[0].toUpperCase() + text.slice(1) : text) + (/[.!?…]$/.test(text) ? "" : ".");

// The message of the error is what failed, and what to do.
class Refused extends Error {
  constructor(status, error, remedy) {
    super([error, remedy].filter(Boolean).map(sentence).join(" "));
    this.status = status;
  }
}

async function request(path, data, signal) {
  const headers = { Authorization: `Bearer ${localStorage.getItem(KEY) || ""}` };
  const options = data === undefined ? { headers, signal } : { method: "POST", headers: { ...headers, "Content-Type": "application/json" }, body: JSON.stringify(data), signal };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "the studio's server does not respond", "start it again: lsdata studio");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Refused(answer.status, said.error || `The studio's server returned status ${answer.status}.`, said.remedy);
}

export const get = async (path, signal) => (await request(path, undefined, signal)).json();
export const post = async (path, data, signal) => (await request(path, data, signal)).json();
export const bytes = async (path, data, signal) => (await request(path, data, signal)).arrayBuffer();
export const isHere = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);

export async function save(path, data, name) {
  const blob = await (await request(path, data)).blob();
  saveBlob(blob, name);
}

export function saveBlob(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 30_000);
}
