// Keyboard shortcuts: one table for the handler and for the `?` dialog.

import { element } from "../page.js";

// `shortcuts`: [{keys: [...], words, run}]; a key is an `event.key`; letters are in lower case.
export function listenToKeys(shortcuts, { before }) {
  const byKey = new Map(shortcuts.flatMap((shortcut) => shortcut.keys.map((key) => [key, shortcut])));
  document.addEventListener("keydown", (event) => {
    if (document.querySelector("dialog[open]") || isTyping(event.target)) return;
    if (isSliding(event)) return;
    if (before(event)) {
      event.preventDefault();
      return;
    }
    const shortcut = byKey.get(nameOf(event));
    if (!shortcut || (isPressing(event.target) && [" ", "Enter"].includes(event.key))) return;
    event.preventDefault();
    shortcut.run(event);
  });
}

export function showShortcuts(shortcuts) {
  const rows = shortcuts.map(({ keys, words }) => element("tr", {},
    element("td", {}, ...keys.flatMap((key) => [element("kbd", {}, readable(key)), " "])), element("td", {}, words)));
  const dialog = element("dialog", { className: "shortcuts", "aria-labelledby": "shortcuts-title" },
    element("form", { method: "dialog", className: "row spread" },
      element("h2", { id: "shortcuts-title" }, "Keyboard, mouse and touch"), element("button", { autofocus: true }, "Close")),
    element("table", {}, element("tbody", {}, ...rows)),
    element("p", { className: "quiet" }, "Mouse: drag by the chosen tool, the wheel zooms at the pointer, the middle or " +
      "right button or the space bar held pans, a click selects. Touch: one finger by the chosen tool, two zoom and pan."));
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
}

function nameOf(event) {
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  const shift = event.shiftKey && (key.length > 1 || /[a-z]/.test(key)) ? "Shift+" : "";
  return `${event.ctrlKey || event.metaKey ? "Ctrl+" : ""}${event.altKey ? "Alt+" : ""}${shift}${key}`;
}

const SYMBOLS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓" };

function readable(key) {
  return key.replace(/Arrow\w+/, (name) => SYMBOLS[name]).replace(/(^|\+)([a-z])$/, (_, plus, letter) =>
    plus + letter.toUpperCase());
}

function isTyping(target) {
  return target.matches("input:not([type=range]), select, textarea");
}

// These keys are the slider's.
function isSliding(event) {
  return event.target.matches("input[type=range]") && /^(Arrow|Page|Home|End)/.test(event.key);
}

function isPressing(target) {
  return target.matches("button, a, summary, input");
}
