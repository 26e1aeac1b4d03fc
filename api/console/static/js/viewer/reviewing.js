// The verdicts of a reader. They are stored in the browser (see unsaved/) and shown until the API has them.

import { ask } from "../dialog.js";
import { foresee } from "../unsaved/foresee.js";
import { sender, unsavedId } from "../unsaved/sender.js";
import { announce } from "./state.js";

export class Reviewing {
  #state;
  #images = new Map(); // images that were reviewed on this page, by id
  #shown = { review: null, version: 0, foreseen: null };

  constructor(state) {
    this.#state = state;
    state.foresee = (review) => this.#foresee(review);
    sender.addEventListener("saved", ({ detail }) => this.#take(detail));
    sender.addEventListener("review", ({ detail }) => this.#take(detail));
    sender.addEventListener("change", () => { if (this.#shown.version !== sender.version) state.changed(); });
  }

  get isPossible() {
    return this.#state.may.submit && this.#state.review !== null;
  }

  accept(id) {
    return this.#say({ action: "accept", finding_id: id }, `${this.#name(id)} accepted`);
  }

  reject(id) {
    return this.#say({ action: "reject", finding_id: id }, `${this.#name(id)} rejected`);
  }

  change(id, { box, classId }) {
    const event = { action: "change", finding_id: id };
    if (box) event.box_xyxy_px = box;
    if (classId !== undefined) event.class_id = classId;
    return this.#say(event, `${this.#name(id)} changed`);
  }

  draw(box, classId) {
    return this.#say({ action: "draw", class_id: classId, box_xyxy_px: box }, "Box added");
  }

  // Asks for confirmation if this rejects a finding that a reader has drawn or accepted.
  async noFinding() {
    const kept = this.isPossible ? this.#state.findings.filter((finding) => finding.verdict === "accepted") : [];
    const drawn = kept.filter((finding) => finding.score === null).length;
    const agreed = !kept.length || await ask({
      title: "Set “no finding” for this image?",
      text: `This rejects ${[counted(drawn, "drawn box", "drawn boxes"), counted(kept.length - drawn, "accepted finding",
        "accepted findings")].filter(Boolean).join(" and ")}. Undo restores them.`,
      agree: "No finding",
    });
    return agreed ? this.#say({ action: "no_finding" }, "No finding. The review is complete.") : null;
  }

  complete() {
    return this.#say({ action: "complete", min_score: this.#state.minScore }, "The review is complete");
  }

  undo() {
    return this.#post("/undo", null, "Undone");
  }

  redo() {
    return this.#post("/redo", null, "Redone");
  }

  #name(id) {
    return this.#state.finding(id)?.class_name ?? "Finding";
  }

  #say(event, words) {
    return this.#post("", event, words);
  }

  // Resolves to the review, even if it is not saved yet, or to null if the API refused it.
  async #post(path, said, words) {
    if (!this.isPossible) return null;
    const { image, study } = this.#state;
    const { job_id, last_event } = image.review;
    this.#images.set(image.id, image);
    const outcome = await sender.add({ study_id: study.id, image_id: image.id, job_id, path, said, seen: last_event, words });
    if (!outcome.error) announce(outcome.review ? words : `${words}; not saved yet`);
    if (this.#state.image === image) {
      this.#state.draft = null;
      this.#state.changed();
    }
    return outcome.error ? null : this.#foresee(image.review);
  }

  // The review of the server with unsaved verdicts applied. Called for each frame while drawing.
  #foresee(review) {
    if (!review) return null;
    if (this.#shown.review !== review || this.#shown.version !== sender.version) {
      const waiting = sender.waiting(review.job_id);
      const { classes } = this.#state.image.results.find(({ job_id }) => job_id === review.job_id) ?? { classes: [] };
      const nameOf = (id) => classes.find((one) => one.id === id)?.name ?? "";
      const foreseen = waiting.length ? foresee(review, waiting, nameOf) : review;
      this.#shown = { review, version: sender.version, foreseen };
    }
    return this.#shown.foreseen;
  }

  // Stores an answer of the server, unless a newer one is known.
  #take({ entry, number, review }) {
    const state = this.#state;
    const here = state.study?.images.find(({ id }) => id === entry.image_id);
    for (const image of new Set([here, this.#images.get(entry.image_id)])) {
      if (image?.review?.job_id === review.job_id && image.review.last_event <= review.last_event) image.review = review;
    }
    if (number && state.selected === unsavedId(entry)) {
      state.selected = `drawn-${number}`; // as the drawn box is called now
      if (state.draft) state.draft = { ...state.draft, id: state.selected };
    }
    state.changed();
  }
}

function counted(number, one, many) {
  return number && `${number} ${number === 1 ? one : many}`;
}
