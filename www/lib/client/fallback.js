// `mode: "auto"`, the best first: WebRTC by WebSocket, WebRTC by WHIP, chunks, JPEG.

import { Chunks } from "./chunks.js";
import { Mjpeg } from "./mjpeg.js";
import { OnrecordError } from "./model.js";
import { Webrtc } from "./webrtc.js";
import { Whip } from "./whip.js";

/** @typedef {import("./transport.js").TransportContext} TransportContext */

/**
 * @typedef {object} Step
 * @property {import("./model.js").TransportName} mode
 * @property {boolean} path  Whether it needs a path for media besides the one for HTTP.
 * @property {{new (context: TransportContext, media: MediaStream): import("./transport.js").Transport, unsupported(): OnrecordError | null}} Transport
 */

/** @type {Step[]} Best first. */
const ALL = [
  { mode: "webrtc", path: true, Transport: Webrtc },
  { mode: "whip", path: true, Transport: Whip },
  { mode: "chunks", path: false, Transport: Chunks },
  { mode: "mjpeg", path: false, Transport: Mjpeg },
];

/** @type {Record<string, string[]>} */
const MODES = { auto: ALL.map(({ mode }) => mode), webrtc: ["webrtc", "whip"], chunks: ["chunks"], mjpeg: ["mjpeg"] };

/** What no other transport would change: who may publish what, and whether the server has room for it. */
const FINAL = [
  "stream_busy", "disk_full", "unauthorized", "forbidden", "origin_denied", "bad_name", "limit_reached", "rate_limited", "bad_url",
];

/**
 * The transports of a mode that this browser has, best first.
 * @param {string} mode
 * @returns {Step[]}
 */
export function fallbacks(mode) {
  if (!Object.hasOwn(MODES, mode)) {
    const known = Object.keys(MODES).map((word) => `"${word}"`).join(", ");
    throw new OnrecordError("unsupported_mode", `There is no mode "${mode}": use one of ${known}.`);
  }
  const wanted = ALL.filter((step) => MODES[mode].includes(step.mode));
  const supported = wanted.filter(({ Transport }) => !Transport.unsupported());
  if (!supported.length) throw wanted[0].Transport.unsupported();
  return supported;
}

/**
 * Which steps are left after one has failed.
 * @param {Step[]} steps
 * @param {OnrecordError} error
 */
export function remaining(steps, { code }) {
  if (FINAL.includes(code)) return [];
  return code === "no_path" ? steps.filter(({ path }) => !path) : steps;
}
