// Small pictures of live streams. The server decodes nothing: a viewer is opened, and closed at its first
// picture. One at a time, only of cards that are seen, and none while the page is hidden.

import { address, addressWithToken, headers } from "./access.js";

const EVERY_MS = 15_000;
const POLL_MS = 500;
/** A stream's next keyframe is asked for, but a recorder in chunks makes one when it likes. */
const PATIENCE_MS = 15_000;

/**
 * @typedef {object} Frame
 * @property {string} stream
 * @property {boolean} jpeg
 * @property {HTMLCanvasElement} canvas
 * @property {boolean} live  Whether there are pictures.
 */

export class Thumbnails {
  /** When each was taken last. @type {Map<Frame, number>} */
  #taken = new Map();
  /** @type {WeakMap<Element, Frame>} */
  #frames = new WeakMap();
  /** @type {Set<Frame>} */
  #seen = new Set();
  #busy = false;
  #observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      const frame = this.#frames.get(target);
      if (!frame) continue;
      if (isIntersecting) this.#seen.add(frame);
      else this.#seen.delete(frame);
    }
    this.#next();
  });

  constructor() {
    setInterval(() => this.#next(), POLL_MS);
  }

  /** @param {Frame} frame */
  add(frame) {
    this.#frames.set(frame.canvas, frame);
    this.#taken.set(frame, -Infinity);
    this.#observer.observe(frame.canvas);
  }

  /** @param {Frame} frame */
  remove(frame) {
    this.#observer.unobserve(frame.canvas);
    this.#taken.delete(frame);
    this.#seen.delete(frame);
  }

  async #next() {
    if (this.#busy || document.hidden) return;
    const now = performance.now();
    const since = (/** @type {Frame} */ frame) => this.#taken.get(frame) ?? now;
    const due = [...this.#seen].filter((frame) => frame.live && now - since(frame) >= EVERY_MS);
    const frame = due.sort((a, b) => since(a) - since(b))[0];
    if (!frame) return;
    this.#busy = true;
    this.#taken.set(frame, now);
    await (frame.jpeg ? snapshot(frame) : firstPicture(frame)).catch(() => {}); // the one before stays
    this.#busy = false;
  }
}

/** @param {Frame} frame */
async function snapshot({ stream, canvas }) {
  const response = await fetch(address(`snapshot/${encodeURIComponent(stream)}.jpg`), { headers, signal: AbortSignal.timeout(PATIENCE_MS), cache: "no-store" });
  if (!response.ok) return;
  const picture = await createImageBitmap(await response.blob());
  draw(canvas, picture, picture.width, picture.height);
  picture.close();
}

/** @param {Frame} frame */
async function firstPicture({ stream, canvas }) {
  const video = document.createElement("video");
  video.muted = true;
  video.preload = "auto";
  video.src = addressWithToken(`live/${encodeURIComponent(stream)}.webm`);
  try {
    await new Promise((done, failed) => {
      video.addEventListener("loadeddata", done, { once: true });
      video.addEventListener("error", failed, { once: true });
      setTimeout(failed, PATIENCE_MS);
    });
    if (video.videoWidth) draw(canvas, video, video.videoWidth, video.videoHeight);
  } finally {
    video.removeAttribute("src");
    video.load(); // ends the viewer
  }
}

/**
 * The whole picture, in the middle.
 * @param {HTMLCanvasElement} canvas
 * @param {CanvasImageSource} picture
 * @param {number} width
 * @param {number} height
 */
function draw(canvas, picture, width, height) {
  const scale = Math.min(canvas.width / width, canvas.height / height);
  const [w, h] = [width * scale, height * scale];
  const context = canvas.getContext("2d");
  context?.clearRect(0, 0, canvas.width, canvas.height);
  context?.drawImage(picture, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
  canvas.dataset.taken = "true";
}
