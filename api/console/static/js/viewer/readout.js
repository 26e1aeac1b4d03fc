// Below the film: where the pointer is in the original image, how grey it is there, and how the film is shown.

import { scaleOf, toOriginal } from "./boxes.js";

export class Readout {
  #root;
  #state;
  #at = null; // {pane, point}

  constructor(root, state) {
    this.#root = root;
    this.#state = state;
    state.addEventListener("pointer", (event) => {
      this.#at = event.detail;
      this.refresh();
    });
  }

  refresh() {
    const { film, view, grey } = this.#state;
    if (!film) {
      this.#root.textContent = "";
      return;
    }
    const shown = `W ${Math.round(grey.width)} L ${Math.round(grey.centre)}${grey.isInverted ? ", inverted" : ""}`;
    const zoom = `${Math.round(view.scale * devicePixelRatio * 100)} %`;
    this.#root.textContent = [this.#under(), shown, zoom].filter(Boolean).join("  ·  ");
  }

  #under() {
    if (!this.#at) return "";
    const { film, image, view } = this.#state;
    const point = view.toFilm(this.#at.point, this.#at.pane.size);
    const value = film.valueAt(point);
    if (value === null) return "";
    const { x, y } = toOriginal(point, scaleOf(image, film));
    return `x ${Math.floor(x)} y ${Math.floor(y)} px  ·  grey ${value} of 255`;
  }
}
