"use strict";
// Keys on the page, on the computer's keyboard and on a MIDI keyboard: all that are held go out as one message.
const CHORDS = { "one note": [0], "major chord": [0, 4, 7], "minor chord": [0, 3, 7], "seventh chord": [0, 4, 7, 10], "fifth": [0, 7], "octave": [0, 12] };
const LOWEST = 36, HIGHEST = 84, TYPED = "awsedftgyhujkolp", TYPED_FROM = 60;
const holding = new Map();                   // key that was pressed → the pitches it holds
let kept = new Set();                        // pitches that stay held when their key is let go

function heldPitches() { return [...new Set([...kept, ...[...holding.values()].flat()])].sort((a, b) => a - b); }
function sendNotes() { send({ type: "notes", pitches: heldPitches(), others: $("silent").checked ? "silent" : "free" }); }
function press(key, root) {
  const pitches = CHORDS[$("chord").value].map(step => root + step).filter(pitch => pitch < 128);
  if ($("latch").checked) {                  // a second press lets go
    const there = pitches.every(pitch => kept.has(pitch));
    for (const pitch of pitches) there ? kept.delete(pitch) : kept.add(pitch);
    return sendNotes();
  }
  holding.set(key, pitches); sendNotes();
}
function letGo(key) { if (holding.delete(key)) sendNotes(); }
function buildKeyboard() {
  $("chord").replaceChildren(...Object.keys(CHORDS).map(name => new Option(name, name)));
  for (let pitch = LOWEST; pitch <= HIGHEST; pitch++) {
    const black = [1, 3, 6, 8, 10].includes(pitch % 12);
    const key = make("div", { className: black ? "key black" : "key" }, make("span", { textContent: pitch % 12 ? "" : "C" + (pitch / 12 - 1) }));
    key.dataset.pitch = pitch; $("keyboard").append(key);
  }
}
function keyAt(event) { const found = document.elementFromPoint(event.clientX, event.clientY); return found ? found.closest(".key") : null; }
$("keyboard").onpointerdown = event => {
  const key = keyAt(event); if (!key) return;
  event.preventDefault(); $("keyboard").setPointerCapture(event.pointerId); press("p" + event.pointerId, Number(key.dataset.pitch));
};
$("keyboard").onpointermove = event => {     // sliding along the keys plays them
  const key = keyAt(event), at = "p" + event.pointerId, now = holding.get(at);
  if (key && now && now[0] !== Number(key.dataset.pitch)) press(at, Number(key.dataset.pitch));
};
$("keyboard").onpointerup = $("keyboard").onpointercancel = event => letGo("p" + event.pointerId);
function typedPitch(event) {
  const busy = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) && !/^(range|checkbox)$/.test(event.target.type);
  const at = TYPED.indexOf(event.key.toLowerCase());
  return busy || at < 0 || event.ctrlKey || event.metaKey || event.altKey || !hello || !hello.plays.includes("notes") ? null : TYPED_FROM + at;
}
addEventListener("keydown", event => { const pitch = typedPitch(event); if (pitch !== null && !event.repeat) press("k" + event.code, pitch); });
addEventListener("keyup", event => letGo("k" + event.code));
addEventListener("blur", () => { if (holding.size) { holding.clear(); sendNotes(); } });
$("release").onclick = () => { kept.clear(); holding.clear(); sendNotes(); };
$("silent").onchange = sendNotes;
$("latch").onchange = () => { if (!$("latch").checked && kept.size) { kept.clear(); sendNotes(); } };
for (const button of document.querySelectorAll("[data-drums]")) button.onclick = () => send({ type: "drums", drums: button.dataset.drums });

function heard(event) {                      // a MIDI message: note on, note off
  const [status, pitch, velocity] = event.data, key = "m" + (status & 15) + "/" + pitch;
  if (status >> 4 === 9 && velocity) press(key, pitch);
  else if (status >> 4 === 8 || status >> 4 === 9) letGo(key);
}
$("midi").onclick = async () => {
  try {
    const midi = await navigator.requestMIDIAccess();
    const plug = () => {
      const inputs = [...midi.inputs.values()]; for (const input of inputs) input.onmidimessage = heard;
      $("midi-said").textContent = inputs.length ? inputs.map(one => one.name).join(", ") : "no MIDI keyboard is plugged in";
    };
    midi.onstatechange = plug; plug();
  } catch (error) { $("midi-said").textContent = "this browser gives no MIDI: " + error.message; }
};
function greetKeys() {                       // also after a broken connection: the server has let go of what was held
  kept.clear(); holding.clear();
  $("keys-panel").hidden = !hello.plays.length; $("keyboard").hidden = !hello.plays.includes("notes"); $("drums-box").hidden = !hello.plays.includes("drums");
}
function showKeys(message) {
  const down = new Set(message.keys.held);
  for (const key of $("keyboard").children) key.classList.toggle("held", down.has(Number(key.dataset.pitch)));
  $("silent").checked = message.keys.others === "silent";
  for (const button of document.querySelectorAll("[data-drums]")) button.setAttribute("aria-checked", button.dataset.drums === message.drums);
}
buildKeyboard();
