// What happens on the server, as it happens.

import { addressWithToken } from "./access.js";

/** After an error that the browser doesn't come back from by itself. */
const AGAIN_MS = 5000;

/**
 * Listens to `/api/events`, for as long as the page is open.
 * @param {(kind: "stream" | "recording" | "reset", data: any) => void} hear  After `reset` lists have to be read anew.
 * @returns {{readonly connected: boolean}}  While it isn't, only asking helps.
 */
export function listen(hear) {
  const state = { connected: false };
  const open = () => {
    const source = new EventSource(addressWithToken("api/events"));
    source.addEventListener("open", () => (state.connected = true));
    source.addEventListener("error", () => {
      state.connected = false;
      if (source.readyState !== EventSource.CLOSED) return; // it tries again, with the last id
      source.close();
      setTimeout(open, AGAIN_MS);
    });
    for (const kind of /** @type {const} */ (["stream", "recording", "reset"])) {
      source.addEventListener(kind, ({ data }) => hear(kind, JSON.parse(data)));
    }
    addEventListener("pagehide", () => source.close(), { once: true });
  };
  addEventListener("pageshow", ({ persisted }) => persisted && open());
  open();
  return state;
}

/**
 * Runs a task that may be wished for while it runs: once more then.
 * @param {() => Promise<void>} task
 */
export function refresher(task) {
  let running = false;
  let again = false;
  return async () => {
    again = true;
    if (running) return;
    running = true;
    while (again) {
      again = false;
      await task();
    }
    running = false;
  };
}
