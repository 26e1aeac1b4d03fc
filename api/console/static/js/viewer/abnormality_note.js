// The models' probabilities that the image shows any finding, where they estimate them.

import { element } from "../page.js";

export class AbnormalityNote {
  #state;
  element = element("div", { className: "abnormality", role: "group", "aria-label": "Probability of any finding" });

  constructor(state) {
    this.#state = state;
  }

  refresh() {
    const { image, review, other } = this.#state;
    const shown = [review, other].filter(Boolean).map(({ job_id }) => image.results.find((one) => one.job_id === job_id));
    const stated = shown.filter((result) => (result?.abnormality ?? null) !== null);
    this.element.replaceChildren(...stated.map((result) => line(result, shown.length > 1)));
    this.element.hidden = stated.length === 0;
  }
}

// A low probability is stated as that of the opposite.
function line({ abnormality, model }, isNamed) {
  const [words, value] = abnormality < 0.5 ? ["No finding", 1 - abnormality] : ["Probability of any finding", abnormality];
  return element("p", {}, `${words}: `, element("strong", {}, value.toFixed(2)), isNamed ? ` (${model.name})` : "");
}
