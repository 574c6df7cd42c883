// What was recorded and isn't acknowledged yet. Blobs only: browsers keep those outside of the page's
// memory, on the disk if they are large.

/** A message carries so much at most: at 64 kbit/s an acknowledgement then comes every eight seconds. */
const PIECE = 64 * 1024;

/** A byte stream with a window: from what the server has to what was recorded. */
export class Backlog {
  /** @type {{blob: Blob, at: number, since: number}[]} Each begins `at` this offset. */
  #held = [];
  #acked = 0;
  #sent = 0;
  #end = 0;

  /** Bytes recorded so far. */
  get produced() {
    return this.#end;
  }

  /** Bytes that the server has. */
  get acked() {
    return this.#acked;
  }

  /** Bytes that the server doesn't have, as far as is known. */
  get unacked() {
    return this.#end - this.#acked;
  }

  /** Whether everything was handed to the socket. */
  get drained() {
    return this.#sent === this.#end;
  }

  /**
   * @param {Blob} blob
   * @param {number} now
   */
  push(blob, now) {
    if (!blob.size) return;
    this.#held.push({ blob, at: this.#end, since: now });
    this.#end += blob.size;
  }

  /**
   * The server has everything below `offset`.
   * @param {number} offset
   * @returns {boolean} False if that can't be: it is beyond what was sent, or was dropped here.
   */
  ack(offset) {
    if (!(offset >= this.#acked && offset <= this.#sent)) return offset < this.#acked;
    this.#acked = offset;
    const first = this.#held.findIndex(({ blob, at }) => at + blob.size > offset);
    this.#held.splice(0, first < 0 ? this.#held.length : first);
    return true;
  }

  /**
   * A new socket goes on at `offset`, which may lie in the middle of a blob.
   * @param {number} offset
   * @returns {boolean} False if what is there is held here no more.
   */
  rewind(offset) {
    if (offset < this.#acked || offset > this.#end) return false;
    this.#sent = Math.max(this.#sent, offset); // the last acknowledgements were lost with the socket
    this.ack(offset);
    this.#sent = offset;
    return true;
  }

  /** The next message's bytes; null if all are sent. @returns {Blob | null} */
  next() {
    const entry = this.#held.find(({ blob, at }) => at + blob.size > this.#sent);
    if (!entry) return null;
    const from = this.#sent - entry.at;
    const piece = entry.blob.slice(from, from + PIECE);
    this.#sent += piece.size;
    return piece;
  }

  /** When the oldest byte that the server lacks was recorded; null if it lacks none. */
  get since() {
    return this.#held[0]?.since ?? null;
  }
}
