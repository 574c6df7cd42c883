// The page “Log in”: trades a token for a cookie, then goes on to where one wanted.

import { address } from "./access.js";
import { byId, showNotice } from "./ui.js";

const DEADLINE = 15_000;

const field = byId("token", HTMLInputElement);
const enter = byId("enter", HTMLButtonElement);
const problem = byId("problem", HTMLElement);
const base = address("");

/** What to say first, by the contract's codes; the server's words follow. @type {Record<string, string>} */
const TITLES = {
  unauthorized: "This token is not good.",
  rate_limited: "Too many attempts.",
  no_cookie: "The browser doesn't keep that you are logged in.",
  limit_reached: "That can't be checked at the moment.",
  offline: "Offline.",
};

/** Where one wanted to go: a place of this server, whatever the address says. */
function next() {
  const wanted = new URLSearchParams(location.search).get("next") ?? "";
  try {
    const there = new URL(wanted.replace(/^[/\\]+/, ""), base);
    if (there.origin === base.origin && there.pathname.startsWith(base.pathname)) return there;
  } catch {
    // No address at all.
  }
  return base;
}

/**
 * @param {string} code
 * @param {string} message
 */
function showError(code, message) {
  problem.dataset.code = code;
  showNotice(problem, TITLES[code] ?? "That didn't work.", message);
  field.setAttribute("aria-invalid", "true");
  field.focus();
  field.select();
}

async function logIn() {
  showNotice(problem, null);
  field.removeAttribute("aria-invalid");
  const token = field.value.trim();
  if (!token) return showError("unauthorized", "Paste the token that you were given.");
  enter.disabled = true;
  try {
    const response = await fetch(address("login"), {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
      signal: AbortSignal.timeout(DEADLINE),
    });
    if (response.ok) {
      const known = await fetch(address("api/session"), { cache: "no-store", signal: AbortSignal.timeout(DEADLINE) });
      if ((await known.json()).who !== null) return location.replace(next());
      return showError("no_cookie", `Allow cookies for ${location.host}${location.protocol === "https:" ? "" : ", or open this server by its https address"}.`);
    }
    const body = await response.json().catch(() => null);
    showError(body?.code ?? `http_${response.status}`, body?.message ?? `The server answers ${response.status} ${response.statusText}.`);
  } catch {
    showError("offline", "The server can't be reached. Try again.");
  } finally {
    enter.disabled = false;
  }
}

byId("form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (!enter.disabled) logIn();
});
byId("show", HTMLInputElement).addEventListener("change", ({ target }) => {
  field.type = /** @type {HTMLInputElement} */ (target).checked ? "text" : "password";
});
// Not by `autofocus`: a browser does nothing about it where the address has a fragment, which a redirect keeps.
field.focus();
