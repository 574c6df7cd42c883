// One RTCPeerConnection that sends one audio and one video track.

/** @typedef {import("./model.js").StreamOptions} StreamOptions */

/**
 * @typedef {object} PeerEvents
 * @property {(candidate: RTCIceCandidateInit) => void} candidate  One to trickle; an empty one ends them.
 * @property {(state: RTCPeerConnectionState) => void} state  Closed: the server has said goodbye.
 * @property {() => void} noPair  Both sides' candidates are known, and none of one goes with one of the other: the browser may not use UDP, and the server has no TCP port for it.
 */

/** @typedef {import("./model.js").Counters} Counters */

/** Candidates of this machine are known at once, those of a STUN server a round trip later. */
const GATHERING = 1_000;

export class Peer {
  /** @type {RTCPeerConnection} */
  #pc;
  #events;
  /** Own candidates found before their offer was sent: the server couldn't place them. @type {RTCIceCandidateInit[] | null} */
  #localCandidates = [];
  /** The server's candidates that came before its answer. @type {RTCIceCandidateInit[]} */
  #remoteCandidates = [];
  /** The protocols that the browser has candidates of. @type {Set<string>} */
  #protocols = new Set();
  /** All of its candidates are known. */
  #gathered = false;
  /** The protocols that the server has candidates of; none before its answer. @type {Set<string>} */
  #serverProtocols = new Set();
  /** The server has closed the connection: no ICE restart brings it back. */
  #closed = false;

  /**
   * @param {MediaStream} media
   * @param {StreamOptions} options
   * @param {RTCIceServer[]} iceServers
   * @param {PeerEvents} events
   */
  constructor(media, options, iceServers, events) {
    this.#events = events;
    this.#pc = new RTCPeerConnection({ iceServers, bundlePolicy: "max-bundle" });
    this.#pc.onicecandidate = ({ candidate }) => this.#found(candidate);
    this.#pc.onconnectionstatechange = () => events.state(this.#pc.connectionState);
    for (const track of [media.getAudioTracks()[0], media.getVideoTracks()[0]]) {
      if (track) this.#add(track, media, options);
    }
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {MediaStream} media
   * @param {StreamOptions} options
   */
  #add(track, media, { maxBitrate, frameRate, contentHint }) {
    /** @type {RTCRtpEncodingParameters} */
    const encoding = {};
    if (track.kind === "video") {
      if (contentHint) track.contentHint = contentHint;
      if (maxBitrate) encoding.maxBitrate = maxBitrate;
      if (frameRate) encoding.maxFramerate = frameRate;
    }
    const init = { direction: /** @type {const} */ ("sendonly"), streams: [media], sendEncodings: [encoding] };
    const transceiver = this.#pc.addTransceiver(track, init);
    // VP8 and Opus first, because that is what the server records. The others stay in the offer, so
    // that the server chooses: rtx (repairs), and red, which it may put first against loss.
    const first = track.kind === "video" ? ["video/VP8"] : ["audio/opus", "audio/red"];
    const codecs = RTCRtpReceiver.getCapabilities(track.kind)?.codecs ?? [];
    transceiver.setCodecPreferences?.(preferred(codecs, first));
  }

