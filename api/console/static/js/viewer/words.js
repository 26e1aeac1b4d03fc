// What the codes of the API mean, in words for whoever looks at a film.

export const FLAGS = {
  not_a_radiograph: ["Not a radiograph", "By its tags it was made by another kind of machine."],
  not_a_chest: ["Perhaps no chest", "It seems to show another part of the body, or nothing like a chest."],
  lateral_view: ["Lateral view", "Taken from the side; the model has learned from frontal films."],
  rotated: ["Rotated", "The chest seems to lie on its side or upside down."],
  suspected_inversion: ["Suspected inversion", "Dark and bright look swapped. Shown as tagged; press I to invert."],
  empty_exposure: ["Empty exposure", "There is next to no contrast."],
  clipped_exposure: ["Clipped exposure", "Much of the film is at its darkest or brightest, where findings are lost."],
  low_resolution: ["Low resolution", "So few pixels that small findings cannot be made out."],
  irregular_file: ["Irregular file", "The file breaks the DICOM standard; the grey levels say how it was read."],
};

export const STATES = {
  queued: "Waiting to be prepared",
  preparing: "Being prepared",
  ready: "Waiting for the detector",
  detecting: "Being looked at by the detector",
  succeeded: "Looked at",
  rejected: "Cannot be looked at",
  failed: "Failed",
  cancelled: "Cancelled",
};

export const MODEL_STATES = { active: "active model", candidate: "candidate", retired: "retired model" };

export const VERDICTS = { undecided: "not decided", accepted: "accepted", rejected: "rejected" };

// Before a finding's name on the film, and beside it in the list.
export const MARKS = { undecided: "?", accepted: "✓", rejected: "✕" };

export const ACTIONS = {
  accept: "accepted", reject: "rejected", change: "changed", draw: "drew", no_finding: "said: no finding",
  complete: "called the review done", undo: "took back", redo: "said again",
};

export const SPACINGS = {
  calibrated: "at the patient (calibrated)",
  detector: "at the detector, where things look up to a tenth larger than they are",
  film: "on the scanned film",
  unspecified: "the file does not say where",
};

export function flagWords(flag) {
  return FLAGS[flag] ?? [flag.replaceAll("_", " "), ""];
}

const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const day = (time) => (time ? DAY.format(new Date(time)) : "");
export const minute = (time) => (time ? MINUTE.format(new Date(time)) : "");
