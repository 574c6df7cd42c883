// The page “Record in chunks”: MediaRecorder's bytes over a WebSocket, under a name that the server
// makes of a prefix.

import { clampChunkTime } from "./client/chunks.js";
import { codecs } from "./client/recorder.js";
import { openStudio } from "./studio.js";
import { byId, memory, nameProblem, tell } from "./ui.js";

/** How people call what the option `codec` takes. @type {Record<string, string>} */
const TITLES = { vp9: "VP9", vp8: "VP8", av1: "AV1", h264: "H.264" };

const query = new URLSearchParams(location.search);
const prefix = query.get("name_prefix") || "noname";
const asked = query.get("chunk_time");
const chunkTime = clampChunkTime(asked === null ? undefined : Number(asked));
const codec = byId("codec", HTMLSelectElement);

codec.append(new Option("Best available", ""), ...codecs().map((word) => new Option(TITLES[word] ?? word, word)));
codec.value = memory.get("codec") ?? "";
if (codec.selectedIndex < 0) codec.selectedIndex = 0;
codec.addEventListener("change", () => memory.set("codec", codec.value));

const clamped = asked !== null && Number(asked) !== chunkTime ? ` (chunk_time is 100 to 10000 milliseconds, not ${asked})` : "";
byId("settings", HTMLElement).textContent =
  `Recorded as “${prefix}-…”, in chunks of ${chunkTime} ms${clamped}.`;

await openStudio({
  fields: [codec],
  options() {
    const problem = nameProblem(prefix);
    tell(byId("name-problem", HTMLElement), problem && `name_prefix: ${problem}`);
    return problem ? null : { namePrefix: prefix, mode: "chunks", chunkTime, codec: codec.value };
  },
}, query.get("autostart") !== "0");
