// What a reader says of findings, sent to the API one after the other; each answer is the whole review.

import { get, send } from "../api.js";
import { ask } from "../dialog.js";
import { say } from "../page.js";
import { announce } from "./state.js";

export class Reviewing {
  #state;
  #last = Promise.resolve();

  constructor(state) {
    this.#state = state;
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

  // Asks first where that rejects what a reader has drawn or accepted.
  async noFinding() {
    const kept = this.isPossible ? this.#state.findings.filter((finding) => finding.verdict === "accepted") : [];
    const drawn = kept.filter((finding) => finding.score === null).length;
    const agreed = !kept.length || await ask({
      title: "No finding on this image?",
      text: `That rejects ${[counted(drawn, "drawn box", "drawn boxes"), counted(kept.length - drawn, "accepted finding",
        "accepted findings")].filter(Boolean).join(" and ")}. Undo brings them back.`,
      agree: "No finding",
    });
    return agreed ? this.#say({ action: "no_finding" }, "No finding: the review is done") : null;
  }

  complete() {
    return this.#say({ action: "complete", min_score: this.#state.minScore }, "The review is done");
  }

  undo() {
    return this.#post("/undo", {}, "Taken back");
  }

  redo() {
    return this.#post("/redo", {}, "Said again");
  }

  #name(id) {
    return this.#state.finding(id)?.class_name ?? "Finding";
  }

  #say(event, words) {
    return this.#post("", { event }, words);
  }

  // One at a time, so that each is sent with the last event that the one before has made. Resolves to the review, or
  // to null where it was refused, which the reader has then been told.
  #post(path, body, words) {
    if (!this.isPossible) return Promise.resolve(null);
    const image = this.#state.image;
    this.#last = this.#last.then(() => this.#ask(image, path, body, words));
    return this.#last;
  }

  async #ask(image, path, body, words) {
    const { job_id, last_event } = image.review;
    const address = `/v1/images/${image.id}/reviews`;
    try {
      image.review = await send("POST", `${address}${path}`, { job_id, after: last_event, ...body });
      announce(words);
      return image.review;
    } catch (error) {
      say(error.message, { bad: true });
      if (error.code === "review_conflict") image.review = await get(`${address}?job_id=${job_id}`);
      return null;
    } finally {
      if (this.#state.image === image) {
        this.#state.draft = null;
        this.#state.changed();
      }
    }
  }
}

function counted(number, one, many) {
  return number && `${number} ${number === 1 ? one : many}`;
}
