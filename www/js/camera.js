// The page “Camera”: pictures of the camera as JPEG, one POST each.

import { headers } from "./access.js";
import { capture, show } from "./client/capture.js";
import { JpegUploader, pulse, UploadError } from "./client/jpeg.js";
import { Devices } from "./devices.js";
import { byId, el, formatBytes, formatDuration, nameProblem, tell } from "./ui.js";

/** @typedef {import("./client/jpeg.js").LastStatus} LastStatus */

const name = byId("name", HTMLInputElement);
const start = byId("start", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);
const preview = byId("preview", HTMLVideoElement);
const errorBox = byId("error", HTMLElement);
const download = byId("download", HTMLAnchorElement);
const watch = byId("watch", HTMLAnchorElement);
const camera = byId("camera", HTMLSelectElement);
// No sound in this mode, so no choice of one.
const devices = new Devices({ camera, microphone: el("select", {}, el("option", { value: "none" })) });
const query = new URLSearchParams(location.search);

/** @type {string[]} */
const clamped = [];
/**
 * A number of the query, within bounds; what was outside is said.
 * @param {string} key
 * @param {number} usual
 * @param {number} least
 * @param {number} most
 */
function setting(key, usual, least, most) {
  const text = query.get(key);
  const wanted = text === null || text.trim() === "" ? NaN : Number(text);
  if (Number.isNaN(wanted)) {
    if (text !== null) clamped.push(`${key} “${text}” is no number: ${usual} is used.`);
    return usual;
  }
  const used = Math.min(Math.max(wanted, least), most);
  if (used !== wanted) clamped.push(`${key} ${wanted} is outside ${least} to ${most}: ${used} is used.`);
  return used;
}
const fps = setting("fps", 10, 0.2, 30);
const quality = setting("quality", 0.8, 0.1, 1);

/** @type {MediaStream | null} */
let media = null;
/**
 * A stream under way; `since` is when the server had its first picture.
 * @typedef {{uploader: JpegUploader, still: () => void, since: number | null, paused: boolean}} Live
 */
/** @type {Live | null} */
let live = null;
/** When the newest pictures were taken by the server. @type {number[]} */
let taken = [];

/**
 * @param {string} status  A word of the contract; empty before the first.
 * @param {string} note
 */
function say(status, note) {
  const word = byId("status", HTMLElement);
  word.dataset.status = status;
  word.textContent = status || "Ready";
  byId("note", HTMLElement).textContent = note;
}

/** @param {boolean} busy */
function lock(busy) {
  start.disabled = name.disabled = camera.disabled = busy;
  stop.disabled = !busy;
}

async function openCamera() {
  const constraints = devices.constraints();
  if (!constraints) throw new UploadError("no_device", "Choose a camera: this mode has nothing else to send.");
  say("", "Answer the browser's question: allow the camera.");
  const fresh = await capture({ name: "", constraints }).catch((error) => {
    // A camera kept from an earlier visit may be unplugged by now.
    if (error.code !== "overconstrained") throw error;
    return capture({ name: "", constraints: devices.constraints(false) ?? constraints });
  });
  media?.getTracks().forEach((track) => track.stop());
  media = fresh;
  for (const track of fresh.getTracks()) {
    track.onended = () => media === fresh && live && end("The camera is gone.", "What it showed until then is recorded.");
  }
  show(preview, fresh);
  byId("placeholder", HTMLElement).hidden = true;
  say("", "");
  await devices.refresh(); // names are known now
  devices.settle(fresh);
}

function closeCamera() {
  media?.getTracks().forEach((track) => track.stop());
  media = preview.srcObject = null;
  byId("placeholder", HTMLElement).hidden = false;
}

async function begin() {
  const problem = nameProblem(name.value);
  tell(byId("name-problem", HTMLElement), problem);
  if (problem) return name.focus();
  tell(errorBox, null);
  byId("result", HTMLElement).hidden = true;
  lock(true);
  stop.disabled = true; // until there is something to stop
  try {
    await openCamera();
  } catch (error) {
    lock(false);
    say("", "");
    return complain("The camera can't be used.", error);
  }
  stop.disabled = false;
  say("PENDING", "Sending the first picture…");
  const url = new URL(`../upload/${encodeURIComponent(name.value)}`, import.meta.url);
  const uploader = new JpegUploader({ url, video: preview, quality, headers: async () => headers });
  taken = [];
  /** @type {Live} */
  const mine = { uploader, since: null, paused: false, still: pulse(fps, () => send(mine)) };
  live = mine;
  draw();
}

/** @param {Live} mine */
async function send(mine) {
  if (live !== mine || mine.paused) return;
  try {
    if (!(await mine.uploader.tick()) || live !== mine) return;
    if (mine.since === null) {
      mine.since = performance.now();
      watch.href = `watch/${encodeURIComponent(name.value)}`;
      watch.hidden = false;
      keepAwake(mine);
    }
    taken.push(performance.now());
    say("PUBLISHING", `Recording “${name.value}”, without sound.`);
    if (errorBox.dataset.code === "offline") complain("", null);
  } catch (error) {
    if (live === mine) await refused(mine, error);
  }
}

