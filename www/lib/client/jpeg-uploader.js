// Pictures of a camera as JPEG over plain HTTP: one POST a picture, at most one on its way.

import { refusal } from "./api.js";
import { OnrecordError } from "./model.js";

/** @typedef {{status: string, recording?: import("./model.js").RecordingFields, reason?: string, message?: string}} LastStatus */

const RESUME = "Onrecord-Resume";
const POST_TIMEOUT = 15_000;
const END_TIMEOUT = 20_000;

/**
 * Sends what a `<video>` shows. A picture that comes due while the one before is on its way is dropped:
 * a slow network makes fewer pictures, not late ones.
 */
export class JpegUploader {
  #url;
  #video;
  #canvas = document.createElement("canvas");
  #quality;
  #headers;
  /** What they were last: a page that is left has no time to ask. @type {Record<string, string>} */
  #lastHeaders = {};
  #busy = false;
  /** @type {Promise<void>} */
  #last = Promise.resolve();
  #abort = new AbortController();
  /** The publication's secret; empty before the first answer, and for a new publication. */
  resume;
  /** Pictures that the server has, pictures dropped, and the bytes of those sent. */
  counts = { sent: 0, dropped: 0, bytes: 0 };

  /**
   * @param {object} options
   * @param {string} options.url  `/upload/{name}`.
   * @param {HTMLVideoElement} options.video
   * @param {number} options.quality  Of JPEG, 0 to 1.
   * @param {string} [options.resume]  The secret of a publication to go on with.
   * @param {() => Promise<Record<string, string>>} options.headers  Of every request beside its own.
   */
  constructor({ url, video, quality, resume = "", headers }) {
    this.#url = url;
    this.#video = video;
    this.#quality = quality;
    this.#headers = headers;
    this.resume = resume;
  }

  /**
   * Sends the picture of this moment, or drops it.
   * @returns {Promise<boolean>}  Whether the server has it.
   * @throws {OnrecordError}
   */
  async tick() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || this.#abort.signal.aborted) return false;
    if (this.#busy) {
      this.counts.dropped += 1;
      return false;
    }
    this.#busy = true;
    const sending = this.#send(width, height).finally(() => {
      this.#busy = false;
    });
    this.#last = sending.then(() => {}, () => {});
    return sending;
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  async #send(width, height) {
    const canvas = this.#canvas;
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { alpha: false })?.drawImage(this.#video, 0, 0, width, height);
    const picture = await new Promise((/** @type {(blob: Blob | null) => void} */ done) => canvas.toBlob(done, "image/jpeg", this.#quality));
    if (!picture) throw new OnrecordError("no_picture", "The browser makes no JPEG of the camera's picture.");
    const response = await this.#ask("POST", picture, POST_TIMEOUT);
    this.resume = response.headers.get(RESUME) ?? this.resume;
    this.counts.sent += 1;
    this.counts.bytes += picture.size;
    return true;
  }

  /**
   * Sends no more, and tells the server; gives what became of the stream. A stream that never had a
   * picture, or that the server has forgotten, has no status.
   * @returns {Promise<LastStatus | null>}
   * @throws {OnrecordError}
   */
  async end() {
    this.#abort.abort(); // no more ticks; the one on its way arrives
    await this.#last;
    return this.lastStatus();
  }

  /** The same while the uploader may go on. @returns {Promise<LastStatus | null>} */
  async lastStatus() {
    if (!this.resume) return null;
    try {
      const response = await this.#ask("DELETE", null, END_TIMEOUT);
      return await response.json();
    } catch (error) {
      if (error instanceof OnrecordError && error.code === "stream_not_found") return null;
      throw error;
    }
  }

  /** For a page that is left: the last word, without waiting for the answer. */
  leave() {
    this.#abort.abort();
    if (this.resume) fetch(this.#url, { method: "DELETE", headers: { ...this.#lastHeaders, [RESUME]: this.resume }, keepalive: true }).catch(() => {});
  }

  /**
   * @param {string} method
   * @param {Blob | null} body
   * @param {number} ms
   */
  async #ask(method, body, ms) {
    // The publication's secret is proof enough of the pictures that follow; after it is forgotten, by a
    // restart say, the token is asked for anew.
    const first = !this.resume;
    if (first) this.#lastHeaders = await this.#headers();
    let response = await this.#fetch(method, body, ms);
    if (response.status === 401 && !first) {
      this.#lastHeaders = await this.#headers();
      response = await this.#fetch(method, body, ms);
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /**
   * @param {string} method
   * @param {Blob | null} body
   * @param {number} ms
   */
  async #fetch(method, body, ms) {
    const headers = { ...this.#lastHeaders };
    if (body) headers["Content-Type"] = "image/jpeg";
    if (this.resume) headers[RESUME] = this.resume;
    try {
      return await fetch(this.#url, { method, headers, body, signal: AbortSignal.timeout(ms) });
    } catch {
      throw new OnrecordError("offline", "The server can't be reached; trying again.");
    }
  }
}

/**
 * Calls `task` so many times a second, in a hidden page too, where workers are allowed.
 * @param {number} fps
 * @param {() => void} task
 * @returns {() => void}  Ends it.
 */
export function startTicking(fps, task) {
  try {
    const worker = new Worker(new URL("ticker.js", import.meta.url));
    worker.onmessage = task;
    worker.postMessage(1000 / fps);
    return () => worker.terminate();
  } catch {
    // A page of another origin can't run our worker.
    const timer = setInterval(task, 1000 / fps);
    return () => clearInterval(timer);
  }
}
