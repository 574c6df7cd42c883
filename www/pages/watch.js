// The page “Watch”: a stream while it happens, in the best form this browser plays.

import { address, addressWithToken, protocols } from "./access.js";
import { viewJpeg } from "./jpeg-view.js";
import { byId } from "./ui.js";
import { canPlay, Player } from "./player.js";

/** Pauses before another try, in ms: the first, and the most they grow to. */
const RETRY_MS = { first: 400, most: 5000 };
/** A stream that sends nothing for this long is interrupted; a socket that does is dead. In ms. */
const SILENT_MS = 3000;
const DEAD_MS = 30_000;
const NOTE_MS = 5000;

/** Tones and words of the states. @type {Record<string, [tone: string, word: string, text: string]>} */
const STATES = {
  loading: ["", "Loading", "Loading…"],
  waiting: ["warn", "Waiting", "Nobody publishes this stream at the moment. It begins here by itself."],
  interrupted: ["warn", "Interrupted", "Nothing comes from the publisher. It goes on here by itself."],
  live: ["live", "Live", ""],
  ended: ["", "Ended", "The stream has ended. If it begins again, it goes on here by itself."],
  full: ["warn", "Full", "The server has no place for another viewer at the moment. This page keeps trying."],
  offline: ["bad", "Offline", "The server can't be reached. This page goes on by itself when it is back."],
};

const segment = location.pathname.replace(/\/+$/, "").split("/").pop() ?? "";
const name = decode(segment);
const video = byId("video", HTMLVideoElement);
const picture = byId("picture", HTMLImageElement);
const mute = byId("mute", HTMLButtonElement);
const full = byId("full", HTMLButtonElement);
const play = byId("play", HTMLButtonElement);
const stage = byId("stage", HTMLElement);
const player = new Player(video, byId("poster", HTMLCanvasElement), restart);

/** @type {WebSocket | null} */
let socket = null;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let retry;
/** @type {ReturnType<typeof setTimeout> | undefined} */
let noteTimer;
let pause = RETRY_MS.first;
let heardAt = 0;
let state = "loading";
/** How it is shown: by `player`, as a file, or as single pictures. @type {"stream" | "file" | "pictures"} */
let form = "stream";
/** Ends the view of single pictures. */
let endPictures = () => {};

/** @param {string} text */
function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** @param {string} next */
function enter(next) {
  if (state === next) return;
  state = next;
  const [tone, word, text] = STATES[next];
  const badge = byId("state", HTMLElement);
  badge.dataset.tone = tone;
  badge.dataset.state = next;
  badge.textContent = word;
  byId("overlay-text", HTMLElement).textContent = text;
  if (next !== "live") player.freeze();
  draw();
}

function draw() {
  const blocked = state === "live" && !play.hidden;
  byId("overlay", HTMLElement).hidden = state === "live" && !blocked;
  stage.classList.toggle("dim", state !== "live");
  const sound = form !== "pictures" && state === "live";
  mute.hidden = !sound;
  mute.textContent = video.muted ? "Sound on" : "Sound off";
  mute.setAttribute("aria-pressed", String(!video.muted));
  full.hidden = !document.fullscreenEnabled;
  picture.hidden = form !== "pictures" || state !== "live";
  video.hidden = form === "pictures";
}

/** Says something for a while. @param {string} text */
function note(text) {
  clearTimeout(noteTimer);
  byId("note", HTMLElement).textContent = text;
  if (text) noteTimer = setTimeout(note, NOTE_MS, "");
}

function open() {
  clearTimeout(retry);
  const url = address(`live/${segment}`);
  url.protocol = url.protocol.replace("http", "ws");
  const mine = (socket = new WebSocket(url, protocols));
  mine.binaryType = "arraybuffer";
  heardAt = performance.now();
  mine.addEventListener("message", ({ data }) => {
    if (mine !== socket) return;
    heardAt = performance.now();
    if (typeof data === "string") receive(JSON.parse(data));
    else if (form === "stream") {
      player.append(data);
      enter("live");
    }
  });
  mine.addEventListener("close", ({ code }) => mine === socket && closed(code));
}

