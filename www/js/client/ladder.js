// The ladder of `mode: "auto"`: WebRTC by WebSocket, WebRTC by WHIP, chunks, JPEG.

import { Chunks } from "./chunks.js";
import { Mjpeg } from "./mjpeg.js";
import { OnrecordError } from "./model.js";
import { Webrtc } from "./webrtc.js";
import { Whip } from "./whip.js";

/** @typedef {import("./way.js").Host} Host */
/** @typedef {import("./way.js").Way} Way */

/**
 * One way of a ladder.
 * @typedef {object} Step
 * @property {string} mode  As `Stream.mode()` names it.
 * @property {boolean} udp  Whether it needs a path for UDP.
 * @property {{new (host: Host, media: MediaStream): Way, lacks(): OnrecordError | null}} Way
 */

/** @type {Step[]} Best first. */
const ALL = [
  { mode: "webrtc", udp: true, Way: Webrtc },
  { mode: "whip", udp: true, Way: Whip },
  { mode: "chunks", udp: false, Way: Chunks },
  { mode: "mjpeg", udp: false, Way: Mjpeg },
];

/** @type {Record<string, string[]>} */
const MODES = { auto: ALL.map(({ mode }) => mode), webrtc: ["webrtc", "whip"], chunks: ["chunks"], mjpeg: ["mjpeg"] };

/** What no other way would change: who may publish what, and whether the server has room for it. */
const FINAL = [
  "stream_busy", "disk_full", "unauthorized", "forbidden", "origin_denied", "bad_name", "limit_reached", "rate_limited", "bad_url",
];

/**
 * The ways of a mode that this browser has, best first.
 * @param {string} mode
 * @returns {Step[]}
 */
export function ladder(mode) {
  if (!Object.hasOwn(MODES, mode)) {
    const known = Object.keys(MODES).map((word) => `"${word}"`).join(", ");
    throw new OnrecordError("unsupported_mode", `There is no mode "${mode}": use one of ${known}.`);
  }
  const wanted = ALL.filter((step) => MODES[mode].includes(step.mode));
  const there = wanted.filter(({ Way }) => !Way.lacks());
  if (!there.length) throw wanted[0].Way.lacks();
  return there;
}

/**
 * Which ways are left after one has failed.
 * @param {Step[]} rest
 * @param {OnrecordError} error
 */
export function below(rest, { code }) {
  if (FINAL.includes(code)) return [];
  return code === "no_path" ? rest.filter(({ udp }) => !udp) : rest;
}
