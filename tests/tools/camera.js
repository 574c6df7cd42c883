// Put into a page before its own scripts: camera and microphone are those of scene.py.
(() => {
  const [WIDTH, HEIGHT, FPS, ROUND] = [640, 360, 30, 10];
  /** Seconds that are prepared at once. */
  const PREPARED = 300;
  /** Sound goes through buffers before it is captured, a picture doesn't: what is drawn is so old, in seconds. */
  const LAG = 0.015;

  async function open() {
    const audio = new AudioContext({ sampleRate: 48000 });
    await audio.resume();
    // How far into its second the microphone is.
    window.moment = () => audio.currentTime % 1;
    const [tone, level, sink] = [audio.createOscillator(), audio.createGain(), audio.createMediaStreamDestination()];
    tone.frequency.value = 1000;
    level.gain.value = 0;
    tone.connect(level).connect(sink);
    tone.start();
    for (let second = Math.ceil(audio.currentTime); second < PREPARED; second += 1) {
      level.gain.setValueAtTime(0.8, second + 0.5);
      level.gain.setValueAtTime(0, second + 0.6);
    }
    const canvas = Object.assign(document.createElement("canvas"), { width: WIDTH, height: HEIGHT });
    const context = canvas.getContext("2d", { alpha: false });
    const bar = WIDTH / 16;
    const draw = () => {
      const now = Math.max(0, audio.currentTime - LAG);
      context.fillStyle = "black";
      context.fillRect(0, 0, WIDTH, HEIGHT);
      context.fillStyle = "white";
      if (now % 1 >= 0.5 && now % 1 < 0.6) context.fillRect(0, 0, WIDTH, (HEIGHT * 2) / 3);
      context.fillRect(((WIDTH - bar) * (now % ROUND)) / ROUND, HEIGHT * 0.8, bar, HEIGHT * 0.2);
    };
    draw();
    // Twice as often as it is captured, so that a flash begins in time.
    setInterval(draw, 500 / FPS);
    const stream = canvas.captureStream(FPS);
    stream.addTrack(sink.stream.getAudioTracks()[0]);
    return stream;
  }

  let opened;
  navigator.mediaDevices.getUserMedia = async () => (opened ??= open());

  // What a page does with its microphone, a test may do with the page's connection.
  const Connection = RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Connection {
    constructor(...given) {
      super(...given);
      connections.push(this);
    }
  };
})();