/** @param {{type: string, mime?: string, frames?: number, reason?: string}} message */
function receive({ type, mime = "", frames = 0, reason }) {
  if (type === "init") {
    pause = RETRY_MS.first;
    if (canPlay(mime)) {
      form = "stream";
      player.begin(mime);
      start();
    } else playOtherwise(mime.includes("mjpeg") ? "pictures" : "file");
  } else if (type === "skipped") note(`${frames} frames skipped: the connection is too slow.`);
  else if (type === "end") {
    enter("ended");
    byId("state", HTMLElement).dataset.reason = reason;
  }
}

/** What this browser can't play as a stream of clusters. @param {"file" | "pictures"} next */
function playOtherwise(next) {
  form = next;
  const old = socket;
  socket = null;
  old?.close();
  player.clear();
  if (next === "pictures") {
    endPictures = viewJpeg(picture, name, (view) => {
      if (view === "live") enter("live");
      else if (view === "away") reopen();
    });
  } else {
    video.src = addressWithToken(`live/${segment}.webm`);
    start();
  }
  draw();
}

video.addEventListener("playing", () => form === "file" && enter("live"));
for (const event of ["ended", "error"]) video.addEventListener(event, () => form === "file" && reopen());
video.addEventListener("error", () => form === "stream" && video.error && restart(new Error(video.error.message)));

/** @param {number} code */
function closed(code) {
  socket = null;
  if (code === 4404) enter(state === "ended" || state === "live" ? "ended" : "waiting");
  else if (code === 4503) enter("full");
  else if (code === 4400) return badName();
  else if (state !== "ended") enter("offline");
  retryLater();
}

function badName() {
  enter("waiting");
  byId("overlay-text", HTMLElement).textContent = "There can be no stream of this name.";
}

/** Looks again, in growing pauses. */
function retryLater() {
  clearTimeout(retry);
  retry = setTimeout(open, pause * (0.8 + 0.4 * Math.random()));
  pause = Math.min(pause * 1.5, RETRY_MS.most);
}

/** A file or single pictures ended; the socket knows what is there now. */
function reopen() {
  if (form === "pictures") player.freeze(picture);
  endPictures();
  form = "stream";
  enter("ended");
  retryLater();
}

/** The player can't go on. @param {Error} error */
function restart(error) {
  note(`The player begins anew: ${error.message}.`);
  const old = socket;
  socket = null;
  old?.close();
  retryLater();
}

/** Browsers may refuse to play before the page was touched. */
function start() {
  video.play().then(
    () => blocked(false),
    (error) => error.name === "NotAllowedError" && blocked(true),
  );
}

/** @param {boolean} is */
function blocked(is) {
  play.hidden = !is;
  draw();
}

function toggleSound() {
  video.muted = !video.muted;
  start();
  draw();
}

async function toggleFull() {
  if (document.fullscreenElement) await document.exitFullscreen();
  else await stage.requestFullscreen();
}

play.addEventListener("click", start);
mute.addEventListener("click", toggleSound);
full.addEventListener("click", toggleFull);
stage.addEventListener("dblclick", () => document.fullscreenEnabled && toggleFull());
document.addEventListener("keydown", ({ key, ctrlKey, metaKey, altKey }) => {
  if (ctrlKey || metaKey || altKey) return;
  if (key === "m" && !mute.hidden) toggleSound();
  if (key === "f" && !full.hidden) toggleFull();
});
// A page that comes back to the front, or a network that does, looks at once.
const wakeUp = () => {
  if (document.hidden || socket || form !== "stream") return;
  pause = RETRY_MS.first;
  open();
};
document.addEventListener("visibilitychange", wakeUp);
addEventListener("online", wakeUp);

setInterval(() => {
  const silence = performance.now() - heardAt;
  if (socket && form === "stream" && state === "live" && silence > SILENT_MS) enter("interrupted");
  // The server says something every 15 s at the least, though not to us: nothing at all for long is suspicious.
  if (socket?.readyState === WebSocket.OPEN && silence > DEAD_MS) socket.close();
  const shown = form === "stream" && state === "live" && video.readyState > 2;
  byId("delay", HTMLElement).textContent = shown ? `${Math.max(player.delay, 0).toFixed(1)} s behind` : "";
}, 500);

byId("name", HTMLElement).textContent = name;
document.title = `${name} · onrecord`;
draw();
open();
