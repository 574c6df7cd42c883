// Makes one cluster of a keyframe and all that refers to it, however many clusters it comes in.
//
// Firefox wants a keyframe at the beginning of a cluster that begins before all that was appended has ended,
// and of two tracks one always has. From others it takes the sound and drops the pictures. A cluster of
// unknown size (RFC 8794 section 6.2) goes on until the next one begins.

const CLUSTER = 0x1f43b675;
const TIMESTAMP = 0xe7;
const BLOCK_GROUP = 0xa0;
const BLOCK = 0xa1;
const SIMPLE_BLOCK = 0xa3;
const REFERENCE_BLOCK = 0xfb;

/** A block's time is 16 bits of milliseconds after its cluster's (RFC 9559 section 10.1). */
const LONGEST_MS = 0x7fff - 1_000;

/** @typedef {{id: number, at: number, body: number, end: number}} Element */

export class Joiner {
  /** The time of the cluster that is open, in ms. @type {number | null} */
  #start = null;

  /** What comes next follows nothing. */
  reset() {
    this.#start = null;
  }

  /**
   * Takes a cluster, which it changes, and gives what continues the one before it, if it can. An init
   * segment is left as it is.
   * @param {ArrayBuffer} bytes
   * @returns {BufferSource}
   */
  join(bytes) {
    const view = new DataView(bytes);
    const [cluster] = children(view, 0, bytes.byteLength);
    if (cluster.id !== CLUSTER) return bytes;
    const inner = children(view, cluster.body, cluster.end);
    const time = inner.find(({ id }) => id === TIMESTAMP);
    const blocks = inner.filter(({ id }) => id === BLOCK_GROUP || id === SIMPLE_BLOCK);
    if (!time || !blocks.length) return bytes;
    const start = uint(view, time.body, time.end);
    if (this.#start === null || isKeyframe(view, blocks[0]) || start - this.#start > LONGEST_MS) {
      this.#start = start;
      const length = cluster.body - cluster.at - 4;
      for (let i = 0; i < length; i += 1) view.setUint8(cluster.at + 4 + i, i ? 0xff : 0x1ff >> length);
      return bytes;
    }
    for (const block of blocks) {
      const at = timeOf(view, block);
      view.setInt16(at, view.getInt16(at) + start - this.#start);
    }
    return new Uint8Array(bytes, blocks[0].at);
  }
}

/**
 * @param {DataView} view
 * @param {number} from
 * @param {number} to
 * @returns {Element[]}
 */
function children(view, from, to) {
  const found = [];
  for (let at = from; at < to; ) {
    const idLength = lengthAt(view, at);
    const sizeAt = at + idLength;
    const sizeLength = lengthAt(view, sizeAt);
    const body = sizeAt + sizeLength;
    const size = uint(view, sizeAt, body) - 2 ** (7 * sizeLength);
    found.push({ id: uint(view, at, sizeAt), at, body, end: body + size });
    at = body + size;
  }
  return found;
}

/** How many bytes a number takes whose first byte is there (RFC 8794 section 4). @param {DataView} view @param {number} at */
const lengthAt = (view, at) => Math.clz32(view.getUint8(at)) - 23;

/** @param {DataView} view @param {number} from @param {number} to */
function uint(view, from, to) {
  let value = 0;
  for (let at = from; at < to; at += 1) value = value * 256 + view.getUint8(at);
  return value;
}

/** Where a block's time stands, behind its track's number. @param {DataView} view @param {Element} block */
function timeOf(view, { id, body, end }) {
  const at = id === BLOCK_GROUP ? /** @type {Element} */ (children(view, body, end).find((child) => child.id === BLOCK)).body : body;
  return at + lengthAt(view, at);
}

/** Pictures come in groups, which say how long they last; sound, which can begin anywhere, in blocks. @param {DataView} view @param {Element} block */
function isKeyframe(view, { id, body, end }) {
  return id === BLOCK_GROUP && !children(view, body, end).some((child) => child.id === REFERENCE_BLOCK);
}
