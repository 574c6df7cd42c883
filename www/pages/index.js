// The home page: what is live and how it goes, what is new.

import { listen, refresher } from "./feed.js";
import { Card } from "./card.js";
import { Chart } from "./chart.js";
import { Thumbnails } from "./thumbnails.js";
import { describe, downloadLink, hasFile, stateBadge } from "./list.js";
import { api, ApiError, byId, el, formatBitrate, keyed, repeat, showNotice } from "./ui.js";

/** @typedef {import("./list.js").Manifest} Manifest */
/** @typedef {import("./card.js").LiveStream} LiveStream */
/** @typedef {import("./card.js").Action} Action */

/** Rates are what came between two looks. */
const POLL_MS = 2500;
const NEWEST = 5;
/** Enough to find so many sealed ones among those that are being written. */
const LISTED = 100;

const live = byId("live", HTMLUListElement);
const confirmation = byId("confirm", HTMLDialogElement);
const chart = new Chart(byId("chart", HTMLElement));
const thumbnails = new Thumbnails();
/** @type {Map<string, Card>} */
const cards = new Map();
/** What the server, or the way to it, has against the page. @type {ApiError | null} */
let loadError = null;
/** @type {ApiError | null} */
let actionError = null;

/**
 * A visitor who may see only one of both lists sees that one.
 * @param {ApiError} error
 * @returns {never[]}
 */
function noneIfForbidden(error) {
  if (error.code === "forbidden") return [];
  throw error;
}

const readStreams = refresher(async () => {
  try {
    showStreams(await api("streams").catch(noneIfForbidden));
    loadError = null;
  } catch (error) {
    loadError = /** @type {ApiError} */ (error);
    chart.add(0);
  }
  showProblem();
});

const readRecordings = refresher(async () => {
  try {
    /** @type {Manifest[]} */
    const manifests = await api(`recordings?limit=${LISTED}`).catch(noneIfForbidden);
    const sealed = manifests.filter(({ state }) => state === "sealed").sort((a, b) => (a.id < b.id ? 1 : -1));
    showEmpty("newest", sealed.length, "Nothing is recorded yet.");
    keyed(byId("newest", HTMLElement), sealed.slice(0, NEWEST), ({ id }) => id, recordingRow);
  } catch (error) {
    loadError = /** @type {ApiError} */ (error);
    showProblem();
  }
});

const feed = listen((kind) => {
  if (kind !== "recording") readStreams();
  readRecordings();
  if (kind === "recording") readStreams(); // whether a stream is recorded has changed
});
repeat(async () => {
  // Where events don't get through, asking has to do.
  await Promise.all([readStreams(), feed.connected || readRecordings()]);
}, POLL_MS);
setInterval(() => cards.forEach((card) => card.age()), 1000);

/** @param {LiveStream[]} streams */
function showStreams(streams) {
  const names = new Set(streams.map(({ stream }) => stream));
  for (const [name, card] of cards) {
    if (names.has(name)) continue;
    thumbnails.remove(card.frame);
    cards.delete(name);
  }
  for (const stream of streams) {
    const card = cards.get(stream.stream);
    if (card) card.show(stream);
    else cards.set(stream.stream, newCard(stream));
  }
  // Cards keep themselves up to date: only names make a difference here.
  const element = (/** @type {{stream: string}} */ { stream }) => /** @type {Card} */ (cards.get(stream)).element;
  keyed(live, streams.map(({ stream }) => ({ stream })), ({ stream }) => stream, element);
  live.ariaBusy = "false";
  showEmpty("live", streams.length, "Nobody is publishing at the moment.");
  summarize(streams);
}

/** @param {LiveStream} stream */
function newCard(stream) {
  const card = new Card(stream, act);
  thumbnails.add(card.frame);
  return card;
}

/** @param {LiveStream[]} streams */
function summarize(streams) {
  const rate = [...cards.values()].reduce((sum, card) => sum + card.rate, 0);
  const viewers = streams.reduce((sum, stream) => sum + stream.viewers, 0);
  // The first look at a stream says nothing of its rate.
  if (rate > 0 || streams.length === 0) chart.add(rate);
  const count = (/** @type {number} */ n, /** @type {string} */ what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const words = [count(streams.length, "stream"), formatBitrate(rate), count(viewers, "viewer")];
  byId("total", HTMLElement).textContent = streams.length ? words.join(" · ") : "";
}

/**
 * @param {string} id
 * @param {number} count
 * @param {string} nothing
 */
function showEmpty(id, count, nothing) {
  const empty = byId(`${id}-empty`, HTMLElement);
  empty.hidden = count > 0;
  empty.textContent = nothing;
}

function showProblem() {
  const error = actionError ?? loadError;
  const title = actionError ? "That didn't work." : loadError?.code === "offline" ? "Offline." : "The lists can't be loaded.";
  showNotice(byId("problem", HTMLElement), error && title, error?.message);
  live.classList.toggle("stale", loadError !== null);
}

/** @type {Record<Exclude<Action, "end">, {method: string, announcement: string}>} */
const RECORDING_ACTIONS = {
  cut: { method: "POST", announcement: "goes on in a new file at its next keyframe." },
  "start-recording": { method: "POST", announcement: "is being recorded." },
  "stop-recording": { method: "DELETE", announcement: "is recorded no longer; its file is being sealed." },
};

/**
 * @param {Action} action
 * @param {string} stream
 */
function act(action, stream) {
  const path = `streams/${encodeURIComponent(stream)}`;
  if (action !== "end") {
    const { method, announcement } = RECORDING_ACTIONS[action];
    return ask(`${path}/recording`, method, `${stream} ${announcement}`);
  }
  byId("confirm-text", HTMLElement).textContent = stream;
  confirmation.returnValue = "";
  confirmation.onclose = () => {
    if (confirmation.returnValue === "end") ask(path, "DELETE", `${stream} has ended.`);
  };
  confirmation.showModal();
}

/**
 * @param {string} path
 * @param {string} method
 * @param {string} announcement
 */
async function ask(path, method, announcement) {
  try {
    await api(path, method);
    actionError = null;
    byId("announcement", HTMLElement).textContent = announcement;
  } catch (error) {
    actionError = /** @type {ApiError} */ (error);
    byId("announcement", HTMLElement).textContent = "";
  }
  showProblem();
  readStreams();
}

confirmation.addEventListener("click", ({ target }) => target === confirmation && confirmation.close());

/** @param {Manifest} manifest */
function recordingRow(manifest) {
  const links = hasFile(manifest) && [
    el("a", { className: "button quiet", href: `recordings#${manifest.id}`, ariaLabel: `Play ${manifest.stream}`, dataset: { action: "play" } }, "Play"),
    downloadLink(manifest),
  ];
  return el("li", { dataset: { id: manifest.id } }, el("div", { className: "row" }, describe(manifest), stateBadge(manifest), links && el("div", { className: "actions" }, ...links)));
}
