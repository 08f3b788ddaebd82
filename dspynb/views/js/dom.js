/* Creates elements of the page. Every text becomes a text node, so that model output is never parsed as HTML. */

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {...(Node | string)} children strings become text nodes
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function element(tag, className = "", ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  node.append(...children);
  return node;
}

/**
 * @template {keyof SVGElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Record<string, string | number>} attributes
 * @param {...(Node | string)} children
 * @returns {SVGElementTagNameMap[Tag]}
 */
export function svgElement(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  node.append(...children);
  return node;
}

/**
 * @param {string} text
 * @param {string} className
 * @param {() => void} action
 * @param {string} [label] the name for screen readers, if the text alone is not clear
 */
export function button(text, className, action, label = "") {
  const node = element("button", `dspynb-button ${className}`, text);
  node.type = "button";
  if (label) node.setAttribute("aria-label", label);
  node.addEventListener("click", action);
  return node;
}

/**
 * @template {HTMLElement} Node
 * @param {string} text
 * @param {Node} node
 * @returns {Node}
 */
export function withTooltip(text, node) {
  node.title = text;
  return node;
}

/**
 * An element that can be scrolled with the keyboard.
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} className
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function scrollable(tag, className, ...children) {
  const node = element(tag, className, ...children);
  node.tabIndex = 0;
  return node;
}

/**
 * Set the text of an element only if it differs, so that a selection in the text stays.
 * @param {Element} node
 * @param {string} text
 */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** @param {string} text */
export function copyButton(text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      node.textContent = "copied";
    } catch {
      node.textContent = "not allowed here";
    }
    setTimeout(() => {
      node.textContent = "copy";
    }, 1500);
  };
  const node = button("copy", "dspynb-copy", copy, "copy this text");
  return node;
}
