// Erasing the study that is shown, for good.

import { send } from "../api.js";
import { ask } from "../dialog.js";
import { worklist } from "./studies.js";

export async function eraseStudy({ id, image_count: count }, navigation) {
  const images = count === 1 ? "Its image" : `Its ${count} images`;
  const answer = await ask({
    title: "Erase this study for good?",
    text: `${images}, the original files, all findings and all reviews are removed. Datasets that were made from the ` +
      "study can no longer be used, and reports on them are removed. This cannot be undone.",
    agree: "Erase the study",
    work: () => navigation.end(() => send("DELETE", `/v1/studies/${id}`)),
  });
  if (answer !== undefined) location.replace(worklist()); // so that Back does not return to the erased study
}
