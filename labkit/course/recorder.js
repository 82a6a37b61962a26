// A recorder for a notebook: getUserMedia → AudioWorklet → 16-bit samples, in messages of 20 ms.
//
// Everything is in this file, so that it works without a network. What is recorded goes to the
// kernel as it comes; what the three switches say goes to the browser with the next recording.

const RATE = 16000;
const FRAMES_PER_SECOND = 50;
const LATENCY = "playback"; // large buffers: nobody waits for a recording, and models keep cores busy
const QUIETEST_DB = -60;

const SWITCHES = {
  echoCancellation: "Echo cancellation",
  noiseSuppression: "Noise suppression",
  autoGainControl: "Gain control",
};

// Runs on the audio thread, in a scope of its own: it is loaded from its text.
export const WORKLET = `
class Frames extends AudioWorkletProcessor {
  constructor() {
    super();
    this.frame = new Float32Array(Math.round(sampleRate / ${FRAMES_PER_SECOND}));
    this.filled = 0;
  }
  process([channels]) {
    for (const sample of channels[0] ?? []) {
      this.frame[this.filled++] = sample;
      if (this.filled === this.frame.length) {
        this.port.postMessage(this.frame);  // a copy: this one is filled again
        this.filled = 0;
      }
    }
    return true;
  }
}
registerProcessor("frames", Frames);
`;

// Samples in [-1, 1] as 16-bit integers; every machine with a browser writes the low byte first.
export function toS16(samples) {
  return Int16Array.from(samples, (sample) =>
    Math.max(-32768, Math.min(32767, Math.round(sample * 32768))),
  );
}

// The level of a frame in decibels below full scale.
export function levelDb(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length;
  return Math.max(QUIETEST_DB, 10 * Math.log10(power || 1e-12));
}

export function whyNot(error) {
  const reasons = {
    NotAllowedError: "The browser was told not to let this page listen.",
    NotFoundError: "There is no microphone.",
    NotReadableError: "Another program uses the microphone.",
  };
  return `${reasons[error.name] ?? error.message} The next cell takes a recording instead.`;
}

async function open(constraints) {
  if (!navigator.mediaDevices) {
    throw new Error("Browsers give a microphone only to pages at localhost, or over https.");
  }
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, ...constraints },
  });
  try {
    // Firefox connects a microphone to a context of the microphone's own rate only; then the kernel
    // resamples.
    const wanted = new AudioContext({ sampleRate: RATE, latencyHint: LATENCY });
    try {
      return { stream, context: wanted, source: wanted.createMediaStreamSource(stream) };
    } catch {
      await wanted.close();
      const context = new AudioContext({ latencyHint: LATENCY });
      return { stream, context, source: context.createMediaStreamSource(stream) };
    }
  } catch (error) {
    stream.getTracks().forEach((track) => track.stop());
    throw error;
  }
}

async function frames(context, source, tell) {
  const url = URL.createObjectURL(new Blob([WORKLET], { type: "text/javascript" }));
  try {
    await context.audioWorklet.addModule(url);
  } finally {
    URL.revokeObjectURL(url);
  }
  const node = new AudioWorkletNode(context, "frames", { numberOfOutputs: 0 });
  node.port.onmessage = ({ data }) => tell(data);
  source.connect(node);
  return node;
}

function render({ model, el }) {
  const button = document.createElement("button");
  const meter = document.createElement("meter");
  const time = document.createElement("span");
  const said = document.createElement("span");
  const boxes = Object.entries(SWITCHES).map(([name, label]) => {
    const box = document.createElement("input");
    const named = document.createElement("label");
    box.type = "checkbox";
    box.checked = model.get(name);
    box.onchange = () => {
      model.set(name, box.checked);
      model.save_changes();
    };
    named.append(box, ` ${label} `);
    return named;
  });
  Object.assign(meter, { min: QUIETEST_DB, max: 0, low: -40, high: -6, optimum: -20 });
  meter.value = QUIETEST_DB;
  meter.setAttribute("aria-label", "Level of the microphone, in decibels below full scale");
  time.setAttribute("role", "timer");
  said.setAttribute("aria-live", "polite");
  button.textContent = "Record";
  button.className = "jupyter-button widget-button"; // as the buttons of ipywidgets look
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Recorder");
  el.append(button, " ", meter, " ", time, " ", said, document.createElement("br"), ...boxes);

  let opened = null;
  let seconds = 0;

  async function start() {
    const asked = Object.fromEntries(Object.keys(SWITCHES).map((name) => [name, model.get(name)]));
    const now = await open(asked);
    opened = now;
    seconds = 0;
    model.send({ type: "started", rate: now.context.sampleRate });
    now.node = await frames(now.context, now.source, (samples) => {
      if (opened !== now) return; // what was on its way when the recording was stopped
      seconds += 1 / FRAMES_PER_SECOND;
      meter.value = levelDb(samples);
      time.textContent = `${seconds.toFixed(1)} s`;
      model.send({ type: "frame" }, undefined, [toS16(samples).buffer]);
    });
    button.textContent = "Stop";
    said.textContent = "Recording. Say a sentence, then stop.";
  }

  async function stop() {
    const was = opened;
    opened = null;
    button.textContent = "Record";
    meter.value = QUIETEST_DB;
    time.textContent = "";
    if (was === null) return;
    was.stream.getTracks().forEach((track) => track.stop());
    await was.context.close();
    model.send({ type: "stopped" });
  }

  let busy = false; // with a click: a second one would open it twice
  button.onclick = async () => {
    if (busy) return; // not disabled, or it would lose the keyboard's focus
    busy = true;
    try {
      if (opened === null) {
        await start();
      } else {
        await stop();
        said.textContent = `${seconds.toFixed(1)} s recorded. Run the next cell.`;
      }
    } catch (error) {
      await stop();
      said.textContent = whyNot(error);
    } finally {
      busy = false;
    }
  };
  return stop; // when the widget goes, the microphone goes, too
}

export default { render };
