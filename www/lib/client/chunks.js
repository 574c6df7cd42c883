// For browsers that WebRTC can't serve: MediaRecorder's bytes over a WebSocket of its own. What the
// server hasn't acknowledged is held, and sent again after a lost socket.

import { sealedRecording } from "./api.js";
import { Backlog } from "./backlog.js";
import { ChunkSocket } from "./chunk-socket.js";
import { Recorder, mimeFor } from "./media-recorder.js";
import { OnrecordError, RecordInfo, backoff } from "./model.js";
import { RECONNECT_TIMEOUT, START_TIMEOUT, STOP_TIMEOUT, TRANSIENT, Transport, UNINTENDED_ENDS, noSocket, unreachable, unsealed } from "./transport.js";

/** @typedef {import("./chunk-socket.js").ChunksMessage} ChunksMessage */

/** A socket that takes longer to open and to be answered is tried anew. */
const OPEN_TIMEOUT = 10_000;
/** The same for the first one, if there is another transport. */
const FALLBACK_TIMEOUT = 3_000;
/** A socket on which bytes are owed an acknowledgement for so long is dead, whatever it says. */
const ACK_TIMEOUT = 20_000;
/** How often a full socket is looked at. */
const PUMP_MS = 50;
/** The server is so far behind: the network can't keep up. */
const SLOW_MS = 5_000;
const MAX_HELD = 64 * 1024 * 1024;
/** Bounds of a chunk's length, in milliseconds, and the length if none is asked for. */
export const CHUNK_TIME = Object.freeze({ min: 100, max: 10_000, usual: 1000 });

/** @param {number} [ms] */
export function clampChunkTime(ms = CHUNK_TIME.usual) {
  return Math.min(CHUNK_TIME.max, Math.max(CHUNK_TIME.min, Math.round(ms) || CHUNK_TIME.usual));
}

export class Chunks extends Transport {
  #backlog = new Backlog();
  /** @type {Recorder | null} */
  #recorder = null;
  #chunkTime = clampChunkTime(this.context.options.chunkTime);
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
  #stopSent = false;
  #attempt = 0;
  #slow = false;
  /** When recording was paused because too much is held. @type {number | null} */
  #pausedAt = null;
  #brokeAt = -Infinity;
  /** What the server has against the bytes; it ends the recording. @type {OnrecordError | null} */
  #mediaError = null;
  /** Counts the recorders, so that one overtaken by the next isn't made. */
  #recorders = 0;

  /** @override */
  static unsupported() {
    if (globalThis.MediaRecorder) return null;
    return new OnrecordError("no_recorder", "This browser has no MediaRecorder. Use a newer one.");
  }

  /** @override */
  get unsentBytes() {
    return this.#backlog.unacked;
  }

