// WebRTC, signalled on the session's socket: over lost sockets, lost paths and restarts of the server.

import { OnrecordError, RecordInfo, STREAM_STATUS, backoff } from "./model.js";
import { Peer } from "./peer.js";
import { ANSWER_TIMEOUT, CONNECT_TIMEOUT, PeerTransport } from "./peer-transport.js";
import { RECONNECT_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT, TRANSIENT, UNINTENDED_ENDS, noSocket, unreachable, unsealed } from "./transport.js";

/** @typedef {import("./model.js").ServerMessage} ServerMessage */

/** After so many restarts of ICE in vain the connection itself is made anew. */
const RESTARTS_PER_CONNECTION = 2;
/** The answer names relays that the offer didn't know of: they are tried if there is no other path by then, in time for the fallback. */
const RELAY_WAIT = 2_000;
/** The publication is gone on the server: publish anew. */
const GONE = ["resume_expired", "session_not_found"];

export class Webrtc extends PeerTransport {
  /** An offer is out whose answer hasn't come. */
  #offering = false;
  /** Counts the offers, so that one overtaken by the next isn't sent. */
  #offers = 0;
  #repairs = 0;
  /** What the server misses of the media, in its words. */
  #warning = "";
  /** When the socket was lost. @type {number | null} */
  #detachedAt = null;

  /** @override */
  get signalled() {
    return true;
  }

  /** @override */
  start() {
    if (this.context.session.httpOnly) return this.withoutSocket();
    if (!this.context.session.connected) this.detach();
    this.limitFallback();
    this.#connect().catch((error) => this.fail(error));
  }

  /** @override */
  stop() {
    this.stopping = true;
    if (!this.#offers) return this.context.ended(null); // the server knows nothing of it yet
    this.timers.after("stop", STOP_TIMEOUT, () => this.fail(unreachable()));
    this.#sendStop();
    this.peer?.silence(); // what is said after Stop isn't recorded, even if `stop` is held up
  }

  /** @override */
  leave() {
    if (!this.#offers || this.stopping) return;
    this.stopping = true;
    this.#sendStop();
  }

  /**
   * The socket is open (again): offers, which makes the server say where the stream stands. A path
   * that holds is left alone: an ICE restart would cost some sound.
   * @override
   */
  attach() {
    const restart = this.context.resume !== undefined && this.peer?.state !== "connected";
    this.#offer(restart).catch((error) => this.fail(error));
  }

  /** @override The server doesn't mind a lost socket while the media arrive; without them it can't last. */
  detach() {
    this.#answered();
    this.#detachedAt ??= performance.now();
    if (this.timers.has("unreachable")) return;
    const known = this.context.resume !== undefined || this.context.interrupted();
    const check = () => {
      if (this.peer?.state === "connected" && !this.stopping) this.timers.after("unreachable", RECONNECT_TIMEOUT, check);
      else this.fail(unreachable());
    };
    this.timers.after("unreachable", known ? RECONNECT_TIMEOUT : START_TIMEOUT, check);
  }

  /** @override */
  withoutSocket() {
    this.fail(noSocket());
  }

  /** @override @param {ServerMessage} message */
  receive(message) {
    this.timers.cancel("unreachable");
    if (message.type === "answer") this.#answer(message);
    else if (message.type === "candidate" && message.candidate) this.peer?.candidate(message.candidate);
    else if (message.type === "status") this.#reported(message);
    else if (message.type === "error") this.#refused(message);
  }

  /** Makes a new connection; on the server it takes the old one's place by `resume`. */
  async #connect() {
    this.peer?.close();
    const peer = new Peer(this.media, this.context.options, this.iceServers, {
      candidate: (candidate) => this.context.session.send({ type: "candidate", stream: this.context.name(), candidate }),
      state: (state) => this.stateChanged(state),
      noPair: () => this.noPath(),
    });
    this.peer = peer;
    if (this.stopping) peer.silence();
    await this.#offer(false);
  }

  /** @param {boolean} restart  Whether ICE begins anew. */
  async #offer(restart) {
    const { context } = this;
    const peer = this.peer;
    if (!peer || this.closed || !context.session.connected) return; // `attach` will offer
    const offer = ++this.#offers;
    this.#offering = true;
    this.timers.after("answer", ANSWER_TIMEOUT, () => context.session.reset());
    const sdp = await peer.offer(restart);
    if (offer !== this.#offers || this.closed) return;
    const { record = true } = context.options;
    if (!context.session.send({ type: "publish", stream: context.name(), sdp, record, resume: context.resume })) return;
    peer.sent();
    if (this.stopping) this.#sendStop();
  }

  /** @param {ServerMessage} message */
  #answer({ sdp = "", resume, ice_servers }) {
    this.#answered();
    this.context.resume = resume ?? this.context.resume;
    this.#detachedAt = null;
    const relays = this.#relays();
    if (ice_servers) this.context.session.iceServers = ice_servers;
    const peer = this.peer;
    peer?.answer(sdp, this.iceServers).catch((error) => {
      if (peer === this.peer) this.fail(new OnrecordError("bad_answer", `The browser refuses the server's answer: ${error.message}`));
    });
    const patience = this.#relays() > relays ? RELAY_WAIT : CONNECT_TIMEOUT;
    if (!this.timers.has("repair")) this.timers.after("repair", patience, () => this.repair());
    // A new recording has to begin: if this server can be heard, but not reached by media any more,
    // another transport does it.
    if (this.context.interrupted()) this.limitFallback();
  }

