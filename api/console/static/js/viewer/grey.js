// Window and level: from the grey values of a rendition (0 to 255) to those of the screen.

const OPAQUE = 0xff000000;

export class Grey {
  centre = 127.5;
  width = 255;
  isInverted = false;
  preset = null; // the name of the active preset

  reset() {
    this.showAll();
    this.isInverted = false;
  }

  showAll() {
    this.show(0, 255);
  }

  // Shows grey value `from` as black and `to` as white.
  show(lowest, highest, preset = null) {
    this.width = Math.max(2, highest - lowest);
    this.centre = (lowest + highest) / 2;
    this.preset = preset;
  }

  // A drag: across changes the contrast, down and up the brightness.
  drag(dx, dy) {
    this.preset = null;
    this.width = Math.min(1020, Math.max(2, this.width * Math.exp(dx / 250)));
    this.centre = Math.min(382, Math.max(-127, this.centre + dy * Math.max(0.1, this.width / 512)));
  }

  get isPlain() {
    return this.centre === 127.5 && this.width === 255 && !this.isInverted;
  }

  // Maps each grey value to its RGBA pixel as one number, so that painting costs one look-up per pixel.
  table() {
    const table = new Uint32Array(256);
    const lowest = this.centre - this.width / 2;
    for (let value = 0; value < 256; value++) {
      let shown = Math.round(((value - lowest) / this.width) * 255);
      shown = Math.min(255, Math.max(0, shown));
      if (this.isInverted) shown = 255 - shown;
      table[value] = (OPAQUE | (shown << 16) | (shown << 8) | shown) >>> 0;
    }
    return table;
  }
}