  /** @override */
  start() {
    globalThis.addEventListener?.("online", this.#online);
    if (!this.context.lastResort()) this.timers.after("fallback", FALLBACK_TIMEOUT, () => this.fail(noSocket()));
    this.timers.after("lost", START_TIMEOUT, () => this.fail(unreachable()));
    this.#record();
    this.#connect();
  }

  /** @override */
  stop() {
    this.stopping = true;
    if (!this.#uid && !this.context.interrupted()) return this.context.ended(null); // the server has nothing of it
    this.timers.after("stop", STOP_TIMEOUT, () => this.fail(unreachable()));
    this.#recorders += 1;
    (this.#recorder?.stop() ?? Promise.resolve()).then(() => {
      this.#complete = true;
      this.#pump();
    });
  }

  /** @override */
  leave() {
    if (this.stopping || !this.#uid) return;
    this.stopping = true;
    this.#recorders += 1;
    this.#recorder?.close();
    this.#socket?.sendJson({ event: "STOP_REC_BLOB" });
  }

  /** @override @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
    this.#recordAnew();
  }

  /** @override */
  close() {
    super.close();
    this.#recorder?.close();
    this.#closeSocket();
    globalThis.removeEventListener?.("online", this.#online);
  }

  /** @override */
  async counters() {
    return { ...(await super.counters()), bytes: this.#backlog.acked };
  }

  #record() {
    const { codec, maxBitrate } = this.context.options;
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
      this.fail(new OnrecordError("no_recorder", `The browser can't record this: ${/** @type {Error} */ (error).message}`));
    }
  }

  /** Ends this MediaRecorder and makes a new one; on the server the recording goes on. */
  async #recordAnew() {
    const count = ++this.#recorders;
    await this.#recorder?.stop();
    if (count === this.#recorders && !this.closed && this.#pausedAt === null) this.#record();
  }

  /** @param {Error} error */
  #broke(error) {
    if (this.closed || this.stopping) return;
    if (this.media.getTracks().every(({ readyState }) => readyState === "ended")) return; // the stream ends by itself
    const before = this.#brokeAt;
    this.#brokeAt = performance.now();
    if (this.#brokeAt - before < 2_000) this.fail(new OnrecordError("no_recorder", `The browser stops recording: ${error.message}`));
    else this.#recordAnew();
  }

  /** @param {Blob} blob */
  #recorded(blob) {
    if (this.closed) return;
    if (!this.#mime && blob.type) {
      this.#mime = blob.type;
      if (this.#socket?.connected) this.#register();
    }
    this.#backlog.push(blob, performance.now());
    this.#pump();
    this.#checkBacklog();
  }

  /** Opens a socket. */
  #connect() {
    this.#closeSocket();
    this.timers.after("open", OPEN_TIMEOUT, () => this.#lost());
    try {
      const { session } = this.context;
      this.#socket = new ChunkSocket(session.address("chunks").replace(/^http/, "ws"), session.protocols(), {
        opened: () => this.#mime && this.#register(),
        received: (message) => this.#receive(message),
        lost: () => this.#lost(),
      });
    } catch (error) {
      this.fail(new OnrecordError("bad_url", `The server's address can't be opened from here: ${/** @type {Error} */ (error).message}`));
    }
  }

