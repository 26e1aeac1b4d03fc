// The reader's buttons for the selected finding and for the whole review, and the review's history.

import { element } from "../page.js";
import { sizeText } from "./boxes.js";
import { ACTIONS, minute } from "./words.js";

export class ReviewPanel {
  #state;
  #about = element("p", { className: "words" });
  #standing = element("p", {});
  #history = element("ol", { className: "history" });
  #buttons;
  chosen; // about the selected finding; stays visible however long the list is
  element;

  constructor(state, reviewing, editing, commands) {
    this.#state = state;
    this.#buttons = {
      accept: button("Accept", "A", () => commands.accept()),
      reject: button("Reject", "X", () => commands.reject()),
      relabel: button("Relabel…", "L", () => editing.relabel()),
      edit: button("Move or resize", "E", () => editing.toggle()),
      noFinding: button("No finding", "N", () => reviewing.noFinding()),
      complete: button("Review done", "Y", () => reviewing.complete()),
      undo: button("Undo", "U", () => reviewing.undo()),
      redo: button("Redo", "Shift+U", () => reviewing.redo()),
    };
    const { accept, reject, relabel, edit, noFinding, complete, undo, redo } = this.#buttons;
    complete.classList.add("primary");
    this.chosen = element("section", { className: "chosen", "aria-label": "The selected finding" }, this.#about,
      element("div", { className: "actions" }, accept, reject, relabel, edit));
    this.element = element("section", { className: "review", "aria-label": "Review" },
      this.#standing,
      element("div", { className: "actions", role: "group", "aria-label": "The whole review" },
        noFinding, complete, undo, redo),
      element("details", {}, element("summary", {}, "History"), this.#history));
  }

  refresh() {
    const { review, selected, draft, may } = this.#state;
    this.element.hidden = this.chosen.hidden = review === null;
    if (review === null) return;
    const finding = this.#state.finding(selected);
    const { accept, reject, relabel, edit, noFinding, complete, undo, redo } = this.#buttons;
    for (const one of Object.values(this.#buttons)) one.hidden = !may.submit;
    for (const one of [accept, reject, relabel, edit]) one.disabled = !finding;
    edit.setAttribute("aria-pressed", String(Boolean(draft && draft.id === selected)));
    undo.disabled = !review.may_undo;
    redo.disabled = !review.may_redo;
    noFinding.disabled = false;
    complete.disabled = review.is_complete || this.#open().length > 0;
    this.chosen.classList.toggle("waiting", !finding);
    this.#about.textContent = finding
      ? `${finding.class_name} · ${sizeText(finding.box_xyxy_px, this.#state.image.pixel_spacing)}`
      : may.submit ? "Select a finding to accept, reject or change it." : "This key can read but not review.";
    this.#standing.textContent = this.#words(review);
    this.#history.replaceChildren(...review.events.map((event) => this.#line(event)));
  }

  #open() {
    return this.#state.findings.filter((one) => one.verdict === "undecided" && this.#state.isInScore(one));
  }

  #words(review) {
    if (review.is_complete) {
      const accepted = review.findings.filter((one) => one.verdict === "accepted").length;
      return `Review complete: ${accepted === 1 ? "1 finding" : `${accepted} findings`}.`;
    }
    const open = this.#open().length;
    if (open) return `${open} of the findings with a score of at least ${this.#state.minScore.toFixed(2)} are undecided.`;
    return review.findings.length ? "Every finding with at least this score is decided." : "Nothing to decide.";
  }

  #line(event) {
    const about = this.#state.finding(event.finding_id)?.class_name ?? event.class_name ?? "";
    const undone = event.undoes === null ? "" : `no. ${event.undoes}`;
    const words = [event.reader, ACTIONS[event.action], about || undone].filter(Boolean).join(" ");
    return element("li", {}, `${words} `, element("time", { dateTime: event.created_at, className: "quiet" },
      minute(event.created_at)));
  }
}

function button(words, keys, work) {
  const made = element("button", { type: "button", title: `${words.replace("…", "")} (${keys})` }, words);
  made.setAttribute("aria-keyshortcuts", keys);
  made.addEventListener("click", work);
  return made;
}
