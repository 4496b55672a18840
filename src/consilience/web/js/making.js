/* Elements made from names and text. Text is put in as text, so that nothing that a document, an
   answer or a file name holds can become markup. */

const SVG = "http://www.w3.org/2000/svg";

/** An element: attributes by name, `on…` as listeners, then children that are nodes or text. */
export function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a drawing. */
export function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

/** A button of a kind that the sheets know, which does something. */
export function button(kind, onclick, ...children) {
  return make("button", { type: "button", class: kind, onclick }, ...children);
}

/** A picture of the page's own set. */
export function icon(name) {
  const use = draw("use", { href: `icons/all.svg#${name}` });
  return draw("svg", { class: "icon", "aria-hidden": "true" }, use);
}

/** Put children in the place of those that are there. */
export function fill(node, ...children) {
  node.replaceChildren(...present(children));
  return node;
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) put(node, name, value);
  node.append(...present(children));
  return node;
}

function put(node, name, value) {
  if (value === null || value === undefined || value === false) return;
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else node.setAttribute(name, value === true ? "" : value);
}

function present(children) {
  return children.flat().filter((one) => one !== null && one !== undefined && one !== false);
}
