// The socket of `/chunks`, as far as it is only a socket.

/**
 * One message of the server; which fields it has depends on `event`.
 * @typedef {{event: string, uid?: string, name?: string, offset?: number, recording?: any, reason?: string, code?: string, message?: string}} ChunksMessage
 */

/** @typedef {{opened: () => void, received: (message: ChunksMessage) => void, lost: () => void}} ChunkSocketEvents */

/** So much may wait in the socket: more would only be a second copy. */
const FULL = 1024 * 1024;

export class ChunkSocket {
  /** @type {WebSocket | null} */
  #socket = null;
  #closed = false;

  /**
   * @param {string} url
   * @param {Promise<string[]> | null} protocols  What the server is shown, if anything.
   * @param {ChunkSocketEvents} events
   */
  constructor(url, protocols, events) {
    if (!protocols) this.#open(new WebSocket(url), events);
    else protocols.then((shown) => this.#closed || this.#open(new WebSocket(url, shown), events)).catch(() => this.#closed || events.lost());
  }

  /**
   * @param {WebSocket} socket
   * @param {ChunkSocketEvents} events
   */
  #open(socket, { opened, received, lost }) {
    this.#socket = socket;
    socket.onopen = opened;
    socket.onclose = lost;
    socket.onmessage = ({ data }) => {
      /** @type {ChunksMessage} */
      let message;
      try {
        message = JSON.parse(String(data));
      } catch {
        return; // not ours: a proxy's word
      }
      received(message);
    };
  }

  /** Whether messages can be sent now. */
  get connected() {
    return this.#socket?.readyState === WebSocket.OPEN;
  }

  /** Whether it takes no more bytes for the moment. */
  get full() {
    return (this.#socket?.bufferedAmount ?? 0) >= FULL;
  }

  /** @param {object} message */
  sendJson(message) {
    if (this.connected) this.#socket?.send(JSON.stringify(message));
  }

  /** @param {Blob} piece */
  send(piece) {
    this.#socket?.send(piece);
  }

  /** Receives and sends nothing from now on. */
  close() {
    this.#closed = true;
    if (!this.#socket) return;
    this.#socket.onopen = this.#socket.onmessage = this.#socket.onclose = null;
    this.#socket.close();
  }
}
