// A stream: from the camera to a sealed recording, over lost sockets, lost paths and restarts.

import { capture, release, show } from "./capture.js";
import { Emitter } from "./events.js";
import { OnrecordError, RecordInfo, STREAM_STATUS, pause } from "./model.js";
import { Peer } from "./peer.js";
import { Timers, promise } from "./waiting.js";

/**
 * @typedef {import("./model.js").ServerMessage} ServerMessage
 * @typedef {import("./model.js").StreamOptions} StreamOptions
 * @typedef {import("./session.js").Session} Session
 */

/** An offer without an answer for so long: the socket is dead, whatever it says. */
const ANSWER_DEADLINE = 10_000;
/** A path often comes back by itself within this; asking earlier would disturb it. */
const DISCONNECT_PATIENCE = 3_000;
/** How long an ICE generation may take to connect before the next is tried. */
const CONNECT_PATIENCE = 5_000;
/** After so many restarts of ICE in vain the connection itself is made anew. */
const RESTARTS_PER_CONNECTION = 2;
/** How long a stream tries to come back, without socket or without path, before it fails. */
const GIVE_UP = 120_000;
/** The same for one that the server never answered: somebody sits there and waits for the start. */
const GIVE_UP_START = 15_000;
/** How long the server may take from `stop` to the sealed file; a full disk queue is slow. */
const STOP_DEADLINE = 20_000;
/** Ends that nobody wanted: the recording goes on in a new file. */
const INTERRUPTED = ["publisher_lost", "server_stopped", "server_crashed"];
/** The publication is gone on the server: publish anew. */
const GONE = ["resume_expired", "session_not_found"];
/** Refusals of a server that comes up or goes down, or still holds the old publication. */
const PASSING = ["limit_reached", "stream_busy", "rate_limited"];

/**
 * One stream, published once. Beside its statuses it tells
 * - `reconnecting` `{attempt}` and `reconnected`: the path of the media was lost, and is back;
 * - `restarted` `{reason, lost_ms, recording}`: the server ended the recording (it was restarted, or
 *   the network was away for long) and a new one has begun; `lost_ms` are in neither;
 * - `trackended` `{kind}`: a camera or microphone was unplugged; the other one goes on;
 * - `warning` (an `OnrecordError`): something went wrong that didn't end the stream.
 */
export class Stream extends Emitter {
  #session;
  #options;
  /** @type {MediaStream | null} */
  #media = null;
  /** @type {Peer | null} */
  #peer = null;
  /** The secret that proves that this publication is ours. @type {string | undefined} */
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
  /** An offer is out whose answer hasn't come. */
  #asked = false;
  /** Counts the offers, so that one overtaken by the next isn't sent. */
  #turn = 0;
  #repairs = 0;
  /** When the media stopped reaching the server. @type {number | null} */
  #lostAt = null;
  /** When the socket was lost. @type {number | null} */
  #detachedAt = null;
  /** Set from the end of a recording that nobody wanted until the next one begins. @type {{reason: string, recording: RecordInfo | null} | null} */
  #interrupted = null;
  #timers = new Timers();
  #publishingSince = 0;
  #sample = { bytes: 0, at: 0 };

  /**
   * @param {Session} session
   * @param {StreamOptions} options
   */
  constructor(session, options) {
    super();
    if (!options?.name) throw new TypeError("createStream needs a name: createStream({ name: \"interview\" })");
    this.#session = session;
    this.#options = options;
  }

