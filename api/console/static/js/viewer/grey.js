// Window and level: from the grey values of a rendition (0 to 255) to those of the screen.

const OPAQUE = 0xff000000;

export class Grey {
  centre = 127.5;
  width = 255;
  isInverted = false;

  reset() {
    this.centre = 127.5;
    this.width = 255;
    this.isInverted = false;
  }

  // A drag: across changes the contrast, down and up the brightness.
  drag(dx, dy) {
    this.width = Math.min(1020, Math.max(2, this.width * Math.exp(dx / 250)));
    this.centre = Math.min(382, Math.max(-127, this.centre + dy * Math.max(0.1, this.width / 512)));
  }

  get isPlain() {
    return this.centre === 127.5 && this.width === 255 && !this.isInverted;
  }

  // Of each grey value the four bytes of its pixel, as one number: putting a film on its canvas is one look-up a pixel.
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
