// The way for browsers that WebRTC can't serve: MediaRecorder's bytes over a WebSocket of its own. What
// the server hasn't acknowledged is held, and sent again after a lost socket.

import { Backlog } from "./backlog.js";
import { sealedRecording } from "./catalogue.js";
import { ChunkSocket } from "./chunksocket.js";
import { OnrecordError, RecordInfo, pause } from "./model.js";
import { Recorder, mimeFor } from "./recorder.js";
import { Timers } from "./waiting.js";
import { GIVE_UP, GIVE_UP_START, STOP_DEADLINE, UNWANTED, Way, unreachable, unsealed } from "./way.js";

/** @typedef {import("./chunksocket.js").ChunksMessage} ChunksMessage */

/** A socket that takes longer to open and to be answered is tried anew. */
const OPEN_DEADLINE = 10_000;
/** The same for the first one, if there is another way. */
const STEP_DEADLINE = 3_000;
/** A socket on which bytes are owed an acknowledgement for so long is dead, whatever it says. */
const ACK_DEADLINE = 20_000;
/** How often a full socket is looked at. */
const PUMP_MS = 50;
/** The server is so far behind: the network can't keep up. */
const SLOW_MS = 5_000;
const MAX_HELD = 64 * 1024 * 1024;
/** Chunk lengths, as the contract bounds them. */
const CHUNK_TIME = { least: 100, most: 10_000, usual: 1000 };
/** Refusals of a server that comes up or goes down, or still holds the old publication. */
const PASSING = ["limit_reached", "stream_busy", "rate_limited"];

/** @param {number} [ms] */
export function clampChunkTime(ms = CHUNK_TIME.usual) {
  return Math.min(CHUNK_TIME.most, Math.max(CHUNK_TIME.least, Math.round(ms) || CHUNK_TIME.usual));
}

export class Chunks extends Way {
  #backlog = new Backlog();
  /** @type {Recorder | null} */
  #recorder = null;
  #chunkTime = clampChunkTime(this.host.options.chunkTime);
  /** What is recorded; empty until the browser has decided. */
  #mime = "";
  /** @type {ChunkSocket | null} */
  #socket = null;
  /** Whether the server has answered on this socket: bytes may follow. */
  #open = false;
  /** Names this recording to the server. @type {string | undefined} */
  #uid;
  /** The recorder has ended for good, and its last blob is here. */
  #complete = false;
  #stopSaid = false;
  #attempt = 0;
  #timers = new Timers();
  #closed = false;
  #slow = false;
  /** When recording was paused because too much is held. @type {number | null} */
  #pausedAt = null;
  #brokeAt = -Infinity;
  /** What the server has against the bytes; it ends the recording. @type {OnrecordError | null} */
  #verdict = null;
  /** Counts the recorders, so that one overtaken by the next isn't made. */
  #turn = 0;

  /** @override */
  static lacks() {
    if (globalThis.MediaRecorder) return null;
    return new OnrecordError("no_recorder", "This browser has no MediaRecorder. Use a newer one.");
  }

  /** @override */
  get unsentBytes() {
    return this.#backlog.unacked;
  }

