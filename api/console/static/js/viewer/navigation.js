// From study to study and from image to image, without loading a page.

import { attempt, sentence } from "../page.js";
import { loadRendition } from "./rendition.js";
import { announce } from "./state.js";
import { address, fetchStudy, keep, prefetch } from "./studies.js";
import { Waiting } from "./waiting.js";
import { day } from "./words.js";

export class Navigation {
  #state;
  #pane; // the pane whose size the image is fitted to
  #wanted = null; // the last requested study
  #waiting = new Waiting(() => attempt(() => this.#reload()));

  constructor(state, pane) {
    this.#state = state;
    this.#pane = pane;
  }

  start(study) {
    keep(study);
    history.replaceState({ study: study.id }, "");
    window.addEventListener("popstate", (event) => attempt(() => this.#open(event.state?.study ?? study.id)));
    return attempt(() => this.#open(study.id));
  }

  go(id) {
    if (!id) return announce("There is no further study.");
    return attempt(async () => {
      if (await this.#open(id)) history.pushState({ study: id }, "", address(id));
    });
  }

  // Shows one image of the study.
  image(index) {
    return attempt(() => this.#show(this.#state.study, index));
  }

  step(by) {
    const count = this.#state.study.images.length;
    if (count > 1) this.image((this.#state.index + by + count) % count);
  }

  // Reloads the study.
  renew() {
    return this.#reload();
  }

  // Runs work that ends the shown study, such as erasing it; its job is not followed meanwhile.
  async end(work) {
    this.#waiting.follow(null);
    try {
      return await work();
    } catch (error) {
      this.#waiting.follow(openJob(this.#state.image));
      throw error;
    }
  }

  // Resolves to true if the study is shown, and to false if the reader has chosen another one meanwhile.
  async #open(id) {
    this.#wanted = id;
    const study = await fetchStudy(id);
    if (this.#wanted === id) await this.#show(study, 0);
    if (this.#wanted !== id) return false;
    document.title = `Study of ${day(study.created_at)} · Carina`;
    announce(`Study of ${day(study.created_at)}, ${this.#state.visible().length} findings shown.`);
    prefetch([study.older, study.newer]);
    this.#renew(id);
    return true;
  }

  async #show(study, index, { isSame = false } = {}) {
    const state = this.#state;
    const image = study.images[index];
    if (!state.study) { // the first study: show its findings before the image is loaded
      Object.assign(state, { study, index, isLoading: Boolean(image?.has_rendition) });
      state.changed();
    }
    const [rendition, problem] = image?.has_rendition
      ? await loadRendition(image.id).then((loaded) => [loaded, null], (error) => [null, sentence(error)])
      : [null, null];
    if (this.#wanted !== study.id) return;
    const isOther = !isSame || rendition !== state.rendition;
    Object.assign(state, { study, index, rendition, problem, isLoading: false });
    if (isOther) {
      Object.assign(state, { other: null, selected: null, hovered: null, draft: null, measure: null });
      state.grey.reset();
      if (rendition) state.view.fit(rendition, this.#pane.size);
    }
    this.#waiting.follow(openJob(image));
    state.changed();
    requestAnimationFrame(() => { document.body.dataset.shown = study.id; }); // tells measurements when the study is on the screen
  }

  // Data that was prefetched may be out of date: other readers review, and jobs finish.
  async #renew(id) {
    const before = this.#state.study;
    const now = await fetchStudy(id, { again: true }).catch(() => null);
    if (!now || this.#state.study !== before || JSON.stringify(now) === JSON.stringify(before)) return;
    const isBusy = this.#state.draft !== null || document.querySelector("dialog[open]") !== null;
    if (!isBusy && now.images.every((image, index) => isNewer(image, before.images[index]))) await this.#replace(now);
    else keep(before); // the reader has made changes meanwhile
  }

  async #reload() {
    const now = await fetchStudy(this.#state.study.id, { again: true });
    if (now.id === this.#state.study.id) await this.#replace(now);
  }

  #replace(study) {
    const shown = this.#state.review?.job_id;
    this.#state.study = study;
    if (this.#state.review?.job_id !== shown) Object.assign(this.#state, { selected: null, draft: null });
    return this.#show(study, Math.min(this.#state.index, study.images.length - 1), { isSame: true });
  }
}

// The latest unfinished job of any model.
function openJob(image) {
  return image?.jobs.findLast((job) => !job.finished_at) ?? null;
}

// Whether fetched data are of the same result as the shown data, and not older.
function isNewer(image, known) {
  if (!known?.review) return true;
  return image.review?.job_id === known.review.job_id && image.review.last_event >= known.review.last_event;
}