/**
 * @param {Live} mine
 * @param {unknown} error
 */
async function refused(mine, error) {
  const code = error instanceof UploadError ? error.code : "failed";
  switch (code) {
    case "offline":
      say(mine.since === null ? "PENDING" : "PUBLISHING", "The server doesn't answer; trying again.");
      return complain("No picture gets through.", error);
    case "resume_expired":
      return overtaken(mine);
    case "limit_reached":
      say("PENDING", "The server is busy or starting; trying again.");
      complain("Not yet.", error);
      mine.paused = true;
      setTimeout(() => (mine.paused = false), 2000);
      return;
    default:
      cease(mine);
      say("FAILED", "");
      return complain("The recording failed.", error);
  }
}

/**
 * The stream is over on the server. After silence (a network that was away) or a restart it goes on in a
 * new recording; whoever ended it meant it.
 * @param {Live} mine
 */
async function overtaken(mine) {
  mine.paused = true;
  const last = await mine.uploader.ask().catch(() => null);
  if (live !== mine) return;
  if (last && last.reason !== "publisher_lost") {
    cease(mine);
    finished(last);
    return tell(errorBox, "The server ended the stream.", last.message ?? `The reason: ${last.reason}.`);
  }
  mine.uploader.restart();
  mine.paused = false;
  tell(errorBox, "The recording was interrupted.", "It goes on in a new file.");
  errorBox.classList.add("mild");
  errorBox.dataset.code = "restarted";
}

/** Sends no more. @param {Live} mine */
function cease(mine) {
  mine.still();
  live = null;
  watch.hidden = true;
  closeCamera();
  lock(false);
  draw(mine.uploader);
}

/**
 * @param {string} [title]  What ended it, if not the button.
 * @param {string} [text]
 */
async function end(title, text) {
  const mine = live;
  if (!mine) return;
  cease(mine);
  start.disabled = true; // until the name is free
  say("PUBLISHING", "Finishing the file…");
  if (title) tell(errorBox, title, text);
  try {
    finished(await mine.uploader.end());
  } catch (error) {
    say("", "Stopped.");
    complain("The end of the recording isn't known.", error);
  } finally {
    draw(mine.uploader); // with the picture that was still on its way
    start.disabled = false;
  }
}

/** @param {LastStatus | null} last */
function finished(last) {
  const info = last?.recording;
  if (last?.status === "FAILED") {
    say("FAILED", "");
    return complain("The recording failed.", new UploadError(last.reason ?? "failed", last.message ?? ""));
  }
  say("UNPUBLISHED", info ? "Recorded." : "Stopped; nothing was recorded.");
  if (!info) return;
  byId("result", HTMLElement).hidden = false;
  byId("duration", HTMLElement).textContent = formatDuration(info.duration_ms);
  download.href = info.url;
  download.download = info.file;
  Object.assign(download.dataset, { bytes: info.bytes, durationMs: info.duration_ms });
  byId("download-facts", HTMLElement).textContent = `${info.file} · ${formatBytes(info.bytes)} · ${formatDuration(info.duration_ms)}`;
  download.focus({ preventScroll: true });
}

/**
 * @param {string} title
 * @param {unknown} error  Null if nothing is wrong.
 */
function complain(title, error) {
  errorBox.classList.remove("mild");
  errorBox.dataset.code = error === null ? "" : /** @type {{code?: string}} */ (error).code ?? "failed";
  tell(errorBox, error === null ? null : title, error instanceof Error ? error.message : String(error));
}

function draw(uploader = live?.uploader) {
  const now = performance.now();
  taken = taken.filter((at) => at > now - 3000);
  const since = live?.since ?? null;
  const span = since === null ? 0 : Math.min(3000, now - since);
  byId("rate", HTMLElement).textContent = span > 900 ? `${((taken.length * 1000) / span).toFixed(1)} fps` : "";
  if (since !== null) byId("duration", HTMLElement).textContent = formatDuration(now - since);
  if (!uploader) return;
  const { sent, dropped, bytes } = uploader.counts;
  const counts = byId("counts", HTMLElement);
  Object.assign(counts.dataset, { sent, dropped, bytes });
  counts.textContent = `${sent} sent · ${dropped} dropped · ${formatBytes(bytes)}`;
}
setInterval(draw, 250, undefined);

/** A phone that goes to sleep stops its camera. @param {Live} mine */
async function keepAwake(mine) {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  const still = mine.still;
  mine.still = () => {
    still();
    lock?.release().catch(() => {});
  };
}

addEventListener("pagehide", () => live?.uploader.leave());
addEventListener("beforeunload", (event) => {
  if (live) event.preventDefault();
});
byId("form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (!start.disabled) begin();
});
stop.addEventListener("click", () => end());

name.value = query.get("name") ?? "default";
byId("settings", HTMLElement).textContent = [`${fps} pictures a second, quality ${quality}.`, ...clamped].join(" ");
if (window.isSecureContext && navigator.mediaDevices) {
  await devices.refresh();
} else {
  byId("localhost", HTMLElement).textContent = `http://localhost${location.port && `:${location.port}`}${location.pathname}`;
  byId("insecure", HTMLElement).hidden = false;
  start.disabled = true;
}
