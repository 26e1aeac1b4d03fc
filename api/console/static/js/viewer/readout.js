// Below the image: position and grey value at the pointer, in the original image, and the current window.

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
    const { rendition, view, grey } = this.#state;
    if (!rendition) {
      this.#root.textContent = "";
      return;
    }
    const shown = `W ${Math.round(grey.width)} L ${Math.round(grey.centre)}${grey.isInverted ? ", inverted" : ""}`;
    const zoom = `${Math.round(view.scale * devicePixelRatio * 100)} %`;
    this.#root.textContent = [this.#under(), shown, zoom].filter(Boolean).join("  ·  ");
  }

  #under() {
    if (!this.#at) return "";
    const { rendition, image, view } = this.#state;
    const point = view.toRendition(this.#at.point, this.#at.pane.size);
    const value = rendition.valueAt(point);
    if (value === null) return "";
    const { x, y } = toOriginal(point, scaleOf(image, rendition));
    return `x ${Math.floor(x)} y ${Math.floor(y)} px  ·  grey ${value} of 255`;
  }
}
