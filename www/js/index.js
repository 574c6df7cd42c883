// The home page: what is live, what is new.

import { badge, describe, downloadLink, hasFile, stateBadge } from "./list.js";
import { api, ApiError, byId, el, formatDuration, keyed, repeat, tell } from "./ui.js";

/** @typedef {import("./list.js").Manifest} Manifest */
/** @typedef {{stream: string, status: string, started_at: string, recording: unknown, via: string}} LiveStream */

const REFRESH_MS = 3000;
const NEWEST = 5;

repeat(async () => {
  try {
    /** @type {[LiveStream[], Manifest[]]} */
    const [streams, recordings] = await Promise.all([api("streams"), api("recordings")]);
    const sealed = recordings.filter(({ state }) => state === "sealed").sort((a, b) => (a.id < b.id ? 1 : -1));
    fill("live", streams, ({ stream }) => stream, liveRow, "Nobody is publishing at the moment.");
    fill("newest", sealed.slice(0, NEWEST), ({ id }) => id, recordingRow, "Nothing is recorded yet.");
    tell(byId("problem", HTMLElement), null);
    age();
  } catch (error) {
    const { code, message } = /** @type {ApiError} */ (error);
    tell(byId("problem", HTMLElement), code === "offline" ? "Offline." : "The lists can't be loaded.", message);
  }
}, REFRESH_MS);

/**
 * @template T
 * @param {string} id
 * @param {T[]} items
 * @param {(item: T) => string} key
 * @param {(item: T) => HTMLElement} render
 * @param {string} nothing
 */
function fill(id, items, key, render, nothing) {
  const empty = byId(`${id}-empty`, HTMLElement);
  empty.hidden = items.length > 0;
  empty.textContent = nothing;
  keyed(byId(id, HTMLElement), items, key, render);
}

/** @param {LiveStream} live */
function liveRow({ stream, status, started_at, recording, via }) {
  const facts = [el("span", { dataset: { since: started_at } }), el("span", {}, via), !recording && el("span", {}, "not recorded")];
  const text = el("div", {}, el("p", { className: "name" }, stream), el("p", { className: "facts tabular" }, ...facts));
  const watch = el("a", { className: "button quiet", href: `watch/${encodeURIComponent(stream)}`, ariaLabel: `Watch ${stream}`, dataset: { action: "watch" } }, "Watch");
  return el("li", {}, el("div", { className: "row" }, text, badge(status, status === "PUBLISHING" ? "live" : ""), watch));
}

/** Live streams grow older. */
function age() {
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-since]"))) {
    const since = Date.parse(element.dataset.since ?? "");
    if (since) element.textContent = formatDuration(Date.now() - since);
  }
}
setInterval(age, 1000);

/** @param {Manifest} manifest */
function recordingRow(manifest) {
  const links = hasFile(manifest) && [
    el("a", { className: "button quiet", href: `recordings#${manifest.id}`, ariaLabel: `Play ${manifest.stream}`, dataset: { action: "play" } }, "Play"),
    downloadLink(manifest),
  ];
  return el("li", {}, el("div", { className: "row" }, describe(manifest), stateBadge(manifest), links && el("div", { className: "actions" }, ...links)));
}
