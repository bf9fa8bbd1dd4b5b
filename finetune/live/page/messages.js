"use strict";
// The WebSocket: what is sent, what is heard, and what to do when the server is gone.
const token = new URLSearchParams(location.search).get("token");
const query = token ? "?token=" + encodeURIComponent(token) : "";
let socket, retry = 500, problemTimer = 0;

function send(message) {
  if (socket && socket.readyState === 1) socket.send(JSON.stringify(message));
  if (!["start", "stop", "record"].includes(message.type)) markMove();
}
const soon = new Map();
function sendSoon(key, message) {            // a moving fader: at most twenty messages a second, the last one always
  if (soon.has(key)) { soon.set(key, message); return; }
  send(message); soon.set(key, null);
  setTimeout(() => { const last = soon.get(key); soon.delete(key); if (last) sendSoon(key, last); }, 50);
}
function connect() {
  socket = new WebSocket((location.protocol === "https:" ? "wss://" : "ws://") + location.host + "/live" + query);
  socket.binaryType = "arraybuffer";
  socket.onmessage = event => typeof event.data === "string" ? hear(JSON.parse(event.data)) : take(event.data);
  socket.onopen = () => { retry = 500; problem(""); };
  socket.onclose = () => {
    for (const id of ["play", "reset", "record"]) $(id).disabled = true;
    silence(); problem("The server is gone. Trying again …");
    setTimeout(connect, retry); retry = Math.min(retry * 2, 8000);
  };
}
function hear(message) {
  if (message.type === "hello") greet(message);
  else if (message.type === "state") show(message);
  else if (message.type === "status") timing(message);
  else if (message.type === "loading") problem("Loading the model …");
  else if (message.type === "recorded") recorded(message);
  else if (message.type === "error") problem([message.what, message.where, message.fix].filter(Boolean).join(" — "), 9000);
}
function problem(text, forMs) {
  $("problem").textContent = text; $("problem").classList.toggle("shown", !!text);
  clearTimeout(problemTimer);
  if (forMs) problemTimer = setTimeout(() => problem(""), forMs);
}
function greet(message) {
  hello = message; stats.run = 0;            // a server that was started anew counts anew
  $("base").textContent = [message.base, ...message.adapters].join(" + ");
  for (const id of ["play", "reset", "record"]) $(id).disabled = false;
  $("strengths").replaceChildren(...(message.adapters.length ? message.adapters.map(strengthFader) : [faint("no adapter: the base alone")]));
  $("context-box").hidden = !message.context; $("context-name").textContent = $("context-name").title = message.context || "";
  greetKeys();
}
function show(message) {
  const before = state; state = message;
  if (message.run > stats.run) { silence(); stats.run = message.run; }
  $("play").setAttribute("aria-label", message.playing ? "Stop" : "Play");
  const record = message.recording ? "Stop recording" : "Record";
  $("record").setAttribute("aria-pressed", message.recording); $("record").setAttribute("aria-label", record); $("record").lastElementChild.textContent = record;
  if (context) message.playing ? context.resume() : context.suspend();
  if (message.playing && !context) problem("It is playing: click anywhere to hear it.");
  if (!before || before.seed !== message.seed) $("seed").value = message.seed;
  showControls(message); showStory(message, before); showKeys(message);
}
function timing(message) {
  const factor = message.real_time_factor;
  $("factor").textContent = factor === null ? "–" : factor.toFixed(2) + " ×";
  $("factor").className = factor === null ? "" : factor < 1.1 ? "low" : "fine";
  const level = context && next ? Math.max(0, next - context.currentTime) : waitingSec;
  $("buffer").textContent = level.toFixed(2) + " s";
  $("latency").textContent = message.control_latency_sec === null ? "–" : message.control_latency_sec.toFixed(2) + " s";
  $("delay").textContent = message.chunk_sec.toFixed(2) + " + " + message.delay_sec.toFixed(2) + " s";
  $("gaps").textContent = stats.gaps + " / " + message.gaps;
  $("played").textContent = clock(Math.floor(message.second));
  $("hint").textContent = message.hint; $("hint").classList.toggle("shown", !!message.hint);
  if (state.story.length) showMoment(message.moment);
  if (message.loaded && $("problem").textContent.startsWith("Loading")) problem("");
}
function recorded(message) {
  const link = make("a", { href: "/recordings/" + encodeURIComponent(message.name) + query, textContent: message.name, download: message.name });
  if ($("recordings").firstElementChild.className === "faint") $("recordings").replaceChildren();
  $("recordings").prepend(make("li", {}, link, " " + message.seconds.toFixed(1) + " s"));
}
$("play").onclick = () => { openSound(); send({ type: state.playing ? "stop" : "start" }); };
$("reset").onclick = () => { openSound(); send({ type: "reset", seed: Math.max(0, Math.floor(Number($("seed").value) || 0)) }); };
$("record").onclick = () => send({ type: "record", on: !state.recording });
document.body.addEventListener("click", () => { if (state && state.playing && !context) { openSound(); problem(""); } });
connect();
