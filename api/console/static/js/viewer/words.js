// User-visible words for codes of the API.

export const MODEL_STATES = { active: "active model", candidate: "candidate", retired: "retired model" };

export const VERDICTS = { undecided: "not decided", accepted: "accepted", rejected: "rejected" };

// The mark before the name of a finding, on the image and in the list.
export const MARKS = { undecided: "?", accepted: "✓", rejected: "✕" };

export const ACTIONS = {
  accept: "accepted", reject: "rejected", change: "changed", draw: "drew", no_finding: "set “no finding”",
  complete: "completed the review", undo: "undid", redo: "redid",
};

export const SPACINGS = {
  calibrated: "at the patient (calibrated)",
  detector: "at the detector, where things look up to a tenth larger than they are",
  film: "on the scanned film",
  unspecified: "on a plane that the file does not state",
};

const DAY = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const MINUTE = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
export const day = (time) => (time ? DAY.format(new Date(time)) : "");
export const minute = (time) => (time ? MINUTE.format(new Date(time)) : "");
