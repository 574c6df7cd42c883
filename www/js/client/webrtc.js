// The way of choice: WebRTC, signalled on the session's socket.

import { OnrecordError, RecordInfo, STREAM_STATUS, pause } from "./model.js";
import { Peer } from "./peer.js";
import { Timers } from "./waiting.js";
import { GIVE_UP, GIVE_UP_START, GOODBYE_PATIENCE, STOP_DEADLINE, UNWANTED, Way, unreachable, unsealed } from "./way.js";

/** @typedef {import("./model.js").ServerMessage} ServerMessage */

/** An offer without an answer for so long: the socket is dead, whatever it says. */
const ANSWER_DEADLINE = 10_000;
/** A path often comes back by itself within this; asking earlier would disturb it. */
const DISCONNECT_PATIENCE = 3_000;
/** How long an ICE generation may take to connect before the next is tried. */
const CONNECT_PATIENCE = 5_000;
/** After so many restarts of ICE in vain the connection itself is made anew. */
const RESTARTS_PER_CONNECTION = 2;
/** How long the first connection may take if there are other ways: a good path needs one second, a bad one three. */
export const STEP_DEADLINE = 5_000;
/** And how long then the first picture: if large packets get lost on the way, it never comes. */
export const FRAME_DEADLINE = 8_000;
/** The publication is gone on the server: publish anew. */
const GONE = ["resume_expired", "session_not_found"];
/** Refusals of a server that comes up or goes down, or still holds the old publication. */
const PASSING = ["limit_reached", "stream_busy", "rate_limited"];

/** Over lost sockets, lost paths and restarts of the server. */
export class Webrtc extends Way {
  /** @type {Peer | null} */
  #peer = null;
  /** An offer is out whose answer hasn't come. */
  #asked = false;
  /** Counts the offers, so that one overtaken by the next isn't sent. */
  #turn = 0;
  #repairs = 0;
  /** When the media stopped reaching the server. @type {number | null} */
  #lostAt = null;
  /** What the server misses of the media, in its words. */
  #lacks = "";
  /** When the socket was lost. @type {number | null} */
  #detachedAt = null;
  #timers = new Timers();
  #closed = false;

  /** @override */
  static lacks() {
    if (globalThis.RTCPeerConnection) return null;
    return new OnrecordError("no_webrtc", "This browser has no WebRTC, or it is switched off. Use another one, or switch it on.");
  }

  /** @override */
  get signalled() {
    return true;
  }

  /** @override */
  start() {
    if (this.host.session.socketless) return this.socketless();
    if (!this.host.session.connected) this.detach();
    if (!this.host.patient()) this.#timers.after("step", STEP_DEADLINE, () => this.#pathless());
    this.#connect().catch((error) => this.#fail(error));
  }

