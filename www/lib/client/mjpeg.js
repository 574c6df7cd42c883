// The last transport, which every proxy lets through: single JPEG pictures, each a POST. No sound.

import { POLL_MS, liveStream, sealedRecording } from "./api.js";
import { JpegUploader, startTicking } from "./jpeg-uploader.js";
import { OnrecordError, RecordInfo, STREAM_STATUS, backoff } from "./model.js";
import { RECONNECT_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT, Transport, UNINTENDED_ENDS, unreachable, unsealed } from "./transport.js";

/** @typedef {import("./jpeg-uploader.js").LastStatus} LastStatus */

const FPS = 10;
const QUALITY = 0.8;
/** Pictures are counted over so many milliseconds: a slow camera has few a second. */
const RATE_WINDOW = 3000;
/** After these the next picture may pass. */
const TRANSIENT = ["offline", "rate_limited", "limit_reached", "http_502", "http_503", "http_504"];

export class Mjpeg extends Transport {
  #video = document.createElement("video");
  /** @type {JpegUploader | null} */
  #uploader = null;
  #stopTicking = () => {};
  #attempt = 0;
  /** When pictures stopped to arrive. @type {number | null} */
  #lostAt = null;
  /** When the newest pictures arrived, and the first. @type {number[]} */
  #arrivals = [];
  #firstAt = 0;

  /** @override */
  static unsupported() {
    if (globalThis.HTMLCanvasElement) return null;
    return new OnrecordError("no_canvas", "This browser can't make JPEG pictures. Use a newer one.");
  }

  /** @override */
  start() {
    const { context } = this;
    if (!this.media.getVideoTracks().length) return this.fail(new OnrecordError("no_device", "JPEG pictures need a camera."));
    if (!context.name()) context.named(`${context.options.namePrefix}-${random(6)}`);
    const url = context.session.address(`upload/${encodeURIComponent(context.name())}`);
    const { quality = QUALITY, fps = FPS, persistent } = context.options;
    if (!persistent) this.timers.after("start", START_TIMEOUT, () => !context.publishing() && this.fail(unreachable()));
    this.replaceMedia(this.media);
    this.#uploader = new JpegUploader({ url, video: this.#video, quality, resume: context.resume, headers: () => context.session.headers() });
    this.#stopTicking = startTicking(fps, () => this.#tick());
  }

  /** @override */
  stop() {
    this.stopping = true;
    this.#stopTicking();
    this.timers.after("stop", STOP_TIMEOUT, () => this.fail(unreachable()));
    this.#finish().catch((error) => this.fail(error));
  }

  /** @override */
  leave() {
    this.stopping = true;
    this.#uploader?.leave();
  }

  /** @override @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
    Object.assign(this.#video, { muted: true, playsInline: true, srcObject: media });
    this.#video.play().catch(() => {}); // a later one follows
  }

  /** @override */
  close() {
    super.close();
    this.#stopTicking();
    this.#video.srcObject = null;
  }

