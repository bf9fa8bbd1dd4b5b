"use strict";
// Faders, knobs and prompts: each sends one message, and shows what the server says is set.
function held(element) { return element === document.activeElement && element.type !== "range" || element.dataset.held === "1"; }
function hold(element) {
  element.addEventListener("pointerdown", () => element.dataset.held = "1");
}
for (const end of ["pointerup", "pointercancel"])
  addEventListener(end, () => { for (const element of document.querySelectorAll("[data-held='1']")) element.dataset.held = ""; });
function turned(input) {                     // a knob shows where its (unseen) range stands
  const knob = input.parentElement;
  if (knob.classList.contains("knob")) knob.style.setProperty("--at", placeOf(input, Number(input.value)));
}
function placeOf(input, value) {             // top-k counts in ratios, all else in differences
  const share = (value - input.min) / (input.max - input.min);
  return input.id === "top_k" ? Math.cbrt(share) : share;
}
function valueAt(input, place) {
  const share = Math.min(1, Math.max(0, place));
  return Number(input.min) + (input.max - input.min) * (input.id === "top_k" ? share ** 3 : share);
}
for (const knob of document.querySelectorAll(".knob")) {
  const input = knob.firstElementChild;
  let from = null;
  knob.onpointerdown = event => {
    from = { y: event.clientY, place: placeOf(input, Number(input.value)) };
    input.dataset.held = "1"; input.focus(); knob.setPointerCapture(event.pointerId); event.preventDefault();
  };
  knob.onpointermove = event => {
    if (!from) return;
    input.value = valueAt(input, from.place + (from.y - event.clientY) / 160);
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  knob.onpointerup = knob.onpointercancel = () => { from = null; input.dataset.held = ""; };
}
function put(id, value, digits) {
  const element = $(id), out = $(id + "-out");
  if (!held(element)) { element.value = value; turned(element); }
  if (out) out.textContent = Number(value).toFixed(digits);
}
function make(tag, more, ...children) {
  const made = Object.assign(document.createElement(tag), more); made.append(...children); return made;
}
function faint(text) { return make("span", { className: "faint", textContent: text }); }
function strengthFader(name, number) {
  const id = "strength-" + number, out = make("output", { id: id + "-out" });
  const range = make("input", { id, className: "tall", type: "range", min: -0.5, max: 2, step: 0.01 });
  const label = make("label", { textContent: name, title: name, htmlFor: id });
  range.oninput = () => { out.textContent = Number(range.value).toFixed(2); sendSoon(id, { type: "strength", adapter: name, strength: Number(range.value) }); };
  hold(range);
  return make("div", { className: "strip" }, out, range, label);
}
function removeButton(act) { const made = make("button", { className: "remove", textContent: "×", title: "Remove", onclick: act }); made.setAttribute("aria-label", "Remove"); return made; }
function promptRow(prompt) {
  const text = make("input", { type: "text", value: prompt.text, maxLength: 1000, placeholder: "what should it sound like?", onchange: sendPrompts });
  const range = make("input", { type: "range", min: 0, max: 1, step: 0.01, value: prompt.weight });
  const out = make("output", { textContent: Number(prompt.weight).toFixed(2) });
  text.setAttribute("aria-label", "Prompt"); range.setAttribute("aria-label", "Weight");
  range.oninput = () => { out.textContent = Number(range.value).toFixed(2); sendPrompts(); };
  hold(range);
  const row = make("div", { className: "prompt" }, text, range, out);
  row.append(removeButton(() => { if ($("prompts").children.length > 1) { row.remove(); sendPrompts(); } }));
  return row;
}
function promptsHere() {
  return [...$("prompts").children].map(row => ({ text: row.children[0].value, weight: Number(row.children[1].value) }));
}
function sendPrompts() {
  const prompts = promptsHere();
  if (!prompts.some(one => one.weight > 0)) return problem("Every prompt is at 0: raise one of them, or press stop.", 5000);
  sendSoon("prompts", { type: "prompts", prompts, fade_sec: Math.min(30, Math.max(0, Number($("fade").value) || 0)) });
}
function choose(id, values, now) {
  const all = [...new Set([...values, now])].sort((a, b) => a - b);
  if ($(id).dataset.all !== String(all)) { $(id).replaceChildren(...all.map(value => new Option(value + " s", value))); $(id).dataset.all = String(all); }
  $(id).value = now;
}
function showControls(message) {
  hello.adapters.forEach((name, number) => put("strength-" + number, message.strengths[name], 2));
  put("guidance", message.guidance, 1); put("temperature", message.temperature, 2);
  put("top_k", message.top_k, 0); put("top_p", message.top_p, 2); put("fade", message.fade_sec, 1);
  put("context_level", message.context_level, 2);
  put("chaos", Math.min(1, Math.max(0, (message.temperature - 0.6) / 0.8)), 2);
  choose("chunk", [0.1, 0.25, 0.5, 1, 2], message.chunk_sec); choose("ahead", [0.1, 0.2, 0.5, 0.75, 1, 2, 5], message.buffer_sec);
  const busy = [...$("prompts").querySelectorAll("input")].some(held);
  if (!busy && JSON.stringify(promptsHere()) !== JSON.stringify(message.prompts)) $("prompts").replaceChildren(...message.prompts.map(promptRow));
}
$("add").onclick = () => {
  if ($("prompts").children.length >= 8) return problem("Eight prompts can play at once.", 4000);
  $("prompts").append(promptRow({ text: "", weight: 0 })); $("prompts").lastElementChild.firstElementChild.focus();
};
$("fade").onchange = sendPrompts;
$("chaos").oninput = () => { turned($("chaos")); sendSoon("chaos", { type: "chaos", amount: Number($("chaos").value) }); };
for (const id of ["guidance", "temperature", "top_k", "top_p"])
  $(id).oninput = () => { turned($(id)); sendSoon(id, { type: "sampling", [id]: Number($(id).value) }); };
$("context_level").oninput = () => sendSoon("context_level", { type: "context_level", level: Number($("context_level").value) });
for (const id of ["chaos", "guidance", "temperature", "top_k", "top_p", "context_level"]) hold($(id));
$("chunk").onchange = () => send({ type: "pace", chunk_sec: Number($("chunk").value) });
$("ahead").onchange = () => send({ type: "pace", buffer_sec: Number($("ahead").value) });
