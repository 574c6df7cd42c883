// What a page shows the server: a token, as requests and sockets can carry it.

import { OnrecordError } from "./model.js";

/**
 * A token, or what gives a fresh one whenever something is asked of the server: tokens that live shortly
 * run out while a stream goes on, and a lost socket is opened again with the next.
 * @typedef {string | (() => string | Promise<string>)} TokenSource
 */

/** A page that has no token by then has none. */
const TIMEOUT = 10_000;

export class Credential {
  #source;

  /** @param {TokenSource} [source] */
  constructor(source) {
    this.#source = source || undefined;
  }

  /** Whether there is one. */
  get given() {
    return this.#source !== undefined;
  }

  /** @returns {Promise<string>} Empty if none is given. */
  async token() {
    const source = this.#source;
    if (typeof source !== "function") return source ?? "";
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    try {
      const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`it took longer than ${TIMEOUT / 1000} s`)), TIMEOUT);
      });
      return /** @type {string} */ (await Promise.race([source(), late]));
    } catch (error) {
      throw new OnrecordError("unauthorized", `This page has no token for the server: ${error instanceof Error ? error.message : error}`);
    } finally {
      clearTimeout(timer);
    }
  }

  /** For `fetch`. @returns {Promise<Record<string, string>>} */
  async headers() {
    const token = await this.token();
    return token ? { Authorization: `Bearer ${token}` } : {};
  }

  /** For `WebSocket`, which takes no headers. @returns {Promise<string[]>} */
  async protocols() {
    return protocolsOf(await this.token());
  }
}

/**
 * The server selects the first, as browsers demand, and reads the second.
 * @param {string} token
 * @returns {string[]}
 */
export function protocolsOf(token) {
  // Parentheses are all that encodeURIComponent leaves and RFC 6455 section 4.1 forbids.
  const encoded = encodeURIComponent(token).replace(/[()]/g, (c) => `%${c.charCodeAt(0).toString(16)}`);
  return token ? ["onrecord", `bearer.${encoded}`] : [];
}
