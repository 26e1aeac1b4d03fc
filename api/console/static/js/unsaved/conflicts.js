// Finds changes by other readers that conflict with an unsaved entry.

// The events of a review that came after what the entry's reader had seen, about the same finding or the whole image.
export function eventsAgainst(entry, review) {
  if (entry.path) return []; // an undo or a redo: the server knows what it is about
  const about = entry.said.action === "draw" ? "a new one" : entry.said.finding_id ?? null;
  return unseen(entry, review).filter((event) => {
    const other = subject(event, review);
    return about === null || other === null || about === other;
  });
}

// The number of the event by which the server has taken the entry already, though its answer was lost; else null.
export function takenAs(entry, review) {
  const [, key] = entry.reader.split(":");
  const same = unseen(entry, review).find((event) => event.api_key_id === key && event.action === actionOf(entry)
    && (event.action === "draw" || (event.finding_id ?? null) === (entry.said?.finding_id ?? null))
    && (entry.path || !review.events.some(({ undoes }) => undoes === event.number)) // in another tab
    && isAsSaid(entry, event, review));
  return same?.number ?? null;
}

function unseen({ seen, mine }, review) {
  return review.events.filter((event) => event.number > seen && !mine.includes(event.number));
}

function actionOf({ path, said }) {
  return path ? path.slice(1) : said.action;
}

// Whether the finding has the box and the class that the entry gives it.
function isAsSaid({ said }, event, review) {
  const id = event.action === "draw" ? `drawn-${event.number}` : event.finding_id;
  const found = review.findings.find((finding) => finding.id === id);
  const isBox = !said?.box_xyxy_px
    || Boolean(found?.box_xyxy_px.every((side, index) => Math.abs(side - said.box_xyxy_px[index]) < 0.01));
  return isBox && (said?.class_id === undefined || found?.class_id === said.class_id);
}

function subject(event, review) {
  const said = event.undoes === null ? event : review.events.find(({ number }) => number === event.undoes);
  if (said && said.undoes !== null) return subject(said, review);
  return said?.action === "draw" ? `drawn-${said.number}` : said?.finding_id ?? null;
}
