// Explains the box line styles, one for each verdict.

import { element } from "../page.js";
import { make } from "./svg.js";
import { MARKS, VERDICTS } from "./words.js";

export function legend() {
  return element("ul", { className: "legend", "aria-label": "Lines of the boxes" }, ...Object.keys(MARKS).map((verdict) =>
    element("li", {}, sample(verdict), ` ${MARKS[verdict]} ${VERDICTS[verdict]}`)));
}

// Draws a box in the style of the overlay.
function sample(verdict) {
  const picture = make("svg", { class: "overlay", width: 34, height: 16, "aria-hidden": "true" });
  const group = make("g", { class: `box ${verdict}` });
  for (const part of ["halo", "line"]) {
    group.append(make("rect", { class: part, x: 3, y: 3, width: 28, height: 10, stroke: "currentColor" }));
  }
  picture.append(group);
  return picture;
}
