// Presets of the window. They depend on the grey values of the image, because exposures differ.

// `from` and `to` are quantiles of the grey values.
export const PRESETS = [
  { name: "Auto", keys: "2", words: "Window over the image's own grey values", from: 0.01, to: 0.99 },
  { name: "Lungs", keys: "3", words: "Window for the darker parts, as the lungs", from: 0.02, to: 0.6 },
  { name: "Dense", keys: "4", words: "Window for the brighter parts, as heart and bones", from: 0.4, to: 0.995 },
];

// Turns a preset on, or off if it is on.
export function choosePreset(preset, { grey, rendition, image }) {
  if (grey.preset === preset.name) {
    grey.showAll();
    return;
  }
  // If dark and bright are swapped, so are the ranges.
  const isSwapped = image.flags.includes("suspected_inversion");
  const [from, to] = isSwapped ? [1 - preset.to, 1 - preset.from] : [preset.from, preset.to];
  grey.show(rendition.valueBelow(from), rendition.valueBelow(to), preset.name);
}
