// The last way, which every proxy lets through: single JPEG pictures, each a POST. No sound.

import { LOOK_MS, liveStream, refusal, sealedRecording } from "./catalogue.js";
import { OnrecordError, RecordInfo, STREAM_STATUS, pause } from "./model.js";
import { Timers } from "./waiting.js";
import { GIVE_UP, GIVE_UP_START, STOP_DEADLINE, Way, unreachable } from "./way.js";

/** A picture that takes longer is given up: a newer one is worth more. */
const POST_DEADLINE = 10_000;
const FPS = 10;
const QUALITY = 0.8;
/** The header that carries the secret, both ways. */
const RESUME = "Onrecord-Resume";
/** After these the next picture may pass. */
const PASSING = ["rate_limited", "limit_reached"];

export class Mjpeg extends Way {
  #video = document.createElement("video");
  #canvas = document.createElement("canvas");
  #timers = new Timers();
  #closed = false;
  #bytes = 0;
  #pictures = 0;
  #attempt = 0;
  /** When pictures stopped to arrive. @type {number | null} */
  #lostAt = null;
  /** @type {string | null} */
  #recording = null;
  /** The picture under way: one at a time, so that none is queued. @type {Promise<void> | null} */
  #posting = null;

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
    this.#timers.after("start", GIVE_UP_START, () => !host.publishing() && this.#fail(unreachable()));
    this.replaceMedia(this.media);
    this.#tick(performance.now());
  }

  /** @override */
  stop() {
    this.stopping = true;
    if (!this.#pictures && !this.#posting) return this.host.ended(null);
    this.#timers.cancel("tick");
    this.#timers.after("stop", STOP_DEADLINE, () => this.#fail(unreachable()));
    (this.#posting ?? Promise.resolve()).then(() => this.#finish()).catch((error) => this.#fail(error));
  }

  /** @override */
  leave() {
    this.stopping = true;
    this.#delete().catch(() => {});
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
    this.#timers.clear();
    this.#video.srcObject = null;
  }

  /** @override */
  async counters() {
    return { ...(await super.counters()), bytes: this.#bytes, framesPerSecond: this.host.options.fps ?? FPS };
  }

  /** Takes a picture, if the one before is through; what comes too often is dropped. @param {number} due */
  #tick(due) {
    const now = performance.now();
    const next = Math.max(due + 1000 / (this.host.options.fps ?? FPS), now);
    this.#timers.after("tick", next - now, () => this.#tick(next));
    if (this.#posting || this.#timers.has("pause")) return;
    this.#posting = this.#picture()
      .catch((error) => this.#failed(error))
      .finally(() => { this.#posting = null; });
  }

  async #picture() {
    const { videoWidth: width, videoHeight: height } = this.#video;
    if (!width || !height) return; // the camera wakes up
    if (this.#canvas.width !== width || this.#canvas.height !== height) Object.assign(this.#canvas, { width, height });
    this.#canvas.getContext("2d")?.drawImage(this.#video, 0, 0);
    /** @type {Blob | null} */
    const blob = await new Promise((resolve) => this.#canvas.toBlob(resolve, "image/jpeg", this.host.options.quality ?? QUALITY));
    if (!blob || this.#closed || this.stopping) return;
    const response = await fetch(this.#url, {
      method: "POST",
      headers: { "Content-Type": "image/jpeg", ...this.#resume },
      body: blob,
      signal: AbortSignal.timeout(POST_DEADLINE),
    });
    if (this.#closed) return;
    if (!response.ok) throw await refusal(response);
    this.host.resume = response.headers.get(RESUME) ?? this.host.resume;
    this.#bytes += blob.size;
    this.#arrived();
  }

  #arrived() {
    const { host } = this;
    const first = this.#pictures === 0;
    this.#pictures += 1;
    this.#attempt = 0;
    if (this.#lostAt !== null && !host.interrupted()) host.emit("reconnected");
    this.#lostAt = null;
    if (first || host.interrupted()) this.#follow();
  }

  /** Learns from the API that it is recorded, and to what. */
  async #follow() {
    const { host } = this;
    const live = await liveStream(host.session, host.name());
    if (this.#closed || this.stopping) return;
    if (live?.status === STREAM_STATUS.PUBLISHING) {
      this.#recording = live.recording;
      if (!host.publishing()) host.began();
    } else {
      this.#timers.after("follow", LOOK_MS, () => this.#follow());
    }
  }

  /** A picture didn't arrive. @param {unknown} error */
  async #failed(error) {
    if (this.#closed || this.stopping) return;
    const { host } = this;
    if (error instanceof OnrecordError && error.code === "resume_expired") return this.#startAnew();
    if (error instanceof OnrecordError && !PASSING.includes(error.code) && !error.code.startsWith("http_5")) return this.#fail(error);
    this.#lostAt ??= performance.now();
    if (performance.now() - this.#lostAt > GIVE_UP) return this.#fail(unreachable());
    this.#attempt += 1;
    if (this.#pictures) host.emit("reconnecting", { attempt: this.#attempt });
    this.#timers.after("pause", pause(this.#attempt - 1), () => {});
  }

  /** The server has ended the recording, after a silence or a restart: the next picture begins a new one. */
  async #startAnew() {
    const { host } = this;
    const sealed = this.#recording ? await sealedRecording(host.session, this.#recording) : null;
    if (this.#closed) return;
    this.#recording = null;
    host.resume = undefined;
    if (this.#pictures) host.interrupt(sealed?.end_reason ?? "publisher_lost", sealed?.info ?? null, this.#lostAt ?? performance.now());
  }

  async #finish() {
    const { host } = this;
    this.#recording ??= (await liveStream(host.session, host.name()))?.recording ?? null;
    const response = await this.#delete();
    const { recording, status, reason } = (await response.json().catch(() => null)) ?? {};
    if (this.#closed) return;
    if (status === STREAM_STATUS.UNPUBLISHED) host.ended(recording ? new RecordInfo(recording, host.session.address("")) : null, reason);
    else await this.#sealed(); // sealing takes longer than the server lets a request wait
  }

  async #sealed() {
    if (this.#closed) return;
    if (!this.#recording) return this.host.ended(null);
    const sealed = await sealedRecording(this.host.session, this.#recording);
    if (sealed) this.host.ended(sealed.info, sealed.end_reason);
    else this.#timers.after("follow", LOOK_MS, () => this.#sealed());
  }

  get #url() {
    return this.host.session.address(`upload/${encodeURIComponent(this.host.name())}`);
  }

  /** @returns {Record<string, string>} */
  get #resume() {
    return this.host.resume ? { [RESUME]: this.host.resume } : {};
  }

  async #delete() {
    return fetch(this.#url, { method: "DELETE", headers: this.#resume, keepalive: true });
  }

  /** @param {Error} error */
  #fail(error) {
    if (!this.#closed) this.host.failed(error instanceof TypeError ? unreachable() : error);
  }
}

/** @param {number} length */
function random(length) {
  const letters = "abcdefghijklmnopqrstuvwxyz0123456789";
  return Array.from(crypto.getRandomValues(new Uint8Array(length)), (byte) => letters[byte % letters.length]).join("");
}
