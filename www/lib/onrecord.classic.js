// For pages with classic scripts: defines `Onrecord` at once and fetches onrecord.js, from beside
// this file, with the first session. Until it is there, calls are kept.
(() => {
  const source = /** @type {HTMLScriptElement} */ (document.currentScript).src;
  /** @param {string[]} words */
  const constants = (...words) => Object.freeze(Object.fromEntries(words.map((word) => [word, word])));

  /** @type {Promise<typeof import("./onrecord.js")> | undefined} */
  let library;
  const load = () => (library ??= import(new URL("onrecord.js", source).href));

  /** A session that isn't there yet: `on` and `disconnect` are passed on to the session that handlers receive. */
  class PendingSession {
    /** @param {import("./onrecord.js").SessionOptions} [options] */
    constructor(options) {
      this.session = load().then(({ createSession }) => createSession(options));
      /** @type {Map<string, Function[]>} */
      this.handlers = new Map();
      this.session.catch((error) => {
        console.error(error);
        for (const handler of this.handlers.get("FAILED") ?? []) handler(this);
      });
    }

    /**
     * @param {string} event
     * @param {(self: any, detail?: any) => void} handler
     */
    on(event, handler) {
      this.handlers.set(event, [...(this.handlers.get(event) ?? []), handler]);
      this.session.then((session) => session.on(event, handler)).catch(() => {});
      return this;
    }

    disconnect() {
      return this.session.then((session) => session.disconnect());
    }
  }

  const Onrecord = {
    init() {},
    /** @param {import("./onrecord.js").SessionOptions} [options] */
    createSession: (options) => new PendingSession(options),
    /** @param {HTMLElement} display */
    releaseLocalMedia: (display) => load().then((loaded) => loaded.releaseLocalMedia(display)),
    constants: {
      SESSION_STATUS: constants("ESTABLISHED", "DISCONNECTED", "FAILED"),
      STREAM_STATUS: constants("PENDING", "PUBLISHING", "UNPUBLISHED", "FAILED"),
    },
  };
  Object.assign(globalThis, { Onrecord });
})();
