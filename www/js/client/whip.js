// WebRTC where no socket can be opened: signalled by WHIP (RFC 9725), over plain HTTP.

import { LOOK_MS, liveStream, refusal, sealedRecording } from "./catalogue.js";
import { OnrecordError, STREAM_STATUS, pause } from "./model.js";
import { Peer } from "./peer.js";
import { Timers } from "./waiting.js";
import { FRAME_DEADLINE, STEP_DEADLINE, Webrtc } from "./webrtc.js";
import { GIVE_UP, GIVE_UP_START, GOODBYE_PATIENCE, STOP_DEADLINE, UNWANTED, Way, unreachable } from "./way.js";

/** An answer takes milliseconds; this is for the network. */
const ANSWER_DEADLINE = 10_000;
/** A path often comes back by itself within this. */
const DISCONNECT_PATIENCE = 3_000;
const CONNECT_PATIENCE = 5_000;

export class Whip extends Way {
  /** @type {Peer | null} */
  #peer = null;
  /** Proves that a later POST is by the same publisher, if the page has no token: it takes over the session before. */
  #own = `Bearer ${crypto.randomUUID()}`;
  /** What the server was shown last: a page that is left has no time to ask. @type {Record<string, string>} */
  #headers = { Authorization: this.#own };
  /** Where the session is, once it is. @type {string | null} */
  #location = null;
  /** @type {string | null} */
  #recording = null;
  #attempt = 0;
  /** When the media stopped reaching the server. @type {number | null} */
  #lostAt = null;
  #timers = new Timers();
  #closed = false;

  /** @override */
  static lacks() {
    return Webrtc.lacks();
  }

  /** @override */
  start() {
    if (!this.host.patient()) this.#timers.after("step", STEP_DEADLINE, () => this.#pathless());
    this.#timers.after("start", GIVE_UP_START, () => !this.host.publishing() && this.#fail(unreachable()));
    this.#connect().catch((error) => this.#fail(error));
  }

  /** @override */
  stop() {
    this.stopping = true;
    this.#peer?.silence();
    if (!this.#location) return this.host.ended(null);
    this.#timers.after("stop", STOP_DEADLINE, () => this.#fail(unreachable()));
    this.#end();
  }

  async #end() {
    // An operator may have cut the recording: the file that ends now is the one to tell of.
    const live = this.#recording ? await liveStream(this.host.session, this.host.name()) : null;
    if (live?.recording) this.#recording = live.recording;
    this.#delete().catch(() => {}); // the media's end says it too
    this.#follow();
  }

  /** @override */
  leave() {
    this.stopping = true;
    this.#delete().catch(() => {});
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
    // The name is somebody else's way from now on; a session that never connected holds it a little.
    if (!this.stopping) this.#delete().catch(() => {});
  }