  /** The stream's name. */
  name() {
    return this.#options.name;
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
   * Ends the stream. Resolves when the file is sealed (UNPUBLISHED) with what `getRecordInfo` gives.
   * @returns {Promise<RecordInfo | null>}
   */
  stop() {
    if (!this.#published || this.#over || this.#stopping) return this.#published ? this.#ended.promise : Promise.resolve(null);
    this.#stopping = true;
    if (!this.#turn) {
      this.#finish(STREAM_STATUS.UNPUBLISHED); // the server knows nothing of it yet
    } else {
      this.#timers.after("stop", STOP_DEADLINE, () => this.abandon(unanswered()));
      this.#sayStop();
      this.#peer?.silence(); // what is said after Stop isn't recorded, even if `stop` is held up
    }
    return this.#ended.promise;
  }

  /**
   * How it goes: video and audio together in bits a second since the last call, pictures a second,
   * packets lost so far, the round trip in seconds, and the seconds since PUBLISHING.
   */
  async stats() {
    const { bytes, ...counters } = (await this.#peer?.counters()) ?? {
      bytes: 0, framesPerSecond: 0, packetsLost: 0, roundTripTime: 0,
    };
    const at = performance.now();
    const { bytes: earlier, at: then } = this.#sample;
    const bitrate = then ? ((bytes - earlier) * 8000) / Math.max(1, at - then) : 0;
    this.#sample = { bytes, at };
    const seconds = this.#publishingSince ? (at - this.#publishingSince) / 1000 : 0;
    return { bitrate, ...counters, seconds };
  }

  /**
   * The socket is open (again): offers, which makes the server say where the stream stands. A path
   * that holds is left alone: an ICE restart would cost some sound.
   * @internal
   */
  attach() {
    const restart = this.#resume !== undefined && this.#peer?.state !== "connected";
    this.#offer(restart).catch((error) => this.#fail(error));
  }

  /**
   * The socket is lost. The server doesn't mind while the media arrive; without them it can't last.
   * @internal
   */
  detach() {
    this.#answered();
    this.#detachedAt ??= performance.now();
    if (this.#timers.has("unreachable")) return;
    const known = this.#resume !== undefined || this.#interrupted;
    const check = () => {
      if (this.#peer?.state === "connected" && !this.#stopping) this.#timers.after("unreachable", GIVE_UP, check);
      else this.abandon(unanswered());
    };
    this.#timers.after("unreachable", known ? GIVE_UP : GIVE_UP_START, check);
  }

  /**
   * There is no hope for the socket any more.
   * @internal
   * @param {OnrecordError} error
   */
  abandon(error) {
    if (!this.#over) this.#fail(error);
  }

  /**
   * The page is being left; see `Session`.
   * @internal
   */
  leave() {
    if (!this.#turn || this.#stopping) return;
    this.#stopping = true;
    this.#sayStop();
  }

  /**
   * @internal
   * @param {ServerMessage} message
   */
  receive(message) {
    if (this.#over) return;
    this.#timers.cancel("unreachable");
    if (message.type === "answer") this.#answer(message);
    else if (message.type === "candidate" && message.candidate) this.#peer?.candidate(message.candidate);
    else if (message.type === "status") this.#reported(message);
    else if (message.type === "error") this.#refused(message);
  }

  get #over() {
    return this.status() === STREAM_STATUS.UNPUBLISHED || this.status() === STREAM_STATUS.FAILED;
  }

  async #begin() {
    const { mode = "auto" } = this.#options;
    if (mode !== "auto" && mode !== "webrtc") {
      throw new OnrecordError("unsupported_mode", `There is no mode "${mode}" here: use "auto" or "webrtc".`);
    }
    if (!globalThis.RTCPeerConnection) {
      throw new OnrecordError("no_webrtc", "This browser has no WebRTC, or it is switched off. Use another one, or switch it on.");
    }
    this.#session.adopt(this);
    const media = await capture(this.#options);
    this.#media = media;
    if (this.#over) return release(this.#options, media);
    for (const track of media.getTracks()) track.addEventListener("ended", () => this.#trackEnded(track));
    show(this.#options.display, media);
    await this.#connect();
  }

  /** @param {MediaStreamTrack} track */
  #trackEnded(track) {
    if (this.#over) return;
    this.emit("trackended", { kind: track.kind });
    if (this.#media?.getTracks().every(({ readyState }) => readyState === "ended")) this.stop();
  }

  /** Makes a new connection; on the server it takes the old one's place by `resume`. */
  async #connect() {
    if (!this.#media) return;
    this.#peer?.close();
    this.#sample = { bytes: 0, at: 0 };
    const servers = [...(this.#options.iceServers ?? []), ...this.#session.iceServers];
    this.#peer = new Peer(this.#media, this.#options, servers, {
      candidate: (candidate) => this.#session.send({ type: "candidate", stream: this.name(), candidate }),
      state: (state) => this.#moved(state),
    });
    if (this.#stopping) this.#peer.silence();
    await this.#offer(false);
  }

  /** @param {boolean} restart  Whether ICE begins anew. */
  async #offer(restart) {
    const peer = this.#peer;
    if (!peer || this.#over || !this.#session.connected) return; // `attach` will offer
    const turn = ++this.#turn;
    this.#asked = true;
    this.#timers.after("answer", ANSWER_DEADLINE, () => this.#session.reset());
    const sdp = await peer.offer(restart);
    if (turn !== this.#turn || this.#over) return;
    const { record = true } = this.#options;
    if (!this.#session.send({ type: "publish", stream: this.name(), sdp, record, resume: this.#resume })) return;
    peer.sent();
    if (this.#stopping) this.#sayStop();
  }

  /** @param {ServerMessage} message */
  #answer({ sdp = "", resume, ice_servers }) {
    this.#answered();
    this.#resume = resume ?? this.#resume;
    this.#detachedAt = null;
    if (ice_servers) this.#session.iceServers = ice_servers;
    const peer = this.#peer;
    const servers = [...(this.#options.iceServers ?? []), ...this.#session.iceServers];
    peer?.answer(sdp, servers).catch((error) => {
      if (peer === this.#peer) this.#fail(new OnrecordError("bad_answer", `The browser refuses the server's answer: ${error.message}`));
    });
    if (!this.#timers.has("repair")) this.#timers.after("repair", CONNECT_PATIENCE, () => this.#repair());
  }

  /** @param {RTCPeerConnectionState} state */
  #moved(state) {
    if (this.#over) return;
    if (state === "connected") {
      const told = this.#repairs > 0 && this.#lostAt !== null;
      this.#timers.cancel("repair");
      this.#repairs = 0;
      if (this.#interrupted) return; // `restarted` tells, once something is recorded
      this.#lostAt = null;
      if (told) this.emit("reconnected");
    } else if (state === "disconnected" || state === "failed") {
      this.#lostAt ??= performance.now();
      this.#timers.after("repair", state === "failed" ? 0 : DISCONNECT_PATIENCE, () => this.#repair());
    }
  }

  /** Looks for a path again: by an ICE restart, now and then by a new connection. */
  #repair() {
    if (this.#over || this.#peer?.state === "connected") return;
    if (this.#lostAt !== null && performance.now() - this.#lostAt > GIVE_UP) return this.abandon(unanswered());
    const attempt = ++this.#repairs;
    if (this.#lostAt !== null) this.emit("reconnecting", { attempt });
    this.#timers.after("repair", CONNECT_PATIENCE + pause(attempt), () => this.#repair());
    if (this.#asked) return;
    const anew = attempt % (RESTARTS_PER_CONNECTION + 1) === 0;
    (anew ? this.#connect() : this.#offer(true)).catch((error) => this.#fail(error));
  }

  /** @param {ServerMessage} message */
  #reported({ status, recording, reason = "", code, message }) {
    if (status === STREAM_STATUS.PUBLISHING && this.status() === STREAM_STATUS.PENDING) {
      this.#began();
    } else if (status === STREAM_STATUS.UNPUBLISHED) {
      const info = recording ? new RecordInfo(recording, this.#session.url.replace(/^ws/, "http")) : null;
      if (info) this.#recordings.push(info);
      this.#reason = reason || null;
      if (!this.#stopping && INTERRUPTED.includes(reason)) this.#startAnew(reason, info);
      else this.#finish(STREAM_STATUS.UNPUBLISHED);
    } else if (status === STREAM_STATUS.FAILED && !this.#tryAgain()) {
      const text = message ?? `The server recorded nothing (${code ?? reason}). If no media reached it, its UDP port is closed: see webrtc.udp_bind.`;
      this.#fail(new OnrecordError(code ?? (reason || "failed"), text));
    }
  }

  #began() {
    this.enter(STREAM_STATUS.PUBLISHING);
    this.#publishingSince ||= performance.now();
    this.#published?.resolve(this);
    if (!this.#interrupted) return;
    const lost_ms = Math.round(performance.now() - (this.#lostAt ?? performance.now()));
    const detail = { ...this.#interrupted, lost_ms };
    this.#interrupted = this.#lostAt = null;
    this.emit("restarted", detail);
  }

  /**
   * The recording was ended, but the camera is on: begins a new one.
   * @param {string} reason
   * @param {RecordInfo | null} recording
   */
  #startAnew(reason, recording) {
    this.#interrupted = { reason, recording };
    this.#lostAt ??= this.#detachedAt ?? performance.now();
    this.#resume = undefined;
    this.#answered();
    this.enter(STREAM_STATUS.PENDING);
    this.emit("reconnecting", { attempt: 0 });
    // A server that stops is on its way down: a new socket finds the next one.
    if (reason === "server_stopped") {
      this.#peer?.close();
      this.#peer = null;
      this.#session.reset();
    }
    this.#connect().catch((error) => this.#fail(error));
  }

  /** @param {ServerMessage} message */
  #refused({ code = "error", message = "The server refuses the stream." }) {
    const error = new OnrecordError(code, message);
    if (GONE.includes(code)) {
      if (this.#stopping) this.#fail(error);
      else if (this.#resume !== undefined) this.#startAnew("server_crashed", null);
      return; // without `resume`: a late word about the publication before this one
    }
    if (!this.#asked) return this.emit("warning", error);
    if (!PASSING.includes(code) || !this.#tryAgain()) this.#fail(error);
  }

  /**
   * Once something was recorded, a refusal isn't the end: the server may just come up, or go down,
   * or the network may be away still.
   * @returns {boolean} Whether it makes sense.
   */
  #tryAgain() {
    if (!this.#interrupted || this.#stopping || performance.now() - (this.#lostAt ?? 0) > GIVE_UP) return false;
    this.#answered();
    this.#resume = undefined;
    this.#timers.after("repair", pause(this.#repairs++), () => this.#connect().catch((error) => this.#fail(error)));
    return true;
  }

  #answered() {
    this.#asked = false;
    this.#timers.cancel("answer");
  }

  #sayStop() {
    this.#session.send({ type: "stop", stream: this.name() });
  }

  /** @param {Error} error */
  #fail(error) {
    if (this.#over) return;
    this.#error = error instanceof OnrecordError ? error : new OnrecordError("failed", error.message);
    this.#finish(STREAM_STATUS.FAILED);
  }

  /** @param {string} status */
  #finish(status) {
    this.#timers.clear();
    this.#peer?.close();
    this.#peer = null;
    release(this.#options, this.#media);
    this.enter(status);
    this.#published?.reject(this.#error ?? new OnrecordError("stopped", "The stream was stopped before it began."));
    if (this.#error) this.#ended.reject(this.#error);
    else this.#ended.resolve(this.getRecordInfo());
    this.#session.drop(this);
  }
}

function unanswered() {
  return new OnrecordError(
    "unreachable",
    "The server doesn't answer. If it received anything, that is recorded: look on its page “Recordings”.",
  );
}
