// A session: the signalling socket, kept up as long as a stream needs it.

import { Credential } from "./credential.js";
import { Emitter } from "./emitter.js";
import { OnrecordError, SESSION_STATUS, backoff } from "./model.js";
import { Stream } from "./stream.js";

/** @typedef {import("./model.js").ServerMessage} ServerMessage */
/** @typedef {import("./model.js").SessionEvents} SessionEvents */
/** @typedef {import("./model.js").SessionStatus} SessionStatus */

/** A socket that takes longer to open is tried anew: a lost SYN on a phone is retried too slowly. */
const OPEN_TIMEOUT = 10_000;
/** The first one may take so long, if the server answers plain HTTP: a proxy lets no sockets through. */
const SLOW_SOCKET = 2_500;
const PROBE_TIMEOUT = 5_000;

/** Close codes are 4000 + HTTP status; of those the client is to blame for, these pass with time. */
const TRANSIENT = [4408, 4429];
const NO_TOKEN = "This server asks who is there. Give createSession a token, or log in.";
const NOT_ALLOWED = "This token doesn't allow to publish.";
/**
 * By the server's answer to `api/session`.
 * @param {{asked?: boolean, permissions?: string[]} | null} body
 */
const mayPublish = (body) => !body?.asked || ["publish", "admin"].some((one) => body.permissions?.includes(one));

/** @param {number} code */
const refused = (code) => code >= 4400 && code < 4500;

/**
 * The signalling address in full: `ws(s)://` or `http(s)://`, host, and `/signal` if left out. An
 * empty one is the server that this library came from.
 * @param {string} [address]
 */
export function signalUrl(address, library = import.meta.url) {
  const url = new URL(address || "../../", address ? globalThis.location?.href ?? library : library);
  url.protocol = url.protocol.replace("http", "ws");
  url.hash = url.search = "";
  if (!url.pathname.endsWith("/signal")) url.pathname = `${url.pathname.replace(/\/$/, "")}/signal`;
  return url.href;
}

/**
 * The address of something of the server, by HTTP.
 * @param {string} signal  As `signalUrl` gives it.
 * @param {string} path  `chunks`, say; of an address that the server gave, `/recordings/…`.
 */
export function addressOf(signal, path) {
  return new URL(path, signal.replace(/^ws/, "http").replace(/signal$/, "")).href;
}

/**
 * A connection to the server.
 *
 * The server keeps a stream whose socket is lost, as long as its media come. So a lost socket is
 * opened again with growing pauses as long as a stream is under way, without a change of status:
 * ESTABLISHED is told once. DISCONNECTED means that it isn't tried any more. A session without
 * streams, whose socket the server closes because nothing is said on it, sleeps until the next one.
 *
 * Where no socket can be opened, but the server answers plain HTTP, the session is ESTABLISHED too:
 * its streams then take the transports that need none.
 * @extends {Emitter<SessionStatus, SessionEvents>}
 */
export class Session extends Emitter {
  /** @type {WebSocket | null} */
  #socket = null;
  /** @type {Set<Stream>} */
  #streams = new Set();
  #attempt = 0;
  #httpOnly = false;
  #probing = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #credential;
  /** Counts the sockets, so that one overtaken while its token was awaited isn't opened. */
  #sockets = 0;
  #awaitingToken = false;
  /** What a stream is told that is abandoned: the server's own words, if it said any. @type {OnrecordError} */
  #error;

