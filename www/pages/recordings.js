// The page “Recordings”.

import { listen, refresher } from "./feed.js";
import { playPictures, stopPictures } from "./jpeg-player.js";
import { badge, describe, downloadLink, hasFile, stateBadge } from "./list.js";
import { api, ApiError, byId, el, formatBytes, formatDuration, formatTime, keyed, repeat, showNotice } from "./ui.js";

/** @typedef {import("./list.js").Manifest} Manifest */

/** So many are shown at a time: thousands of rows make a page slow. */
const PAGE = 200;
/** Where events don't get through; where they do, only a file that was moved away says nothing. */
const [REFRESH_MS, SELDOM] = [4000, 5];

const list = byId("list", HTMLUListElement);
const filter = byId("filter", HTMLInputElement);
const more = byId("more", HTMLButtonElement);
const player = byId("player", HTMLDialogElement);
const video = byId("video", HTMLVideoElement);
const confirmation = byId("confirm", HTMLDialogElement);

/** Newest first. @type {Manifest[] | null} */
let manifests = null;
let shown = PAGE;
/** @type {ApiError | null} */
let loadError = null;
/** @type {ApiError | null} */
let actionError = null;

const refresh = refresher(async () => {
  try {
    /** @type {Manifest[]} */
    const all = await api("recordings");
    manifests = all.filter(({ state }) => state !== "deleted").sort((a, b) => (a.id < b.id ? 1 : -1));
    loadError = null;
  } catch (error) {
    loadError = /** @type {ApiError} */ (error);
  }
  draw();
  openLinked();
});

const feed = listen((kind) => kind !== "stream" && refresh());
let polls = 0;
repeat(async () => {
  if (!feed.connected || polls++ % SELDOM === 0) await refresh();
}, REFRESH_MS);

function draw() {
  const error = actionError ?? loadError;
  const title = actionError ? "That didn't work." : loadError?.code === "offline" ? "Offline." : "The list can't be loaded.";
  showNotice(byId("problem", HTMLElement), error && title, error?.message);
  list.classList.toggle("stale", loadError !== null);
  if (!manifests) {
    byId("summary", HTMLElement).textContent = loadError ? "Nothing to show yet." : "Loading…";
    return;
  }
  const wanted = filter.value.trim().toLowerCase();
  const found = manifests.filter(({ stream, file }) => `${stream}\n${file}`.toLowerCase().includes(wanted));
  list.ariaBusy = "false";
  keyed(list, found.slice(0, shown), ({ id }) => id, row);
  more.hidden = found.length <= shown;
  more.textContent = `Show more (${found.length - shown} left)`;
  byId("summary", HTMLElement).textContent = summary(found);
  drawEmpty(found.length === 0);
}

/** @param {Manifest[]} found */
function summary(found) {
  const bytes = found.reduce((sum, manifest) => sum + manifest.bytes, 0);
  const ms = found.reduce((sum, manifest) => sum + manifest.duration_ms, 0);
  const count = found.length === 1 ? "1 recording" : `${found.length} recordings`;
  return found.length ? `${count} · ${formatDuration(ms)} · ${formatBytes(bytes)}` : count;
}

/** @param {boolean} empty */
function drawEmpty(empty) {
  const box = byId("empty", HTMLElement);
  box.hidden = !empty;
  if (!empty) return;
  if (manifests?.length) box.replaceChildren("No recording has this in its name.");
  else box.replaceChildren("Nothing is recorded yet. ", el("a", { href: "publish" }, "Record something"));
}

/** @param {Manifest} manifest */
function row(manifest) {
  const actions = el("div", { className: "actions" });
  if (hasFile(manifest)) {
    actions.append(button("play", "Play", `Play ${manifest.stream}`, () => play(manifest)), downloadLink(manifest));
  }
  if (!["recording", "sealing"].includes(manifest.state)) {
    const remove = button("delete", "Delete", `Delete ${manifest.stream}`, () => askToDelete(manifest));
    remove.classList.add("danger");
    actions.append(remove);
  }
  const top = el("div", { className: "row" }, describe(manifest), stateBadge(manifest), hookBadge(manifest.hook), actions.hasChildNodes() && actions);
  return el("li", { dataset: { id: manifest.id, hook: manifest.hook.state } }, top, details(manifest));
}

/**
 * @param {string} action
 * @param {string} text
 * @param {string} label
 * @param {() => void} onclick
 */
