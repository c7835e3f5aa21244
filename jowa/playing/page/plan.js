// The agent's plan: bars of expected Q, the futures as film strips, and walking along them frame by frame.
import { count, element, number } from "./dom.js";

let page = null;
let state = null;
let plan = null;
let chosen = null; // {future, step} that is shown large

export function startWalking(thePage) {
  page = thePage;
  element("previous").addEventListener("click", () => walk(-1));
  element("next").addEventListener("click", () => walk(1));
  element("follow").addEventListener("click", () => plan && play(plan.action));
}

export function showPlan(next) {
  state = next;
  plan = next.plan;
  showWords();
  showBars();
  showFutures();
  if (!frameAt(chosen)) chosen = null;
  showImagined();
}

function showWords() {
  const words = element("plan_words");
  if (!plan) {
    words.textContent = state.problem ? "No plan was made." : "You play alone: the agent plans nothing.";
    return;
  }
  const settings = state.planner;
  const steps = count(settings.horizon, "agent step");
  const how = {
    greedy: "no look ahead",
    beam: `${count(settings.width, "future")} of ${steps}`,
    mcts: `${count(settings.simulations, "simulation")} up to ${steps} deep, shown by the first step`,
  }[settings.name];
  words.textContent = `It would play ${plan.name}, worth ${number(plan.value, 3)} (${settings.name}: ${how}).`;
}

function showBars() {
  const box = element("bars");
  const rows = plan ? plan.q : [];
  reshape(box, rows.length, () => {
    const parts = [document.createElement("span"), document.createElement("div"), document.createElement("span")];
    parts[1].append(document.createElement("i"));
    return parts;
  });
  const values = rows.map((row) => row.q ?? 0);
  const low = Math.min(...values);
  const span = Math.max(...values) - low;
  rows.forEach((row, i) => {
    const [name, bar, value] = [box.children[3 * i], box.children[3 * i + 1].firstChild, box.children[3 * i + 2]];
    const isChosen = row.action === plan.action;
    name.textContent = isChosen ? `${row.name} ✓` : row.name;
    value.textContent = number(row.q, 3);
    bar.style.width = `${4 + 96 * (span ? (values[i] - low) / span : 1)}%`;
    for (const part of [name, bar, value]) part.classList.toggle("chosen", isChosen);
  });
}

// As many rows as are needed; what is there stays, so that clicks and focus survive a new plan.
function reshape(box, count, make) {
  const each = make().length;
  while (box.children.length > each * count) box.lastChild.remove();
  while (box.children.length < each * count) box.append(...make());
}

function showFutures() {
  const box = element("futures");
  const futures = plan ? plan.futures.filter((future) => future.steps.length) : [];
  reshape(box, futures.length, () => [newFuture()]);
  if (plan && !futures.length && !box.nextElementSibling) box.after(greedyLine());
  const line = box.nextElementSibling;
  if (line) line.hidden = !plan || futures.length > 0;
  futures.forEach((future, i) => fillFuture(box.children[i], future, i));
}

function greedyLine() {
  const line = document.createElement("p");
  line.className = "note";
  line.id = "no_future";
  line.textContent = "Greedy play imagines no future: the action of highest expected Q is played.";
  return line;
}

function newFuture() {
  const card = document.createElement("div");
  card.className = "card future";
  const head = document.createElement("div");
  head.append(document.createElement("h3"), document.createElement("p"), document.createElement("button"));
  head.children[1].className = "note";
  head.children[2].type = "button";
  head.children[2].addEventListener("click", () => {
    const future = plan && plan.futures[indexOf(card)];
    if (future) play(future.action);
  });
  const strip = document.createElement("div");
  strip.className = "strip";
  card.append(head, strip);
  return card;
}

function indexOf(card) {
  return [...card.parentNode.children].indexOf(card);
}

function fillFuture(card, future, i) {
  const [head, strip] = card.children;
  head.children[0].textContent = `${i + 1}. ${future.steps.map((step) => step.name).join(", ")}`;
  head.children[1].textContent = `score ${number(future.score, 3)}${i === 0 ? " · chosen" : ""}`;
  head.children[2].textContent = `Play ${future.name}`;
  reshape(strip, future.steps.length, () => [newFrame(card)]);
  let over = false;
  future.steps.forEach((step, t) => {
    const button = strip.children[t];
    button.firstChild.src = step.frame;
    button.firstChild.alt = `Future ${i + 1}, imagined step ${t + 1}`;
    button.lastChild.textContent = caption(step);
    button.classList.toggle("over", over);
    over = over || step.ends;
  });
}

function newFrame(card) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(document.createElement("img"), document.createElement("span"));
  button.addEventListener("click", () => choose({ future: indexOf(card), step: indexOf(button) }));
  return button;
}

function caption(step) {
  const reward = step.reward ? `, reward ${step.reward > 0 ? "+" : ""}${number(step.reward)}` : "";
  return `${step.name}${reward}${step.ends ? ", ends" : ""}`;
}

function choose(place) {
  if (state.running) page.send({ do: "run", running: false });
  chosen = place;
  showImagined();
}

// Along a future and on to the next one; before the first is the present.
function walk(by) {
  if (!plan) return;
  const places = plan.futures.flatMap((future, i) => future.steps.map((_, step) => ({ future: i, step })));
  if (!places.length) return;
  const at = chosen ? places.findIndex((one) => one.future === chosen.future && one.step === chosen.step) : -1;
  choose(places[Math.min(at + by, places.length - 1)] ?? null);
}

function play(action) {
  page.send({ do: "run", running: false });
  page.send({ do: "step", action });
}

function frameAt(place) {
  return place && plan && plan.futures[place.future] && plan.futures[place.future].steps[place.step];
}

function showImagined() {
  const step = frameAt(chosen);
  element("imagined").src = step ? step.frame : state.seen;
  element("imagined").alt = step ? "The imagined frame" : "The present frame as the model sees it";
  const any = Boolean(plan && plan.futures.some((future) => future.steps.length));
  const hint = any ? " Choose a frame of a future." : "";
  element("imagined_words").textContent = step ? describe(step) : `The present.${hint}`;
  for (const id of ["previous", "next"]) element(id).disabled = !any;
  element("follow").disabled = !plan;
  element("follow").textContent = plan ? `Play ${plan.name}` : "Play the plan's action";
  for (const shown of document.querySelectorAll(".strip .shown")) shown.classList.remove("shown");
  if (step) element("futures").children[chosen.future].children[1].children[chosen.step].classList.add("shown");
}

function describe(step) {
  const future = plan.futures[chosen.future];
  const where = `Future ${chosen.future + 1}, step ${chosen.step + 1} of ${future.steps.length}`;
  const ends = step.ends ? "and the episode ends" : "and it goes on";
  return `${where}: after ${step.name} a reward of ${number(step.reward)} is expected, ${ends}.`;
}
