// A stream: from the camera to a sealed recording, by the best way there is.

import { capture, release, show } from "./capture.js";
import { Emitter } from "./events.js";
import { below, ladder } from "./ladder.js";
import { OnrecordError, STREAM_STATUS } from "./model.js";
import { promise } from "./waiting.js";

/**
 * @typedef {import("./ladder.js").Step} Step
 * @typedef {import("./model.js").RecordInfo} RecordInfo
 * @typedef {import("./model.js").ServerMessage} ServerMessage
 * @typedef {import("./model.js").StreamOptions} StreamOptions
 * @typedef {import("./session.js").Session} Session
 * @typedef {import("./way.js").Host} Host
 * @typedef {import("./way.js").Way} Way
 */

/**
 * One stream, published once. Beside its statuses it tells
 * - `mode` `{mode, reason}`: by which way it publishes from now on, and why;
 * - `reconnecting` `{attempt}` and `reconnected`: the way to the server was lost, and is back;
 * - `restarted` `{reason, lost_ms, recording}`: the server ended the recording (it was restarted, or
 *   the network was away for long) and a new one has begun; `lost_ms` are in neither;
 * - `paused` `{bytes}` and `resumed` `{lost_ms}`: the network is too slow for long, so many bytes are
 *   held; nothing is recorded until they are through, which cost `lost_ms`;
 * - `progress` `{produced, acked, unsent}`: bytes of the recording, by a way that counts them;
 * - `trackended` `{kind}`: a camera or microphone was unplugged; the other one goes on;
 * - `lacks` `{sentence}`: no picture or no sound reaches the server, or nothing is lacking any more;
 * - `warning` (an `OnrecordError`): something went wrong that didn't end the stream.
 */
export class Stream extends Emitter {
  #session;
  #options;
  /** The server's, if only a prefix is given. */
  #name;
  /** @type {MediaStream | null} */
  #media = null;
  /** The ways that are left. @type {Step[]} */
  #ladder = [];
  /** The way in use. @type {Way | null} */
  #way = null;
  /** @type {{mode: string, reason: string} | null} */
  #mode = null;
  /** What the ways before had against it. @type {string[]} */
  #reasons = [];
  /** @type {string | undefined} */
  #resume;
  /** @type {RecordInfo[]} */
  #recordings = [];
  /** @type {OnrecordError | null} */
  #error = null;
  /** @type {string | null} */
  #reason = null;
  /** @type {ReturnType<typeof promise<Stream>> | undefined} */
  #published;
  #ended = /** @type {ReturnType<typeof promise<RecordInfo | null>>} */ (promise());
  #stopping = false;
  /** Set from the end of a recording that nobody wanted until the next one begins. @type {{reason: string, recording: RecordInfo | null, since: number} | null} */
  #interrupted = null;
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

  /** By which way it publishes (`webrtc`, `whip`, `chunks` or `mjpeg`), and why; null before it tries any. */
  mode() {
    return this.#mode;
  }

  /** What would be lost if the page were left now: bytes that the server hasn't acknowledged. */
  get unsentBytes() {
    return this.#way?.unsentBytes ?? 0;
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
      this.#published = promise();
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
    this.#way?.replaceMedia(media);
  }

