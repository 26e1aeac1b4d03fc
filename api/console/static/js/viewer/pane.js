// One image on the screen: a canvas with the rendition, the boxes above it, and the caption.

import { element } from "../page.js";
import { contains, scaleOf, area, toRendition } from "./boxes.js";
import { lengthText } from "./measuring.js";
import { Overlay } from "./overlay.js";
import { ScaleBar } from "./scale_bar.js";
import { MARKS, MODEL_STATES, day } from "./words.js";

const CRISP_FROM = 4; // screen pixels per image pixel; from here on, pixels are shown as squares

export class Pane {
  #canvas = element("canvas", { "aria-hidden": "true" });
  #overlay = new Overlay();
  #scale = new ScaleBar();
  #caption = element("p", { className: "caption" });
  #words = element("div", { className: "instead" });
  #state;
  #reviewOf; // gives the review that this pane shows

  constructor(state, reviewOf, label) {
    this.#state = state;
    this.#reviewOf = reviewOf;
    this.element = element("div", { className: "pane", tabIndex: 0, role: "application", "aria-label": label },
      this.#canvas, this.#overlay.element, this.#words, this.#scale.element, this.#caption);
    this.element.setAttribute("aria-roledescription", "image");
    new ResizeObserver(() => this.#resize()).observe(this.element);
  }

  get size() {
    return { width: this.element.clientWidth, height: this.element.clientHeight };
  }

  get review() {
    return this.#reviewOf();
  }

  // Where a pointer is, in screen pixels of this pane.
  point(event) {
    const bounds = this.element.getBoundingClientRect();
    return { x: event.clientX - bounds.left, y: event.clientY - bounds.top };
  }

  // A box of the original as screen pixels of this pane.
  toScreen(box) {
    const { view, image, rendition } = this.#state;
    const [left, top, right, bottom] = toRendition(box, scaleOf(image, rendition));
    const from = view.toScreen({ x: left, y: top }, this.size);
    const to = view.toScreen({ x: right, y: bottom }, this.size);
    return [from.x, from.y, to.x, to.y];
  }

  // The smallest finding under a point of the screen: larger findings can contain it.
  hit(point) {
    const { rendition, areBoxesShown } = this.#state;
    if (!rendition || !areBoxesShown) return null;
    const under = this.#state.visible(this.review).filter((found) => contains(this.toScreen(found.box_xyxy_px), point));
    return under.sort((one, other) => area(one.box_xyxy_px) - area(other.box_xyxy_px))[0] ?? null;
  }

  // `isFine` uses high-quality downscaling, which is too slow while something moves.
  draw({ isFine = true } = {}) {
    const { rendition, view, grey } = this.#state;
    const context = this.#canvas.getContext("2d", { alpha: false });
    const ratio = devicePixelRatio;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    if (rendition) {
      const scale = view.scale * ratio;
      const origin = view.toScreen({ x: 0, y: 0 }, this.size);
      context.imageSmoothingEnabled = scale < CRISP_FROM;
      context.imageSmoothingQuality = isFine ? "high" : "low";
      context.drawImage(
        rendition.painted(grey), origin.x * ratio, origin.y * ratio, rendition.width * scale, rendition.height * scale);
    }
    this.#overlay.draw(rendition ? this.#items() : [], rendition ? this.#measure() : null);
    this.#drawScale();
  }

  #drawScale() {
    const { rendition, view, image } = this.#state;
    const spacing = rendition && image.pixel_spacing;
    this.#scale.draw(spacing ? (view.scale * scaleOf(image, rendition).x) / spacing.column_mm : null, spacing?.source);
  }

  #measure() {
    const { measure, image } = this.#state;
    if (!measure) return null;
    const [x1, y1, x2, y2] = this.toScreen([measure.from.x, measure.from.y, measure.to.x, measure.to.y]);
    return { from: { x: x1, y: y1 }, to: { x: x2, y: y2 }, label: lengthText(measure, image.pixel_spacing) };
  }

  // Sets the text parts: a message in place of the image, and the caption that names the model.
  describe(words) {
    this.#words.replaceChildren(...words);
    this.#words.hidden = words.length === 0;
    const review = this.review;
    const result = review && this.#state.image.results.find((one) => one.job_id === review.job_id);
    const model = review
      ? `${review.model.name} ${review.model.digest.slice(0, 8)} (${MODEL_STATES[review.model.state]}) · ${day(result?.finished_at)} · `
      : "";
    this.#caption.textContent = `${model}Research use only`;
    this.#caption.title = [review?.model.trained_on, ...(review?.model.warnings ?? [])].filter(Boolean).join(". ");
  }

  #items() {
    const { selected, hovered, draft, areBoxesShown } = this.#state;
    const isMain = this.review === this.#state.review;
    const items = areBoxesShown
      ? this.#state.visible(this.review).map((finding) => this.#item(finding, isMain && draft?.id === finding.id))
      : [];
    if (isMain && draft?.id === null) items.push(this.#newBox(draft.box));
    const onTop = (item) => (item.isSelected || item.id === hovered || item.id === selected ? 2 : (item.score ?? 1));
    return items.sort((one, other) => onTop(one) - onTop(other));
  }

  #item(finding, isDrafted) {
    const { selected, hovered, draft, areLabelsShown } = this.#state;
    const isMain = this.review === this.#state.review;
    const [isSelected, isHovered] = [isMain && selected === finding.id, isMain && hovered === finding.id];
    const score = finding.score === null ? "drawn" : finding.score.toFixed(2);
    return {
      id: finding.id,
      score: finding.score,
      box: this.toScreen(isDrafted ? draft.box : finding.box_xyxy_px),
      label: `${MARKS[finding.verdict]} ${finding.class_name} ${score}`,
      colour: this.#state.colour(finding.class_name),
      verdict: finding.verdict,
      isSelected,
      isHovered,
      isLabelled: areLabelsShown || isSelected || isHovered,
      hasHandles: isDrafted,
    };
  }

  #newBox(box) {
    const shown = { id: "new", score: null, box: this.toScreen(box), label: "New", colour: "#FFFFFF" };
    return { ...shown, verdict: "undecided", isSelected: true, isHovered: false, isLabelled: true, hasHandles: true };
  }

  #resize() {
    const { width, height } = this.size;
    if (!width || !height) return;
    this.#canvas.width = Math.round(width * devicePixelRatio);
    this.#canvas.height = Math.round(height * devicePixelRatio);
    const { rendition, view } = this.#state;
    if (rendition && view.isFit) view.fit(rendition, this.size);
    this.draw(); // at once: with its new size the canvas is blank
    this.#state.moved();
  }
}
