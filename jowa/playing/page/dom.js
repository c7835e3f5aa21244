// Small things every part of the page needs.
export function element(id) {
  return document.getElementById(id);
}

// A line that is there only while it has something to say.
export function show(id, sentence) {
  const line = element(id);
  if (line.textContent !== sentence) line.textContent = sentence;
  line.hidden = !sentence;
}

// "1 agent step", "2 agent steps".
export function count(many, noun) {
  return `${many} ${noun}${many === 1 ? "" : "s"}`;
}

// A number for reading: at most two decimals, a true minus sign.
export function number(value, digits = 2) {
  if (value === null || value === undefined) return "–";
  const text = Number.isInteger(value) ? String(value) : value.toFixed(digits);
  return text.replace("-", "−");
}