  #closeSocket() {
    this.#socket?.close();
    this.#socket = null;
    this.#open = false;
  }

  #register() {
    const { context } = this;
    const name = context.name();
    this.#socket?.sendJson({
      event: "register",
      ...(name ? { name } : { name_prefix: context.options.namePrefix }),
      mime: this.#mime,
      ...(this.#uid ? { uid: this.#uid } : context.resume && { resume: context.resume }),
    });
  }

  /** The socket is lost. What is recorded meanwhile is held. */
  #lost() {
    if (this.closed) return;
    if (this.#mediaError) return this.fail(this.#mediaError);
    this.#closeSocket();
    this.timers.cancel("pump", "ack");
    if (!this.timers.has("lost")) this.timers.after("lost", this.stopping ? STOP_TIMEOUT : RECONNECT_TIMEOUT, () => this.fail(unreachable()));
    const attempt = this.#attempt++;
    if (this.#uid) this.context.emit("reconnecting", { attempt: this.#attempt });
    this.timers.after("open", backoff(attempt), () => this.#connect());
  }

  /** The network is back: no more waiting. */
  #online = () => {
    if (!this.#socket) this.#connect();
  };

  /** @param {ChunksMessage} message */
  #receive(message) {
    if (message.event === "registered") this.#registered(message);
    else if (message.event === "ack") this.#acked(message.offset ?? 0);
    else if (message.event === "sealing") this.#sealing(message);
    else if (message.event === "stopped") this.#stopped(message);
    else if (message.event === "error") this.#refused(message);
  }

  /** @param {ChunksMessage} message */
  #registered({ uid, name, offset = 0 }) {
    const { context } = this;
    const again = this.#uid !== undefined;
    this.#uid = uid;
    context.resume ??= uid;
    this.#open = true;
    this.#stopSent = false;
    this.timers.cancel("open", "fallback", "lost");
    if (name) context.named(name);
    if (again) context.emit("reconnected");
    if (!offset) this.#socket?.sendJson({ event: "START_REC_BLOB" }); // the first one may be lost with its socket
    if (!this.#backlog.rewind(offset)) return this.#startAnew("server_crashed", null);
    if (offset > 0) this.#acked(offset);
    this.#pump();
  }

  /** @param {number} offset */
  #acked(offset) {
    const { context } = this;
    this.#attempt = 0; // and not when it opens: some proxies accept, only to hang up
    if (!this.#backlog.ack(offset)) return this.fail(new OnrecordError("offset_mismatch", "The server has more bytes than were sent."));
    this.timers.cancel("ack");
    if (this.#backlog.unacked) this.timers.after("ack", ACK_TIMEOUT, () => this.#lost());
    if (this.stopping) this.timers.after("stop", STOP_TIMEOUT, () => this.fail(unreachable()));
    if (!context.publishing() && !this.stopping && offset > 0) context.began();
    this.#pump();
    this.#checkBacklog();
  }

  /** Hands to the socket what it takes. */
  #pump() {
    const socket = this.#socket;
    if (!socket?.connected || !this.#open) return;
    while (!socket.full) {
      const piece = this.#backlog.next();
      if (!piece) break;
      socket.send(piece);
      if (!this.timers.has("ack")) this.timers.after("ack", ACK_TIMEOUT, () => this.#lost());
    }
    if (!this.#backlog.drained) return this.timers.after("pump", PUMP_MS, () => this.#pump());
    if (!this.#complete || this.#stopSent) return;
    this.#stopSent = true;
    this.#socket?.sendJson({ event: "STOP_REC_BLOB", bytes: this.#backlog.produced });
  }

  /** Whether the network keeps up; if not for long, pauses the recording. */
  #checkBacklog() {
    const { context } = this;
    const { produced, acked, unacked, since } = this.#backlog;
    context.emit("progress", { produced, acked, unsent: unacked });
    const now = performance.now();
    const lag = since === null ? 0 : now - since;
    if (!this.#slow && lag > SLOW_MS + this.#chunkTime) {
      this.#slow = true;
      const held = `${Math.round(lag / 1000)} s are held in this page`;
      context.emit("warning", new OnrecordError("slow_network", `The network doesn't keep up: ${held} and go out as soon as it lets them.`));
    } else if (lag < this.#chunkTime + SLOW_MS / 5) {
      this.#slow = false;
    }
    const { maxHeldBytes = MAX_HELD } = context.options;
    if (this.#pausedAt === null && unacked > maxHeldBytes && !this.stopping) {
      // Bytes missing in the middle would spoil what follows, so the container ends here.
      this.#pausedAt = now;
      context.emit("paused", { bytes: unacked });
      this.#recordAnew();
    } else if (this.#pausedAt !== null && unacked < maxHeldBytes / 4 && !this.stopping) {
      const lost_ms = Math.round(now - this.#pausedAt);
      this.#pausedAt = null;
      context.emit("resumed", { lost_ms });
      this.#recordAnew();
    }
  }

  /** The recording is over, and the server's disk refuses to finish it. @param {ChunksMessage} message */
  #sealing({ message = "" }) {
    this.stopping = true;
    this.#recorders += 1;
    this.#recorder?.close();
    this.timers.cancel("pump", "ack"); // what it hasn't taken has no place any more
    this.timers.after("stop", RECONNECT_TIMEOUT, () => this.fail(unreachable()));
    this.context.emit("warning", unsealed(message));
  }

  /** @param {ChunksMessage} message */
  async #stopped({ recording, reason }) {
    const info = recording ? new RecordInfo(recording, this.context.session.address("")) : null;
    if (this.stopping) return this.context.ended(info, reason ?? "stopped");
    const why = reason ?? recording?.end_reason ?? (info && (await sealedRecording(this.context.session, info.id))?.end_reason) ?? "server_stopped";
    if (this.closed) return;
    if (this.#mediaError) this.context.emit("warning", this.#mediaError);
    if (UNINTENDED_ENDS.includes(why)) this.#startAnew(why, info);
    else this.context.ended(info, why);
  }

  /** @param {ChunksMessage} message */
  #refused({ code = "error", message = "The server refuses the recording." }) {
    const { context } = this;
    const error = new OnrecordError(code, message);
    if (code === "bad_request" && this.#open) context.emit("warning", error); // START said twice
    else if (code === "resume_expired" && this.stopping) this.fail(unreachable());
    else if (code === "resume_expired" && this.#uid) this.#startAnew("server_crashed", null);
    else if (code === "resume_expired" && context.resume) context.resume = undefined; // of the transport before; the socket closes
    else if (TRANSIENT.includes(code) && context.interrupted()) this.#lost();
    else if (context.publishing()) this.#mediaError = error; // `stopped` follows, with what came before
    else this.fail(error);
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
    this.#uid = this.context.resume = undefined;
    this.#pausedAt = null;
    this.#recorders += 1;
    this.context.interrupt(reason, recording, since);
    this.#record();
    this.#lost();
  }
}
