/* Offsets of the server count Unicode code points; strings here count UTF-16 units.

   Every offset that comes in goes through here before it cuts a string. */

/** How many code points a string has. */
export function length(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

/** The unit at which the code point of a number begins; the end of the text for those beyond it. */
export function unitAt(text, point) {
  let unit = 0;
  for (let left = point; left > 0 && unit < text.length; left -= 1) unit += text.codePointAt(unit) > 0xffff ? 2 : 1;
  return unit;
}

/** The characters from one code point to another. */
export function slice(text, start, end = Infinity) {
  const from = unitAt(text, Math.max(0, start));
  const to = end === Infinity ? text.length : from + unitAt(text.slice(from), end - Math.max(0, start));
  return text.slice(from, to);
}

/** A text cut at code points: pieces from cut to cut, in order, empty ones left out.

    Returns `{start, end, text}` with offsets in code points. */
export function cutAt(text, cuts) {
  const end = length(text);
  const inside = [...cuts].filter((cut) => cut > 0 && cut < end);
  const places = [...new Set([0, ...inside, end])].sort((a, b) => a - b);
  return places.slice(1).map((to, i) => ({ start: places[i], end: to, text: slice(text, places[i], to) }));
}
