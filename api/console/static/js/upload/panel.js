// Renders an upload: progress bar, counts, and rows of files that are being sent, failed or finished last.

import { at } from "../api.js";
import { count, data, element } from "../page.js";
import { isTrouble, isUnderWay } from "./uploads.js";

const STATES = data("states"); // words for the states of jobs
const PAUSE_MS = 300; // minimum time between two renderings
const MAX_TROUBLES = 100;
const MAX_DONE = 20;
const TAGS = { succeeded: "good", rejected: "bad", failed: "bad", "not sent": "bad", duplicate: "", "cancelled here": "", cancelled: "" };
// The states of open jobs are not listed; they follow "succeeded".
const ORDER = ["succeeded", "accepted", "duplicate", "sending", "waiting", "rejected", "failed", "not sent", "cancelled", "cancelled here"];
const UNSENT = ["waiting", "sending", "not sent", "cancelled here"];

export class Panel {
  #uploads;
  #rows = new Map();
  #timer = null;
  #title = element("h2", {});
  #bar = element("progress", { max: 1, value: 0, "aria-label": "Files sent" });
  #counts = element("p", { className: "row counts" });
  #body = element("tbody", {});
  #spoken = element("p", { className: "unseen", role: "status" });
  #cancel = element("button", { type: "button" }, "Cancel");
  #retry = element("button", { type: "button" }, "Retry failed files");
  #close = element("button", { type: "button" }, "Close");

  constructor(place, uploads, onClose) {
    this.#uploads = uploads;
    this.#cancel.addEventListener("click", () => uploads.cancel());
    this.#retry.addEventListener("click", () => uploads.retry());
    this.#close.addEventListener("click", onClose);
    place.replaceChildren(
      element("div", { className: "row spread" }, this.#title,
        element("div", { className: "row" }, this.#retry, this.#cancel, this.#close)),
      this.#bar, this.#counts, this.#spoken,
      element("div", { className: "scroll tall", tabIndex: 0, role: "region", "aria-label": "Files" },
        element("table", {}, this.#body)));
    place.hidden = false;
    this.draw();
  }

  changed() {
    this.#timer ??= setTimeout(() => this.draw(), PAUSE_MS);
  }

  draw() {
    clearTimeout(this.#timer);
    this.#timer = null;
    const { items, isSending, progress } = this.#uploads;
    const counts = tally(items);
    const unsent = UNSENT.reduce((sum, state) => sum + (counts.get(state) ?? 0), 0);
    const title = `${count(items.length - unsent)} of ${count(items.length)}${this.#uploads.isReading ? "+" : ""} files sent`;
    if (!isSending && this.#spoken.textContent !== title) this.#spoken.textContent = title;
    this.#title.textContent = title;
    this.#bar.value = progress;
    const rank = (state) => (ORDER.includes(state) ? ORDER.indexOf(state) : 0.5);
    const states = [...counts.keys()].sort((one, other) => rank(one) - rank(other));
    this.#counts.replaceChildren(...states.map((state) => tag(state, count(counts.get(state)))));
    this.#cancel.hidden = !isSending;
    this.#close.hidden = isSending;
    this.#retry.hidden = isSending || !counts.has("not sent");
    this.#drawRows(items);
  }

  #drawRows(items) {
    const shown = visible(items);
    for (const [item, row] of this.#rows) {
      if (shown.has(item)) continue;
      row.remove();
      this.#rows.delete(item);
    }
    let next = this.#body.firstElementChild;
    for (const item of shown) {
      const row = this.#row(item);
      if (row === next) next = next.nextElementSibling;
      else this.#body.insertBefore(row, next); // other rows are not moved, so the focus is kept
    }
  }

  #row(item) {
    const row = this.#rows.get(item) ?? element("tr", {});
    const looks = [item.state, item.state === "sending" ? item.sent : 0, item.code].join();
    if (row.dataset.looks !== looks) row.replaceChildren(...cells(item));
    row.dataset.looks = looks;
    this.#rows.set(item, row);
    return row;
  }
}

function visible(items) {
  const done = items.filter((item) => !isUnderWay(item) && !isTrouble(item) && item.state !== "cancelled here");
  return new Set([
    ...items.filter((item) => item.state === "sending"),
    ...items.filter(isTrouble).slice(-MAX_TROUBLES).reverse(),
    ...done.slice(-MAX_DONE).reverse(),
  ]);
}

function cells(item) {
  const progress = element("progress", { max: 1, value: item.sent, "aria-label": `Sent of ${item.name}` });
  const link = item.study_id && element("a", { href: at(`/console/studies/${item.study_id}`) }, item.state === "succeeded" ? "Findings" : "Study");
  const why = item.code && isTrouble(item) ? element("span", {}, element("code", {}, item.code), ` ${item.reason ?? ""}`) : null;
  return [
    element("td", { className: "file" }, item.name),
    element("td", {}, item.state === "sending" ? progress : tag(item.state)),
    element("td", {}, why, link),
  ];
}

function tag(state, number) {
  const words = STATES[state] ?? state[0].toUpperCase() + state.slice(1);
  return element("span", { className: `tag ${TAGS[state] ?? "wait"}` }, number ? `${number} ${words}` : words);
}

function tally(items) {
  const counts = new Map();
  for (const { state } of items) counts.set(state, (counts.get(state) ?? 0) + 1);
  return counts;
}
