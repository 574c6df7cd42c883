// What the two transports by WebRTC share: they differ in how they are signalled.

import { OnrecordError } from "./model.js";
import { Transport, noPath } from "./transport.js";

/** @typedef {import("./peer.js").Peer} Peer */

/** An answer takes milliseconds; this is for the network. */
export const ANSWER_TIMEOUT = 10_000;
/** How long an ICE generation may take to connect before the next is tried. */
export const CONNECT_TIMEOUT = 5_000;
/** A path may come back by itself within this. The browser has waited for six seconds, and the server gives the session up after ten. */
const DISCONNECT_WAIT = 1_000;
/** The server has closed the connection: why, it says elsewhere, within this. */
const CLOSE_REASON_WAIT = 1_000;
/** How long the first connection may take if there are other transports: a good path needs one second, a bad one three. */
const FALLBACK_TIMEOUT = 5_000;
/** And how long then the first picture: if large packets get lost on the way, it never comes. */
const FIRST_FRAME_TIMEOUT = 8_000;

export class PeerTransport extends Transport {
  /** @protected @type {Peer | null} */
  peer = null;
  /** When the media stopped reaching the server. @protected @type {number | null} */
  lostAt = null;

  /** @override */
  static unsupported() {
    if (globalThis.RTCPeerConnection) return null;
    return new OnrecordError("no_webrtc", "This browser has no WebRTC, or it is switched off. Use another one, or switch it on.");
  }

  /** @override @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
    if (!this.stopping) this.peer?.replace(media);
  }

  /** @override */
  close() {
    super.close();
    this.peer?.close();
    this.peer = null;
  }

  /** @override */
  async counters() {
    return (await this.peer?.counters()) ?? super.counters();
  }

  /** @protected */
  get iceServers() {
    return [...(this.context.options.iceServers ?? []), ...this.context.session.iceServers];
  }

  /** Falls back to another transport, if there is one, unless a path is found soon. @protected */
  limitFallback() {
    if (!this.context.lastResort()) this.timers.after("fallback", FALLBACK_TIMEOUT, () => this.noPath());
  }

  /**
   * @protected
   * @param {RTCPeerConnectionState} state
   */
  stateChanged(state) {
    if (state === "connected") {
      this.timers.cancel("repair");
      if (this.timers.has("fallback")) this.timers.after("fallback", FIRST_FRAME_TIMEOUT, () => this.noPath());
      this.connected();
    } else if (state === "disconnected" || state === "failed") {
      this.lostAt ??= performance.now();
      this.timers.after("repair", state === "failed" ? 0 : DISCONNECT_WAIT, () => this.repair());
    } else if (state === "closed" && !this.stopping) {
      this.lostAt ??= performance.now();
      this.timers.after("repair", CLOSE_REASON_WAIT, () => this.repair());
    }
  }

  /** The connection is there (again). @protected */
  connected() {}

  /** Looks for a path again. @protected */
  repair() {}

  /** Media find no path: a reason to take another transport, while nothing is recorded. @protected */
  noPath() {
    if (!this.context.lastResort() && !this.context.publishing() && !this.stopping) this.fail(this.noPathError());
  }

  /** @protected */
  noPathError() {
    return noPath();
  }
}
