// The list of findings: linked with the boxes both ways, and walked through with the arrow keys.

import { element } from "../page.js";
import { swatch } from "./class_choice.js";
import { sizeText } from "./boxes.js";
import { MARKS, VERDICTS } from "./words.js";

export class FindingsList {
  #state;
  #list = element("ul", { className: "findings", "aria-label": "Findings" });
  #empty = element("p", { className: "quiet" });
  element = element("div", {}, this.#list, this.#empty);

  constructor(state) {
    this.#state = state;
    this.#list.addEventListener("keydown", (event) => this.#walk(event));
    state.addEventListener("hover", () => this.#mark());
  }

  refresh() {
    const shown = this.#state.visible();
    const focused = document.activeElement?.dataset?.finding;
    this.#list.replaceChildren(...shown.map((finding) => element("li", {}, this.#row(finding))));
    this.#empty.textContent = shown.length ? "" : this.#why();
    this.#empty.hidden = shown.length > 0;
    if (focused) this.#button(focused)?.focus({ preventScroll: true });
    this.#mark();
    if (this.#state.selected) this.#bringIntoSight(this.#button(this.#state.selected));
  }

  // Only if the list has its own scroll bar. On a phone the page would scroll, and hide the image.
  #bringIntoSight(button) {
    const isScrolling = getComputedStyle(this.element.closest(".panel")).overflowY === "auto";
    if (isScrolling) button?.scrollIntoView({ block: "nearest" });
  }

  // Selects the next or previous finding; with `undecided` the next one without a decision.
  step(by, { undecided = false } = {}) {
    const shown = this.#state.visible();
    if (!shown.length) return;
    const place = shown.findIndex((finding) => finding.id === this.#state.selected);
    const order = shown.map((_, index) => shown[(place + by * (index + 1) + shown.length * 2) % shown.length]);
    const next = undecided ? order.find((finding) => finding.verdict === "undecided") : order[0];
    if (next) this.#state.select(next.id);
  }

  #row(finding) {
    const state = this.#state;
    const size = sizeText(finding.box_xyxy_px, state.image.pixel_spacing);
    const score = finding.score === null ? "drawn" : finding.score.toFixed(2);
    const verdict = VERDICTS[finding.verdict] + (finding.is_changed ? ", changed" : "");
    const button = element("button", {
      type: "button", className: `finding ${finding.verdict}`,
      "aria-label": `${finding.class_name}, score ${score}, ${size}, ${verdict}`,
    },
    swatch(state.colour(finding.class_name)), element("span", { className: "name" }, finding.class_name),
    element("span", { className: "score" }, score), element("span", { className: "size" }, size),
    element("span", { className: "verdict" }, MARKS[finding.verdict]));
    button.dataset.finding = finding.id;
    button.addEventListener("click", () => state.select(finding.id));
    button.addEventListener("pointerenter", () => state.hover(finding.id));
    button.addEventListener("pointerleave", () => state.hover(null));
    button.addEventListener("focus", () => state.hover(finding.id));
    return button;
  }

  #button(id) {
    return this.#list.querySelector(`[data-finding="${CSS.escape(id)}"]`);
  }

  #mark() {
    for (const button of this.#list.querySelectorAll("button")) {
      const { finding } = button.dataset;
      button.classList.toggle("hovered", finding === this.#state.hovered);
      button.setAttribute("aria-current", String(finding === this.#state.selected));
    }
  }

  #walk(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || this.#state.draft) return;
    event.preventDefault();
    event.stopPropagation();
    this.step(step);
    this.#button(this.#state.selected)?.focus();
  }

  #why() {
    const { review, findings } = this.#state;
    if (!review) return "";
    return findings.length ? "No finding matches the minimum score and the classes above." : "The model found nothing.";
  }
}