  /** @override */
  async counters() {
    return (await this.#peer?.counters()) ?? super.counters();
  }

  /** A new connection by a new POST. */
  async #connect() {
    this.#peer?.close();
    const peer = new Peer(this.media, this.host.options, [...(this.host.options.iceServers ?? []), ...this.host.session.iceServers], {
      candidate: () => {}, // all are in the offer
      state: (state) => peer === this.#peer && this.#moved(state),
      pathless: () => this.#pathless(),
    });
    this.#peer = peer;
    await peer.offer(false);
    const offer = await peer.gathered();
    if (peer !== this.#peer || this.#closed) return;
    const { session } = this.host;
    this.#headers = { Authorization: this.#own, ...(await session.headers()) };
    if (peer !== this.#peer || this.#closed) return;
    const response = await fetch(session.address(`whip/${encodeURIComponent(this.host.name())}`), {
      method: "POST",
      headers: { "Content-Type": "application/sdp", ...this.#headers },
      body: offer,
      signal: AbortSignal.timeout(ANSWER_DEADLINE),
    });
    if (!response.ok) throw await refusal(response);
    this.#location = new URL(response.headers.get("Location") ?? "", response.url).href;
    const answer = await response.text();
    if (this.#closed) return this.#delete();
    if (peer !== this.#peer) return;
    await peer.answer(answer, []);
    this.#timers.after("repair", CONNECT_PATIENCE, () => this.#repair());
  }

  /** @param {RTCPeerConnectionState} state */
  #moved(state) {
    if (state === "connected") {
      this.#timers.cancel("repair");
      if (this.#timers.has("step")) this.#timers.after("step", FRAME_DEADLINE, () => this.#pathless());
      if (this.#lostAt !== null && !this.host.interrupted()) this.host.emit("reconnected");
      this.#lostAt = null;
      this.#attempt = 0;
      this.#follow();
    } else if (state === "disconnected" || state === "failed") {
      this.#lostAt ??= performance.now();
      this.#timers.after("repair", state === "failed" ? 0 : DISCONNECT_PATIENCE, () => this.#repair());
    } else if (state === "closed" && !this.stopping) {
      this.#lostAt ??= performance.now();
      this.#timers.after("repair", GOODBYE_PATIENCE, () => this.#repair());
    }
  }

  /** Learns from the API how the recording goes: WHIP says nothing of it. */
  async #follow() {
    if (this.#closed) return;
    const { host } = this;
    if (!this.#recording || !host.publishing()) {
      const live = await liveStream(host.session, host.name());
      if (this.#closed) return;
      if (this.stopping && live?.hidden) return host.ended(null, "stopped");
      if (live?.status === STREAM_STATUS.PUBLISHING) {
        this.#recording = live.recording;
        this.#timers.cancel("step");
        if (!host.publishing() && !this.stopping) return host.began();
      } else if (this.stopping && !this.#recording && !live) {
        return host.ended(null); // stopped before anything was recorded
      }
    }
    if (!this.stopping && host.publishing()) return;
    const sealed = this.#recording ? await sealedRecording(host.session, this.#recording) : null;
    if (this.#closed) return;
    if (sealed && this.stopping) host.ended(sealed.info, sealed.end_reason);
    else this.#timers.after("follow", LOOK_MS, () => this.#follow());
  }

  /** Looks for a path again, in the same recording if the server still keeps it open. */
  async #repair() {
    const { host } = this;
    if (this.#peer?.state === "connected" || this.stopping) return;
    let sealed = this.#recording ? await sealedRecording(host.session, this.#recording) : null;
    if (sealed) {
      // An operator may have cut it, or stopped it while the stream goes on.
      const live = await liveStream(host.session, host.name());
      if (live?.status === STREAM_STATUS.PUBLISHING) [sealed, this.#recording] = [null, live.recording];
    }
    if (this.#closed) return;
    if (sealed && !UNWANTED.includes(sealed.end_reason)) return host.ended(sealed.info, sealed.end_reason);
    if (sealed) {
      this.#recording = null;
      host.interrupt(sealed.end_reason, sealed.info, this.#lostAt ?? performance.now());
    }
    if (this.#lostAt !== null && performance.now() - this.#lostAt > GIVE_UP) return this.#fail(unreachable());
    this.#attempt += 1;
    if (this.#lostAt !== null) host.emit("reconnecting", { attempt: this.#attempt });
    this.#timers.after("repair", CONNECT_PATIENCE + pause(this.#attempt), () => this.#repair());
    await this.#connect().catch((error) => host.publishing() || host.interrupted() || this.#fail(error)); // the next one may
  }

  async #delete() {
    const location = this.#location;
    if (!location) return;
    await fetch(location, { method: "DELETE", headers: this.#headers, keepalive: true });
  }

  #pathless() {
    if (this.host.patient() || this.host.publishing() || this.stopping) return;
    this.#fail(new OnrecordError("no_path", "WebRTC finds no way through: UDP is blocked between this browser and the server."));
  }

  /** @param {Error} error */
  #fail(error) {
    if (!this.#closed) this.host.failed(error instanceof TypeError ? unreachable() : error);
  }
}
