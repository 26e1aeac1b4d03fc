// Boxes in three frames: pixels of the original image (as in the API), of its rendition, and of the pane.

export const HANDLES = ["nw", "n", "ne", "e", "se", "s", "sw", "w"];
const MIN_BOX_PX = 4; // pixels of the original: no smaller box is drawn

// The rendition can be smaller than the original. If pixels are not square, its aspect ratio differs, too.
export function scaleOf(image, rendition) {
  return { x: rendition.width / image.width_px, y: rendition.height / image.height_px };
}

export function toRendition(box, scale) {
  return [box[0] * scale.x, box[1] * scale.y, box[2] * scale.x, box[3] * scale.y];
}

export function toOriginal(point, scale) {
  return { x: point.x / scale.x, y: point.y / scale.y };
}

export function contains(box, point) {
  return point.x >= box[0] && point.x <= box[2] && point.y >= box[1] && point.y <= box[3];
}

export function area(box) {
  return (box[2] - box[0]) * (box[3] - box[1]);
}

export function between(a, b) {
  return [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];
}

export function isLargeEnough(box) {
  return box[2] - box[0] >= MIN_BOX_PX && box[3] - box[1] >= MIN_BOX_PX;
}

// Where a box' handle is, in whatever frame the box is in.
export function handlePoint(box, handle) {
  const x = handle.includes("w") ? box[0] : handle.includes("e") ? box[2] : (box[0] + box[2]) / 2;
  const y = handle.includes("n") ? box[1] : handle.includes("s") ? box[3] : (box[1] + box[3]) / 2;
  return { x, y };
}

export function moved(box, dx, dy, image) {
  const right = Math.max(-box[0], Math.min(dx, image.width_px - box[2]));
  const down = Math.max(-box[1], Math.min(dy, image.height_px - box[3]));
  return [box[0] + right, box[1] + down, box[2] + right, box[3] + down];
}

// A side stays within the image and does not pass the opposite side.
export function resized(box, handle, dx, dy, image) {
  let [left, top, right, bottom] = box;
  if (handle.includes("w")) left = Math.min(right - MIN_BOX_PX, Math.max(0, left + dx));
  if (handle.includes("e")) right = Math.max(left + MIN_BOX_PX, Math.min(image.width_px, right + dx));
  if (handle.includes("n")) top = Math.min(bottom - MIN_BOX_PX, Math.max(0, top + dy));
  if (handle.includes("s")) bottom = Math.max(top + MIN_BOX_PX, Math.min(image.height_px, bottom + dy));
  return [left, top, right, bottom];
}

export function clipped(box, image) {
  return [
    Math.max(0, box[0]), Math.max(0, box[1]), Math.min(image.width_px, box[2]), Math.min(image.height_px, box[3]),
  ];
}

// "41 × 63 mm" if the size of a pixel is known, else in pixels.
export function sizeText(box, spacing) {
  const across = box[2] - box[0];
  const down = box[3] - box[1];
  if (!spacing) return `${Math.round(across)} × ${Math.round(down)} px`;
  return `${Math.round(across * spacing.column_mm)} × ${Math.round(down * spacing.row_mm)} mm`;
}
