// Moving, resizing and drawing boxes, by pointer (see gestures.js) and by keyboard.

import { chooseClass } from "./class_choice.js";
import { isLargeEnough, moved, resized, scaleOf, toOriginal } from "./boxes.js";
import { announce } from "./state.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Editing {
  #state;
  #reviewing;

  constructor(state, reviewing) {
    this.#state = state;
    this.#reviewing = reviewing;
  }

  // Shows or hides the handles of the selected finding.
  toggle() {
    const finding = this.#state.finding(this.#state.selected);
    if (this.#state.draft) return this.cancel();
    if (!finding || !this.#reviewing.isPossible) return undefined;
    this.#state.draft = { id: finding.id, box: finding.box_xyxy_px };
    announce("Arrow keys move the box, with Shift they resize it. Enter saves, Escape leaves it as it was.");
    return this.#state.changed();
  }

  cancel() {
    this.#state.draft = null;
    this.#state.changed();
  }

  // Adds a box in the middle of the visible part, to be moved by keyboard.
  place(pane) {
    const { view, rendition, image } = this.#state;
    const { width, height } = pane.size;
    const corner = (x, y) => toOriginal(view.toRendition({ x: width * x, y: height * y }, pane.size), scaleOf(image, rendition));
    const [from, to] = [corner(0.4, 0.4), corner(0.6, 0.6)];
    this.#state.draft = { id: null, box: moved([from.x, from.y, to.x, to.y], 0, 0, image) };
    announce("New box. Arrow keys move it, with Shift they resize it. Enter goes on to its class.");
    this.#state.changed();
  }

  // Handles a key for the box being edited; returns whether it did.
  key(event) {
    const { draft, image } = this.#state;
    if (!draft) return false;
    if (event.key === "Escape") this.cancel();
    else if (event.key === "Enter") this.save();
    else if (STEPS[event.key]) {
      const pixels = event.ctrlKey ? 1 : Math.max(1, Math.round(image.width_px / 200));
      const [dx, dy] = STEPS[event.key].map((step) => step * pixels);
      const change = event.shiftKey ? resized(draft.box, "se", dx, dy, image) : moved(draft.box, dx, dy, image);
      this.#state.draft = { id: draft.id, box: change };
      this.#state.moved();
    } else return false;
    return true;
  }

  save() {
    const { id, box } = this.#state.draft;
    return id === null ? this.draw(box) : this.change(id, box);
  }

  async change(id, box) {
    await this.#reviewing.change(id, { box });
    if (this.#state.selected !== id || this.#state.tool === "draw") return;
    this.#state.draft = { id, box: this.#state.finding(id)?.box_xyxy_px ?? box }; // keeps the handles visible
    this.#state.changed();
  }

  async draw(box) {
    this.#state.draft = { id: null, box };
    this.#state.moved();
    const chosen = isLargeEnough(box) && await this.#choose("What does the box show?", null);
    if (!chosen) return this.cancel();
    const review = await this.#reviewing.draw(box, chosen.id);
    this.#state.tool = "window";
    return this.#state.select(review ? review.findings.at(-1).id : null);
  }

  async relabel() {
    const finding = this.#state.finding(this.#state.selected);
    if (!finding || !this.#reviewing.isPossible) return;
    const chosen = await this.#choose("What is it?", finding.class_name);
    if (chosen && chosen.name !== finding.class_name) await this.#reviewing.change(finding.id, { classId: chosen.id });
  }

  #choose(title, chosen) {
    return chooseClass(this.#state.result.classes, (name) => this.#state.colour(name), { title, chosen });
  }
}
