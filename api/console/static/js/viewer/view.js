// The visible part of an image and its scale. Panes that share a view zoom together.

const LARGEST = 40; // screen pixels per image pixel

export class View {
  scale = 1; // screen pixels per image pixel
  x = 0; // the image point in the middle of the pane
  y = 0;
  isFit = false; // the whole image is visible, also after the size of the pane changes

  fit(rendition, pane) {
    this.isFit = true;
    this.scale = this.#fitting(rendition, pane);
    this.x = rendition.width / 2;
    this.y = rendition.height / 2;
  }

  // Actual size: one image pixel per screen pixel.
  oneToOne() {
    this.isFit = false;
    this.scale = 1 / devicePixelRatio;
  }

  // The image point under a pane point keeps its position.
  zoom(factor, point, rendition, pane) {
    this.isFit = false;
    const under = this.toRendition(point, pane);
    const least = Math.min(this.#fitting(rendition, pane) / 2, 1);
    this.scale = Math.min(LARGEST, Math.max(least, this.scale * factor));
    const now = this.toRendition(point, pane);
    this.x += under.x - now.x;
    this.y += under.y - now.y;
    this.#keepInSight(rendition);
  }

  pan(dx, dy, rendition) {
    this.isFit = false;
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.#keepInSight(rendition);
  }

  toRendition(point, pane) {
    return {
      x: (point.x - pane.width / 2) / this.scale + this.x,
      y: (point.y - pane.height / 2) / this.scale + this.y,
    };
  }

  toScreen(point, pane) {
    return {
      x: (point.x - this.x) * this.scale + pane.width / 2,
      y: (point.y - this.y) * this.scale + pane.height / 2,
    };
  }

  #fitting(rendition, pane) {
    return Math.min(pane.width / rendition.width, pane.height / rendition.height);
  }

  #keepInSight(rendition) {
    this.x = Math.min(rendition.width, Math.max(0, this.x));
    this.y = Math.min(rendition.height, Math.max(0, this.y));
  }
}