  /** @override */
  start() {
    globalThis.addEventListener?.("online", this.#hurry);
    if (!this.host.patient()) this.#timers.after("step", STEP_DEADLINE, () => this.#fail(noSocket()));
    this.#timers.after("lost", GIVE_UP_START, () => this.#fail(unreachable()));
    this.#record();
    this.#connect();
  }

  /** @override */
  stop() {
    this.stopping = true;
    if (!this.#uid && !this.host.interrupted()) return this.host.ended(null); // the server has nothing of it
    this.#timers.after("stop", STOP_DEADLINE, () => this.#late());
    this.#turn += 1;
    (this.#recorder?.stop() ?? Promise.resolve()).then(() => {
      this.#complete = true;
      this.#pump();
    });
  }

  /** @override */
  leave() {
    if (this.stopping || !this.#uid) return;
    this.stopping = true;
    this.#turn += 1;
    this.#recorder?.close();
    this.#socket?.say({ event: "STOP_REC_BLOB" });
  }

  /** @override @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
    this.#recordAnew();
  }

  /** @override */
  close() {
    this.#closed = true;
    this.#timers.clear();
    this.#recorder?.close();
    this.#hangUp();
    globalThis.removeEventListener?.("online", this.#hurry);
  }

  /** @override */
  async counters() {
    return { ...(await super.counters()), bytes: this.#backlog.acked };
  }

  #record() {
    const { codec, maxBitrate } = this.host.options;
    const mime = mimeFor(codec, this.media.getVideoTracks().length > 0);
    try {
      const recorder = new Recorder(this.media, {
        mime, maxBitrate, chunkTime: this.#chunkTime,
        blob: (blob) => this.#recorded(blob),
        broken: (error) => this.#broke(error),
      });
      this.#recorder = recorder;
      this.#mime ||= recorder.mime || mime;
    } catch (error) {
      this.#fail(new OnrecordError("no_recorder", `The browser can't record this: ${/** @type {Error} */ (error).message}`));
    }
  }

  /** Ends this MediaRecorder and makes a new one; on the server the recording goes on. */
  async #recordAnew() {
    const turn = ++this.#turn;
    await this.#recorder?.stop();
    if (turn === this.#turn && !this.#closed && this.#pausedAt === null) this.#record();
  }

  /** @param {Error} error */
  #broke(error) {
    if (this.#closed || this.stopping) return;
    if (this.media.getTracks().every(({ readyState }) => readyState === "ended")) return; // the stream ends by itself
    const before = this.#brokeAt;
    this.#brokeAt = performance.now();
    if (this.#brokeAt - before < 2_000) this.#fail(new OnrecordError("no_recorder", `The browser stops recording: ${error.message}`));
    else this.#recordAnew();
  }

  /** @param {Blob} blob */
  #recorded(blob) {
    if (this.#closed) return;
    if (!this.#mime && blob.type) {
      this.#mime = blob.type;
      if (this.#socket?.connected) this.#register();
    }
    this.#backlog.push(blob, performance.now());
    this.#pump();
    this.#measure();
  }

  /** Opens a socket. */
  #connect() {
    this.#hangUp();
    this.#timers.after("open", OPEN_DEADLINE, () => this.#lost());
    try {
      const { session } = this.host;
      this.#socket = new ChunkSocket(session.address("chunks").replace(/^http/, "ws"), session.protocols(), {
        opened: () => this.#mime && this.#register(),
        heard: (message) => this.#heard(message),
        lost: () => this.#lost(),
      });
    } catch (error) {
      this.#fail(new OnrecordError("bad_url", `The server's address can't be opened from here: ${/** @type {Error} */ (error).message}`));
    }
  }

  #hangUp() {
    this.#socket?.close();
    this.#socket = null;
    this.#open = false;
  }

  #register() {
    const { host } = this;
    const name = host.name();
    this.#socket?.say({
      event: "register",
      ...(name ? { name } : { name_prefix: host.options.namePrefix }),
      mime: this.#mime,
      ...(this.#uid ? { uid: this.#uid } : host.resume && { resume: host.resume }),
    });
  }

  /** The socket is lost. What is recorded meanwhile is held. */
  #lost() {
    if (this.#closed) return;
    if (this.#verdict) return this.#fail(this.#verdict);
    this.#hangUp();
    for (const timer of ["pump", "ack"]) this.#timers.cancel(timer);
    if (!this.#timers.has("lost")) this.#timers.after("lost", this.stopping ? STOP_DEADLINE : GIVE_UP, () => this.#fail(unreachable()));
    const attempt = this.#attempt++;
    if (this.#uid) this.host.emit("reconnecting", { attempt: this.#attempt });
    this.#timers.after("open", pause(attempt), () => this.#connect());
  }

  /** The network is back: no more waiting. */
  #hurry = () => {
    if (!this.#socket) this.#connect();
  };

  /** @param {ChunksMessage} message */
  #heard(message) {
    if (message.event === "registered") this.#registered(message);
    else if (message.event === "ack") this.#acked(message.offset ?? 0);
    else if (message.event === "sealing") this.#sealing(message);
    else if (message.event === "stopped") this.#stopped(message);
    else if (message.event === "error") this.#refused(message);
  }

  /** @param {ChunksMessage} message */
  #registered({ uid, name, offset = 0 }) {
    const { host } = this;
    const again = this.#uid !== undefined;
    this.#uid = uid;
    host.resume ??= uid;
    this.#open = true;
    this.#stopSaid = false;
    for (const timer of ["open", "step", "lost"]) this.#timers.cancel(timer);
    if (name) host.named(name);
    if (again) host.emit("reconnected");
    if (!offset) this.#socket?.say({ event: "START_REC_BLOB" }); // the first one may be lost with its socket
    if (!this.#backlog.rewind(offset)) return this.#startAnew("server_crashed", null);
    if (offset > 0) this.#acked(offset);
    this.#pump();
  }

  /** @param {number} offset */
  #acked(offset) {
    const { host } = this;
    this.#attempt = 0; // and not when it opens: some proxies accept, only to hang up
    if (!this.#backlog.ack(offset)) return this.#fail(new OnrecordError("offset_mismatch", "The server has more bytes than were sent."));
    this.#timers.cancel("ack");
    if (this.#backlog.unacked) this.#timers.after("ack", ACK_DEADLINE, () => this.#lost());
    if (this.stopping) this.#timers.after("stop", STOP_DEADLINE, () => this.#late());
    if (!host.publishing() && !this.stopping && offset > 0) host.began();
    this.#pump();
    this.#measure();
  }

  /** Hands to the socket what it takes. */
  #pump() {
    const socket = this.#socket;
    if (!socket?.connected || !this.#open) return;
    while (!socket.full) {
      const piece = this.#backlog.next();
      if (!piece) break;
      socket.send(piece);
      if (!this.#timers.has("ack")) this.#timers.after("ack", ACK_DEADLINE, () => this.#lost());
    }
    if (!this.#backlog.drained) return this.#timers.after("pump", PUMP_MS, () => this.#pump());
    if (!this.#complete || this.#stopSaid) return;
    this.#stopSaid = true;
    this.#socket?.say({ event: "STOP_REC_BLOB", bytes: this.#backlog.produced });
  }

  /** Whether the network keeps up; if not for long, pauses the recording. */
  #measure() {
    const { host } = this;
    const { produced, acked, unacked, since } = this.#backlog;
    host.emit("progress", { produced, acked, unsent: unacked });
    const now = performance.now();
    const lag = since === null ? 0 : now - since;
    if (!this.#slow && lag > SLOW_MS + this.#chunkTime) {
      this.#slow = true;
      const held = `${Math.round(lag / 1000)} s are held in this page`;
      host.emit("warning", new OnrecordError("slow_network", `The network doesn't keep up: ${held} and go out as soon as it lets them.`));
    } else if (lag < this.#chunkTime + SLOW_MS / 5) {
      this.#slow = false;
    }
    const { maxHeldBytes = MAX_HELD } = host.options;
    if (this.#pausedAt === null && unacked > maxHeldBytes && !this.stopping) {
      // Bytes missing in the middle would spoil what follows, so the container ends here.
      this.#pausedAt = now;
      host.emit("paused", { bytes: unacked });
      this.#recordAnew();
    } else if (this.#pausedAt !== null && unacked < maxHeldBytes / 4 && !this.stopping) {
      const lost_ms = Math.round(now - this.#pausedAt);
      this.#pausedAt = null;
      host.emit("resumed", { lost_ms });
      this.#recordAnew();
    }
  }

  /** The recording is over, and the server's disk refuses to finish it. @param {ChunksMessage} message */
  #sealing({ message = "" }) {
    this.stopping = true;
    this.#turn += 1;
    this.#recorder?.close();
    for (const timer of ["pump", "ack"]) this.#timers.cancel(timer); // what it hasn't taken has no place any more
    this.#timers.after("stop", GIVE_UP, () => this.#late());
    this.host.emit("warning", unsealed(message));
  }

  /** @param {ChunksMessage} message */
  async #stopped({ recording, reason }) {
    const info = recording ? new RecordInfo(recording, this.host.session.address("")) : null;
    if (this.stopping) return this.host.ended(info, reason ?? "stopped");
    const why = reason ?? recording?.end_reason ?? (info && (await sealedRecording(this.host.session, info.id))?.end_reason) ?? "server_stopped";
    if (this.#closed) return;
    if (this.#verdict) this.host.emit("warning", this.#verdict);
    if (UNWANTED.includes(why)) this.#startAnew(why, info);
    else this.host.ended(info, why);
  }

  /** @param {ChunksMessage} message */
  #refused({ code = "error", message = "The server refuses the recording." }) {
    const { host } = this;
    const error = new OnrecordError(code, message);
    if (code === "bad_request" && this.#open) host.emit("warning", error); // START said twice
    else if (code === "resume_expired" && this.stopping) this.#fail(unreachable());
    else if (code === "resume_expired" && this.#uid) this.#startAnew("server_crashed", null);
    else if (code === "resume_expired" && host.resume) host.resume = undefined; // of the way before; the socket closes
    else if (PASSING.includes(code) && host.interrupted()) this.#lost();
    else if (host.publishing()) this.#verdict = error; // `stopped` follows, with what came before
    else this.#fail(error);
  }

  /**
   * The recording was ended, but the camera is on: begins a new one. What the server lacks of the old
   * one has no place any more.
   * @param {string} reason
   * @param {RecordInfo | null} recording
   */
  #startAnew(reason, recording) {
    const since = this.#backlog.since ?? performance.now();
    this.#recorder?.close();
    this.#backlog = new Backlog();
    this.#uid = this.host.resume = undefined;
    this.#pausedAt = null;
    this.#turn += 1;
    this.host.interrupt(reason, recording, since);
    this.#record();
    this.#lost();
  }

  /** Stop was said, and nothing has come of it for long. */
  #late() {
    this.#fail(unreachable());
  }

  /** @param {Error} error */
  #fail(error) {
    if (!this.#closed) this.host.failed(error);
  }
}

const noSocket = () => new OnrecordError("no_socket", "Something between this browser and the server refuses WebSockets.");