  /**
   * Ends the stream. Resolves when the file is sealed (UNPUBLISHED) with what `getRecordInfo` gives.
   * @returns {Promise<RecordInfo | null>}
   */
  stop() {
    if (!this.#published || this.#over || this.#stopping) return this.#published ? this.#ended.promise : Promise.resolve(null);
    this.#stopping = true;
    if (this.#way) this.#way.stop();
    else this.#finish(STREAM_STATUS.UNPUBLISHED); // the server knows nothing of it yet
    return this.#ended.promise;
  }

  /**
   * How it goes: video and audio together in bits a second since the last call, pictures a second,
   * packets lost so far, the round trip in seconds, and the seconds since PUBLISHING. A way that
   * doesn't know one of them says 0.
   */
  async stats() {
    const { bytes, ...counters } = (await this.#way?.counters()) ?? {
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
    return this.#way?.signalled ?? this.#ladder[0]?.mode === "webrtc";
  }

  /**
   * The session's socket is open (again).
   * @internal
   */
  attach() {
    this.#way?.attach();
  }

  /**
   * The session's socket is lost.
   * @internal
   */
  detach() {
    this.#way?.detach();
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
  socketless() {
    this.#way?.socketless();
  }

  /**
   * The page is being left; see `Session`.
   * @internal
   */
  leave() {
    if (!this.#stopping) this.#way?.leave();
  }

  /**
   * @internal
   * @param {ServerMessage} message
   */
  receive(message) {
    this.#way?.receive(message);
  }

  get #over() {
    return this.status() === STREAM_STATUS.UNPUBLISHED || this.status() === STREAM_STATUS.FAILED;
  }

  async #begin() {
    const { mode = "auto" } = this.#options;
    this.#ladder = ladder(mode);
    this.#session.adopt(this);
    const media = await capture(this.#options);
    if (this.#over) return release(this.#options, media);
    this.#show(media);
    this.#step(mode === "auto" ? "It is the best way." : "It was asked for.");
  }

  /** @param {MediaStream} media */
  #show(media) {
    this.#media = media;
    for (const track of media.getTracks()) track.addEventListener("ended", () => this.#trackEnded(track, media));
    show(this.#options.display, media);
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
   * Takes the next way. The camera stays as it is.
   * @param {string} reason
   */
  #step(reason) {
    const step = this.#ladder.shift();
    if (!step || !this.#media) return;
    this.#sample = { bytes: 0, at: 0 };
    this.#mode = { mode: step.mode, reason };
    /** @type {Way} */
    const way = new step.Way(this.#host(() => way), this.#media);
    this.#way = way;
    this.emit("mode", this.#mode);
    way.start();
  }

  /**
   * @param {() => Way} way
   * @returns {Host}
   */
  #host(way) {
    const stream = this;
    /** @template {any[]} A @param {(...args: A) => void} act @returns {(...args: A) => void} */
    const heard = (act) => (...args) => {
      if (this.#way === way() && !this.#over) act(...args);
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
      patient: () => !this.#ladder.some(({ udp }) => !udp),
      publishing: () => this.status() === STREAM_STATUS.PUBLISHING,
      interrupted: () => this.#interrupted !== null,
      named: heard((name) => { this.#name = name; }),
      began: heard(() => this.#began()),
      interrupt: heard((reason, recording, since) => this.#interrupt(reason, recording, since)),
      ended: heard((recording, reason) => {
        if (recording) this.#recordings.push(recording);
        this.#reason = reason || null;
        this.#finish(STREAM_STATUS.UNPUBLISHED);
      }),
      failed: heard((error) => this.#failed(error)),
      emit: heard((event, detail) => this.emit(event, detail)),
    };
  }

  #began() {
    this.enter(STREAM_STATUS.PUBLISHING);
    this.#publishingSince ||= performance.now();
    this.#published?.resolve(this);
    if (!this.#interrupted) return;
    const { reason, recording, since } = this.#interrupted;
    this.#interrupted = null;
    this.emit("restarted", { reason, recording, lost_ms: Math.round(performance.now() - since) });
  }

  /**
   * @param {string} reason
   * @param {RecordInfo | null} recording
   * @param {number} since
   */
  #interrupt(reason, recording, since) {
    if (recording) this.#recordings.push(recording);
    this.#interrupted = { reason, recording, since };
    this.enter(STREAM_STATUS.PENDING);
    this.emit("reconnecting", { attempt: 0 });
  }

  /**
   * A way comes to nothing. As long as nothing is recorded, there may be another.
   * @param {Error} error
   */
  #failed(error) {
    const known = error instanceof OnrecordError ? error : new OnrecordError("failed", error.message);
    this.#reasons.push(known.message);
    this.#ladder = below(this.#ladder, known);
    if (this.status() === STREAM_STATUS.PUBLISHING || this.#stopping || !this.#ladder.length) return this.#fail(known);
    this.#way?.close();
    this.#way = null;
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

  /** @param {string} status */
  #finish(status) {
    this.#way?.close();
    release(this.#options, this.#media);
    this.enter(status);
    this.#published?.reject(this.#error ?? new OnrecordError("stopped", "The stream was stopped before it began."));
    if (this.#error) this.#ended.reject(this.#error);
    else this.#ended.resolve(this.getRecordInfo());
    this.#session.drop(this);
  }
}
