// How a stream and a recording look in a list.

import { el, formatBytes, formatDuration, formatTime } from "./ui.js";

/**
 * @typedef {{n: number, at: string, exit: number | null, error?: string, ms: number, tail: string}} Attempt
 * @typedef {{kind: string, codec: string, width?: number, height?: number, frames: number, lost: number}} Track
 */

/**
 * A recording's manifest, as the API gives it.
 * @typedef {object} Manifest
 * @property {string} id
 * @property {string} stream
 * @property {string} file
 * @property {string} url
 * @property {"recording" | "sealing" | "sealed" | "quarantined" | "deleted"} state
 * @property {string} started_at
 * @property {number} bytes
 * @property {number} duration_ms
 * @property {boolean} file_present
 * @property {Track[]} tracks
 * @property {{track: number, from_ms: number, to_ms: number, reason: string}[]} gaps
 * @property {string | null} end_reason
 * @property {string} [error]  What keeps it from being sealed.
 * @property {{state: "none" | "queued" | "running" | "done" | "failed", attempts: Attempt[], running?: {n: number, at: string}}} hook
 */

/** Whether there is a file to play and download. @param {Manifest} manifest */
export const hasFile = ({ state, file_present }) => state === "sealed" && file_present;

/**
 * Name, time, length, size and picture of a recording.
 * @param {Manifest} manifest
 */
export function describe(manifest) {
  const video = manifest.tracks.find(({ kind }) => kind === "video");
  const sealed = manifest.state === "sealed";
  const picture = video?.width ? `${video.width}×${video.height}` : "";
  const only = manifest.tracks.length && !video ? "sound only" : video && manifest.tracks.length === 1 ? "no sound" : "";
  const facts = [
    formatTime(manifest.started_at),
    sealed && formatDuration(manifest.duration_ms),
    sealed && formatBytes(manifest.bytes),
    picture,
    only,
  ];
  return el(
    "div",
    {},
    el("p", { className: "name" }, manifest.stream),
    el("p", { className: "facts tabular" }, ...facts.filter(Boolean).map((fact) => el("span", {}, String(fact)))),
  );
}

/**
 * @param {string} text
 * @param {string} [tone]  `good`, `warn`, `bad` or `live`.
 * @param {string} [title]
 */
export function badge(text, tone = "", title = "") {
  return el("span", { className: "badge", title, dataset: { tone } }, text);
}

/** What there is to say of the recording itself. @param {Manifest} manifest */
export function stateBadge(manifest) {
  if (manifest.state === "recording") return badge("recording", "live");
  if (manifest.state === "sealing") return badge("not finished yet", "warn", `The disk refuses, which is tried again: ${manifest.error}`);
  if (manifest.state === "quarantined") return badge("damaged", "bad", "It could not be repaired and lies in the folder quarantine.");
  if (!manifest.file_present) return badge("moved away", "warn", "The file is not in the server's folder any more.");
  return null;
}

/** A link that downloads. @param {Manifest} manifest */
export function downloadLink(manifest) {
  const label = `Download ${manifest.file}`;
  return el("a", { className: "button quiet", href: manifest.url, download: manifest.file, ariaLabel: label, dataset: { action: "download" } }, "Download");
}
