// The data of the pages of studies. The open page contains its own data; data and images of its neighbours are fetched in
// advance, so that the next study is shown without waiting for the server.

import { at, request } from "../api.js";
import { loadRendition } from "./rendition.js";

const KEPT = 12;
const studies = new Map();
const { from } = document.getElementById("panel").dataset; // the worklist's query

// The worklist as the reader left it.
export function worklist() {
  return at(from ? `/console/studies?${from}` : "/console/studies");
}

// The address of a study contains the query of the worklist, which determines its neighbours.
export function address(id) {
  return at(`/console/studies/${id}${from ? `?from=${encodeURIComponent(from)}` : ""}`);
}

export function keep(study) {
  studies.set(study.id, Promise.resolve(study));
}

// The data is read from the page of the study, so that the server has only one representation.
export async function fetchStudy(id, { again = false } = {}) {
  if (!again && studies.has(id)) return studies.get(id);
  const fetching = read(id);
  studies.delete(id);
  studies.set(id, fetching);
  fetching.catch(() => studies.delete(id));
  for (const old of studies.keys()) {
    if (studies.size <= KEPT) break;
    studies.delete(old);
  }
  return fetching;
}

export async function prefetch(ids) {
  for (const id of ids.filter(Boolean)) {
    try {
      const study = await fetchStudy(id);
      if (study.images[0]?.has_rendition) await loadRendition(study.images[0].id, { urgent: false });
    } catch {
      return; // the error is shown when the reader opens that study
    }
  }
}

async function read(id) {
  const answer = await request(address(id), { isQuiet: true });
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  return JSON.parse(page.getElementById("study").textContent);
}
