// Elements without HTML strings: whatever a user or a model wrote is text, and stays text.
import { t } from "./texts.js";

const TRANSLATED = { t: "textContent", tPlaceholder: "placeholder" };

// Make an element. `t` names an interface text, `tLabel` one for `aria-label`, `on` holds listeners, `class` a class,
// names with a hyphen and `role`, `for`, `list` are attributes; all else is set as a property.
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null) continue;
    if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "class") element.className = value;
    else if (["t", "tPlaceholder", "tLabel"].includes(name)) element.dataset[name] = value;
    else if (name.includes("-") || ["role", "for", "list"].includes(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  translate(element);
  return element;
}

function translateOne(element) {
  for (const [name, property] of Object.entries(TRANSLATED)) {
    if (element.dataset[name]) element[property] = t(element.dataset[name]);
  }
  if (element.dataset.tLabel) element.setAttribute("aria-label", t(element.dataset.tLabel));
}

// Write the interface texts of an element and all below it in the language that is set.
export function translate(root) {
  if (root.dataset) translateOne(root);
  for (const element of root.querySelectorAll("[data-t], [data-t-placeholder], [data-t-label]")) translateOne(element);
}

export function replace(element, ...children) {
  element.replaceChildren(...children.filter((child) => child !== null && child !== undefined));
}

let counter = 0;
export function newId() {
  counter += 1;
  return `n${counter}`;
}

// A control with its label above it.
export function field(key, control, { hint } = {}) {
  control.id ||= newId();
  const parts = [h("label", { for: control.id, t: key }), control];
  if (hint) {
    const id = newId();
    control.setAttribute("aria-describedby", id);
    parts.push(h("p", { class: "hint", id, t: hint }));
  }
  return h("div", { class: "field" }, ...parts);
}

export function copyButton(getText) {
  const button = h("button", {
    type: "button",
    class: "quiet",
    t: "copy",
    on: {
      click: async () => {
        await navigator.clipboard.writeText(getText()).then(
          () => { button.textContent = t("copied"); },
          () => { button.textContent = t("copyFailed"); },
        );
        setTimeout(() => translate(button), 1500);
      },
    },
  });
  return button;
}

// Where something is said to screen readers without moving the focus.
export function announce(text) {
  const live = document.getElementById("live");
  if (live) live.textContent = text;
}
