// The images of a study, if there are several.

import { at } from "../api.js";
import { element } from "../page.js";

export function showStrip(root, state, open) {
  const images = state.study.images;
  root.hidden = images.length < 2;
  if (root.hidden) return;
  root.replaceChildren(...images.map((image, index) => {
    const button = element("button", { type: "button", "aria-pressed": String(index === state.index),
      "aria-label": `Image ${index + 1} of ${images.length}` });
    button.append(image.has_rendition
      ? element("img", { src: at(`/v1/images/${image.id}/rendition.png`), alt: "", loading: "lazy" })
      : element("span", {}, String(index + 1)));
    button.addEventListener("click", () => open(index));
    return button;
  }));
}
