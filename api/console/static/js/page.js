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

// Runs what a person asked for, and says that it takes a while; says why where it fails.
export async function attempt(work) {
  try {
    return await busy(work());
  } catch (error) {
    if (error.name !== "AbortError") say(sentence(error), { bad: true });
    return undefined;
  }
}

// What went wrong, with its code.
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

// A figure of a training: one that has diverged is told by its size.
export function figure(value, digits = 3) {
  return Math.abs(value) >= 1e5 ? value.toExponential(1) : value.toFixed(digits);
}

// What the server left in the page for its script: `<script type="application/json" id=ID>`.
export function data(id) {
  return JSON.parse(document.getElementById(id).textContent);
}
