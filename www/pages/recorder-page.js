// Devices, preview, Start and Stop, how it goes, the file: in each mode of the page that records.

import { captureMedia, createSession, OnrecordError, showMedia, STREAM_STATUS } from "../lib/onrecord.js";
import { address, token } from "./access.js";
import { Devices } from "./devices.js";
import { LevelMeter } from "./meter.js";
import { byId, el, formatBitrate, formatBytes, formatDuration, showNotice } from "./ui.js";

/** @typedef {import("../lib/onrecord.js").Stream} Stream */
/** @typedef {import("../lib/onrecord.js").StreamOptions} StreamOptions */

/**
 * What is different in each mode.
 * @typedef {object} Page
 * @property {() => StreamOptions | false} options  Of the stream to be; false if something is missing yet.
 * @property {HTMLElement[]} fields  What can't be changed while a stream is under way.
 * @property {string} [title]
 * @property {string} [settings]  What the query asks for, in words.
 * @property {boolean} [autostart]  Starts as soon as the camera is granted.
 * @property {boolean} [silent]  Sends pictures only: no microphone is used.
 */

/** How people call the transports. @type {Record<string, string>} */
const TRANSPORTS = {
  webrtc: "WebRTC",
  whip: "WebRTC, signalled over HTTP",
  chunks: "recorded chunks",
  mjpeg: "JPEG pictures, no sound in this mode",
};

/** What a person at the page should know, by end reason. @type {Record<string, string>} */
const ENDED_BY_SERVER = {
  disk_full: "Its disk is full. What it received before is in the file.",
  write_error: "It could not write any further. What it wrote before is in the file.",
  kicked: "Its operator ended this stream.",
};

const start = byId("start", HTMLButtonElement);
const stop = byId("stop", HTMLButtonElement);
const turnOn = byId("turn-on", HTMLButtonElement);
const preview = byId("preview", HTMLVideoElement);
const errorBox = byId("error", HTMLElement);
const download = byId("download", HTMLAnchorElement);
const meter = new LevelMeter(byId("level", HTMLMeterElement));
const devices = new Devices({ camera: byId("camera", HTMLSelectElement), microphone: byId("microphone", HTMLSelectElement) });
const watch = byId("watch", HTMLAnchorElement);

/** @type {Page} */
let page;
/** What the camera and microphone give, also before Start. @type {MediaStream | null} */
let media = null;
/** Counts the requests for media: the newest wins. */
let request = 0;
/** The stream under way. @type {Stream | null} */
let stream = null;
/** When PUBLISHING began, by `performance.now()`. @type {number | null} */
let since = null;
/** What the server misses of the media, in its words. */
let missing = "";

/**
 * Turns on what is chosen and shows it.
 * @returns {Promise<MediaStream | null>}  Null if a newer request overtook this one.
 */
async function openMedia() {
  const mine = ++request;
  const constraints = devices.constraints(page.silent);
  if (!stream) closeMedia();
  if (!constraints) throw new OnrecordError("no_device", page.silent ? "Choose a camera: this mode has nothing else to send." : "Choose a camera or a microphone: one of them is needed.");
  const asking = setTimeout(() => stream || showStatus("", `Answer the browser's question: allow ${page.silent ? "the camera" : "camera and microphone"}.`), 800);
  let fresh;
  try {
    fresh = await captureMedia({ constraints });
  } catch (error) {
    const { code } = /** @type {OnrecordError} */ (error);
    // A device kept from an earlier visit may be unplugged by now, and phones open one camera at a time.
    if (code !== "overconstrained" && !(stream && code === "device_busy")) throw error;
    if (stream) media?.getTracks().forEach((track) => track.stop());
    fresh = await captureMedia({ constraints: (code === "overconstrained" && devices.constraints(page.silent, false)) || constraints });
  } finally {
    clearTimeout(asking);
    if (!stream) showStatus("", "");
  }
  if (mine !== request) {
    fresh.getTracks().forEach((track) => track.stop());
    return null;
  }
  const before = media;
  media = fresh;
  for (const track of fresh.getTracks()) track.onended = () => !stream && media === fresh && closeMedia();
  stream?.replaceMedia(fresh);
  before?.getTracks().forEach((track) => track.stop());
  showMedia(preview, fresh);
  meter.show(fresh);
  drawPreview();
  await devices.refresh(); // names are known now
  if (mine === request) devices.settle(fresh);
  return fresh;
}

function closeMedia() {
  media?.getTracks().forEach((track) => track.stop());
  media = preview.srcObject = null;
  meter.show(null);
  drawPreview();
}

function drawPreview() {
  const picture = (media?.getVideoTracks().length ?? 0) > 0;
  byId("placeholder", HTMLElement).hidden = picture;
  byId("placeholder-text", HTMLElement).textContent = media ? "No camera: only sound is recorded." : "The camera is off.";
  turnOn.hidden = media !== null;
}

