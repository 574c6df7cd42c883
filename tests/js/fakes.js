// A browser's socket and peer connection, as far as the library uses them, played by the test.

/** @type {FakeSocket[]} */
export const sockets = [];
/** @type {FakePeer[]} */
export const peers = [];

export class FakeSocket {
  static OPEN = 1;
  readyState = 0;
  sent = [];

  constructor(url, protocols) {
    this.url = url;
    this.protocols = protocols;
    sockets.push(this);
  }

  /** A message, or the bytes of a recording. */
  send(data) {
    this.sent.push(typeof data === "string" ? JSON.parse(data) : data);
  }

  bufferedAmount = 0;

  /** All bytes that were sent, as text. */
  async bytes() {
    return new Blob(this.sent.filter((data) => data instanceof Blob)).text();
  }

  close() {
    this.readyState = 3;
  }

  /** The server accepts. */
  opened() {
    this.readyState = FakeSocket.OPEN;
    this.onopen?.({});
  }

  /** The server says something. */
  says(message) {
    this.onmessage?.({ data: JSON.stringify(message) });
  }

  /** The connection is gone. */
  lost(code = 1006) {
    this.readyState = 3;
    this.onclose?.({ code });
  }

  of(type) {
    return this.sent.filter((message) => message.type === type);
  }
}

export class FakePeer {
  connectionState = "new";
  signalingState = "stable";
  restarts = 0;
  offers = 0;
  candidates = [];
  transport = { state: "connected" };

  constructor() {
    peers.push(this);
  }

  addTransceiver() {
    return {};
  }

  async createOffer() {
    this.offers += 1;
    return { type: "offer", sdp: `offer ${peers.indexOf(this)}.${this.offers}` };
  }

  async setLocalDescription(description) {
    this.localDescription = description;
    this.signalingState = "have-local-offer";
  }

  async setRemoteDescription(description) {
    this.remoteDescription = description;
    this.signalingState = "stable";
  }

  async addIceCandidate(candidate) {
    this.candidates.push(candidate);
  }

  restartIce() {
    this.restarts += 1;
  }

  getTransceivers() {
    return [];
  }

  getSenders() {
    return [{ transport: this.transport, replaceTrack: async () => {} }];
  }

  setConfiguration(configuration) {
    this.configuration = configuration;
  }

  getConfiguration() {
    return {};
  }

  close() {
    this.connectionState = "closed";
  }

  /** The server closes DTLS; the connection's own state stays as it is for seconds. */
  goodbye() {
    this.transport.state = "closed";
    this.transport.onstatechange?.({});
  }

  is(state) {
    this.connectionState = state;
    this.onconnectionstatechange?.({});
  }

  found(candidate) {
    this.onicecandidate?.({ candidate: candidate && { candidate, toJSON: () => ({ candidate, sdpMid: "0" }) } });
  }
}

const track = { kind: "audio", readyState: "live", addEventListener() {}, stop() {} };
/** One's own media, so that no camera is asked for. */
export const media = { getTracks: () => [track], getAudioTracks: () => [track], getVideoTracks: () => [] };

/** What a server answers to plain HTTP, by `METHOD path`; nothing else can be reached. @type {Map<string, object>} */
export const answers = new Map();
/** What was asked so, with the credential. @type {{what: string, authorization?: string}[]} */
export const asked = [];

Object.assign(globalThis, {
  fetch: async (url, { method = "GET", headers = {} } = {}) => {
    const what = `${method} ${new URL(url).pathname}`;
    asked.push({ what, authorization: headers.Authorization });
    const found = answers.get(what);
    if (!found) throw new TypeError("Failed to fetch");
    const { status = 200, ...body } = Array.isArray(found) ? {} : found;
    return { ok: status < 400, status, url, headers: new Map(), json: async () => (Array.isArray(found) ? found : body), text: async () => "answer" };
  },
  WebSocket: FakeSocket,
  RTCPeerConnection: FakePeer,
  RTCRtpReceiver: { getCapabilities: () => null },
  HTMLVideoElement: class {},
});

/** Lets everything happen that waits for promises only. */
export async function settle() {
  for (let i = 0; i < 20; i += 1) await null;
}

/** @type {FakeRecorder[]} */
export const recorders = [];

export class FakeRecorder {
  static isTypeSupported(mime) {
    return mime.includes("/webm");
  }

  state = "inactive";

  constructor(stream, { mimeType = "" } = {}) {
    this.stream = stream;
    this.mimeType = mimeType;
    recorders.push(this);
  }

  start(timeslice) {
    this.timeslice = timeslice;
    this.state = "recording";
  }

  requestData() {}

  stop() {
    this.state = "inactive";
    queueMicrotask(() => {
      this.gives("tail!");
      this.onstop?.({});
    });
  }

  /** Hands out a blob. */
  gives(text) {
    this.ondataavailable?.({ data: new Blob([text]) });
  }
}