function button(action, text, label, onclick) {
  return el("button", { type: "button", className: "quiet", ariaLabel: label, onclick, dataset: { action } }, text);
}

const HOOK_TONES = { none: "", queued: "warn", running: "warn", done: "good", failed: "bad" };

/** @param {Manifest["hook"]} hook */
function hookBadge({ state }) {
  return state === "none" ? null : badge(`hook ${state}`, HOOK_TONES[state]);
}

/** @param {Manifest} manifest */
function details(manifest) {
  const { hook, state } = manifest;
  const lost = manifest.gaps.reduce((sum, { from_ms, to_ms }) => sum + to_ms - from_ms, 0);
  const facts = [
    manifest.file,
    manifest.end_reason && `ended: ${manifest.end_reason.replaceAll("_", " ")}`,
    manifest.tracks.map(({ codec }) => codec).join(" + "),
    manifest.gaps.length && `${(lost / 1000).toFixed(1)} s missing in ${manifest.gaps.length} ${manifest.gaps.length === 1 ? "gap" : "gaps"}`,
  ];
  const attempts = hook.attempts.map(({ n, at, exit, error, ms, tail }) =>
    el(
      "div",
      { className: "attempt" },
      el("p", {}, `Attempt ${n}, ${formatTime(at)}: ${error ?? `exit ${exit}`} (${(ms / 1000).toFixed(1)} s)`),
      tail ? el("pre", {}, tail) : el("p", { className: "muted" }, "It printed nothing."),
    ),
  );
  const rerun = state === "sealed" && ["done", "failed"].includes(hook.state);
  return el(
    "details",
    { className: "more" },
    el("summary", { dataset: { action: "details" } }, hook.state === "none" ? "Details" : "Details and hook"),
    el("p", { className: "facts wrap" }, ...facts.filter(Boolean).map((fact) => el("span", {}, String(fact)))),
    ...attempts,
    hook.running && el("p", {}, `Attempt ${hook.running.n} has run since ${formatTime(hook.running.at)}.`),
    rerun && el("p", { className: "more" }, button("hook", "Run the hook again", `Run the hook again for ${manifest.stream}`, () => runHook(manifest))),
  );
}

/** @param {Manifest} manifest */
function play(manifest) {
  byId("player-title", HTMLElement).textContent = manifest.stream;
  byId("video-problem", HTMLElement).hidden = true;
  const pictures = manifest.tracks.some(({ codec }) => codec === "mjpeg");
  video.hidden = pictures;
  if (pictures) {
    player.showModal();
    playPictures(manifest, (title, problem) => showNotice(byId("video-problem", HTMLElement), title, problem));
    return;
  }
  video.src = `${manifest.url}${manifest.url.includes("?") ? "&" : "?"}inline=1`;
  player.showModal();
  video.play().catch(() => {}); // the controls are there
}

player.addEventListener("close", () => {
  video.removeAttribute("src");
  video.load(); // ends the download
  stopPictures();
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
});
video.addEventListener("error", () => {
  if (!video.hasAttribute("src")) return;
  showNotice(byId("video-problem", HTMLElement), "This browser can't play it.", "Download the file and open it in a player such as VLC.");
});
for (const dialog of [player, confirmation]) {
  dialog.addEventListener("click", ({ target }) => target === dialog && dialog.close());
}

/** `recordings#<id>` opens that one, once. */
function openLinked() {
  const manifest = manifests?.find(({ id }) => id === location.hash.slice(1));
  if (manifest && hasFile(manifest) && !player.open) play(manifest);
}

/** @param {Manifest} manifest */
function askToDelete(manifest) {
  byId("confirm-text", HTMLElement).textContent = `${manifest.stream} · ${formatTime(manifest.started_at)}`;
  confirmation.returnValue = "";
  confirmation.onclose = () => {
    if (confirmation.returnValue === "delete") act(`recordings/${manifest.id}`, "DELETE");
  };
  confirmation.showModal();
}

/** @param {Manifest} manifest */
function runHook(manifest) {
  act(`recordings/${manifest.id}/hook`, "POST");
}

/**
 * @param {string} path
 * @param {string} method
 */
async function act(path, method) {
  try {
    await api(path, method);
    actionError = null;
  } catch (error) {
    actionError = /** @type {ApiError} */ (error);
  }
  refresh();
}

filter.addEventListener("input", () => {
  shown = PAGE;
  draw();
});
more.addEventListener("click", () => {
  shown += PAGE;
  draw();
});
