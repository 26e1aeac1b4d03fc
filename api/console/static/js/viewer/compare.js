// The results of several models on one image: which one is reviewed, and which one lies beside it.

import { get } from "../api.js";
import { attempt, element } from "../page.js";
import { day } from "./words.js";

export class Compare {
  #state;
  #select = element("select", { id: "result" });
  #beside = element("select", { id: "beside" });
  element;

  constructor(state) {
    this.#state = state;
    this.#select.addEventListener("change", () => this.#show(this.#select.value));
    this.#beside.addEventListener("change", () => this.#put(this.#beside.value));
    this.element = element("div", { className: "results" },
      element("label", { htmlFor: "result" }, "Findings of"), this.#select,
      element("label", { htmlFor: "beside" }, "Compare with"), this.#beside);
  }

  get isPossible() {
    return (this.#state.image?.results.length ?? 0) > 1;
  }

  // Shows or hides another result beside the current one.
  toggle() {
    if (!this.isPossible) return;
    const other = this.#others()[0];
    this.#put(this.#state.other ? "" : other.job_id);
  }

  refresh() {
    const { review, other } = this.#state;
    this.element.hidden = !this.isPossible;
    if (!this.isPossible || !review) return;
    this.#select.replaceChildren(...this.#state.image.results.map((result) => option(result, review.job_id)));
    this.#beside.replaceChildren(element("option", { value: "" }, "none"),
      ...this.#others().map((result) => option(result, other?.job_id)));
  }

  #others() {
    return this.#state.image.results.filter((result) => result.job_id !== this.#state.review?.job_id);
  }

  async #show(jobId) {
    const { image } = this.#state;
    const review = await attempt(() => get(`/v1/images/${image.id}/reviews?job_id=${jobId}`));
    if (!review || this.#state.image !== image) return;
    image.review = review;
    if (this.#state.other?.job_id === jobId) this.#state.other = null;
    this.#state.select(null);
  }

  async #put(jobId) {
    const { image } = this.#state;
    const review = jobId ? await attempt(() => get(`/v1/images/${image.id}/reviews?job_id=${jobId}`)) : null;
    if (this.#state.image !== image) return;
    this.#state.other = review ?? null;
    this.#state.changed();
  }
}

function option(result, chosen) {
  const { name, digest, state } = result.model;
  const text = `${name} (${state}) ${digest.slice(0, 8)} · ${day(result.finished_at)}`;
  return element("option", { value: result.job_id, selected: result.job_id === chosen }, text);
}
