// Classify: which of some labels fits a text, and how likely each of them is.
import { PlainError, postJson } from "./api.js";
import { copyButton, field, h, replace } from "./dom.js";
import { remember } from "./history.js";
import { notes, output, runner, share, textPane } from "./parts.js";
import { t } from "./texts.js";

const MOST_SHOWN = 12;

export function classifyView() {
  const pane = textPane("sourceText", { placeholder: "documentPlaceholder" });
  const labels = h("input", { type: "text", tPlaceholder: "labelsPlaceholder", autocomplete: "off" });
  const result = output("label");
  const box = h("div", {});

  function show(found) {
    const ranked = Object.entries(found.probabilities);
    replace(result.body, h("p", { class: "text" }, found.label),
      h("div", { class: "shares" },
        ...ranked.slice(0, MOST_SHOWN).map(([name, value]) => share(h("span", {}, name), value, { judged: false }))),
      notes(found.warnings), h("div", { class: "row" }, copyButton(() => found.label)));
  }

  const run = runner("classifyRun", box, async (signal) => {
    const text = pane.area.value;
    if (!text.trim()) throw new PlainError(t("errorEmpty"));
    const names = labels.value.split(",").map((name) => name.trim()).filter(Boolean);
    const found = await postJson(names.length ? "/v1/classify" : "/v1/sentiment", names.length ? { text, labels: names } : { text }, signal);
    show(found);
    remember({ view: "classify", input: { text, labels: labels.value }, title: text, output: found.label });
  });

  replace(box, h("div", { class: "panes" }, h("div", {}, pane.box, field("labels", labels), run.bar, run.error), result.box));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    restore(input) {
      pane.set(input.text);
      labels.value = input.labels;
    },
  };
}
