// A stream: from the camera to a sealed recording, by the best transport there is.

import { captureMedia, release, showMedia } from "./capture.js";
import { Emitter } from "./emitter.js";
import { fallbacks, remaining } from "./fallback.js";
import { OnrecordError, STREAM_STATUS } from "./model.js";
import { deferred } from "./timers.js";

/**
 * @typedef {import("./fallback.js").Step} Step
 * @typedef {import("./model.js").RecordInfo} RecordInfo
 * @typedef {import("./model.js").ServerMessage} ServerMessage
 * @typedef {import("./model.js").StreamEvents} StreamEvents
 * @typedef {import("./model.js").StreamOptions} StreamOptions
 * @typedef {import("./model.js").StreamStatus} StreamStatus
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./transport.js").Transport} Transport
 * @typedef {import("./transport.js").TransportContext} TransportContext
 */

/**
 * One stream, published once.
 * @extends {Emitter<StreamStatus, StreamEvents>}
 */
export class Stream extends Emitter {
  #session;
  #options;
  /** The server's, if only a prefix is given. */
  #name;
  /** @type {MediaStream | null} */
  #media = null;
  /** The transports that are left. @type {Step[]} */
  #fallbacks = [];
  /** The transport in use. @type {Transport | null} */
  #transport = null;
  /** @type {import("./model.js").StreamMode | null} */
  #mode = null;
  /** What was wrong with the transports before. @type {string[]} */
  #reasons = [];
  /** @type {string | undefined} */
  #resume;
  /** @type {RecordInfo[]} */
  #recordings = [];
  /** @type {OnrecordError | null} */
  #error = null;
  /** @type {string | null} */
  #reason = null;
  /** @type {ReturnType<typeof deferred<Stream>> | undefined} */
  #published;
  #ended = /** @type {ReturnType<typeof deferred<RecordInfo | null>>} */ (deferred());
  #stopping = false;
  /** Set from an unintended end of a recording until the next one begins. @type {{reason: string, recording: RecordInfo | null, since: number} | null} */
  #interruption = null;
  #publishingSince = 0;
  #sample = { bytes: 0, at: 0 };

  /**
   * @param {Session} session
   * @param {StreamOptions} options
   */
  constructor(session, options) {
    super();
    const { name, namePrefix } = options ?? {};
    if (!name && !namePrefix) throw new TypeError("createStream needs a name: createStream({ name: \"interview\" })");
    this.#session = session;
    this.#options = options;
    this.#name = name ?? "";
  }

  /** The stream's name; empty as long as the server hasn't made one of `namePrefix`. */
  name() {
    return this.#name;
  }

  /** By which transport it publishes (`webrtc`, `whip`, `chunks` or `mjpeg`), and why; null before it tries any. */
  mode() {
    return this.#mode;
  }

  /** What would be lost if the page were left now: bytes that the server hasn't acknowledged. */
  get unsentBytes() {
    return this.#transport?.unsentBytes ?? 0;
  }

  /** Why it failed; null if it didn't. */
  getError() {
    return this.#error;
  }

  /** Why the server ended it: `stopped`, `disk_full`, `kicked`, …; null before, and if it didn't say. */
  getEndReason() {
    return this.#reason;
  }

  /** The newest sealed recording of this stream; null before, and with `record: false`. */
  getRecordInfo() {
    return this.#recordings.at(-1) ?? null;
  }

