// A transport: how the media of a stream get to the server. Each has a file of its own.

import { OnrecordError } from "./model.js";
import { Timers } from "./timers.js";

/** @typedef {import("./model.js").Counters} Counters */
/** @typedef {import("./model.js").RecordInfo} RecordInfo */
/** @typedef {import("./model.js").ServerMessage} ServerMessage */
/** @typedef {import("./model.js").StreamEvents} StreamEvents */

/**
 * What a stream is to its transport. Nothing that a closed transport says has an effect.
 * @typedef {object} TransportContext
 * @property {import("./model.js").StreamOptions} options
 * @property {import("./session.js").Session} session
 * @property {() => string} name
 * @property {string | undefined} resume  The secret that proves to the server that this publication is
 *   ours. One for all transports: the first that is given one hands it on.
 * @property {() => boolean} lastResort  Whether there is no other transport to fall back to: then it tries
 *   for long, and else gives up in seconds.
 * @property {() => boolean} publishing  Whether the server records at this moment.
 * @property {() => boolean} interrupted  Whether the server ended a recording unasked, and the next hasn't
 *   begun.
 * @property {(name: string) => void} named  The server chose the name.
 * @property {() => void} began  The server has the first frame.
 * @property {(reason: string, recording: RecordInfo | null, since: number) => void} interrupt  The server
 *   ended the recording unasked; the transport begins a new one. Nothing has reached the server `since`
 *   (by `performance.now()`).
 * @property {(recording: RecordInfo | null, reason?: string) => void} ended  It is over, and sealed if it
 *   was recorded.
 * @property {(error: Error) => void} failed
 * @property {<Event extends keyof StreamEvents>(event: Event, detail?: StreamEvents[Event]) => void} emit
 */

/** Ends that were not asked for: the stream goes on in a new recording. */
export const UNINTENDED_ENDS = ["publisher_lost", "server_stopped", "server_crashed"];

/** How long a transport tries to reach the server again before it fails, if it is the last resort. */
export const RECONNECT_TIMEOUT = 120_000;
/** The same for a server that never answered: a person waits for it to begin. */
export const START_TIMEOUT = 15_000;
/** How long the server may take from `stop` to the sealed file; a full disk queue is slow. */
export const STOP_TIMEOUT = 20_000;

/** Refusals of a server that comes up or goes down, or still holds the old publication. */
export const TRANSIENT = ["limit_reached", "stream_busy", "rate_limited"];

export const unreachable = () =>
  new OnrecordError("unreachable", "The server doesn't answer. If it received anything, that is among its recordings.");

export const noPath = () =>
  new OnrecordError("no_path", "WebRTC finds no way through: UDP is blocked between this browser and the server.");

export const noSocket = () =>
  new OnrecordError("no_socket", "Something between this browser and the server refuses WebSockets.");

/**
 * The recording is over, and the server's disk refuses to finish it.
 * @param {string} why
 */
export const unsealed = (why) => new OnrecordError("sealing", `The server tries again until it is done: ${why}`);

/** The interface, with what a transport may leave out. */
export class Transport {
  /** @protected */ context;
  /** @protected */ media;
  /** @protected */ timers = new Timers();
  /** @protected */ closed = false;
  /** @protected */ stopping = false;

  /**
   * @param {TransportContext} context
   * @param {MediaStream} media
   */
  constructor(context, media) {
    this.context = context;
    this.media = media;
  }

  /** Why this browser can't use it; null if it can. @returns {OnrecordError | null} */
  static unsupported() {
    return null;
  }

  /** Begins to send. */
  start() {}

  /** What comes from now on isn't recorded. Ends with `context.ended` or `failed`. */
  stop() {}

  /** The page is being left: says so, if there is time. */
  leave() {}

  /** Sends these media from now on, in the same recording. @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
  }

  /** Lets go of everything without a word to the server. */
  close() {
    this.closed = true;
    this.timers.clear();
  }

  /** @returns {Promise<Counters>} */
  async counters() {
    return { bytes: 0, framesPerSecond: 0, packetsLost: 0, roundTripTime: 0 };
  }

  /** What would be lost if the page were left now. */
  get unsentBytes() {
    return 0;
  }

  /** Whether it needs the session's socket. */
  get signalled() {
    return false;
  }

  /** The session's socket is open (again). */
  attach() {}

  /** The session's socket is lost; it tries again. */
  detach() {}

  /** The session can't have a socket. */
  withoutSocket() {}

  /** A message on the session's socket. @param {ServerMessage} _message */
  receive(_message) {}

  /**
   * @protected
   * @param {Error} error
   */
  fail(error) {
    if (!this.closed) this.context.failed(error);
  }
}
