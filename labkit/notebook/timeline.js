// The waterfall of a turn, each row of it a button that plays the turn from there.
//
// Everything is in this file, so that it works without a network. The whole turn is one recording:
// what was said, the silence of the wait, the reply.

const MOVES = "(prefers-reduced-motion: no-preference)";
const ROUNDED_S = 1e-4; // a browser rounds the instant that it is told to play from

// The row in which an instant lies: the last one that has begun by then.
export function rowAt(rows, at) {
  return Math.max(0, rows.findLastIndex((row) => row.start <= at + ROUNDED_S));
}

// Where an instant lies on the axis of the wait, in percent; outside of it, at its nearer end.
export function place(at, [start, end]) {
  return (100 * Math.min(Math.max(at - start, 0), end - start)) / (end - start || 1);
}

function made(tag, name, text = "") {
  const element = document.createElement(tag);
  element.className = name;
  element.textContent = text;
  return element;
}

// One row: its name, and its bar with a number, or words where it has no bar.
function button(row, wait) {
  const line = made("button", "row");
  line.type = "button";
  line.setAttribute("aria-label", `Play from ${row.label}, ${row.text}`);
  const track = made("span", row.bar ? "track" : "words", row.bar ? "" : row.text);
  if (row.bar) {
    const bar = made("span", "bar");
    const left = place(row.start, wait);
    bar.style.left = `${left}%`;
    bar.style.width = `${place(row.end, wait) - left}%`;
    track.append(bar);
  }
  line.append(made("span", "sign", "▷"), made("span", "label", row.label), track);
  if (row.bar) line.append(made("span", "number", row.text));
  return line;
}

function render({ model, el }) {
  const rows = model.get("rows");
  const wait = model.get("wait");
  const url = URL.createObjectURL(new Blob([model.get("wav")], { type: "audio/wav" }));
  const audio = made("audio", "");
  const list = made("div", "rows");
  const told = made("div", "told");
  const buttons = rows.map((row) => button(row, wait));
  const heads = buttons.map((line) => made("span", "head"));
  buttons.forEach((line, number) => line.querySelector(".track")?.append(heads[number]));
  Object.assign(audio, { controls: true, src: url });
  audio.setAttribute("aria-label", model.get("label"));
  audio.dataset.lmSuppressShortcuts = "true"; // JupyterLab leaves the arrow keys to it
  told.setAttribute("aria-live", "polite");
  el.classList.add("labkit-timeline");
  el.setAttribute("role", "group");
  el.setAttribute("aria-label", "Where the time went. Each row plays the turn from there.");
  list.append(...buttons);
  el.append(list, audio, told);

  function draw() {
    const at = audio.currentTime;
    const now = rowAt(rows, at);
    heads.forEach((head) => {
      head.style.left = `${place(at, wait)}%`;
      head.hidden = at < wait[0] || at > wait[1];
    });
    buttons.forEach((line, number) => {
      const here = number === now && !audio.ended && (at > 0 || !audio.paused);
      if (here) line.setAttribute("aria-current", "step");
      else line.removeAttribute("aria-current");
      line.querySelector(".sign").textContent = here ? "▶" : "▷";
    });
  }

  let frame = 0;
  function follow() {
    draw();
    frame = requestAnimationFrame(follow);
  }
  function rest() {
    cancelAnimationFrame(frame);
    draw();
    if (audio.paused) told.textContent = "";
  }
  audio.onplay = () => {
    rest();
    if (matchMedia(MOVES).matches) follow(); // otherwise it steps, four times a second
  };
  audio.onpause = audio.onended = rest;
  audio.ontimeupdate = audio.onseeked = draw;

  buttons.forEach((line, number) => {
    line.onclick = async () => {
      audio.currentTime = rows[number].start;
      try {
        await audio.play();
        told.textContent = `Playing from ${rows[number].label}.`;
      } catch (error) {
        if (error.name !== "AbortError") told.textContent = `It cannot be played: ${error.message}`;
      }
    };
  });
  draw();
  return () => {
    audio.pause();
    cancelAnimationFrame(frame);
    URL.revokeObjectURL(url);
  };
}

export default { render };
