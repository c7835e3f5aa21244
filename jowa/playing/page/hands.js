// Playing by keyboard or on-screen buttons. What is held is sent whenever it changes, in the order it was pressed.
import { element } from "./dom.js";

const KEYS = { ArrowUp: "UP", ArrowDown: "DOWN", ArrowLeft: "LEFT", ArrowRight: "RIGHT", " ": "FIRE" };
const SIGNS = { UP: "↑", DOWN: "↓", LEFT: "←", RIGHT: "→", FIRE: "Fire" };

let page = null;
let held = [];
let action = null;
let layout = "";

export function startHands(thePage) {
  page = thePage;
  document.addEventListener("keydown", (event) => onKey(event, true));
  document.addEventListener("keyup", (event) => onKey(event, false));
  window.addEventListener("blur", letGo);
  document.addEventListener("visibilitychange", () => document.hidden && letGo());
}

export function releaseKeys() {
  held = [];
  action = null;
}

function letGo() {
  if (!held.length && action === null) return;
  releaseKeys();
  tell();
}

export function showHands(state, before) {
  const human = state.driver === "human";
  element("hands").hidden = !human;
  if (!human || (before && before.game !== state.game)) releaseKeys();
  if (!human) return;
  element("holds").textContent = state.holds ?? "nothing";
  element("hint").textContent = hint(state);
  showPad(state);
}

function hint(state) {
  const keys = state.keys.length ? "Arrow keys move" + (state.keys.includes("FIRE") ? ", space fires" : "") : "Number keys act";
  const waits = state.waits ? ", and the game waits for them: it has no action that does nothing" : "";
  return `${keys}${waits}; Enter presses the page's own buttons.`;
}

function showPad(state) {
  const wanted = JSON.stringify([state.keys, state.actions]);
  if (wanted !== layout) {
    layout = wanted;
    const pad = element("pad");
    pad.classList.toggle("arrows", state.keys.length > 0);
    pad.replaceChildren(...(state.keys.length ? state.keys.map(keyButton) : state.actions.map(actionButton)));
  }
  for (const button of element("pad").children) {
    const down = button.dataset.key ? held.includes(button.dataset.key) : action === Number(button.dataset.action);
    button.setAttribute("aria-pressed", String(down));
  }
}

function keyButton(key) {
  const button = padButton(SIGNS[key], () => press(key), () => release(key));
  button.dataset.key = key;
  button.setAttribute("aria-label", key.toLowerCase());
  button.style.gridArea = key.toLowerCase();
  return button;
}

function actionButton(one, i) {
  const digit = i < 10 ? `${(i + 1) % 10}: ` : "";
  const name = /^\d+$/.test(one.name) ? `action ${one.name}` : one.name;
  const button = padButton(digit + name, () => act(one.action), () => act(null));
  button.dataset.action = one.action;
  return button;
}

function padButton(label, down, up) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    button.setPointerCapture(event.pointerId);
    down();
  });
  for (const event of ["pointerup", "pointercancel", "lostpointercapture"]) button.addEventListener(event, up);
  button.addEventListener("contextmenu", (event) => event.preventDefault());
  // Enter on a focused button, which no pointer goes with, is a tap.
  button.addEventListener("click", (event) => {
    if (event.detail) return;
    down();
    up();
  });
  return button;
}

function onKey(event, down) {
  const state = page.state();
  if (!state || state.driver !== "human" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (down && event.target.closest("input, select")) return;
  const digit = state.keys.length ? NaN : (Number(event.key === " " ? NaN : event.key) + 9) % 10;
  const key = state.keys.length ? KEYS[event.key] : undefined;
  if (key) {
    event.preventDefault();
    if (down) press(key);
    else release(key);
  } else if (state.actions[digit]) {
    event.preventDefault();
    if (!event.repeat) act(down ? state.actions[digit].action : null);
  }
}

function press(key) {
  if (held.includes(key)) return;
  held = [...held, key];
  tell();
}

function release(key) {
  if (!held.includes(key)) return;
  held = held.filter((one) => one !== key);
  tell();
}

function act(one) {
  if (one === action) return;
  action = one;
  tell();
}

function tell() {
  page.send({ do: "hold", keys: held, action });
}