  /** @param {import("./model.js").SessionOptions} [options] */
  constructor(options = {}) {
    super();
    /** Where the server is. */
    this.url = signalUrl(options.urlServer);
    /** STUN and TURN servers that the server named. @type {RTCIceServer[]} */
    this.iceServers = [];
    this.#credential = new Credential(options.token);
    this.#error = new OnrecordError(
      "unreachable",
      `The server ${new URL(this.url).host} can't be reached. Check the address and the network, ` +
        "that the server runs, and that its server.cors_origins has this page's origin.",
    );
    globalThis.addEventListener?.("pagehide", this.#leave);
    globalThis.addEventListener?.("online", this.#online);
    this.#open();
  }

  /** Whether messages can be sent now. */
  get connected() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Whether the server answers, but no socket can be opened: something between forbids it. */
  get httpOnly() {
    return this.#httpOnly;
  }

  /** The address of something of the server. @param {string} path */
  address(path) {
    return addressOf(this.url, path);
  }

  /** What requests show the server. */
  headers() {
    return this.#credential.headers();
  }

  /** What sockets show the server; null if nothing. */
  protocols() {
    return this.#credential.given ? this.#credential.protocols() : null;
  }

  /** Why the session failed. */
  getError() {
    return this.status() === SESSION_STATUS.FAILED ? this.#error : null;
  }

  /**
   * A stream of this session; `publish()` starts it.
   * @param {import("./model.js").StreamOptions} options
   */
  createStream(options) {
    return new Stream(this, options);
  }

  /** Stops the streams, then the connection. */
  async disconnect() {
    await Promise.allSettled([...this.#streams].map((stream) => stream.stop()));
    this.#end(SESSION_STATUS.DISCONNECTED);
  }

  /**
   * Takes a stream in; its messages come to it from now on.
   * @internal
   * @param {Stream} stream
   */
  add(stream) {
    if (this.#over) throw new OnrecordError("disconnected", "This session is over. Create a new one.");
    const name = stream.name();
    if (name && this.#find(name)) {
      throw new OnrecordError("stream_busy", `This page publishes ${name} already. Stop it, or choose another name.`);
    }
    const asleep = !this.#socket && !this.#awaitingToken && this.#idle && !this.#httpOnly;
    this.#streams.add(stream);
    if (asleep && stream.signalled) this.#open();
  }

  /**
   * A stream is over.
   * @internal
   * @param {Stream} stream
   */
  remove(stream) {
    if (!this.#streams.delete(stream) || !stream.signalled) return;
    const lost = this.status() === SESSION_STATUS.ESTABLISHED && !this.connected;
    if (lost && this.#streams.size === 0) this.#end(SESSION_STATUS.DISCONNECTED);
  }

  /**
   * @internal
   * @param {object} message
   * @returns {boolean} Whether it was sent.
   */
  send(message) {
    if (!this.connected) return false;
    this.#socket?.send(JSON.stringify(message));
    return true;
  }

  /**
   * The server doesn't answer on this socket: takes a new one.
   * @internal
   */
  reset() {
    const socket = this.#socket;
    this.#dropSocket();
    socket?.close();
    this.#lost(0);
  }

  /** @param {string} name */
  #find(name) {
    return [...this.#streams].find((stream) => stream.name() === name);
  }

  /** Whether no stream needs the socket. */
  get #idle() {
    return ![...this.#streams].some(({ signalled }) => signalled);
  }

  get #over() {
    return this.status() === SESSION_STATUS.FAILED || this.status() === SESSION_STATUS.DISCONNECTED;
  }

  /** Opens a socket; with a token, once it is there. */
  #open() {
    clearTimeout(this.#timer);
    const protocols = this.protocols();
    if (!protocols) return this.#openSocket();
    const count = ++this.#sockets;
    this.#awaitingToken = true;
    protocols.then(
      (shown) => count === this.#sockets && this.#openSocket(shown),
      (error) => count === this.#sockets && this.#tokenFailed(error),
    );
  }

  /** @param {OnrecordError} error */
  #tokenFailed(error) {
    this.#awaitingToken = false;
    this.#error = error;
    if (this.status() === null) this.#end(SESSION_STATUS.FAILED);
    else this.#lost(0); // the page may have one again after a pause
  }

  /** @param {string[]} [protocols] */
  #openSocket(protocols) {
    this.#awaitingToken = false;
    try {
      this.#socket = new WebSocket(this.url, protocols);
    } catch (error) {
      // A ws:// address on an https:// page, or no address at all.
      this.#error = new OnrecordError("bad_url", `${this.url} can't be opened from here: ${/** @type {Error} */ (error).message}`);
      queueMicrotask(() => this.#end(SESSION_STATUS.FAILED));
      return;
    }
    this.#timer = setTimeout(() => {
      if (this.status() === null) this.#probeHttp();
      this.#timer = setTimeout(() => this.reset(), OPEN_TIMEOUT - SLOW_SOCKET);
    }, SLOW_SOCKET);
    this.#socket.onopen = () => this.#opened();
    this.#socket.onmessage = ({ data }) => this.#message(data);
    this.#socket.onclose = ({ code }) => {
      this.#dropSocket();
      this.#lost(code);
    };
  }

  #opened() {
    clearTimeout(this.#timer);
    if (this.status() === null) this.enter(SESSION_STATUS.ESTABLISHED);
    else this.emit("reconnected");
    for (const stream of this.#streams) stream.attach();
  }

  /** The first socket is refused, or slow: asks by HTTP whether the server is there. */
  async #probeHttp() {
    if (this.#probing) return;
    this.#probing = true;
    const signal = AbortSignal.timeout(PROBE_TIMEOUT);
    const found = await this.headers().then((headers) => fetch(this.address("api/session"), { headers, signal })).catch(() => null);
    const body = await found?.json().catch(() => null);
    if (this.status() !== null) return; // the socket opened after all, or it is over
    if (found?.ok && mayPublish(body)) return this.#useHttpOnly();
    if (found?.ok) this.#error = body.who === null ? new OnrecordError("unauthorized", NO_TOKEN) : new OnrecordError("forbidden", NOT_ALLOWED);
    else if (body?.code) this.#error = new OnrecordError(body.code, body.message);
    // A socket that is still opening may do it: some servers serve no lists.
    if (!this.#socket) this.#end(SESSION_STATUS.FAILED);
    this.#probing = false;
  }

  #useHttpOnly() {
    const socket = this.#socket;
    this.#dropSocket();
    socket?.close();
    this.#httpOnly = true;
    this.enter(SESSION_STATUS.ESTABLISHED);
    for (const stream of [...this.#streams]) stream.withoutSocket();
  }

  /** The old socket says nothing any more. */
  #dropSocket() {
    clearTimeout(this.#timer);
    this.#sockets += 1;
    this.#awaitingToken = false;
    if (this.#socket) this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket = null;
  }

  /** @param {number} code */
  #lost(code) {
    if (this.#over) return;
    for (const stream of this.#streams) stream.detach();
    if (this.status() === null) return this.#probeHttp();
    const idle = this.#idle;
    if (idle && (refused(code) || this.#streams.size)) return; // asleep, see `add`
    if (idle || (refused(code) && !TRANSIENT.includes(code))) return this.#end(SESSION_STATUS.DISCONNECTED);
    const wait = backoff(this.#attempt++);
    this.emit("reconnecting", { attempt: this.#attempt, pause_ms: Math.round(wait) });
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  /** The network is back: no more waiting. */
  #online = () => {
    if (!this.#socket && !this.#awaitingToken && !this.#idle && !this.#over && this.status() !== null) this.#open();
  };

  /** @param {unknown} data */
  #message(data) {
    /** @type {ServerMessage} */
    let message;
    this.#attempt = 0; // and not when it opens: some proxies accept, only to hang up
    try {
      message = JSON.parse(String(data));
    } catch {
      return; // not ours: a proxy's word
    }
    const only = this.#streams.size === 1 ? [...this.#streams][0] : undefined;
    const stream = message.stream === undefined ? only : this.#find(message.stream);
    if (stream) return stream.receive(message);
    if (message.type !== "error" || message.stream) return; // of a stream that is over by now
    this.#error = new OnrecordError(message.code ?? "error", message.message ?? "The server reports an error.");
    this.emit("error", this.#error);
  }

  /**
   * The page is left. What was sent is recorded in any case: the server has it, and ends
   * the recording when no media come any more. All there is to do is to say that this is on
   * purpose, so that it ends now and not after a grace. Browsers mostly deliver a message sent
   * here; if not, nothing is lost but those seconds. Nothing is torn down: a page that returns from
   * the back-forward cache finds its socket closed, opens a new one and learns what became of it.
   */
  #leave = () => {
    for (const stream of this.#streams) stream.leave();
  };

  /** @param {SessionStatus} status */
  #end(status) {
    if (this.#over) return;
    const socket = this.#socket;
    this.#dropSocket();
    socket?.close(1000);
    globalThis.removeEventListener?.("pagehide", this.#leave);
    globalThis.removeEventListener?.("online", this.#online);
    this.enter(status);
    for (const stream of [...this.#streams]) stream.abandon(this.#error);
  }
}
