// Asks for a class: by mouse, by its first letters, or by its number in the list.

import { element } from "../page.js";

// Resolves to one of the classes, or to null if the reader cancels.
export function chooseClass(classes, colourOf, { title, chosen = null }) {
  return new Promise((resolve) => {
    const buttons = classes.map((one) =>
      element("button", { value: String(one.id), className: "class", "aria-current": String(one.name === chosen) },
        swatch(colourOf(one.name)), one.name));
    const dialog = element("dialog", { className: "classes", "aria-labelledby": "class-title" },
      element("h2", { id: "class-title" }, title),
      element("form", { method: "dialog" }, element("div", { className: "class-list" }, ...buttons),
        element("button", { value: "" }, "Cancel")));
    dialog.addEventListener("keydown", (event) => walk(event, buttons));
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(classes.find((one) => String(one.id) === dialog.returnValue) ?? null);
    });
    document.body.append(dialog);
    dialog.showModal();
    (buttons.find((button) => button.getAttribute("aria-current") === "true") ?? buttons[0])?.focus();
  });
}

export function swatch(colour) {
  const made = element("span", { className: "swatch", "aria-hidden": "true" });
  made.style.backgroundColor = colour;
  return made;
}

function walk(event, buttons) {
  event.stopPropagation(); // the page's shortcuts must not fire
  const place = buttons.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    buttons[(place + step + buttons.length) % buttons.length].focus();
  } else if (event.key.length === 1 && /\p{L}/u.test(event.key)) {
    const behind = [...buttons.slice(place + 1), ...buttons.slice(0, place + 1)];
    behind.find((button) => button.textContent.toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
  }
}