/**
 * @param {string} status  A word of the contract; empty before the first.
 * @param {string} note
 */
function showStatus(status, note) {
  const word = byId("status", HTMLElement);
  word.dataset.status = status;
  word.textContent = status || "Ready";
  byId("note", HTMLElement).textContent = note;
}

/** @param {unknown} error  What went wrong, or null if nothing is. */
function showError(error) {
  if (!error) return showNotice(errorBox, null);
  const known = error instanceof OnrecordError ? error : new OnrecordError("failed", String(error));
  errorBox.classList.remove("mild");
  errorBox.dataset.code = known.code;
  showNotice(errorBox, stream ? "The recording failed." : `${page.silent ? "The camera" : "Camera and microphone"} can't be used.`, known.message);
}

/** What the library warns of, in words. @type {Record<string, string>} */
const WARNINGS = {
  slow_network: "The network is slow.",
  sealing: "The server's disk refuses to finish the file.",
};

/** @param {string} title @param {string} text */
function showWarning(title, text) {
  showNotice(errorBox, title, text);
  errorBox.classList.add("mild");
}

/** @param {boolean} busy */
function setBusy(busy) {
  start.disabled = turnOn.disabled = busy;
  for (const field of page.fields) field.toggleAttribute("disabled", busy);
  stop.disabled = !busy;
}

/** Start. */
async function record() {
  const options = page.options();
  if (!options) return;
  showError(null);
  byId("result", HTMLElement).hidden = true;
  byId("duration", HTMLElement).textContent = formatDuration(0);
  byId("transport", HTMLElement).textContent = byId("traffic", HTMLElement).textContent = "";
  setBusy(true);
  stop.disabled = true; // until there is something to stop
  try {
    if (!media || media.getTracks().some(({ readyState }) => readyState === "ended")) media = await openMedia();
    if (media) publish({ ...options, mediaStream: media });
    else setBusy(false);
  } catch (error) {
    setBusy(false);
    showError(error);
  }
}

/** @param {StreamOptions} options */
function publish(options) {
  const session = createSession({ urlServer: address("").href, token });
  const created = session.createStream(options);
  stream = created;
  missing = "";
  showEvents(created);
  session
    .on("reconnecting", () => created.mode()?.mode === "webrtc" && showStatus(String(created.status()), "The server doesn't answer; trying again. Recording goes on as long as it receives you."))
    .on("reconnected", () => created.status() === STREAM_STATUS.PUBLISHING && showRecording(created));
  setBusy(true);
  created.publish().catch(() => {}); // FAILED tells
  created.on(STREAM_STATUS.UNPUBLISHED, () => session.disconnect()).on(STREAM_STATUS.FAILED, () => session.disconnect());
}

/** @param {Stream} created */
function showRecording(created) {
  if (created.status() === STREAM_STATUS.PUBLISHING) showStatus("PUBLISHING", missing || `Recording “${created.name()}”.`);
}

/** Shows what a stream tells. @param {Stream} created */
function showEvents(created) {
  created
    .on(STREAM_STATUS.PENDING, () => showStatus("PENDING", "Connecting to the server…"))
    .on(STREAM_STATUS.PUBLISHING, () => {
      since ??= performance.now();
      showRecording(created);
      keepAwake();
      watch.href = `watch/${encodeURIComponent(created.name())}`;
      watch.hidden = !page.silent;
    })
    .on(STREAM_STATUS.UNPUBLISHED, () => {
      showStatus("UNPUBLISHED", created.getRecordInfo() ? "Recorded." : "Stopped; nothing was recorded.");
      const why = ENDED_BY_SERVER[created.getEndReason() ?? ""];
      if (why) showWarning("The server ended the recording.", why);
      finished(created);
    })
    .on(STREAM_STATUS.FAILED, () => {
      showStatus("FAILED", "");
      showError(created.getError());
      finished(created);
    })
    .on("mode", (_, { mode, reason }) => {
      byId("transport", HTMLElement).dataset.mode = mode;
      byId("transport", HTMLElement).textContent = `By ${TRANSPORTS[mode]}. ${reason}`;
    })
    .on("progress", (_, progress) => {
      const { acked, unsent, sent, dropped } = progress;
      const pictures = `${sent} pictures sent, ${dropped} dropped, ${formatBytes(acked)}`;
      byId("traffic", HTMLElement).textContent = sent === undefined ? `${formatBytes(acked)} sent, ${formatBytes(unsent)} to go` : pictures;
      Object.assign(byId("traffic", HTMLElement).dataset, progress);
    })
    .on("reconnecting", () => showStatus(String(created.status()), "The network is interrupted; trying again…"))
    .on("reconnected", () => showRecording(created))
    .on("restarted", (_, { lost_ms }) => showWarning("The recording was interrupted.", `About ${seconds(lost_ms)} are missing. It goes on in a new file.`))
    .on("paused", (_, { bytes }) => showWarning("The network is too slow: recording waits.", `${formatBytes(bytes)} are held in this page. It goes on when they are sent.`))
    .on("resumed", (_, { lost_ms }) => showWarning("Recording goes on.", `About ${seconds(lost_ms)} are missing: the network was too slow.`))
    .on("warning", (_, { code, message }) => WARNINGS[code] && showWarning(WARNINGS[code], message))
    .on("lacks", (_, { sentence }) => {
      missing = sentence;
      if (missing || created.status() !== STREAM_STATUS.PUBLISHING) showStatus(String(created.status()), missing);
      else showRecording(created);
    })
    .on("trackended", (_, { kind }) => showWarning(kind === "video" ? "The camera is gone." : "The microphone is gone.", "The rest goes on being recorded."));
}

