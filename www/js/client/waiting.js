// What a stream waits with: named timers, and promises that are settled from outside.

/** Timers by name: setting one takes the place of the earlier one of that name. */
export class Timers {
  /** @type {Map<string, ReturnType<typeof setTimeout>>} */
  #running = new Map();

  /**
   * @param {string} name
   * @param {number} ms
   * @param {() => void} action
   */
  after(name, ms, action) {
    this.cancel(name);
    const timer = setTimeout(() => {
      this.#running.delete(name);
      action();
    }, ms);
    this.#running.set(name, timer);
  }

  /** @param {string} name */
  has(name) {
    return this.#running.has(name);
  }

  /** @param {string} name */
  cancel(name) {
    clearTimeout(this.#running.get(name));
    this.#running.delete(name);
  }

  clear() {
    for (const name of [...this.#running.keys()]) this.cancel(name);
  }
}

/**
 * A promise with its ends. Nobody has to wait for it: pages that use handlers only see no
 * “unhandled rejection”.
 * @template T
 */
export function promise() {
  /** @type {(value: T) => void} */
  let resolve = () => {};
  /** @type {(error: Error) => void} */
  let reject = () => {};
  /** @type {Promise<T>} */
  const made = new Promise((yes, no) => {
    resolve = yes;
    reject = no;
  });
  made.catch(() => {});
  return { promise: made, resolve, reject };
}