  /** All recordings of this stream: more than one if it was interrupted (see `restarted`). */
  getRecordInfos() {
    return [...this.#recordings];
  }

  /** The media that are sent. */
  getMediaStream() {
    return this.#media;
  }

  /**
   * Asks for camera and microphone and sends them. Resolves when the server records (PUBLISHING),
   * rejects with an `OnrecordError` if it comes to nothing; handlers of FAILED hear of it too.
   * @returns {Promise<Stream>}
   */
  publish() {
    if (!this.#published) {
      this.#published = deferred();
      this.enter(STREAM_STATUS.PENDING);
      this.#begin().catch((error) => this.#fail(error));
    }
    return this.#published.promise;
  }

  /**
   * Sends these media from now on, in the same recording: another camera, say. The page's own, as
   * with the option `mediaStream`.
   * @param {MediaStream} media
   */
  replaceMedia(media) {
    const before = this.#media;
    if (this.#over || !before) return;
    release(this.#options, before);
    this.#options = { ...this.#options, mediaStream: media };
    this.#show(media);
    this.#transport?.replaceMedia(media);
  }

  /**
   * Ends the stream. Resolves when the file is sealed (UNPUBLISHED) with what `getRecordInfo` gives.
   * @returns {Promise<RecordInfo | null>}
   */
  stop() {
    if (!this.#published || this.#over || this.#stopping) return this.#published ? this.#ended.promise : Promise.resolve(null);
    this.#stopping = true;
    if (this.#transport) this.#transport.stop();
    else this.#finish(STREAM_STATUS.UNPUBLISHED); // the server knows nothing of it yet
    return this.#ended.promise;
  }

  /** How it goes. @returns {Promise<import("./model.js").StreamStats>} */
  async stats() {
    const { bytes, ...counters } = (await this.#transport?.counters()) ?? {
      bytes: 0, framesPerSecond: 0, packetsLost: 0, roundTripTime: 0,
    };
    const at = performance.now();
    const { bytes: earlier, at: then } = this.#sample;
    // Less than before: a new connection counts from 0.
    const bitrate = then ? (Math.max(0, bytes - earlier) * 8000) / Math.max(1, at - then) : 0;
    this.#sample = { bytes, at };
    const seconds = this.#publishingSince ? (at - this.#publishingSince) / 1000 : 0;
    return { bitrate, ...counters, seconds };
  }

  /**
   * Whether it needs the session's socket.
   * @internal
   */
  get signalled() {
    return this.#transport?.signalled ?? this.#fallbacks[0]?.mode === "webrtc";
  }

  /**
   * The session's socket is open (again).
   * @internal
   */
  attach() {
    this.#transport?.attach();
  }

  /**
   * The session's socket is lost.
   * @internal
   */
  detach() {
    this.#transport?.detach();
  }

  /**
   * There is no hope for the session's socket any more.
   * @internal
   * @param {OnrecordError} error
   */
  abandon(error) {
    if (this.signalled) this.#fail(error);
  }

  /**
   * The session can't have a socket.
   * @internal
   */
  withoutSocket() {
    this.#transport?.withoutSocket();
  }

  /**
   * The page is being left; see `Session`.
   * @internal
   */
  leave() {
    if (!this.#stopping) this.#transport?.leave();
  }

  /**
   * @internal
   * @param {ServerMessage} message
   */
  receive(message) {
    this.#transport?.receive(message);
  }

  get #over() {
    return this.status() === STREAM_STATUS.UNPUBLISHED || this.status() === STREAM_STATUS.FAILED;
  }

  async #begin() {
    const { mode = "auto" } = this.#options;
    this.#fallbacks = fallbacks(mode);
    this.#session.add(this);
    const media = await captureMedia(this.#options);
    if (this.#over) return release(this.#options, media);
    this.#show(media);
    this.#step(mode === "auto" ? "It is the best way." : "It was asked for.");
  }

  /** @param {MediaStream} media */
  #show(media) {
    this.#media = media;
    for (const track of media.getTracks()) track.addEventListener("ended", () => this.#trackEnded(track, media));
    showMedia(this.#options.display, media);
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {MediaStream} media
   */
  #trackEnded(track, media) {
    if (this.#over || media !== this.#media) return;
    this.emit("trackended", { kind: track.kind });
    if (media.getTracks().every(({ readyState }) => readyState === "ended")) this.stop();
  }

  /**
   * Takes the next transport. The camera stays as it is.
   * @param {string} reason
   */
  #step(reason) {
    const step = this.#fallbacks.shift();
    if (!step || !this.#media) return;
    this.#sample = { bytes: 0, at: 0 };
    this.#mode = { mode: step.mode, reason };
    /** @type {Transport} */
    const transport = new step.Transport(this.#context(() => transport), this.#media);
    this.#transport = transport;
    this.emit("mode", this.#mode);
    transport.start();
  }

  /**
   * @param {() => Transport} transport
   * @returns {TransportContext}
   */
  #context(transport) {
    const stream = this;
    /** @template {any[]} A @param {(...args: A) => void} act @returns {(...args: A) => void} */
    const whileInUse = (act) => (...args) => {
      if (this.#transport === transport() && !this.#over) act(...args);
    };
    return {
      options: this.#options,
      session: this.#session,
      name: () => this.#name,
      get resume() {
        return stream.#resume;
      },
      set resume(secret) {
        stream.#resume = secret;
      },
      lastResort: () => !this.#fallbacks.some(({ path }) => !path),
      publishing: () => this.status() === STREAM_STATUS.PUBLISHING,
      interrupted: () => this.#interruption !== null,
      named: whileInUse((name) => { this.#name = name; }),
      began: whileInUse(() => this.#began()),
      interrupt: whileInUse((reason, recording, since) => this.#interrupt(reason, recording, since)),
      ended: whileInUse((recording, reason) => {
        if (recording) this.#recordings.push(recording);
        this.#reason = reason || null;
        this.#finish(STREAM_STATUS.UNPUBLISHED);
      }),
      failed: whileInUse((error) => this.#failed(error)),
      emit: (event, detail) => whileInUse(() => this.emit(event, detail))(),
    };
  }

  #began() {
    this.enter(STREAM_STATUS.PUBLISHING);
    this.#publishingSince ||= performance.now();
    this.#published?.resolve(this);
    if (!this.#interruption) return;
    const { reason, recording, since } = this.#interruption;
    this.#interruption = null;
    this.emit("restarted", { reason, recording, lost_ms: Math.round(performance.now() - since) });
  }

  /**
   * @param {string} reason
   * @param {RecordInfo | null} recording
   * @param {number} since
   */
  #interrupt(reason, recording, since) {
    if (recording) this.#recordings.push(recording);
    this.#interruption = { reason, recording, since };
    this.enter(STREAM_STATUS.PENDING);
    this.emit("reconnecting", { attempt: 0 });
  }

  /**
   * A transport comes to nothing. As long as nothing is recorded, there may be another.
   * @param {Error} error
   */
  #failed(error) {
    const known = error instanceof OnrecordError ? error : new OnrecordError("failed", error.message);
    this.#reasons.push(known.message);
    this.#fallbacks = remaining(this.#fallbacks, known);
    if (this.status() === STREAM_STATUS.PUBLISHING || this.#stopping || !this.#fallbacks.length) return this.#fail(known);
    this.#transport?.close();
    this.#transport = null;
    this.#step(known.message);
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.#over) return;
    const { code, message } = error instanceof OnrecordError ? error : new OnrecordError("failed", error.message);
    const reasons = this.#reasons.includes(message) ? this.#reasons : [message];
    this.#error = new OnrecordError(code, reasons.join(" "));
    this.#finish(STREAM_STATUS.FAILED);
  }

  /** @param {StreamStatus} status */
  #finish(status) {
    this.#transport?.close();
    release(this.#options, this.#media);
    this.enter(status);
    this.#published?.reject(this.#error ?? new OnrecordError("stopped", "The stream was stopped before it began."));
    if (this.#error) this.#ended.reject(this.#error);
    else this.#ended.resolve(this.getRecordInfo());
    this.#session.remove(this);
  }
}