/** @param {number} ms */
const seconds = (ms) => `${Math.ceil(ms / 1000)} s`;

/** @param {Stream} ended */
function finished(ended) {
  stream = since = null;
  setBusy(false);
  watch.hidden = true;
  byId("rate", HTMLElement).textContent = "";
  const infos = ended.getRecordInfos();
  const newest = infos.pop();
  const earlier = byId("earlier", HTMLElement);
  earlier.hidden = infos.length === 0;
  earlier.replaceChildren(...infos.map((info) => el("li", {}, el("a", { href: info.url, download: info.file }, info.file))));
  if (!newest) return;
  byId("result", HTMLElement).hidden = false;
  byId("duration", HTMLElement).textContent = formatDuration(newest.duration_ms);
  download.href = newest.url;
  download.download = newest.file;
  Object.assign(download.dataset, { bytes: newest.bytes, durationMs: newest.duration_ms });
  byId("download-facts", HTMLElement).textContent =
    `${newest.file} · ${formatBytes(newest.bytes)} · ${formatDuration(newest.duration_ms)}`;
  download.focus({ preventScroll: true });
}

function end() {
  if (!stream) return;
  stop.disabled = true;
  since = null;
  showStatus(String(stream.status()), "Finishing the file…");
  stream.stop().catch(() => {}); // FAILED tells
}

/** A phone that goes to sleep stops its camera. Where it isn't supported, the screen may go dark. */
async function keepAwake() {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  const ended = () => lock?.release().catch(() => {});
  stream?.on(STREAM_STATUS.UNPUBLISHED, ended).on(STREAM_STATUS.FAILED, ended);
}

async function openPreview() {
  showError(null);
  await openMedia().catch((error) => {
    if (stream) showWarning("The device can't be used.", /** @type {Error} */ (error).message);
    else showError(error);
  });
}

/** Whether the camera may be shown without asking: asking at once, unexpected, gets a No. */
async function isAllowed() {
  const names = /** @type {PermissionName[]} */ (page.silent ? ["camera"] : ["camera", "microphone"]);
  const states = await Promise.all(names.map((permission) => navigator.permissions.query({ name: permission })));
  return states.every(({ state }) => state === "granted");
}

function bindControls() {
  setInterval(() => {
    if (since !== null) byId("duration", HTMLElement).textContent = formatDuration(performance.now() - since);
  }, 250);
  setInterval(async () => {
    const { bitrate, framesPerSecond } = (since !== null && (await stream?.stats())) || { bitrate: 0, framesPerSecond: 0 };
    if (!bitrate || since === null) return;
    byId("rate", HTMLElement).textContent = page.silent ? `${framesPerSecond.toFixed(1)} fps` : formatBitrate(bitrate);
  }, 1000);
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && since !== null) keepAwake(); // browsers take the lock from a hidden page
  });
  addEventListener("beforeunload", (event) => {
    if (stream) event.preventDefault(); // until its file is sealed: bytes may be unsent
  });
  byId("form", HTMLFormElement).addEventListener("submit", (event) => {
    event.preventDefault();
    if (!start.disabled) record();
  });
  stop.addEventListener("click", end);
  turnOn.addEventListener("click", openPreview);
  for (const id of ["camera", "microphone"]) {
    byId(id, HTMLSelectElement).addEventListener("change", () => request && openPreview()); // not before the first permission
  }
  navigator.mediaDevices?.addEventListener("devicechange", () => devices.refresh());
}

/** Brings the page to life. @param {Page} own */
export async function openRecorder(own) {
  page = own;
  if (page.silent) turnOn.textContent = "Turn on camera";
  bindControls();
  await devices.refresh();
  if (!window.isSecureContext || !navigator.mediaDevices) {
    byId("localhost", HTMLElement).textContent = `http://localhost${location.port && `:${location.port}`}${location.pathname}`;
    byId("insecure", HTMLElement).hidden = false;
    start.disabled = turnOn.disabled = true;
  } else if (page.autostart) {
    await record();
  } else {
    const allowed = await isAllowed().catch(() => false);
    if (allowed && !request) await openPreview(); // unless Start was quicker: a second request would overtake it
  }
}
