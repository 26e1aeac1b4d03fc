// What every page uses: elements, messages, and how numbers and times read.

export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export function say(text, { bad = false, for_ms = bad ? 10000 : 4000 } = {}) {
  const message = element("div", { className: bad ? "message bad" : "message" }, text);
  document.getElementById("messages").append(message);
  setTimeout(() => message.remove(), for_ms);
}

// Runs an action that the user asked for: shows that it is running, and the reason if it fails.
export async function attempt(work) {
  try {
    return await busy(work());
  } catch (error) {
    if (error.name !== "AbortError") say(sentence(error), { bad: true });
    return undefined;
  }
}

// An error's message with its code.
export function sentence({ message, code }) {
  return code ? `${message} (${code})` : message;
}

let pending = 0;

// Shows "Loading…" until some work is done.
export async function busy(work) {
  pending += 1;
  showLoading();
  try {
    return await work;
  } finally {
    pending -= 1;
    showLoading();
  }
}

function showLoading() {
  document.body.toggleAttribute("data-loading", pending > 0 || document.readyState !== "complete");
}

addEventListener("load", showLoading);
addEventListener("pageshow", showLoading); // back from a page that was left

const UNITS = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];

export function duration(seconds) {
  const [length, unit] = UNITS.find(([length]) => seconds >= length) ?? [1, "s"];
  return `${Math.max(0, Math.floor(seconds / length))} ${unit}`;
}

export function age(time) {
  return duration((Date.now() - new Date(time)) / 1000);
}

const NUMBER = new Intl.NumberFormat("en-GB");
export const count = (value) => NUMBER.format(value);

// A training figure; values of a diverged training in scientific notation.
export function figure(value, digits = 3) {
  return Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(digits);
}

// Data that the server put into the page: `<script type="application/json" id=ID>`.
export function data(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
