// A rendition: its grey values, and a canvas with them as the window shows them.

import { at, request } from "../api.js";

const KEPT = 16; // renditions of about a megabyte; the least recently used one is removed first
const renditions = new Map();

// Resolves to a rendition. Failures are not cached. Use `urgent: false` to load renditions in advance.
export function loadRendition(imageId, { urgent = true } = {}) {
  const known = renditions.get(imageId);
  const loading = known ?? load(imageId, urgent);
  renditions.delete(imageId);
  renditions.set(imageId, loading); // now the most recently used
  if (!known) loading.catch(() => renditions.delete(imageId));
  for (const id of renditions.keys()) {
    if (renditions.size <= KEPT) break;
    renditions.delete(id);
  }
  return loading;
}

async function load(imageId, urgent) {
  const path = at(`/v1/images/${imageId}/rendition.png`);
  const answer = await request(path, { isQuiet: true, priority: urgent ? "high" : "low" });
  const bitmap = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
  const rendition = new Rendition(bitmap);
  bitmap.close();
  return rendition;
}

export class Rendition {
  #canvas;
  #context;
  #pixels;
  #values;
  #shown = null; // the window that the canvas was last painted with
  #counts = null; // the histogram, computed on demand

  constructor(bitmap) {
    this.width = bitmap.width;
    this.height = bitmap.height;
    this.#canvas = document.createElement("canvas");
    this.#canvas.width = bitmap.width;
    this.#canvas.height = bitmap.height;
    this.#context = this.#canvas.getContext("2d", { willReadFrequently: true, alpha: false });
    this.#context.drawImage(bitmap, 0, 0);
    this.#pixels = this.#context.getImageData(0, 0, bitmap.width, bitmap.height);
    this.#values = new Uint8Array(bitmap.width * bitmap.height);
    for (let index = 0; index < this.#values.length; index++) this.#values[index] = this.#pixels.data[4 * index];
  }

  // Returns the canvas, painted with this window.
  painted(grey) {
    const wanted = `${grey.centre} ${grey.width} ${grey.isInverted}`;
    if (wanted !== this.#shown) {
      const table = grey.table();
      const target = new Uint32Array(this.#pixels.data.buffer);
      const values = this.#values;
      for (let index = 0; index < values.length; index++) target[index] = table[values[index]];
      this.#context.putImageData(this.#pixels, 0, 0);
      this.#shown = wanted;
    }
    return this.#canvas;
  }

  // The quantile of the grey values at `share`, without black and white, which are mostly borders.
  valueBelow(share) {
    this.#counts ??= this.#values.reduce((counts, value) => {
      counts[value] += 1;
      return counts;
    }, new Float64Array(256));
    const inside = this.#counts.subarray(1, 255);
    let left = share * inside.reduce((sum, count) => sum + count, 0);
    const at = inside.findIndex((count) => {
      left -= count;
      return left <= 0;
    });
    return at === -1 ? 255 : at + 1;
  }

  // The grey value at a point; null outside.
  valueAt(point) {
    const x = Math.floor(point.x);
    const y = Math.floor(point.y);
    if (x < 0 || y < 0 || x >= this.width || y >= this.height) return null;
    return this.#values[y * this.width + x];
  }
}
