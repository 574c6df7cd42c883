// A way: how the media of a stream get to the server. Each has a file of its own.

import { OnrecordError } from "./model.js";

/**
 * What a stream is to the way it uses. A way that is closed talks to nobody.
 * @typedef {object} Host
 * @property {import("./model.js").StreamOptions} options
 * @property {import("./session.js").Session} session
 * @property {() => string} name
 * @property {string | undefined} resume  The secret that proves to the server that this publication is
 *   ours. One for all ways: the first that is given one hands it on.
 * @property {() => boolean} patient  Whether there is no other way: then it tries for long, and else
 *   gives up in seconds.
 * @property {() => boolean} publishing  Whether the server records at this moment.
 * @property {() => boolean} interrupted  Whether a recording was ended that nobody wanted to end, and
 *   the next hasn't begun.
 * @property {(name: string) => void} named  The server chose the name.
 * @property {() => void} began  The server has the first frame.
 * @property {(reason: string, recording: RecordInfo | null, since: number) => void} interrupt  A
 *   recording was ended that nobody wanted to end; the way begins a new one. Nothing has reached the
 *   server `since` (by `performance.now()`).
 * @property {(recording: RecordInfo | null, reason?: string) => void} ended  It is over, and sealed if it
 *   was recorded.
 * @property {(error: Error) => void} failed
 * @property {(event: string, detail?: object) => void} emit
 */

/** Counters of what was sent; see `Stream.stats`. @typedef {{bytes: number, framesPerSecond: number, packetsLost: number, roundTripTime: number}} Counters */

/** @typedef {import("./model.js").RecordInfo} RecordInfo */
/** @typedef {import("./model.js").ServerMessage} ServerMessage */

/** Ends that nobody wanted: the stream goes on in a new recording. */
export const UNWANTED = ["publisher_lost", "server_stopped", "server_crashed"];

/** How long a way tries to come back before it fails, if there is no other. */
export const GIVE_UP = 120_000;
/** The same for one that the server never answered: somebody sits there and waits for the start. */
export const GIVE_UP_START = 15_000;
/** The server has closed the connection: why, it says on another road, within this. */
export const GOODBYE_PATIENCE = 1_000;
/** How long the server may take from `stop` to the sealed file; a full disk queue is slow. */
export const STOP_DEADLINE = 20_000;

export function unreachable() {
  return new OnrecordError(
    "unreachable",
    "The server doesn't answer. If it received anything, that is recorded: look on its page “Recordings”.",
  );
}

/**
 * The recording is over, and the server's disk refuses to finish it.
 * @param {string} why
 */
export function unsealed(why) {
  return new OnrecordError("sealing", `The server tries again until it is done: ${why}`);
}

/** The interface, with what a way may leave out. */
export class Way {
  /** @protected */ host;
  /** @protected */ media;
  /** @protected */ stopping = false;

  /**
   * @param {Host} host
   * @param {MediaStream} media
   */
  constructor(host, media) {
    this.host = host;
    this.media = media;
  }

  /** What this browser lacks for it; null if nothing. @returns {OnrecordError | null} */
  static lacks() {
    return null;
  }

  /** Begins to send. */
  start() {}

  /** Somebody pressed Stop: what comes from now on isn't recorded. Ends with `host.ended` or `failed`. */
  stop() {}

  /** The page is being left: says so, if there is time. */
  leave() {}

  /** Sends these media from now on, in the same recording. @param {MediaStream} media */
  replaceMedia(media) {
    this.media = media;
  }

  /** Lets go of everything without a word to the server. */
  close() {}

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
  socketless() {}

  /** A message on the session's socket. @param {ServerMessage} _message */
  receive(_message) {}
}
