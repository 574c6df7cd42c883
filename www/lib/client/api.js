// What the server's API says of a recording, for transports whose server says nothing by itself.

import { OnrecordError, RecordInfo } from "./model.js";

/** @typedef {import("./session.js").Session} Session */

const TIMEOUT = 5_000;
/** The answer to a page that may publish, but not look. */
const HIDDEN = Symbol("hidden");
/** Between two questions. */
export const POLL_MS = 300;

/**
 * @param {Session} session
 * @param {string} path
 * @returns {Promise<any>} Null if the server doesn't say.
 */
async function ask(session, path) {
  try {
    const headers = await session.headers();
    const response = await fetch(session.address(path), { headers, signal: AbortSignal.timeout(TIMEOUT), cache: "no-store" });
    if (response.ok) return await response.json();
    return response.status === 403 ? HIDDEN : null;
  } catch {
    return null;
  }
}

/**
 * The publication of that name, if there is one. To a page that may publish, but not look, all that media
 * have begun to flow for is there (`hidden`).
 * @param {Session} session
 * @param {string} name
 * @returns {Promise<{status: string, recording: string | null, hidden?: boolean} | null>}
 */
export async function liveStream(session, name) {
  const streams = await ask(session, "api/streams");
  if (streams === HIDDEN) return { status: "PUBLISHING", recording: null, hidden: true };
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
  if (!manifest || manifest === HIDDEN || ["recording", "sealing"].includes(manifest.state) || !manifest.file) return null;
  const fields = { ...manifest, url: manifest.url ?? `recordings/${encodeURIComponent(manifest.file)}` };
  return { info: new RecordInfo(fields, session.address("")), end_reason: manifest.end_reason };
}

/**
 * What the server has against a request, in its own words.
 * @param {Response} response
 */
export async function refusal(response) {
  const body = await response.json().catch(() => null);
  return new OnrecordError(body?.code ?? `http_${response.status}`, body?.message ?? `The server answers ${response.status} ${response.statusText}.`);
}
