// The last way, which every proxy lets through: single JPEG pictures, each a POST. No sound.

import { LOOK_MS, liveStream, sealedRecording } from "./catalogue.js";
import { JpegUploader, UploadError, pulse } from "./jpeg.js";
import { OnrecordError, RecordInfo, STREAM_STATUS, pause } from "./model.js";
import { Timers } from "./waiting.js";
import { GIVE_UP, GIVE_UP_START, STOP_DEADLINE, UNWANTED, Way, unreachable, unsealed } from "./way.js";

/** @typedef {import("./jpeg.js").LastStatus} LastStatus */

const FPS = 10;
const QUALITY = 0.8;
/** After these the next picture may pass. */
const PASSING = ["offline", "rate_limited", "limit_reached", "http_502", "http_503", "http_504"];

export class Mjpeg extends Way {
  #video = document.createElement("video");
  /** @type {JpegUploader | null} */
  #uploader = null;
  #still = () => {};
  #timers = new Timers();
  #closed = false;
  #attempt = 0;
  /** When pictures stopped to arrive. @type {number | null} */
  #lostAt = null;

  /** @override */
  static lacks() {
    if (globalThis.HTMLCanvasElement) return null;
    return new OnrecordError("no_canvas", "This browser can't make JPEG pictures. Use a newer one.");
  }

  /** @override */
  start() {
    const { host } = this;
    if (!this.media.getVideoTracks().length) return this.#fail(new OnrecordError("no_device", "JPEG pictures need a camera."));
    if (!host.name()) host.named(`${host.options.namePrefix}-${random(6)}`);
    const url = host.session.address(`upload/${encodeURIComponent(host.name())}`);
    const { quality = QUALITY, fps = FPS } = host.options;
    this.#timers.after("start", GIVE_UP_START, () => !host.publishing() && this.#fail(unreachable()));
    this.replaceMedia(this.media);
    this.#uploader = new JpegUploader({ url, video: this.#video, quality, resume: host.resume, headers: () => host.session.headers() });
    this.#still = pulse(fps, () => this.#tick());
  }

  /** @override */
  stop() {
    this.stopping = true;
    this.#still();
    this.#timers.after("stop", STOP_DEADLINE, () => this.#fail(unreachable()));
    this.#finish().catch((error) => this.#fail(error));
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
    this.#closed = true;
    this.#still();
    this.#timers.clear();
    this.#video.srcObject = null;
  }

  /** @override */
  async counters() {
    return { ...(await super.counters()), bytes: this.#uploader?.counts.bytes ?? 0, framesPerSecond: this.host.options.fps ?? FPS };
  }

  async #tick() {
    const uploader = this.#uploader;
    if (!uploader || this.#closed || this.stopping || this.#timers.has("pause")) return;
    try {
      if (await uploader.tick()) this.#arrived(uploader);
    } catch (error) {
      if (!this.#closed && !this.stopping) await this.#refused(uploader, /** @type {Error} */ (error));
    }
  }

  /** @param {JpegUploader} uploader */
  #arrived(uploader) {
    const { host } = this;
    if (this.#closed) return;
    host.resume = uploader.resume;
    this.#attempt = 0;
    if (this.#lostAt !== null && host.publishing()) host.emit("reconnected");
    this.#lostAt = null;
    if (!host.publishing() && !this.#timers.has("follow")) this.#timers.after("follow", 0, () => this.#follow());
  }

  /** Learns from the API that the pictures are recorded. */
  async #follow() {
    const { host } = this;
    const live = await liveStream(host.session, host.name());
    if (this.#closed || this.stopping || host.publishing()) return;
    if (live?.status === STREAM_STATUS.PUBLISHING) host.began();
    else this.#timers.after("follow", LOOK_MS, () => this.#follow());
  }

  /**
   * A picture didn't get through.
   * @param {JpegUploader} uploader
   * @param {Error} error
   */
  async #refused(uploader, error) {
    const { host } = this;
    const code = error instanceof UploadError ? error.code : "failed";
    if (code === "resume_expired") return this.#overtaken(uploader);
    if (!PASSING.includes(code)) return this.#fail(new OnrecordError(code, error.message));
    this.#lostAt ??= performance.now();
    if (performance.now() - this.#lostAt > GIVE_UP) return this.#fail(unreachable());
    if (host.publishing()) host.emit("reconnecting", { attempt: ++this.#attempt });
    this.#timers.after("pause", pause(this.#attempt), () => {});
  }

  /**
   * The stream is over on the server. After silence or a restart it goes on in a new recording; whoever
   * ended it meant it.
   * @param {JpegUploader} uploader
   */
  async #overtaken(uploader) {
    const { host } = this;
    this.#timers.after("pause", STOP_DEADLINE, () => {});
    const last = await uploader.ask().catch(() => null);
    if (this.#closed) return;
    if (last?.reason === "sealing") return this.#sealing(last, await liveStream(host.session, host.name()));
    const reason = last?.reason ?? "server_crashed";
    const info = this.#info(last);
    if (!UNWANTED.includes(reason)) return host.ended(info, reason);
    if (host.publishing()) host.interrupt(reason, info, this.#lostAt ?? performance.now());
    host.resume = undefined;
    uploader.restart();
    this.#timers.cancel("pause");
  }

  async #finish() {
    const { host } = this;
    const live = await liveStream(host.session, host.name());
    const last = (await this.#uploader?.end()) ?? null;
    if (this.#closed) return;
    if (last?.status === STREAM_STATUS.FAILED) this.#fail(new OnrecordError(last.reason ?? "failed", last.message ?? "Nothing was recorded."));
    else if (!last || last.status === STREAM_STATUS.UNPUBLISHED) host.ended(this.#info(last), last?.reason ?? "stopped");
    else if (last.reason === "sealing") await this.#sealing(last, live);
    else if (live?.recording) await this.#sealed(live.recording); // sealing takes longer than the server lets a request wait
    else host.ended(null, "stopped");
  }

  /**
   * The recording is over, and the server's disk refuses to finish it.
   * @param {LastStatus} last
   * @param {{recording: string | null} | null} live
   */
  async #sealing({ message = "" }, live) {
    if (this.#closed) return;
    this.stopping = true;
    this.#still();
    this.#timers.after("stop", GIVE_UP, () => this.#fail(unreachable()));
    this.host.emit("warning", unsealed(message));
    if (live?.recording) await this.#sealed(live.recording);
  }

  /** @param {string} id */
  async #sealed(id) {
    const sealed = await sealedRecording(this.host.session, id);
    if (this.#closed) return;
    if (sealed) this.host.ended(sealed.info, sealed.end_reason);
    else this.#timers.after("sealed", LOOK_MS, () => this.#sealed(id));
  }

  /** @param {LastStatus | null} last */
  #info(last) {
    return last?.recording ? new RecordInfo(last.recording, this.host.session.address("")) : null;
  }

  /** @param {Error} error */
  #fail(error) {
    if (!this.#closed) this.host.failed(error instanceof OnrecordError ? error : unreachable());
  }
}

/** @param {number} length */
function random(length) {
  const letters = "abcdefghijklmnopqrstuvwxyz0123456789";
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % letters.length]).join("");
}
