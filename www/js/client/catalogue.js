// What the server's API says of a recording, for the ways whose server says nothing by itself.

import { OnrecordError, RecordInfo } from "./model.js";

/** @typedef {import("./session.js").Session} Session */

const DEADLINE = 5_000;
/** Between two questions. */
export const LOOK_MS = 300;

/**
 * @param {Session} session
 * @param {string} path
 * @returns {Promise<any>} Null if the server doesn't say.
 */
async function ask(session, path) {
  try {
    const response = await fetch(session.address(path), { signal: AbortSignal.timeout(DEADLINE), cache: "no-store" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

/**
 * The publication of that name, if there is one.
 * @param {Session} session
 * @param {string} name
 * @returns {Promise<{status: string, recording: string | null} | null>}
 */
export async function liveStream(session, name) {
  const streams = await ask(session, "api/streams");
  return (Array.isArray(streams) && streams.find(({ stream }) => stream === name)) || null;
}

/**
 * A recording once it is sealed; null as long as it isn't.
 * @param {Session} session
 * @param {string} id
 * @returns {Promise<{info: RecordInfo, end_reason: string} | null>}
 */
export async function sealedRecording(session, id) {
  const manifest = await ask(session, `api/recordings/${encodeURIComponent(id)}`);
  if (!manifest || manifest.state === "recording" || !manifest.file) return null;
  const fields = { ...manifest, url: manifest.url ?? `recordings/${encodeURIComponent(manifest.file)}` };
  return { info: new RecordInfo(fields, session.address("")), end_reason: manifest.end_reason };
}

/**
 * What the server has against a request, in its own words.
 * @param {Response} response
 */
export async function refusal(response) {
  const said = await response.json().catch(() => null);
  return new OnrecordError(said?.code ?? `http_${response.status}`, said?.message ?? `The server answers ${response.status} ${response.statusText}.`);
}
