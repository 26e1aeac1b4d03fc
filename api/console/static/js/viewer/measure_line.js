// Draws a distance: a line with a mark at each end, and its length beside it.

import { make, set } from "./svg.js";

const MARK = 4; // screen pixels from its middle

export class MeasureLine {
  #halo = make("path", { class: "halo" });
  #line = make("path", { class: "line" });
  #text = make("text", { class: "length" });
  element = make("g", { class: "measure" });

  constructor() {
    this.element.append(this.#halo, this.#line, this.#text);
  }

  // `measure`: {from, to (screen), label}, or null.
  draw(measure) {
    this.element.toggleAttribute("hidden", measure === null);
    if (measure === null) return;
    const { from, to, label } = measure;
    const path = `${mark(from)} M${from.x} ${from.y} L${to.x} ${to.y} ${mark(to)}`;
    for (const part of [this.#halo, this.#line]) set(part, { d: path });
    set(this.#text, { x: Math.max(from.x, to.x) + 8, y: (from.x > to.x ? from.y : to.y) + 4 });
    this.#text.textContent = label;
  }
}

function mark({ x, y }) {
  return `M${x - MARK} ${y - MARK} L${x + MARK} ${y + MARK} M${x - MARK} ${y + MARK} L${x + MARK} ${y - MARK}`;
}