  /** How many of the known servers lend relays. */
  #relays() {
    return this.iceServers.filter(({ urls }) => [urls].flat().some((url) => url.startsWith("turn"))).length;
  }

  /** @override */
  connected() {
    const told = this.#repairs > 0 && this.lostAt !== null;
    this.#repairs = 0;
    if (this.context.interrupted()) return; // `restarted` tells, once something is recorded
    this.lostAt = null;
    if (told) this.context.emit("reconnected");
  }

  /** @override By an ICE restart, now and then by a new connection. */
  repair() {
    if (this.peer?.state === "connected") return;
    if (this.lostAt !== null && performance.now() - this.lostAt > RECONNECT_TIMEOUT) return this.fail(unreachable());
    const attempt = ++this.#repairs;
    if (this.lostAt !== null) this.context.emit("reconnecting", { attempt });
    this.timers.after("repair", CONNECT_TIMEOUT + backoff(attempt), () => this.repair());
    if (this.#offering) return;
    const anew = this.peer?.state === "closed" || attempt % (RESTARTS_PER_CONNECTION + 1) === 0;
    (anew ? this.#connect() : this.#offer(true)).catch((error) => this.fail(error));
  }

  /** @override */
  noPathError() {
    if (!this.#offering && this.#offers) return super.noPathError();
    return new OnrecordError("no_path", "The server doesn't answer on its signalling socket.");
  }

  /** @param {ServerMessage} message */
  #reported({ status, recording, reason = "", code, message, warning = "" }) {
    const { context } = this;
    if (warning !== this.#warning) {
      this.#warning = warning;
      context.emit("lacks", { sentence: warning });
    }
    if (reason === "sealing") {
      this.#sealing(message);
    } else if (status === STREAM_STATUS.PUBLISHING && !context.publishing()) {
      this.timers.cancel("fallback");
      if (context.interrupted()) this.lostAt = null;
      context.began();
    } else if (status === STREAM_STATUS.UNPUBLISHED) {
      const info = recording ? new RecordInfo(recording, context.session.address("")) : null;
      if (!this.stopping && UNINTENDED_ENDS.includes(reason)) this.#startAnew(reason, info);
      else context.ended(info, reason);
    } else if (status === STREAM_STATUS.FAILED && !this.#tryAgain()) {
      const text = message ?? `The server recorded nothing (${code ?? reason}). If no media reached it, its media port is closed: see webrtc.udp_bind.`;
      this.fail(new OnrecordError(code ?? (reason || "failed"), text));
    }
  }

  /** The recording is over, and the server's disk refuses to finish it: that is tried until it is done. @param {string} [message] */
  #sealing(message = "") {
    this.stopping = true;
    this.peer?.silence();
    this.timers.after("stop", RECONNECT_TIMEOUT, () => this.fail(unreachable()));
    this.context.emit("warning", unsealed(message));
  }

  /**
   * The recording was ended, but the camera is on: begins a new one.
   * @param {string} reason
   * @param {RecordInfo | null} recording
   */
  #startAnew(reason, recording) {
    this.lostAt ??= this.#detachedAt ?? performance.now();
    this.context.resume = undefined;
    this.#answered();
    this.timers.cancel("repair");
    this.context.interrupt(reason, recording, this.lostAt);
    // A server that stops is on its way down: a new socket finds the next one.
    if (reason === "server_stopped") {
      this.peer?.close();
      this.peer = null;
      this.context.session.reset();
    }
    this.#connect().catch((error) => this.fail(error));
  }

  /** @param {ServerMessage} message */
  #refused({ code = "error", message = "The server refuses the stream." }) {
    const error = new OnrecordError(code, message);
    if (GONE.includes(code)) {
      if (this.stopping) this.fail(error);
      else if (this.context.resume !== undefined) this.#startAnew("server_crashed", null);
      return; // without `resume`: a late word about the publication before this one
    }
    if (!this.#offering) return this.context.emit("warning", error);
    if (!TRANSIENT.includes(code) || !this.#tryAgain()) this.fail(error);
  }

  /**
   * Once something was recorded, a refusal isn't the end: the server may just come up, or go down,
   * or the network may be away still.
   * @returns {boolean} Whether it makes sense.
   */
  #tryAgain() {
    if (!this.context.interrupted() || this.stopping || performance.now() - (this.lostAt ?? 0) > RECONNECT_TIMEOUT) return false;
    this.#answered();
    this.context.resume = undefined;
    this.timers.after("repair", backoff(this.#repairs++), () => this.#connect().catch((error) => this.fail(error)));
    return true;
  }

  #answered() {
    this.#offering = false;
    this.timers.cancel("answer");
  }

  #sendStop() {
    this.context.session.send({ type: "stop", stream: this.context.name() });
  }
}
