// What the pages that record share: devices, preview, Start and Stop, how it goes, the file.

import { token } from "./access.js";
import { capture, show } from "./client/capture.js";
import { Devices } from "./devices.js";
import { LevelMeter } from "./meter.js";
import { createSession, OnrecordError, STREAM_STATUS } from "./onrecord.js";
import { byId, el, formatBitrate, formatBytes, formatDuration, tell } from "./ui.js";

/** @typedef {import("./onrecord.js").Stream} Stream */
/** @typedef {import("./client/model.js").StreamOptions} StreamOptions */

/**
 * What is the page's own.
 * @typedef {object} Page
 * @property {() => StreamOptions | null} options  Of the stream to be; null if something is missing yet.
 * @property {HTMLElement[]} fields  What can't be changed while a stream is under way.
 */

/** How people call the ways. @type {Record<string, string>} */
const WAYS = {
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
let lacks = "";

/**
 * Turns on what is chosen and shows it.
 * @returns {Promise<MediaStream | null>}  Null if a newer request overtook this one.
 */
async function openMedia() {
  const mine = ++request;
  const constraints = devices.constraints();
  if (!stream) closeMedia();
  if (!constraints) throw new OnrecordError("no_device", "Choose a camera or a microphone: one of them is needed.");
  const asking = setTimeout(() => stream || say("", "Answer the browser's question: allow camera and microphone."), 800);
  let fresh;
  try {
    fresh = await capture({ name: "", constraints });
  } catch (error) {
    const { code } = /** @type {OnrecordError} */ (error);
    // A device kept from an earlier visit may be unplugged by now, and phones open one camera at a time.
    if (code !== "overconstrained" && !(stream && code === "device_busy")) throw error;
    if (stream) media?.getTracks().forEach((track) => track.stop());
    fresh = await capture({ name: "", constraints: (code === "overconstrained" && devices.constraints(false)) || constraints });
  } finally {
    clearTimeout(asking);
    if (!stream) say("", "");
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
  show(preview, fresh);
  meter.show(fresh);
  drawStage();
  await devices.refresh(); // names are known now
  if (mine === request) devices.settle(fresh);
  return fresh;
}

function closeMedia() {
  media?.getTracks().forEach((track) => track.stop());
  media = preview.srcObject = null;
  meter.show(null);
  drawStage();
}

function drawStage() {
  const picture = (media?.getVideoTracks().length ?? 0) > 0;
  byId("placeholder", HTMLElement).hidden = picture;
  byId("placeholder-text", HTMLElement).textContent = media ? "No camera: only sound is recorded." : "The camera is off.";
  turnOn.hidden = media !== null;
}

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

/** @param {unknown} error  What went wrong, or null if nothing is. */
function complain(error) {
  if (!error) return tell(errorBox, null);
  const known = error instanceof OnrecordError ? error : new OnrecordError("failed", String(error));
  errorBox.classList.remove("mild");
  errorBox.dataset.code = known.code;
  tell(errorBox, stream ? "The recording failed." : "Camera and microphone can't be used.", known.message);
}

/** What the library warns of, in words. @type {Record<string, string>} */
const WARNINGS = {
  slow_network: "The network is slow.",
  sealing: "The server's disk refuses to finish the file.",
};

/** @param {string} title @param {string} text */
function warn(title, text) {
  tell(errorBox, title, text);
  errorBox.classList.add("mild");
}

/** @param {boolean} busy */
function lock(busy) {
  start.disabled = turnOn.disabled = busy;
  for (const field of page.fields) field.toggleAttribute("disabled", busy);
  stop.disabled = !busy;
}

/** Start. */
async function record() {
  const options = page.options();
  if (!options) return;
  complain(null);
  byId("result", HTMLElement).hidden = true;
  byId("duration", HTMLElement).textContent = formatDuration(0);
  byId("way", HTMLElement).textContent = byId("traffic", HTMLElement).textContent = "";
  lock(true);
  stop.disabled = true; // until there is something to stop
  try {
    if (!media || media.getTracks().some(({ readyState }) => readyState === "ended")) media = await openMedia();
    if (media) publish({ ...options, mediaStream: media });
    else lock(false);
  } catch (error) {
    lock(false);
    complain(error);
  }
}

/** @param {StreamOptions} options */
function publish(options) {
  const session = createSession({ token });
  const made = session.createStream(options);
  stream = made;
  lacks = "";
  follow(made);
  session
    .on("reconnecting", () => made.signalled && say(String(made.status()), "The server doesn't answer; trying again. Recording goes on as long as it receives you."))
    .on("reconnected", () => made.status() === STREAM_STATUS.PUBLISHING && recording(made));
  lock(true);
  made.publish().catch(() => {}); // FAILED tells
  made.on(STREAM_STATUS.UNPUBLISHED, () => session.disconnect()).on(STREAM_STATUS.FAILED, () => session.disconnect());
}

/** @param {Stream} made */
function recording(made) {
  if (made.status() === STREAM_STATUS.PUBLISHING) say("PUBLISHING", lacks || `Recording “${made.name()}”.`);
}

/** Says what a stream tells. @param {Stream} made */
function follow(made) {
  made
    .on(STREAM_STATUS.PENDING, () => say("PENDING", "Connecting to the server…"))
    .on(STREAM_STATUS.PUBLISHING, () => {
      since ??= performance.now();
      recording(made);
      keepAwake();
    })
    .on(STREAM_STATUS.UNPUBLISHED, () => {
      say("UNPUBLISHED", made.getRecordInfo() ? "Recorded." : "Stopped; nothing was recorded.");
      const why = ENDED_BY_SERVER[made.getEndReason() ?? ""];
      if (why) warn("The server ended the recording.", why);
      finished(made);
    })
    .on(STREAM_STATUS.FAILED, () => {
      say("FAILED", "");
      complain(made.getError());
      finished(made);
    })
    .on("mode", (_, { mode, reason }) => {
      byId("way", HTMLElement).dataset.mode = mode;
      byId("way", HTMLElement).textContent = `By ${WAYS[mode] ?? mode}. ${reason}`;
    })
    .on("progress", (_, { acked, unsent }) => {
      byId("traffic", HTMLElement).textContent = `${formatBytes(acked)} sent, ${formatBytes(unsent)} to go`;
      Object.assign(byId("traffic", HTMLElement).dataset, { acked, unsent });
    })
    .on("reconnecting", () => say(String(made.status()), "The network is interrupted; trying again…"))
    .on("reconnected", () => recording(made))
    .on("restarted", (_, { lost_ms }) => warn("The recording was interrupted.", `About ${seconds(lost_ms)} are missing. It goes on in a new file.`))
    .on("paused", (_, { bytes }) => warn("The network is too slow: recording waits.", `${formatBytes(bytes)} are held in this page. It goes on when they are sent.`))
    .on("resumed", (_, { lost_ms }) => warn("Recording goes on.", `About ${seconds(lost_ms)} are missing: the network was too slow.`))
    .on("warning", (_, { code, message }) => WARNINGS[code] && warn(WARNINGS[code], message))
    .on("lacks", (_, { sentence }) => {
      lacks = sentence;
      if (lacks || made.status() !== STREAM_STATUS.PUBLISHING) say(String(made.status()), lacks);
      else recording(made);
    })
    .on("trackended", (_, { kind }) => warn(kind === "video" ? "The camera is gone." : "The microphone is gone.", "The rest goes on being recorded."));
}

/** @param {number} ms */
const seconds = (ms) => `${Math.ceil(ms / 1000)} s`;

/** @param {Stream} ended */
function finished(ended) {
  stream = since = null;
  lock(false);
  byId("bitrate", HTMLElement).textContent = "";
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
  say(String(stream.status()), "Finishing the file…");
  stream.stop().catch(() => {}); // FAILED tells
}

/** A phone that goes to sleep stops its camera. Where it isn't supported, the screen may go dark. */
async function keepAwake() {
  const lock = await navigator.wakeLock?.request("screen").catch(() => null);
  const ended = () => lock?.release().catch(() => {});
  stream?.on(STREAM_STATUS.UNPUBLISHED, ended).on(STREAM_STATUS.FAILED, ended);
}

async function look() {
  complain(null);
  await openMedia().catch((error) => {
    if (stream) warn("The device can't be used.", /** @type {Error} */ (error).message);
    else complain(error);
  });
}

/** Whether the camera may be shown without asking: asking at once, unexpected, gets a No. */
async function isAllowed() {
  const names = /** @type {PermissionName[]} */ (["camera", "microphone"]);
  const states = await Promise.all(names.map((permission) => navigator.permissions.query({ name: permission })));
  return states.every(({ state }) => state === "granted");
}

function listen() {
  setInterval(() => {
    if (since !== null) byId("duration", HTMLElement).textContent = formatDuration(performance.now() - since);
  }, 250);
  setInterval(async () => {
    const { bitrate } = (since !== null && (await stream?.stats())) || { bitrate: 0 };
    if (bitrate && since !== null) byId("bitrate", HTMLElement).textContent = formatBitrate(bitrate);
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
  turnOn.addEventListener("click", look);
  for (const id of ["camera", "microphone"]) {
    byId(id, HTMLSelectElement).addEventListener("change", () => request && look()); // not before the first permission
  }
  navigator.mediaDevices?.addEventListener("devicechange", () => devices.refresh());
}

/**
 * Brings the page to life.
 * @param {Page} own
 * @param {boolean} autostart  Starts as soon as the camera is granted.
 */
export async function openStudio(own, autostart) {
  page = own;
  listen();
  await devices.refresh();
  if (!window.isSecureContext || !navigator.mediaDevices) {
    byId("localhost", HTMLElement).textContent = `http://localhost${location.port && `:${location.port}`}${location.pathname}`;
    byId("insecure", HTMLElement).hidden = false;
    start.disabled = turnOn.disabled = true;
  } else if (autostart) {
    await record();
  } else {
    const allowed = await isAllowed().catch(() => false);
    if (allowed && !request) await look(); // unless Start was quicker: a second request would overtake it
  }
}
