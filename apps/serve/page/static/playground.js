// Playground: the raw model, every control of its decoding, and how likely each token was.
import { getJson, PlainError, postStream } from "./api.js";
import { copyButton, field, h, newId, replace } from "./dom.js";
import { remember } from "./history.js";
import { output, runner } from "./parts.js";
import { t } from "./texts.js";

const NUMBERS = [
  ["max_tokens", { min: 1, max: 100000, step: 1, value: 64 }],
  ["temperature", { min: 0, max: 2, step: 0.1, value: 0.7 }],
  ["top_p", { min: 0, max: 1, step: 0.05, value: 1 }],
  ["presence_penalty", { min: -2, max: 2, step: 0.1, value: 0 }],
  ["frequency_penalty", { min: -2, max: 2, step: 0.1, value: 0 }],
  ["n", { min: 1, max: 8, step: 1, value: 1 }],
  ["seed", { step: 1, value: "" }],
  ["logprobs", { min: 0, max: 5, step: 1, value: 5 }],
];

function readBias(text) {
  if (!text.trim()) return null;
  const pairs = text.split(/[\n,;]+/).filter((one) => one.trim()).map((one) => one.split(/[:=]/).map((part) => part.trim()));
  if (!pairs.every(([id, bias]) => /^\d+$/.test(id) && bias !== undefined && bias !== "" && Number.isFinite(Number(bias)))) {
    throw new PlainError(t("errorBias"));
  }
  return Object.fromEntries(pairs.map(([id, bias]) => [id, Number(bias)]));
}

const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

// One text that grows, token by token; one stop for the Tab key, arrows go from token to token.
function tokenList(details) {
  const list = h("div", { class: "tokens" });
  const tokens = [];
  let text = "";

  function select(index) {
    tokens.forEach((one, other) => {
      one.span.tabIndex = other === index ? 0 : -1;
      one.span.setAttribute("aria-selected", String(other === index));
    });
  }
  function tell(one) {
    const rows = Object.entries(one.top ?? {}).sort((a, b) => b[1] - a[1]).map(([token, logprob]) => h("tr", { class: token === one.token ? "chosen" : "" },
      h("td", {}, h("code", {}, token.replaceAll("\n", "⏎"))), h("td", {}, percent(logprob))));
    replace(details, h("p", {}, h("code", {}, one.token.replaceAll("\n", "⏎")), one.logprob === null ? "" : ` ${percent(one.logprob)}`),
      rows.length ? h("table", {}, h("caption", { t: "likelier" }), h("tbody", {}, ...rows)) : null);
  }
  list.addEventListener("keydown", (event) => {
    const index = tokens.findIndex((one) => one.span === document.activeElement);
    const next = { ArrowRight: index + 1, ArrowLeft: index - 1, Home: 0, End: tokens.length - 1 }[event.key];
    if (index < 0 || next === undefined || !tokens[next]) return;
    event.preventDefault();
    select(next);
    tokens[next].span.focus();
  });
  return {
    list,
    text: () => text,
    add(choice) {
      text += choice.text;
      const found = choice.logprobs;
      if (!found) {
        if (choice.text) list.append(choice.text);
        return;
      }
      found.tokens.forEach((token, place) => {
        const one = { token, logprob: found.token_logprobs[place], top: found.top_logprobs?.[place] };
        const shown = token.replaceAll("\n", "⏎\n");
        const likely = one.logprob === null ? "" : percent(one.logprob);
        if (!tokens.length) {
          list.setAttribute("role", "listbox");
          list.setAttribute("aria-orientation", "horizontal");
          list.dataset.tLabel = "tokenList";
          list.setAttribute("aria-label", t("tokenList"));
        }
        // No buttons: those would not break where the text does.
        const span = h("span", { class: "token", role: "option", tabIndex: tokens.length ? -1 : 0, "aria-selected": "false",
          "aria-label": `${token.replaceAll("\n", "⏎")} ${likely}`, title: likely, on: { mouseenter: () => tell(one), focus: () => { tell(one); select(tokens.indexOf(one)); } } }, shown);
        if (one.logprob !== null) span.style.setProperty("--doubt", String(Math.round(100 * (1 - Math.exp(one.logprob)))));
        one.span = span;
        tokens.push(one);
        list.append(span);
      });
    },
  };
}

