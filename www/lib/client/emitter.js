// Statuses and events, for sessions and streams alike.

/**
 * Something that is in one status at a time and tells about it.
 * @template {string} Status
 * @template {object} Events  What each event beside the statuses carries.
 */
export class Emitter {
  /** @type {Map<string, Set<Function>>} */
  #handlers = new Map();
  /** @type {Status | null} */
  #status = null;

  /**
   * Calls `handler` at each `event`, with the session or stream itself and what the event carries. If
   * `event` is the status of this moment, the handler is called too, a moment later: it doesn't matter
   * whether one registers before or after the fact.
   * @template {Status | (keyof Events & string)} Event
   * @param {Event} event
   * @param {(self: this, detail: Event extends keyof Events ? Events[Event] : undefined) => void} handler
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
   * @template {Status | (keyof Events & string)} Event
   * @param {Event} event
   * @param {(self: this, detail: Event extends keyof Events ? Events[Event] : undefined) => void} handler
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
   * @param {Status} status
   */
  enter(status) {
    this.#status = status;
    this.#tell(status);
  }

  /**
   * @protected
   * @template {keyof Events & string} Event
   * @param {Event} event
   * @param {Events[Event]} [detail]
   */
  emit(event, detail) {
    this.#tell(event, detail);
  }

  /**
   * @param {string} event
   * @param {unknown} [detail]
   */
  #tell(event, detail) {
    for (const handler of [...(this.#handlers.get(event) ?? [])]) call(handler, this, detail);
  }
}

/**
 * A page's handler that throws is the page's matter: it shows on the console, and the recording
 * goes on.
 * @param {Function} handler
 * @param {object} self
 * @param {unknown} [detail]
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
