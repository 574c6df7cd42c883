// Statuses and events, for sessions and streams alike.

/** @typedef {(self: any, detail?: any) => void} Handler  Called with the session or stream itself. */

/** Something that is in one status at a time and tells about it. */
export class Emitter {
  /** @type {Map<string, Set<Handler>>} */
  #handlers = new Map();
  /** @type {string | null} */
  #status = null;

  /**
   * Calls `handler` at each `event`. If `event` is the status of this moment, the handler is called
   * too, a moment later: it doesn't matter whether one registers before or after the fact.
   * @param {string} event
   * @param {Handler} handler
   * @returns {this}
   */
  on(event, handler) {
    const handlers = this.#handlers.get(event) ?? new Set();
    this.#handlers.set(event, handlers.add(handler));
    if (event === this.#status) queueMicrotask(() => call(handler, this));
    return this;
  }

  /**
   * Takes a handler back.
   * @param {string} event
   * @param {Handler} handler
   * @returns {this}
   */
  off(event, handler) {
    this.#handlers.get(event)?.delete(handler);
    return this;
  }

  /** The status of this moment; null before the first. */
  status() {
    return this.#status;
  }

  /**
   * Goes to a status and tells.
   * @protected
   * @param {string} status
   */
  enter(status) {
    this.#status = status;
    this.emit(status);
  }

  /**
   * @protected
   * @param {string} event
   * @param {object} [detail]
   */
  emit(event, detail) {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) call(handler, this, detail);
  }
}

/**
 * A page's handler that throws is the page's matter: it shows on the console, and the recording
 * goes on.
 * @param {Handler} handler
 * @param {Emitter} self
 * @param {object} [detail]
 */
function call(handler, self, detail) {
  try {
    handler(self, detail);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}
