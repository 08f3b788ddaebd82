/* The part of a page that the front end uses, for tests without a browser. Parsing HTML is missing on purpose: code that
 * sets innerHTML fails. There is no layout: a grid has the height `clientHeight`. */

class FakeText {
  constructor(text) {
    this.textContent = text;
    this.parentNode = null;
  }
  get nextSibling() {
    return siblingOf(this, 1);
  }
  remove() {
    detach(this);
  }
}

export class FakeElement {
  constructor(tag) {
    this.tagName = tag;
    this.className = "";
    this.childNodes = [];
    this.parentNode = null;
    this.attributes = new Map();
    this.dataset = {};
    this.style = { setProperty: (name, value) => this.attributes.set(`style ${name}`, value) };
    this.listeners = [];
    this.value = "";
    this.hidden = false;
    this.scrollTop = 0;
    this.clientHeight = 460;
    this.offsetHeight = 0;
  }
  get scrollHeight() {
    return Math.max(this.clientHeight, ...this.children.map((child) => Number.parseInt(child.style.height ?? 0, 10)));
  }
  get children() {
    return this.childNodes.filter((node) => node instanceof FakeElement);
  }
  get options() {
    return this.children;
  }
  get classList() {
    const words = new Set(this.className.split(" ").filter(Boolean));
    const change = (method) => (word) => {
      words[method](word);
      this.className = [...words].join(" ");
    };
    return { add: change("add"), remove: change("delete"), contains: (word) => words.has(word) };
  }
  get textContent() {
    return this.childNodes.map((node) => node.textContent).join("");
  }
  set textContent(text) {
    this.replaceChildren(text);
  }
  set innerHTML(_) {
    throw new Error("a text is parsed as HTML");
  }
  set outerHTML(_) {
    throw new Error("a text is parsed as HTML");
  }
  insertAdjacentHTML() {
    throw new Error("a text is parsed as HTML");
  }
  setAttribute(name, value) {
    if (name === "class") this.className = value;
    this.attributes.set(name, value);
  }
  getAttribute(name) {
    return this.attributes.get(name) ?? null;
  }
  removeAttribute(name) {
    this.attributes.delete(name);
  }
  append(...nodes) {
    insert(this, this.childNodes.length, nodes);
  }
  prepend(...nodes) {
    insert(this, 0, nodes);
  }
  replaceChildren(...nodes) {
    for (const node of [...this.childNodes]) detach(node);
    this.append(...nodes);
  }
  after(...nodes) {
    insert(this.parentNode, this.parentNode.childNodes.indexOf(this) + 1, nodes);
  }
  replaceWith(...nodes) {
    this.after(...nodes);
    detach(this);
  }
  remove() {
    detach(this);
  }
  get nextSibling() {
    return siblingOf(this, 1);
  }
  get previousElementSibling() {
    const siblings = this.parentNode?.children ?? [];
    return siblings[siblings.indexOf(this) - 1] ?? null;
  }
  closest(selector) {
    const className = selector.match(/\.([\w-]+)/)[1];
    const needsKey = selector.includes("[data-key]");
    const matches = this.classList.contains(className) && (!needsKey || this.dataset.key !== undefined);
    return matches ? this : (this.parentNode?.closest(selector) ?? null);
  }
  focus() {}
  addEventListener(type, listener) {
    this.listeners.push({ type, listener });
  }
  /** Call the listeners of this element and of its ancestors. */
  dispatch(type, event = {}) {
    const whole = { target: this, preventDefault() {}, stopPropagation() {}, ...event };
    for (let node = this; node; node = node.parentNode) {
      for (const { type: listened, listener } of node.listeners) if (listened === type) listener(whole);
    }
  }
  /** This element and its descendants, if they have the class. */
  all(className) {
    const own = this.classList.contains(className) ? [this] : [];
    return [...own, ...this.children.flatMap((child) => child.all(className))];
  }
  /** This element and its descendants. */
  everything() {
    return [this, ...this.children.flatMap((child) => child.everything())];
  }
}

function insert(parent, place, nodes) {
  const added = nodes.map((node) => (typeof node === "object" ? node : new FakeText(String(node))));
  let at = place;
  for (const node of added) {
    if (node.parentNode === parent && parent.childNodes.indexOf(node) < at) at -= 1;
    detach(node);
    node.parentNode = parent;
    parent.childNodes.splice(at, 0, node);
    at += 1;
  }
}

function detach(node) {
  const siblings = node.parentNode?.childNodes;
  if (siblings) siblings.splice(siblings.indexOf(node), 1);
  node.parentNode = null;
}

function siblingOf(node, step) {
  const siblings = node.parentNode?.childNodes ?? [];
  return siblings[siblings.indexOf(node) + step] ?? null;
}

/** Define the globals of a page. Importing this module is enough. */
function install() {
  const listeners = [];
  Object.assign(globalThis, {
    document: { createElement: (tag) => new FakeElement(tag), createElementNS: (_, tag) => new FakeElement(tag) },
    Element: FakeElement,
    HTMLElement: FakeElement,
    ResizeObserver: class {
      observe() {}
      disconnect() {}
    },
    getSelection: () => "",
    addEventListener: (type, listener) => listeners.push({ type, listener }),
    removeEventListener: (_, listener) => {
      const at = listeners.findIndex((added) => added.listener === listener);
      if (at >= 0) listeners.splice(at, 1);
    },
  });
}

install();
