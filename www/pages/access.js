// By what this page is allowed at the server: a cookie of the log-in, which no script sees, or the token of
// a link.
//
// Such a token leaves the address bar at once: addresses are copied, and shown. The server has set the cookie
// by then; a frame in a page of another site gets none from its browser, so what this page asks for it asks
// with the token.

/** The token of the link; empty if there was none. */
export const token = take();

function take() {
  if (!globalThis.location) return ""; // no page: a test
  const url = new URL(location.href);
  const given = url.searchParams.get("token") ?? "";
  if (given) {
    url.searchParams.delete("token");
    history.replaceState(history.state, "", url);
  }
  return given;
}

/** For `fetch`. @type {Record<string, string>} */
export const headers = token ? { Authorization: `Bearer ${token}` } : {};
/** For `WebSocket`: escaped, with the parentheses too that encodeURIComponent leaves and RFC 6455 forbids. */
export const protocols = token ? ["onrecord", `bearer.${encodeURIComponent(token).replaceAll("(", "%28").replaceAll(")", "%29")}`] : [];

/** An address of the server, wherever a proxy puts it. @param {string} path */
export const address = (path) => new URL(`../../${path}`, import.meta.url);

/** An address for an element, which can send no header. @param {string} path */
export function addressWithToken(path) {
  const url = address(path);
  if (token) url.searchParams.set("token", token);
  return url.href;
}

/** Goes to log in, and comes back. */
export function logIn() {
  const here = location.pathname.slice(address("").pathname.length) + location.search + location.hash;
  location.assign(address(`login?next=${encodeURIComponent(here)}`));
}

/** @returns {Promise<{asked: boolean, who: string | null} | null>} Null if the server doesn't say. */
async function session() {
  try {
    const response = await fetch(address("api/session"), { headers, cache: "no-store" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/** Says beside the pages' names who is logged in, where one has to be. */
async function show() {
  const bar = globalThis.document?.querySelector("header.top nav");
  if (!bar) return;
  const found = await session();
  if (!found?.asked || found.who === null) return;
  const who = Object.assign(document.createElement("span"), { className: "who", textContent: found.who, title: `Logged in as ${found.who}` });
  const out = Object.assign(document.createElement("button"), { type: "button", className: "quiet", textContent: "Log out", id: "logout" });
  out.addEventListener("click", async () => {
    await fetch(address("logout"), { method: "POST" }).catch(() => {});
    logIn();
  });
  bar.append(who, ...(token ? [] : [out]));
}

show();
