// Which part of a film is seen, and how large. Several panes may share one view, so that they zoom together.

const LARGEST = 40; // screen pixels for one of the film

export class View {
  scale = 1; // screen pixels for one of the film
  x = 0; // the film's point at the middle of the pane
  y = 0;
  isFit = false; // the whole film is in sight, and stays so when the pane changes its size

  fit(film, pane) {
    this.isFit = true;
    this.scale = this.#fitting(film, pane);
    this.x = film.width / 2;
    this.y = film.height / 2;
  }

  // Actual size: one image pixel per screen pixel.
  oneToOne() {
    this.isFit = false;
    this.scale = 1 / devicePixelRatio;
  }

  // What lies under a point of the pane stays there.
  zoom(factor, point, film, pane) {
    this.isFit = false;
    const under = this.toFilm(point, pane);
    const least = Math.min(this.#fitting(film, pane) / 2, 1);
    this.scale = Math.min(LARGEST, Math.max(least, this.scale * factor));
    const now = this.toFilm(point, pane);
    this.x += under.x - now.x;
    this.y += under.y - now.y;
    this.#keepInSight(film);
  }

  pan(dx, dy, film) {
    this.isFit = false;
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
    this.#keepInSight(film);
  }

  toFilm(point, pane) {
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

  #fitting(film, pane) {
    return Math.min(pane.width / film.width, pane.height / film.height);
  }

  #keepInSight(film) {
    this.x = Math.min(film.width, Math.max(0, this.x));
    this.y = Math.min(film.height, Math.max(0, this.y));
  }
}