  /** @override */
  async counters() {
    const now = performance.now();
    this.#arrivals = this.#arrivals.filter((at) => at > now - RATE_WINDOW);
    const seconds = Math.min(RATE_WINDOW, now - this.#firstAt) / 1000;
    return { ...(await super.counters()), bytes: this.#uploader?.counts.bytes ?? 0, framesPerSecond: this.#arrivals.length / Math.max(seconds, 1) };
  }

  async #tick() {
    const uploader = this.#uploader;
    if (!uploader || this.closed || this.stopping || this.timers.has("pause")) return;
    try {
      if (await uploader.tick()) this.#arrived(uploader);
    } catch (error) {
      if (!this.closed && !this.stopping) await this.#refused(uploader, /** @type {Error} */ (error));
    }
  }

  /** @param {JpegUploader} uploader */
  #arrived(uploader) {
    const { context } = this;
    if (this.closed) return;
    context.resume = uploader.resume;
    this.#attempt = 0;
    this.#firstAt ||= performance.now();
    this.#arrivals.push(performance.now());
    if (this.#lostAt !== null && context.publishing()) context.emit("reconnected");
    this.#lostAt = null;
    this.#tellProgress();
    if (!context.publishing() && !this.timers.has("poll")) this.timers.after("poll", 0, () => this.#poll());
  }

  #tellProgress() {
    const { sent, dropped, bytes } = this.#uploader?.counts ?? { sent: 0, dropped: 0, bytes: 0 };
    this.context.emit("progress", { produced: bytes, acked: bytes, unsent: 0, sent, dropped });
  }

  /** Learns from the API that the pictures are recorded. */
  async #poll() {
    const { context } = this;
    const live = await liveStream(context.session, context.name());
    if (this.closed || this.stopping || context.publishing()) return;
    if (live?.status === STREAM_STATUS.PUBLISHING) context.began();
    else this.timers.after("poll", POLL_MS, () => this.#poll());
  }

  /**
   * A picture didn't get through.
   * @param {JpegUploader} uploader
   * @param {Error} error
   */
  async #refused(uploader, error) {
    const { context } = this;
    const code = error instanceof OnrecordError ? error.code : "failed";
    if (code === "resume_expired") return this.#expired(uploader);
    if (!TRANSIENT.includes(code)) return this.fail(new OnrecordError(code, error.message));
    this.#lostAt ??= performance.now();
    if (!context.options.persistent && performance.now() - this.#lostAt > RECONNECT_TIMEOUT) return this.fail(unreachable());
    if (context.publishing()) this.#attempt += 1;
    context.emit("reconnecting", { attempt: this.#attempt });
    this.timers.after("pause", backoff(context.options.persistent ? 0 : this.#attempt), () => {});
  }

  /**
   * The stream is over on the server. After silence or a restart it goes on in a new recording; any other
   * end was meant.
   * @param {JpegUploader} uploader
   */
  async #expired(uploader) {
    const { context } = this;
    this.timers.after("pause", STOP_TIMEOUT, () => {});
    const last = await uploader.lastStatus().catch(() => null);
    if (this.closed) return;
    if (last?.reason === "sealing") return this.#sealing(last, await liveStream(context.session, context.name()));
    const reason = last?.reason ?? "server_crashed";
    const info = this.#info(last);
    if (!UNINTENDED_ENDS.includes(reason)) return context.ended(info, reason);
    if (context.publishing()) context.interrupt(reason, info, this.#lostAt ?? performance.now());
    context.resume = undefined;
    uploader.resume = "";
    this.timers.cancel("pause");
  }

  async #finish() {
    const { context } = this;
    const live = await liveStream(context.session, context.name());
    const last = (await this.#uploader?.end()) ?? null;
    if (this.closed) return;
    this.#tellProgress(); // with the picture that was still on its way
    if (last?.status === STREAM_STATUS.FAILED) this.fail(new OnrecordError(last.reason ?? "failed", last.message ?? "Nothing was recorded."));
    else if (!last || last.status === STREAM_STATUS.UNPUBLISHED) context.ended(this.#info(last), last?.reason ?? "stopped");
    else if (last.reason === "sealing") await this.#sealing(last, live);
    else if (live?.recording) await this.#pollSealed(live.recording); // sealing takes longer than the server lets a request wait
    else context.ended(null, "stopped");
  }

  /**
   * The recording is over, and the server's disk refuses to finish it.
   * @param {LastStatus} last
   * @param {{recording: string | null} | null} live
   */
  async #sealing({ message = "" }, live) {
    if (this.closed) return;
    this.stopping = true;
    this.#stopTicking();
    this.timers.after("stop", RECONNECT_TIMEOUT, () => this.fail(unreachable()));
    this.context.emit("warning", unsealed(message));
    if (live?.recording) await this.#pollSealed(live.recording);
  }

  /** @param {string} id */
  async #pollSealed(id) {
    const sealed = await sealedRecording(this.context.session, id);
    if (this.closed) return;
    if (sealed) this.context.ended(sealed.info, sealed.end_reason);
    else this.timers.after("sealed", POLL_MS, () => this.#pollSealed(id));
  }

  /** @param {LastStatus | null} last */
  #info(last) {
    return last?.recording ? new RecordInfo(last.recording, this.context.session.address("")) : null;
  }

  /** @override @param {Error} error */
  fail(error) {
    super.fail(error instanceof OnrecordError && error.code !== "offline" ? error : unreachable());
  }
}

/** @param {number} length */
function random(length) {
  const letters = "abcdefghijklmnopqrstuvwxyz0123456789";
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % letters.length]).join("");
}
