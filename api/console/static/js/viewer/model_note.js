// States when the shown findings are not the active model's, and the warnings of the models' cards.

import { send } from "../api.js";
import { attempt, element } from "../page.js";
import { MODEL_STATES } from "./words.js";

const FINAL = ["succeeded", "rejected", "failed", "cancelled"];

export class ModelNote {
  #state;
  #navigation;
  #rerun = element("button", { type: "button" });
  element = element("section", { className: "model-note", "aria-label": "About these findings" });

  constructor(state, navigation) {
    this.#state = state;
    this.#navigation = navigation;
    this.#rerun.addEventListener("click", () => attempt(() => this.#askActiveModel()));
  }

  refresh() {
    const lines = [...this.#whose(), ...this.#warnings()];
    this.element.replaceChildren(...lines);
    this.element.hidden = lines.length === 0;
  }

  #whose() {
    const { review, study, image } = this.#state;
    if (!review || review.model.state === "active") return [];
    const active = study.active_model;
    const hasResult = image.results.some((result) => result.model.state === "active");
    const why = !active ? "No model is active."
      : hasResult ? `The active model, ${named(active)}, has a result too: choose it under “Findings of”.`
        : `The active model, ${named(active)}, has no result for this image.`;
    const words = element("p", {}, element("strong", {}, "Not the active model's findings."),
      ` They come from ${named(review.model)}, a ${MODEL_STATES[review.model.state]}. ${why}`);
    if (!active || hasResult || !this.#mayRerun(image)) return [words];
    this.#rerun.textContent = `Run ${active.name} on this study`;
    return [words, element("p", {}, this.#rerun)];
  }

  // Hidden while the job of the active model is not finished, and if the image is unfit for all models.
  #mayRerun(image) {
    const job = image.standing_job;
    return this.#state.may.submit && (!job || (FINAL.includes(job.state) && job.state !== "rejected"));
  }

  #warnings() {
    const { review, other } = this.#state;
    const shown = new Map([review, other].filter(Boolean).map(({ model }) => [model.id, model]));
    return [...shown.values()].filter((model) => model.warnings.length).flatMap((model) => [
      element("p", {}, element("strong", {}, `${model.name} warns:`)),
      element("ul", {}, ...model.warnings.map((warning) => element("li", {}, warning)))]);
  }

  async #askActiveModel() {
    this.#rerun.disabled = true;
    try {
      await send("POST", `/v1/studies/${this.#state.study.id}/jobs`);
      await this.#navigation.renew();
    } finally {
      this.#rerun.disabled = false;
    }
  }
}

function named(model) {
  return `${model.name} ${model.digest.slice(0, 8)}`;
}
