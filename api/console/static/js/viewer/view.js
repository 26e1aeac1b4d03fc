// Which part of an image is seen, and how large. Several panes may share one view, so that they zoom together.

const LARGEST = 40; // screen pixels for one of the image

export class View {
  scale = 1; // screen pixels for one of the image
  x = 0; // the image's point at the middle of the pane
  y = 0;
  isFit = false; // the whole image is in sight, and stays so when the pane changes its size

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

  // What lies under a point of the pane stays there.
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
