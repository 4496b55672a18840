/* Server-sent events out of the body of a fetch: `EventSource` can neither post nor send a key. */

const END = /\r\n\r\n|\n\n|\r\r/;

/** The events of a body, each `{name, data}` with its JSON read; comments are passed over. */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const frames = (rest + value).split(END);
      rest = frames.pop();
      yield* frames.map(eventOf).filter((one) => one !== null);
    }
  } finally {
    // Whoever stops listening closes the connection, and with it the work behind it.
    reader.cancel().catch(() => {});
  }
}

/** One event from its lines, or null when it has no data. */
export function eventOf(frame) {
  let name = "message";
  const data = [];
  for (const line of frame.split(/\r\n|\n|\r/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") name = value;
    else if (field === "data") data.push(value);
  }
  return data.length ? { name, data: JSON.parse(data.join("\n")) } : null;
}
