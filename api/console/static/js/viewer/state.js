// The viewer's state: what is shown and what the reader has chosen. Emits events on changes.

import { Grey } from "./grey.js";
import { View } from "./view.js";

const MIN_SCORE = "carina.min-score";

export class State extends EventTarget {
  study = null;
  index = 0; // of the image among the study's
  rendition = null;
  problem = null; // the error if the image could not be loaded
  isLoading = false; // while an image is loading
  other = null; // the review of another model's result, shown beside the first
  view = new View();
  grey = new Grey();
  tool = "window";
  minScore = Number(sessionStorage.getItem(MIN_SCORE) ?? 0.3);
  hiddenClasses = new Set(); // names, so that they hold for the next study too
  areBoxesShown = true;
  // If false, only the selected or hovered box has a label: on a phone, many labels would hide the image.
  areLabelsShown = matchMedia("(min-width: 640px)").matches;
  measure = null; // a distance on the image: {from, to}, in pixels of the original
  selected = null;
  hovered = null;
  isSpaceHeld = false; // then a drag pans, whatever the tool
  draft = null; // a box that is being moved, resized or drawn: {id, box}; id null for a new one

  foresee = (review) => review; // applies changes that are not saved yet

  constructor(may) {
    super();
    this.may = may;
  }

  get image() {
    return this.study?.images[this.index] ?? null;
  }

  get review() {
    return this.foresee(this.image?.review ?? null);
  }

  get findings() {
    return this.review?.findings ?? [];
  }

  // The shown job, its model, and the classes of the model.
  get result() {
    return this.image?.results.find((result) => result.job_id === this.review?.job_id) ?? null;
  }

  finding(id) {
    return this.findings.find((finding) => finding.id === id) ?? null;
  }

  // Findings that pass the filters. Drawn boxes have no score and always pass.
  visible(review = this.review) {
    return (review?.findings ?? []).filter(
      (finding) => this.isInScore(finding) && !this.hiddenClasses.has(finding.class_name));
  }

  isInScore(finding) {
    return finding.score === null || finding.score >= this.minScore;
  }

  colour(className) {
    return this.image?.colours[className] ?? "#56B4E9";
  }

  setMinScore(value) {
    this.minScore = value;
    sessionStorage.setItem(MIN_SCORE, value);
    this.changed();
  }

  // Redraws everything: after all changes except those of the view and the window.
  changed() {
    this.dispatchEvent(new Event("change"));
    this.moved();
  }

  // Redraws the image and its boxes only; called for each frame while dragging.
  moved() {
    this.dispatchEvent(new Event("move"));
  }

  select(id) {
    if (this.selected !== id) this.draft = null;
    this.selected = id;
    this.changed();
  }

  hover(id) {
    if (this.hovered === id) return;
    this.hovered = id;
    this.dispatchEvent(new Event("hover"));
    this.moved();
  }
}

export function announce(text) {
  document.getElementById("announcer").textContent = text;
}