  /** @param {RTCIceCandidate | null} candidate */
  #found(candidate) {
    if (candidate?.candidate === "") return; // Firefox ends each section; null ends them all
    if (candidate) protocols(candidate.candidate).forEach((protocol) => this.#protocols.add(protocol));
    else this.#gathered = true;
    this.#compare();
    const init = candidate?.toJSON() ?? { candidate: "" };
    if (this.#localCandidates) this.#localCandidates.push(init);
    else this.#events.candidate(init);
  }

  /** Whether there can be a path at all: candidates go together if they are of the same protocol (RFC 8445 section 6.1.2.2). */
  #compare() {
    if (!this.#gathered || !this.#serverProtocols.size) return;
    if (![...this.#serverProtocols].some((protocol) => this.#protocols.has(protocol))) this.#events.noPair();
  }

  /**
   * Makes an offer, with `restart` one that moves the connection to new paths (RFC 8445 section 9).
   * Candidates found from now on are held until `sent`.
   * @param {boolean} restart
   * @returns {Promise<string>} The SDP.
   */
  async offer(restart) {
    this.#localCandidates ??= [];
    if (restart) this.#pc.restartIce();
    await this.#pc.setLocalDescription(await this.#pc.createOffer());
    return /** @type {RTCSessionDescription} */ (this.#pc.localDescription).sdp;
  }

  /**
   * The offer with its candidates, for signalling that sends both at once. A server that is slow to say
   * which they are isn't waited for: the others find a path.
   * @returns {Promise<string>}
   */
  async gathered() {
    await new Promise((resolve) => {
      setTimeout(resolve, GATHERING);
      if (this.#pc.iceGatheringState === "complete") resolve(null);
      this.#pc.onicegatheringstatechange = () => this.#pc.iceGatheringState === "complete" && resolve(null);
    });
    return /** @type {RTCSessionDescription} */ (this.#pc.localDescription).sdp;
  }

  /** The offer is on its way: its candidates may follow. */
  sent() {
    const candidates = this.#localCandidates ?? [];
    this.#localCandidates = null;
    candidates.forEach(this.#events.candidate);
  }

  /**
   * Takes the server's answer. STUN and TURN servers it names serve from the next ICE restart on.
   * @param {string} sdp
   * @param {RTCIceServer[]} iceServers
   */
  async answer(sdp, iceServers) {
    if (iceServers.length) this.#pc.setConfiguration({ ...this.#pc.getConfiguration(), iceServers });
    if (this.#pc.signalingState !== "have-local-offer") return; // an answer to an offer made again since
    await this.#pc.setRemoteDescription({ type: "answer", sdp });
    this.#serverProtocols = protocols(sdp);
    this.#compare();
    this.#listen();
    for (const candidate of this.#remoteCandidates.splice(0)) this.candidate(candidate);
  }

  /** The server's goodbye (DTLS close_notify) is heard at once; in the connection's own state it shows after eight seconds. */
  #listen() {
    const transport = this.#pc.getSenders().find((sender) => sender.transport)?.transport;
    if (!transport) return;
    transport.onstatechange = () => {
      if (transport.state !== "closed" || this.#pc.signalingState === "closed") return;
      this.#closed = true;
      this.#events.state("closed");
    };
  }

  /** @param {RTCIceCandidateInit | string} candidate */
  candidate(candidate) {
    const init = typeof candidate === "string" ? { candidate, sdpMid: "0" } : candidate;
    if (!this.#pc.remoteDescription) this.#remoteCandidates.push(init);
    else this.#pc.addIceCandidate(init).catch(() => {}); // of an earlier ICE generation: worth nothing
  }

  get state() {
    return this.#closed ? "closed" : this.#pc.connectionState;
  }

  /** Sends these tracks from now on; a kind that is missing falls silent. @param {MediaStream} media */
  replace(media) {
    for (const { sender, receiver } of this.#pc.getTransceivers()) {
      const track = media.getTracks().find(({ kind }) => kind === receiver.track.kind) ?? null;
      sender.replaceTrack(track).catch(() => {}); // closed meanwhile
    }
  }

  /** Sends nothing from now on, though the connection stays. */
  silence() {
    for (const sender of this.#pc.getSenders()) sender.replaceTrack(null).catch(() => {});
  }

  /** @returns {Promise<Counters>} */
  async counters() {
    const sum = { bytes: 0, framesPerSecond: 0, packetsLost: 0, roundTripTime: 0 };
    for (const report of (await this.#pc.getStats()).values()) {
      if (report.type === "outbound-rtp") {
        sum.bytes += report.bytesSent + (report.headerBytesSent ?? 0);
        sum.framesPerSecond += report.framesPerSecond ?? 0;
      } else if (report.type === "remote-inbound-rtp") {
        sum.packetsLost += report.packetsLost ?? 0;
        sum.roundTripTime = Math.max(sum.roundTripTime, report.roundTripTime ?? 0);
      }
    }
    return sum;
  }

  close() {
    this.#pc.onicecandidate = this.#pc.onconnectionstatechange = null;
    this.#pc.close();
  }
}

/**
 * The protocols of the candidates in a text, in lower case.
 * @param {string} text
 */
function protocols(text) {
  return new Set(Array.from(text.matchAll(/candidate:\S+ \d+ (\w+) /g), ([, protocol]) => protocol.toLowerCase()));
}

/**
 * Moves the named codecs to the front, in the order of the names.
 * @template {{mimeType: string}} Codec
 * @param {Codec[]} codecs
 * @param {string[]} first
 * @returns {Codec[]}
 */
export function preferred(codecs, first) {
  const names = first.map((name) => name.toLowerCase());
  /** @param {Codec} codec */
  const rank = (codec) => {
    const at = names.indexOf(codec.mimeType.toLowerCase());
    return at < 0 ? names.length : at;
  };
  return [...codecs].sort((a, b) => rank(a) - rank(b));
}
