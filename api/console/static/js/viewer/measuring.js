// Measures distances: a line between two points. It stays until the next line or another image.

import { announce } from "./state.js";
import { scaleOf, toOriginal } from "./boxes.js";

const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// In mm if the size of a pixel is known, else in pixels of the original.
export function lengthText({ from, to }, spacing) {
  const [across, down] = [to.x - from.x, to.y - from.y];
  if (!spacing) return `${Math.round(Math.hypot(across, down))} px`;
  return `${Math.hypot(across * spacing.column_mm, down * spacing.row_mm).toFixed(1)} mm`;
}

export function clippedPoint(point, image) {
  return {
    x: Math.min(image.width_px, Math.max(0, point.x)),
    y: Math.min(image.height_px, Math.max(0, point.y)),
  };
}

// By keyboard: a line across the middle of the visible part. The arrow keys move its ends.
export function placeMeasure(state, pane) {
  const { view, rendition, image } = state;
  const { width, height } = pane.size;
  const end = (x) => clippedPoint(
    toOriginal(view.toRendition({ x: width * x, y: height / 2 }, pane.size), scaleOf(image, rendition)), image);
  state.measure = { from: end(0.3), to: end(0.7) };
  announce("Arrow keys move the right end of the line, with Shift the left one. Escape takes it away.");
  state.moved();
}

// Handles a key for the measuring line; returns whether it did.
export function measureKey(event, state) {
  const { measure, image, tool } = state;
  if (!measure || tool !== "measure" || !STEPS[event.key]) return false;
  const pixels = event.ctrlKey ? 1 : Math.max(1, Math.round(image.width_px / 200));
  const [dx, dy] = STEPS[event.key].map((step) => step * pixels);
  const end = event.shiftKey ? "from" : "to";
  const point = clippedPoint({ x: measure[end].x + dx, y: measure[end].y + dy }, image);
  state.measure = { ...measure, [end]: point };
  announce(lengthText(state.measure, image.pixel_spacing));
  state.moved();
  return true;
}