  /** @override */
  stop() {
    this.stopping = true;
    if (!this.#turn) return this.host.ended(null); // the server knows nothing of it yet
    this.#timers.after("stop", STOP_DEADLINE, () => this.#fail(unreachable()));
    this.#sayStop();
    this.#peer?.silence(); // what is said after Stop isn't recorded, even if `stop` is held up
  }

  /** @override */
  leave() {
    if (!this.#turn || this.stopping) return;
    this.stopping = true;
    this.#sayStop();
  }

  /** @override @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
    if (!this.stopping) this.#peer?.replace(media);
  }

  /** @override */
  close() {
    this.#closed = true;
    this.#timers.clear();
    this.#peer?.close();
    this.#peer = null;
  }

  /** @override */
  async counters() {
    return (await this.#peer?.counters()) ?? super.counters();
  }

  /**
   * The socket is open (again): offers, which makes the server say where the stream stands. A path
   * that holds is left alone: an ICE restart would cost some sound.
   * @override
   */
  attach() {
    const restart = this.host.resume !== undefined && this.#peer?.state !== "connected";
    this.#offer(restart).catch((error) => this.#fail(error));
  }

  /** @override The server doesn't mind a lost socket while the media arrive; without them it can't last. */
  detach() {
    this.#answered();
    this.#detachedAt ??= performance.now();
    if (this.#timers.has("unreachable")) return;
    const known = this.host.resume !== undefined || this.host.interrupted();
    const check = () => {
      if (this.#peer?.state === "connected" && !this.stopping) this.#timers.after("unreachable", GIVE_UP, check);
      else this.#fail(unreachable());
    };
    this.#timers.after("unreachable", known ? GIVE_UP : GIVE_UP_START, check);
  }

  /** @override */
  socketless() {
    this.#fail(new OnrecordError("no_socket", "Something between this browser and the server refuses WebSockets."));
  }

  /** @override @param {ServerMessage} message */
  receive(message) {
    this.#timers.cancel("unreachable");
    if (message.type === "answer") this.#answer(message);
    else if (message.type === "candidate" && message.candidate) this.#peer?.candidate(message.candidate);
    else if (message.type === "status") this.#reported(message);
    else if (message.type === "error") this.#refused(message);
  }

  /** Makes a new connection; on the server it takes the old one's place by `resume`. */
  async #connect() {
    this.#peer?.close();
    const peer = new Peer(this.media, this.host.options, this.#iceServers(), {
      candidate: (candidate) => this.host.session.send({ type: "candidate", stream: this.host.name(), candidate }),
      state: (state) => this.#moved(state),
      pathless: () => this.#pathless(),
    });
    this.#peer = peer;
    if (this.stopping) peer.silence();
    await this.#offer(false);
  }

  #iceServers() {
    return [...(this.host.options.iceServers ?? []), ...this.host.session.iceServers];
  }

  /** @param {boolean} restart  Whether ICE begins anew. */
  async #offer(restart) {
    const { host } = this;
    const peer = this.#peer;
    if (!peer || this.#closed || !host.session.connected) return; // `attach` will offer
    const turn = ++this.#turn;
    this.#asked = true;
    this.#timers.after("answer", ANSWER_DEADLINE, () => host.session.reset());
    const sdp = await peer.offer(restart);
    if (turn !== this.#turn || this.#closed) return;
    const { record = true } = host.options;
    if (!host.session.send({ type: "publish", stream: host.name(), sdp, record, resume: host.resume })) return;
    peer.sent();
    if (this.stopping) this.#sayStop();
  }

  /** @param {ServerMessage} message */
  #answer({ sdp = "", resume, ice_servers }) {
    this.#answered();
    this.host.resume = resume ?? this.host.resume;
    this.#detachedAt = null;
    if (ice_servers) this.host.session.iceServers = ice_servers;
    const peer = this.#peer;
    peer?.answer(sdp, this.#iceServers()).catch((error) => {
      if (peer === this.#peer) this.#fail(new OnrecordError("bad_answer", `The browser refuses the server's answer: ${error.message}`));
    });
    if (!this.#timers.has("repair")) this.#timers.after("repair", CONNECT_PATIENCE, () => this.#repair());
    // A new recording has to begin: if this server can be heard, but not reached by UDP any more,
    // another way does it.
    if (this.host.interrupted() && !this.host.patient()) this.#timers.after("step", STEP_DEADLINE, () => this.#pathless());
  }

  /** @param {RTCPeerConnectionState} state */
  #moved(state) {
    if (state === "connected") {
      const told = this.#repairs > 0 && this.#lostAt !== null;
      this.#timers.cancel("repair");
      this.#repairs = 0;
      if (this.#timers.has("step")) this.#timers.after("step", FRAME_DEADLINE, () => this.#pathless());
      if (this.host.interrupted()) return; // `restarted` tells, once something is recorded
      this.#lostAt = null;
      if (told) this.host.emit("reconnected");
    } else if (state === "disconnected" || state === "failed") {
      this.#lostAt ??= performance.now();
      this.#timers.after("repair", state === "failed" ? 0 : DISCONNECT_PATIENCE, () => this.#repair());
    } else if (state === "closed" && !this.stopping) {
      this.#lostAt ??= performance.now();
      this.#timers.after("repair", GOODBYE_PATIENCE, () => this.#repair());
    }
  }

  /** Looks for a path again: by an ICE restart, now and then by a new connection. */
  #repair() {
    if (this.#peer?.state === "connected") return;
    if (this.#lostAt !== null && performance.now() - this.#lostAt > GIVE_UP) return this.#fail(unreachable());
    const attempt = ++this.#repairs;
    if (this.#lostAt !== null) this.host.emit("reconnecting", { attempt });
    this.#timers.after("repair", CONNECT_PATIENCE + pause(attempt), () => this.#repair());
    if (this.#asked) return;
    const anew = this.#peer?.state === "closed" || attempt % (RESTARTS_PER_CONNECTION + 1) === 0;
    (anew ? this.#connect() : this.#offer(true)).catch((error) => this.#fail(error));
  }

  /** No way through for media: a reason to take another way, while nothing is recorded. */
  #pathless() {
    if (this.host.patient() || this.host.publishing() || this.stopping) return;
    this.#fail(new OnrecordError("no_path", this.#asked || !this.#turn ? NO_ANSWER : NO_PATH));
  }

  /** @param {ServerMessage} message */
  #reported({ status, recording, reason = "", code, message, warning = "" }) {
    const { host } = this;
    if (warning !== this.#lacks) {
      this.#lacks = warning;
      host.emit("lacks", { sentence: warning });
    }
    if (reason === "sealing") {
      this.#sealing(message);
    } else if (status === STREAM_STATUS.PUBLISHING && !host.publishing()) {
      this.#timers.cancel("step");
      if (host.interrupted()) this.#lostAt = null;
      host.began();
    } else if (status === STREAM_STATUS.UNPUBLISHED) {
      const info = recording ? new RecordInfo(recording, host.session.address("")) : null;
      if (!this.stopping && UNWANTED.includes(reason)) this.#startAnew(reason, info);
      else host.ended(info, reason);
    } else if (status === STREAM_STATUS.FAILED && !this.#tryAgain()) {
      const text = message ?? `The server recorded nothing (${code ?? reason}). If no media reached it, its UDP port is closed: see webrtc.udp_bind.`;
      this.#fail(new OnrecordError(code ?? (reason || "failed"), text));
    }
  }

  /** The recording is over, and the server's disk refuses to finish it: that is tried until it is done. @param {string} [message] */
  #sealing(message = "") {
    this.stopping = true;
    this.#peer?.silence();
    this.#timers.after("stop", GIVE_UP, () => this.#fail(unreachable()));
    this.host.emit("warning", unsealed(message));
  }

  /**
   * The recording was ended, but the camera is on: begins a new one.
   * @param {string} reason
   * @param {RecordInfo | null} recording
   */
  #startAnew(reason, recording) {
    this.#lostAt ??= this.#detachedAt ?? performance.now();
    this.host.resume = undefined;
    this.#answered();
    this.#timers.cancel("repair");
    this.host.interrupt(reason, recording, this.#lostAt);
    // A server that stops is on its way down: a new socket finds the next one.
    if (reason === "server_stopped") {
      this.#peer?.close();
      this.#peer = null;
      this.host.session.reset();
    }
    this.#connect().catch((error) => this.#fail(error));
  }

  /** @param {ServerMessage} message */
  #refused({ code = "error", message = "The server refuses the stream." }) {
    const error = new OnrecordError(code, message);
    if (GONE.includes(code)) {
      if (this.stopping) this.#fail(error);
      else if (this.host.resume !== undefined) this.#startAnew("server_crashed", null);
      return; // without `resume`: a late word about the publication before this one
    }
    if (!this.#asked) return this.host.emit("warning", error);
    if (!PASSING.includes(code) || !this.#tryAgain()) this.#fail(error);
  }

  /**
   * Once something was recorded, a refusal isn't the end: the server may just come up, or go down,
   * or the network may be away still.
   * @returns {boolean} Whether it makes sense.
   */
  #tryAgain() {
    if (!this.host.interrupted() || this.stopping || performance.now() - (this.#lostAt ?? 0) > GIVE_UP) return false;
    this.#answered();
    this.host.resume = undefined;
    this.#timers.after("repair", pause(this.#repairs++), () => this.#connect().catch((error) => this.#fail(error)));
    return true;
  }

  #answered() {
    this.#asked = false;
    this.#timers.cancel("answer");
  }

  #sayStop() {
    this.host.session.send({ type: "stop", stream: this.host.name() });
  }

  /** @param {Error} error */
  #fail(error) {
    if (!this.#closed) this.host.failed(error);
  }
}

const NO_PATH = "WebRTC finds no way through: UDP is blocked between this browser and the server.";
const NO_ANSWER = "The server doesn't answer on its signalling socket.";
