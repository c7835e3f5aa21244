// The connection to the session, and everything on the page but the plan and the player's hands.
import { count, element, number, show } from "./dom.js";
import { showPlan, startWalking } from "./plan.js";
import { releaseKeys, showHands, startHands } from "./hands.js";

let socket = null;
let wait = 500;
let state = null;
let planner = "";
let arrivals = [];
let unanswered = []; // what was asked for; until it is answered the controls stay as they were set

const page = { send, state: () => state };

function send(message) {
  if (!socket || socket.readyState !== WebSocket.OPEN) return;
  show("refusal", "");
  if (message.do === "plan_with") show("settings_refusal", "");
  unanswered.push(message.do);
  socket.send(JSON.stringify(message));
}

function connect() {
  socket = new WebSocket(`ws://${location.host}/ws`);
  socket.onopen = () => {
    wait = 500;
    unanswered = [];
    connected(true, "Connected");
  };
  socket.onmessage = (event) => hear(JSON.parse(event.data));
  socket.onclose = () => {
    releaseKeys();
    connected(false, "Not connected: is jowa.play still running? Trying again …");
    setTimeout(connect, wait);
    wait = Math.min(2 * wait, 5000);
  };
}

function connected(open, words) {
  element("connection").textContent = words;
  element("connection").dataset.open = open;
  if (!open) element("rate").textContent = "";
}

function hear(message) {
  if (message.kind === "opening") showOpening(message);
  if (message.kind === "done" || message.kind === "refusal") {
    const asked = unanswered.shift();
    const place = asked === "plan_with" ? "settings_refusal" : "refusal";
    if (message.kind === "refusal") show(place, message.sentence);
    if (!unanswered.length && state) showControls(state);
  }
  if (message.kind === "state") showState(message);
  if (message.kind === "trouble") showTrouble(message.problem);
}

function showOpening(opening) {
  const options = (names) => names.map((name) => new Option(name, name));
  const group = (label, names) => {
    const made = document.createElement("optgroup");
    made.label = label;
    made.append(...options(names));
    return made;
  };
  element("game").replaceChildren(group("Trained on", opening.trained), group("Never seen", opening.others));
  element("planner").replaceChildren(...options(opening.planners));
  element("width").max = opening.limits.width;
  element("horizon").max = opening.limits.blocks - 1;
  element("context").max = opening.limits.blocks;
  element("simulations").max = opening.limits.simulations;
  element("blocks").textContent = opening.limits.blocks;
  planner = "";
}

function showState(next) {
  const before = state;
  state = next;
  document.title = `${next.game} – jowa.play`;
  element("title").textContent = `jowa.play: ${next.game}`;
  show("warning", next.warning);
  show("problem", next.problem);
  showScreens(next);
  showNumbers(next);
  if (!unanswered.length) showControls(next);
  showSettings(next.planner);
  showHands(next, before);
  showPlan(next);
  if (before && next.agent_steps !== before.agent_steps) showRate();
  if (!next.running) element("rate").textContent = "";
}

// Nothing newer can be shown: the page stays as it is, paused.
function showTrouble(problem) {
  if (state) showState({ ...state, problem, plan: null, running: false });
  else show("problem", problem);
}

function showControls(next) {
  element("run").textContent = next.running ? "Pause" : "Play";
  element("speed_value").textContent = next.speed;
  if (!busy("speed")) element("speed").value = next.speed;
  if (!busy("temperature")) element("temperature").value = next.temperature;
  element(`driver_${next.driver}`).checked = true;
  element("world_" + (next.world === "real" ? "real" : next.elsewhere ? "elsewhere" : "here")).checked = true;
  if (element("game").value !== next.game) element("game").value = next.game;
  element("shows_plan").checked = next.shows_plan;
}

function busy(id) {
  return document.activeElement === element(id);
}

function showScreens(next) {
  const dreaming = next.world === "dream";
  document.body.classList.toggle("dreaming", dreaming);
  element("screen").src = next.screen;
  // A dream is seen as it is; beside it the real game waits.
  element("seen").src = dreaming ? next.waiting : next.seen;
  element("seen").alt = dreaming ? "The real game's screen" : "The same, decoded from the model's codes";
  element("seen_caption").textContent = dreaming ? "The real game, waiting" : "What the model sees";
  element("world_caption").textContent = dreaming ? `The dream, begun at ${next.start}` : "The real game";
}

function showNumbers(next) {
  const dreaming = next.world === "dream";
  element("score").textContent = number(next.score);
  element("agent_steps").textContent = next.agent_steps;
  element("episode_label").textContent = dreaming ? "Real score" : "Episode's seed";
  element("episode").textContent = dreaming ? number(next.real_score) : next.seed;
  element("lives").textContent = next.lives ?? "–";
  element("played").textContent = next.played ? `${next.played.action}, ${by(next.played.by)}` : "–";
  element("reward").textContent = number(next.reward);
  element("notice").textContent = next.notice;
}

function by(who) {
  return { agent: "the agent", human: "you", chance: "by chance" }[who];
}

// A field being edited isn't overwritten: only a planner that has changed is shown.
function showSettings(settings) {
  const written = JSON.stringify(settings);
  if (written === planner) return;
  planner = written;
  element("planner").value = settings.name;
  for (const key of ["width", "horizon", "context", "simulations"]) element(key).value = settings[key];
}

function showRate() {
  const now = performance.now();
  arrivals = arrivals.filter((time) => now - time < 2000);
  arrivals.push(now);
  const rate = arrivals.length > 3 ? ((arrivals.length - 1) * 1000) / (now - arrivals[0]) : 0;
  element("rate").textContent = rate ? `· about ${count(Math.round(rate), "agent step")} a second` : "";
}

function startControls() {
  const on = (id, event, act) => element(id).addEventListener(event, act);
  on("run", "click", () => state && send({ do: "run", running: !state.running }));
  on("step", "click", () => {
    send({ do: "run", running: false });
    send({ do: "step" });
  });
  on("restart", "click", () => send({ do: "restart" }));
  on("speed", "input", () => send({ do: "speed", speed: Number(element("speed").value) }));
  on("temperature", "change", () => send({ do: "temperature", temperature: entered("temperature") }));
  for (const driver of ["agent", "human"]) {
    on(`driver_${driver}`, "change", () => {
      send({ do: "drive", driver });
      if (driver === "human") element("stage").focus({ preventScroll: true });
    });
  }
  on("world_real", "change", () => send({ do: "wake" }));
  on("world_here", "change", () => send({ do: "dream", elsewhere: false }));
  on("world_elsewhere", "change", () => send({ do: "dream", elsewhere: true }));
  on("shows_plan", "change", () => send({ do: "show_plan", shown: element("shows_plan").checked }));
  on("game", "change", () => send({ do: "game", game: element("game").value }));
  on("settings", "submit", (event) => {
    event.preventDefault();
    send(settingsAsked());
  });
}

function settingsAsked() {
  const asked = { do: "plan_with", name: element("planner").value };
  // What is published goes with the name alone.
  if (asked.name === "published") return asked;
  for (const key of ["width", "horizon", "context", "simulations"]) asked[key] = entered(key);
  return asked;
}

// Null for an empty field, which is no 0.
function entered(id) {
  return element(id).value === "" ? null : Number(element(id).value);
}

startControls();
startWalking(page);
startHands(page);
connect();
