// Draws findings as boxes over an image, in screen pixels, so that the width of lines does not depend on the zoom.

import { HANDLES, handlePoint } from "./boxes.js";
import { make, set } from "./svg.js";
import { MeasureLine } from "./measure_line.js";

const LABEL_HEIGHT = 18;
const ruler = document.createElement("canvas").getContext("2d");
ruler.font = "600 12px system-ui, sans-serif";

export class Overlay {
  #root = make("svg", { class: "overlay", "aria-hidden": "true" });
  // No line crosses a label, and nothing lies on a handle.
  #layers = { boxes: make("g", {}), labels: make("g", {}), handles: make("g", {}) };
  #measure = new MeasureLine();
  #groups = new Map();

  constructor() {
    this.#root.append(...Object.values(this.#layers), this.#measure.element);
  }

  get element() {
    return this.#root;
  }

  // `items`: {id, box (screen), label, isLabelled, colour, verdict, isSelected, isHovered, hasHandles}; the last lies on
  // top. `measure`: {from, to (screen), label}, or null.
  draw(items, measure) {
    this.#measure.draw(measure);
    const wanted = new Set(items.map((item) => item.id));
    for (const [id, group] of this.#groups) {
      if (wanted.has(id)) continue;
      for (const part of [group.box, group.label, group.grips]) part.remove();
      this.#groups.delete(id);
    }
    const taken = [];
    for (const item of items) {
      let group = this.#groups.get(item.id);
      if (!group) {
        group = makeGroup(item.id);
        this.#groups.set(item.id, group);
      }
      place(group, item);
      this.#layers.boxes.append(group.box); // in this order
      this.#layers.labels.append(group.label);
      this.#layers.handles.append(group.grips);
    }
    for (const item of [...items].reverse()) taken.push(placeLabel(this.#groups.get(item.id), item, taken, this.#root));
  }
}

function makeGroup(id) {
  const box = make("g", { "data-finding": id });
  const label = make("g", {});
  const grips = make("g", {});
  const halo = make("rect", { class: "halo" });
  const line = make("rect", { class: "line" });
  const plate = make("rect", { class: "plate", height: LABEL_HEIGHT });
  const text = make("text", {});
  const handles = HANDLES.map((handle) => make("rect", { class: "handle", width: 9, height: 9, "data-handle": handle }));
  box.append(halo, line);
  label.append(plate, text);
  grips.append(...handles);
  return { box, label, grips, halo, line, plate, text, handles };
}

function place(group, item) {
  const [left, top, right, bottom] = item.box.map((side) => Math.round(side) + 0.5); // on the screen's own pixels
  const size = { x: left, y: top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
  set(group.halo, size);
  set(group.line, { ...size, stroke: item.colour });
  const classes = ["box", item.verdict, item.isSelected && "selected", item.isHovered && "hovered"];
  for (const part of [group.box, group.label]) part.setAttribute("class", classes.filter(Boolean).join(" "));
  group.handles.forEach((handle, index) => {
    handle.toggleAttribute("hidden", !item.hasHandles);
    const point = handlePoint(item.box, HANDLES[index]);
    set(handle, { x: Math.round(point.x) - 4, y: Math.round(point.y) - 4 });
  });
}

// The first free place for a label: above the box, below it, or in it.
function placeLabel(group, item, taken, root) {
  const width = Math.ceil(ruler.measureText(item.label).width) + 10;
  const [left, top, right, bottom] = item.box.map(Math.round);
  const isShown = item.isLabelled && right > 0 && bottom > 0 && left < root.clientWidth && top < root.clientHeight;
  group.label.toggleAttribute("hidden", !isShown);
  if (!isShown) return { x: 0, y: 0, width: 0 };
  const places = [[left, top - LABEL_HEIGHT], [right - width, top - LABEL_HEIGHT], [left, bottom],
    [right - width, bottom], [left, top], [right - width, bottom - LABEL_HEIGHT],
    [left, top - 2 * LABEL_HEIGHT], [left, bottom + LABEL_HEIGHT]];
  const inside = places.map(([x, y]) => [
    Math.min(Math.max(0, x), Math.max(0, root.clientWidth - width)),
    Math.min(Math.max(0, y), Math.max(0, root.clientHeight - LABEL_HEIGHT)),
  ]);
  const isFree = ([x, y]) => !taken.some(
    (other) => other.width > 0 && x < other.x + other.width && other.x < x + width && Math.abs(y - other.y) < LABEL_HEIGHT);
  const [x, y] = inside.find(isFree) ?? inside[0];
  set(group.plate, { x, y, width, fill: item.colour });
  set(group.text, { x: x + 5, y: y + 13, class: isBright(item.colour) ? "dark" : "light" });
  if (group.text.textContent !== item.label) group.text.textContent = item.label;
  return { x, y, width };
}

export function isBright(colour) {
  const [red, green, blue] = [1, 3, 5].map((start) => (parseInt(colour.slice(start, start + 2), 16) / 255) ** 2.2);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.18;
}
