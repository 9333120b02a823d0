// Write: a form, a subject, words to use; then whether the text keeps to them.
import { PlainError, postStream } from "./api.js";
import { copyButton, field, h, replace } from "./dom.js";
import { remember } from "./history.js";
import { notes, output, runner } from "./parts.js";
import { t } from "./texts.js";

export const FORMS = ["free", "story", "poem", "haiku", "sonnet", "limerick", "quatrain", "couplets", "acrostic", "dialogue"];

function checks(found) {
  const rows = [];
  const add = (key, value, good) => rows.push(h("div", {}, h("dt", { t: key }),
    h("dd", {}, good === undefined ? null : h("span", { class: good ? "yes" : "no", t: good ? "yes" : "no" }), good === undefined ? "" : " ", value)));
  if (found.form_ok !== null) add("formKept", "", found.form_ok);
  if (found.syllables) add("syllables", `${found.syllables.join(" · ")} (5 · 7 · 5)`);
  if (found.acrostic !== undefined) add("initials", `${found.initials} (${found.acrostic})`, found.initials === found.acrostic);
  if (found.speakers) add("speakers", found.speakers.join(", ") || "–");
  if (found.asked.keywords) add("keywordsUsed", found.keywords_missing.join(", "), !found.keywords_missing.length);
  add("lines", String(found.lines));
  add("words", String(found.words));
  if (found.seed !== null) add("seed", String(found.seed));
  return h("dl", { class: "facts" }, ...rows);
}

export function writeView() {
  const form = h("select", {}, ...FORMS.map((name) => h("option", { value: name, t: `form_${name}` })));
  form.value = "poem";
  const prompt = h("textarea", { rows: 4, tPlaceholder: "promptPlaceholder" });
  const keywords = h("input", { type: "text", autocomplete: "off" });
  const temperature = h("input", { type: "number", min: 0, max: 2, step: 0.1, placeholder: "0.8" });
  const seed = h("input", { type: "number", min: 0, step: 1 });
  const result = output("text");
  const box = h("div", {});

  const run = runner("writeRun", box, async (signal) => {
    const words = keywords.value.split(",").map((word) => word.trim()).filter(Boolean);
    if (!prompt.value.trim() && !words.length) throw new PlainError(t("errorPrompt"));
    const options = {
      ...(temperature.value === "" ? {} : { temperature: Number(temperature.value) }),
      ...(seed.value === "" ? {} : { seed: Number(seed.value) }),
    };
    const asked = { prompt: prompt.value, form: form.value, ...(words.length ? { keywords: words } : {}), options };
    const growing = h("p", { class: "text verse", "aria-busy": "true" });
    replace(result.body, growing);
    for await (const event of postStream("/v1/write", asked, signal)) {
      if (event.text) growing.append(event.text);
      if (!event.result) continue;
      const found = { ...event.result, asked };
      growing.textContent = found.prediction;
      growing.setAttribute("aria-busy", "false");
      result.body.append(h("h3", { t: "checks" }), checks(found), notes(found.warnings) ?? "", h("div", { class: "row" }, copyButton(() => found.prediction)));
      remember({ view: "write", input: asked, title: `${t(`form_${asked.form}`)}: ${asked.prompt}`, output: found.prediction });
    }
  });

  replace(box, h("div", { class: "panes" },
    h("div", {}, field("form", form), field("prompt", prompt), field("keywords", keywords, { hint: "keywordsHint" }),
      h("div", { class: "controls" }, field("temperature", temperature), field("seed", seed)), run.bar, run.error), result.box));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    restore(input) {
      prompt.value = input.prompt;
      form.value = input.form;
      keywords.value = (input.keywords ?? []).join(", ");
      temperature.value = input.options?.temperature ?? "";
      seed.value = input.options?.seed ?? "";
    },
  };
}