export function playgroundView() {
  const model = h("select", {});
  const prompt = h("textarea", { rows: 8, tPlaceholder: "rawPlaceholder" });
  const numbers = NUMBERS.map(([name, limits]) => [name, h("input", { type: "number", ...limits })]);
  const stop = h("textarea", { rows: 2 });
  const bias = h("textarea", { rows: 2, placeholder: "50256: -100" });
  const echoId = newId();
  const echo = h("input", { type: "checkbox", id: echoId });
  const result = output("text");
  const box = h("div", {});
  let asked = false;

  const run = runner("playgroundRun", box, async (signal) => {
    const values = Object.fromEntries(numbers.filter(([, input]) => input.value !== "").map(([name, input]) => [name, Number(input.value)]));
    const stops = stop.value.split("\n").filter(Boolean).map((line) => line.replaceAll("\\n", "\n"));
    const logitBias = readBias(bias.value);
    const body = { model: model.value, prompt: prompt.value, ...values, ...(stops.length ? { stop: stops } : {}),
      ...(logitBias ? { logit_bias: logitBias } : {}), ...(echo.checked ? { echo: true } : {}), stream_options: { include_usage: true } };
    const details = h("div", { class: "details", "aria-live": "polite" }, h("p", { class: "hint", t: "tokenHint" }));
    const texts = Array.from({ length: body.n ?? 1 }, () => tokenList(details));
    const after = h("p", { class: "hint" });
    replace(result.body, ...texts.map((one) => h("div", { class: "one" }, one.list, h("div", { class: "row" }, copyButton(one.text)))), details, after);
    const reasons = [];
    for await (const event of postStream("/v1/completions", body, signal)) {
      for (const choice of event.choices) {
        texts[choice.index]?.add(choice);
        if (choice.finish_reason) reasons[choice.index] = choice.finish_reason;
      }
      if (event.usage) after.textContent = `${event.usage.prompt_tokens} + ${event.usage.completion_tokens} ${t("tokens")} · ${reasons.map((one) => t(`reason_${one}`)).join(", ")}`;
    }
    remember({ view: "playground", input: { ...body, stop: stop.value, bias: bias.value }, title: prompt.value, output: texts[0].text() });
  });

  replace(box, h("div", { class: "panes" },
    h("div", {}, field("model", model), field("rawPrompt", prompt), run.bar, run.error,
      h("details", { class: "more", open: true }, h("summary", { t: "decoding" }),
        h("div", { class: "controls" }, ...numbers.map(([name, input]) => field(`option_${name}`, input))),
        field("option_stop", stop, { hint: "stopHint" }), field("option_logit_bias", bias, { hint: "biasHint" }),
        h("div", { class: "check" }, echo, h("label", { for: echoId, t: "option_echo" })))),
    result.box));
  replace(result.body, h("p", { class: "hint", t: "resultHere" }));
  return {
    box,
    shown() {
      if (asked) return;
      asked = true;
      getJson("/v1/models").then(({ data }) => replace(model, ...data.map((one) => h("option", { value: one.id }, one.id))), (error) => {
        asked = false;
        run.error.textContent = error.message;
        run.error.hidden = false;
      });
    },
    restore(input) {
      prompt.value = input.prompt;
      for (const [name, control] of numbers) control.value = input[name] ?? "";
      stop.value = input.stop ?? "";
      bias.value = input.bias ?? "";
      echo.checked = Boolean(input.echo);
      if ([...model.options].some((one) => one.value === input.model)) model.value = input.model;
    },
  };
}
