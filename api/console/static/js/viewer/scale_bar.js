// Shows the length of a few centimetres on the screen, if the size of a pixel is known.

import { element } from "../page.js";

const LENGTHS_MM = [200, 100, 50, 20, 10, 5, 2, 1];
const LONGEST = 140; // screen pixels
const WHERE = { detector: " at the detector", film: " on the film" };

export class ScaleBar {
  #words = element("span", {});
  #line = element("span", { className: "line" });
  element = element("p", { className: "scale-bar" }, this.#words, this.#line);

  // `pixelsOfMm`: horizontal screen pixels per mm; null if the size of a pixel is unknown.
  draw(pixelsOfMm, source) {
    const length_mm = pixelsOfMm && LENGTHS_MM.find((each) => each * pixelsOfMm <= LONGEST);
    this.element.hidden = !length_mm;
    if (!length_mm) return;
    this.#line.style.width = `${Math.round(length_mm * pixelsOfMm)}px`;
    const length = length_mm < 10 ? `${length_mm} mm` : `${length_mm / 10} cm`;
    this.#words.textContent = length + (WHERE[source] ?? "");
  }
}
