// The page that records, in three modes, each with an address of its own: “Record” by the best transport there
// is, “Record in chunks” by MediaRecorder under a name that the server makes of a prefix, “Camera” in JPEG
// pictures.

import { CHUNK_TIME, recorderCodecs } from "../lib/onrecord.js";
import { openRecorder } from "./recorder-page.js";
import { byId, storage, nameProblem, showNotice } from "./ui.js";

/** How people call what the option `codec` takes. @type {Record<string, string>} */
const CODECS = { vp9: "VP9", vp8: "VP8", av1: "AV1", h264: "H.264" };

const query = new URLSearchParams(location.search);
const mode = location.pathname.split("/").pop();
const name = byId("name", HTMLInputElement);
const codec = byId("codec", HTMLSelectElement);
const prefix = query.get("name_prefix") || "noname";
/** What was asked for and isn't done. @type {string[]} */
const refused = [];

/**
 * A number of the query, within bounds; what was outside is said.
 * @param {string} key
 * @param {number} usual
 * @param {number} min
 * @param {number} max
 */
function setting(key, usual, min, max) {
  const text = query.get(key)?.trim();
  const wanted = Number(text || usual);
  const used = Number.isNaN(wanted) ? usual : Math.min(Math.max(wanted, min), max);
  if (used !== wanted) refused.push(`${key} is ${min} to ${max}, not ${text}: ${used} is used.`);
  return used;
}

/** A stream's name or its prefix, if it is good; what is wrong with it is said. @param {string} text @param {string} [key] */
function isName(text, key = "") {
  const problem = nameProblem(text);
  showNotice(byId("name-problem", HTMLElement), problem && key + problem);
  if (problem) name.focus();
  return !problem;
}

/** @returns {import("./recorder-page.js").Page} */
function publish() {
  name.value = query.get("name") ?? `stream-${Math.random().toString(36).slice(2, 6)}`;
  const transport = /** @type {"auto"} */ (query.get("mode") ?? "auto"); // the library refuses what it doesn't know
  return { fields: [name], options: () => isName(name.value) && { name: name.value, mode: transport } };
}

/** @returns {import("./recorder-page.js").Page} */
function record() {
  const chunkTime = Math.round(setting("chunk_time", CHUNK_TIME.usual, CHUNK_TIME.min, CHUNK_TIME.max));
  codec.append(new Option("Best available", ""), ...recorderCodecs().map((word) => new Option(CODECS[word] ?? word, word)));
  codec.value = storage.get("codec") ?? "";
  if (codec.selectedIndex < 0) codec.selectedIndex = 0;
  codec.addEventListener("change", () => storage.set("codec", codec.value));
  return {
    title: "Record in chunks",
    settings: `Recorded as “${prefix}-…”, in chunks of ${chunkTime} ms.`,
    fields: [codec],
    autostart: query.get("autostart") !== "0",
    options: () => isName(prefix, "name_prefix: ") && { namePrefix: prefix, mode: "chunks", chunkTime, codec: codec.value },
  };
}

/** @returns {import("./recorder-page.js").Page} */
function camera() {
  const fps = setting("fps", 10, 0.2, 30);
  const quality = setting("quality", 0.8, 0.1, 1);
  name.value = query.get("name") ?? "default";
  return {
    title: "Camera in JPEG pictures",
    settings: `${fps} pictures a second, quality ${quality}.`,
    fields: [name],
    silent: true,
    options: () => isName(name.value) && { name: name.value, mode: "mjpeg", fps, quality, persistent: true },
  };
}

const page = mode === "record" ? record() : mode === "camera" ? camera() : publish();
for (const part of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll("[data-modes]"))) {
  part.hidden = !part.dataset.modes?.split(" ").includes(mode ?? "publish");
}
if (page.title) {
  document.title = `${page.title} · onrecord`;
  byId("title", HTMLElement).textContent = page.title;
}
byId("settings", HTMLElement).textContent = [page.settings, ...refused].join(" ");
await openRecorder(page);
