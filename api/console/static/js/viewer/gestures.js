// Mouse, pen and fingers on a pane: window, pan, zoom, select, draw, move and resize.

import { HANDLES, between, clipped, contains, handlePoint, isLargeEnough, moved, resized, scaleOf, toOriginal } from "./boxes.js";
import { clippedPoint } from "./measuring.js";

const CLICK = 4; // screen pixels: a pointer that moves less has clicked
const REACH = { mouse: 9, pen: 12, touch: 22 }; // how near to a handle is on it

// `editing` takes boxes: {draw(box), change(id, box)}.
export function listen(pane, state, editing) {
  const pointers = new Map();
  let gesture = null;
  const { element } = pane;

  element.addEventListener("pointerdown", (event) => {
    if (!state.rendition || event.target.closest("a, button")) return;
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, pane.point(event));
    if (pointers.size === 2) gesture = pinch(pane, state, pointers);
    else if (pointers.size === 1) gesture = begin(pane, state, editing, event);
  });

  element.addEventListener("pointermove", (event) => {
    const point = pane.point(event);
    state.dispatchEvent(new CustomEvent("pointer", { detail: { pane, point } }));
    if (!pointers.has(event.pointerId)) {
      const found = pane.review === state.review ? pane.hit(point) : null;
      state.hover(found?.id ?? null);
      return;
    }
    const before = pointers.get(event.pointerId);
    pointers.set(event.pointerId, point);
    gesture?.move(point, before);
  });

  const end = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup") gesture?.end(pane.point(event));
    else gesture?.cancel?.();
    gesture = null; // after a pinch the finger that stays does nothing
  };
  element.addEventListener("pointerup", end);
  element.addEventListener("pointercancel", end);
  element.addEventListener("pointerleave", () => state.hover(null));
  element.addEventListener("contextmenu", (event) => event.preventDefault());

  element.addEventListener("wheel", (event) => {
    if (!state.rendition) return;
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1);
    const speed = event.ctrlKey ? 0.01 : 0.0015; // a trackpad's pinch comes as a small wheel with Ctrl
    state.view.zoom(Math.exp(-pixels * speed), pane.point(event), state.rendition, pane.size);
    state.moved();
  }, { passive: false });
}

function begin(pane, state, editing, event) {
  const start = pane.point(event);
  const isMain = pane.review === state.review;
  if (event.button === 1 || event.button === 2 || state.isSpaceHeld) return pan(state);
  if (isMain && state.draft) {
    const taken = take(pane, state, start, event.pointerType);
    if (taken) return drag(pane, state, editing, start, taken);
  }
  if (isMain && state.tool === "draw") return draw(pane, state, editing, start);
  if (state.tool === "measure") return measure(pane, state, start);
  return withClick(pane, state, start, state.tool === "pan" ? pan(state) : windowing(state));
}

function pan(state) {
  return {
    move(point, before) {
      state.view.pan(point.x - before.x, point.y - before.y, state.rendition);
      state.moved();
    },
    end() {},
  };
}

function windowing(state) {
  return {
    move(point, before) {
      state.grey.drag(point.x - before.x, point.y - before.y);
      state.moved();
    },
    end() {},
  };
}

// A pointer that does not move is a click, which selects the finding under it.
function withClick(pane, state, start, gesture) {
  let isDrag = false;
  return {
    move(point, before) {
      isDrag ||= Math.hypot(point.x - start.x, point.y - start.y) > CLICK;
      if (isDrag) gesture.move(point, before);
    },
    end(point) {
      if (!isDrag && pane.review === state.review) state.select(pane.hit(point)?.id ?? null);
    },
  };
}

function pinch(pane, state, pointers) {
  let last = middle(pointers);
  return {
    move() {
      const now = middle(pointers);
      state.view.pan(now.x - last.x, now.y - last.y, state.rendition);
      if (last.spread > 0) state.view.zoom(now.spread / last.spread, now, state.rendition, pane.size);
      last = now;
      state.moved();
    },
    end() {},
  };
}

function middle(pointers) {
  const [one, other] = [...pointers.values()];
  return { x: (one.x + other.x) / 2, y: (one.y + other.y) / 2, spread: Math.hypot(one.x - other.x, one.y - other.y) };
}

function original(pane, state, point) {
  return toOriginal(state.view.toRendition(point, pane.size), scaleOf(state.image, state.rendition));
}

function draw(pane, state, editing, start) {
  const from = original(pane, state, start);
  return {
    move(point) {
      state.draft = { id: null, box: clipped(between(from, original(pane, state, point)), state.image) };
      state.moved();
    },
    end() {
      if (state.draft && isLargeEnough(state.draft.box)) editing.draw(state.draft.box);
      else this.cancel();
    },
    cancel() {
      state.draft = null;
      state.moved();
    },
  };
}

function measure(pane, state, start) {
  const from = clippedPoint(original(pane, state, start), state.image);
  state.measure = null;
  state.moved();
  return {
    move(point) {
      state.measure = { from, to: clippedPoint(original(pane, state, point), state.image) };
      state.moved();
    },
    end() {},
  };
}

// The handle that a point is on, or the box itself as "move".
function take(pane, state, point, pointerType) {
  const box = pane.toScreen(state.draft.box);
  const distance = (handle) => {
    const at = handlePoint(box, handle);
    return Math.hypot(at.x - point.x, at.y - point.y);
  };
  const nearest = HANDLES.reduce((best, handle) => (distance(handle) < distance(best) ? handle : best));
  if (distance(nearest) <= (REACH[pointerType] ?? REACH.mouse)) return nearest;
  return contains(box, point) ? "move" : null;
}

function drag(pane, state, editing, start, taken) {
  const { id, box } = state.draft;
  const from = original(pane, state, start);
  const change = (point) => {
    const to = original(pane, state, point);
    const [dx, dy] = [to.x - from.x, to.y - from.y];
    return taken === "move" ? moved(box, dx, dy, state.image) : resized(box, taken, dx, dy, state.image);
  };
  return {
    move(point) {
      state.draft = { id, box: change(point) };
      state.moved();
    },
    end(point) {
      const after = change(point);
      if (id !== null && after.some((side, index) => side !== box[index])) editing.change(id, after);
    },
    cancel() {
      state.draft = { id, box };
      state.moved();
    },
  };
}
