// Filters the findings by minimum score and class.

import { element } from "../page.js";
import { swatch } from "./class_choice.js";

export class Filters {
  #state;
  #slider = element("input", { type: "range", id: "min-score", min: 0, max: 1, step: 0.01 });
  #value = element("output", { htmlFor: "min-score" });
  #classes = element("div", { className: "toggles", role: "group", "aria-label": "Classes" });
  element;

  constructor(state) {
    this.#state = state;
    this.#slider.value = state.minScore;
    this.#slider.addEventListener("input", () => state.setMinScore(Number(this.#slider.value)));
    const all = element("button", { type: "button", className: "plain" }, "All");
    const none = element("button", { type: "button", className: "plain" }, "None");
    all.addEventListener("click", () => this.#hide([]));
    none.addEventListener("click", () => this.#hide([...this.#counts().keys()]));
    this.element = element("div", { className: "finding-filters" },
      element("div", { className: "row spread" },
        element("label", { htmlFor: "min-score" }, "Minimum score "), this.#value),
      this.#slider,
      element("div", { className: "row spread" }, element("span", { className: "quiet" }, "Classes"),
        element("span", {}, all, none)),
      this.#classes);
  }

  refresh() {
    this.#slider.value = this.#state.minScore;
    this.#value.textContent = this.#state.minScore.toFixed(2);
    const focused = document.activeElement?.dataset?.class;
    this.#classes.replaceChildren(...[...this.#counts()].map(([name, count]) => this.#toggle(name, count)));
    if (focused) this.#classes.querySelector(`[data-class="${CSS.escape(focused)}"]`)?.focus();
  }

  // For each class found, the number of findings with at least the minimum score.
  #counts() {
    const counts = new Map();
    for (const finding of this.#state.findings) {
      const more = this.#state.isInScore(finding) ? 1 : 0;
      counts.set(finding.class_name, (counts.get(finding.class_name) ?? 0) + more);
    }
    return new Map([...counts].sort(([one], [other]) => one.localeCompare(other)));
  }

  #toggle(name, count) {
    const isShown = !this.#state.hiddenClasses.has(name);
    const button = element("button", {
      type: "button", className: "toggle", "aria-pressed": String(isShown), "aria-label": `${name}, ${count} shown`,
    }, swatch(this.#state.colour(name)), name, element("span", { className: "count" }, String(count)));
    button.dataset.class = name;
    button.addEventListener("click", () => {
      if (isShown) this.#state.hiddenClasses.add(name);
      else this.#state.hiddenClasses.delete(name);
      this.#state.changed();
    });
    return button;
  }

  #hide(names) {
    this.#state.hiddenClasses = new Set(names);
    this.#state.changed();
  }
}
