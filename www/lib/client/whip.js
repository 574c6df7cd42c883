// WebRTC where no socket can be opened: signalled by WHIP (RFC 9725), over plain HTTP.

import { POLL_MS, liveStream, refusal, sealedRecording } from "./api.js";
import { STREAM_STATUS, backoff } from "./model.js";
import { Peer } from "./peer.js";
import { ANSWER_TIMEOUT, CONNECT_TIMEOUT, PeerTransport } from "./peer-transport.js";
import { RECONNECT_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT, UNINTENDED_ENDS, unreachable } from "./transport.js";

export class Whip extends PeerTransport {
  /** Proves that a later POST is by the same publisher, if the page has no token: it takes over the session before. */
  #bearer = `Bearer ${crypto.randomUUID()}`;
  /** What the server was shown last: a page that is left has no time to ask. @type {Record<string, string>} */
  #headers = { Authorization: this.#bearer };
  /** Where the session is, once it is. @type {string | null} */
  #location = null;
  /** @type {string | null} */
  #recording = null;
  #attempt = 0;

  /** @override */
  start() {
    this.limitFallback();
    this.timers.after("start", START_TIMEOUT, () => !this.context.publishing() && this.fail(unreachable()));
    this.#connect().catch((error) => this.fail(error));
  }

  /** @override */
  stop() {
    this.stopping = true;
    this.peer?.silence();
    if (!this.#location) return this.context.ended(null);
    this.timers.after("stop", STOP_TIMEOUT, () => this.fail(unreachable()));
    this.#end();
  }

  async #end() {
    // An operator may have cut the recording: the file that ends now is the one to tell of.
    const live = this.#recording ? await liveStream(this.context.session, this.context.name()) : null;
    if (live?.recording) this.#recording = live.recording;
    this.#delete().catch(() => {}); // the media's end says it too
    this.#poll();
  }

  /** @override */
  leave() {
    this.stopping = true;
    this.#delete().catch(() => {});
  }

  /** @override */
  close() {
    super.close();
    // Another transport takes the name from now on; a session that never connected holds it a little.
    if (!this.stopping) this.#delete().catch(() => {});
  }

  /** A new connection by a new POST. */
  async #connect() {
    this.peer?.close();
    const peer = new Peer(this.media, this.context.options, this.iceServers, {
      candidate: () => {}, // all are in the offer
      state: (state) => peer === this.peer && this.stateChanged(state),
      noPair: () => this.noPath(),
    });
    this.peer = peer;
    await peer.offer(false);
    const offer = await peer.gathered();
    if (peer !== this.peer || this.closed) return;
    const { session } = this.context;
    this.#headers = { Authorization: this.#bearer, ...(await session.headers()) };
    if (peer !== this.peer || this.closed) return;
    const response = await fetch(session.address(`whip/${encodeURIComponent(this.context.name())}`), {
      method: "POST",
      headers: { "Content-Type": "application/sdp", ...this.#headers },
      body: offer,
      signal: AbortSignal.timeout(ANSWER_TIMEOUT),
    });
    if (!response.ok) throw await refusal(response);
    this.#location = new URL(response.headers.get("Location") ?? "", response.url).href;
    const answer = await response.text();
    if (this.closed) return this.#delete();
    if (peer !== this.peer) return;
    await peer.answer(answer, []);
    this.timers.after("repair", CONNECT_TIMEOUT, () => this.repair());
  }

  /** @override */
  connected() {
    if (this.lostAt !== null && !this.context.interrupted()) this.context.emit("reconnected");
    this.lostAt = null;
    this.#attempt = 0;
    this.#poll();
  }

  /** Learns from the API how the recording goes: WHIP says nothing of it. */
  async #poll() {
    if (this.closed) return;
    const { context } = this;
    if (!this.#recording || !context.publishing()) {
      const live = await liveStream(context.session, context.name());
      if (this.closed) return;
      if (this.stopping && live?.hidden) return context.ended(null, "stopped");
      if (live?.status === STREAM_STATUS.PUBLISHING) {
        this.#recording = live.recording;
        this.timers.cancel("fallback");
        if (!context.publishing() && !this.stopping) return context.began();
      } else if (this.stopping && !this.#recording && !live) {
        return context.ended(null); // stopped before anything was recorded
      }
    }
    if (!this.stopping && context.publishing()) return;
    const sealed = this.#recording ? await sealedRecording(context.session, this.#recording) : null;
    if (this.closed) return;
    if (sealed && this.stopping) context.ended(sealed.info, sealed.end_reason);
    else this.timers.after("poll", POLL_MS, () => this.#poll());
  }

  /** @override In the same recording if the server still keeps it open. */
  async repair() {
    const { context } = this;
    if (this.peer?.state === "connected" || this.stopping) return;
    let sealed = this.#recording ? await sealedRecording(context.session, this.#recording) : null;
    if (sealed) {
      // An operator may have cut it, or stopped it while the stream goes on.
      const live = await liveStream(context.session, context.name());
      if (live?.status === STREAM_STATUS.PUBLISHING) [sealed, this.#recording] = [null, live.recording];
    }
    if (this.closed) return;
    if (sealed && !UNINTENDED_ENDS.includes(sealed.end_reason)) return context.ended(sealed.info, sealed.end_reason);
    if (sealed) {
      this.#recording = null;
      context.interrupt(sealed.end_reason, sealed.info, this.lostAt ?? performance.now());
    }
    if (this.lostAt !== null && performance.now() - this.lostAt > RECONNECT_TIMEOUT) return this.fail(unreachable());
    this.#attempt += 1;
    if (this.lostAt !== null) context.emit("reconnecting", { attempt: this.#attempt });
    this.timers.after("repair", CONNECT_TIMEOUT + backoff(this.#attempt), () => this.repair());
    await this.#connect().catch((error) => context.publishing() || context.interrupted() || this.fail(error)); // the next one may
  }

  async #delete() {
    const location = this.#location;
    if (!location) return;
    await fetch(location, { method: "DELETE", headers: this.#headers, keepalive: true });
  }

  /** @override @param {Error} error */
  fail(error) {
    super.fail(error instanceof TypeError ? unreachable() : error);
  }
}
