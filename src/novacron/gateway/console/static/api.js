// Talking to the server that this page came from. The key stays in this tab, and goes with it.
const KEY = "novacron-key";

export class ApiError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

export const storedKey = () => sessionStorage.getItem(KEY) ?? "";

export function storeKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
}

const headers = () => (storedKey() ? { authorization: `Bearer ${storedKey()}` } : {});

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, {
      ...options,
      headers: { ...headers(), ...(options.body ? { "content-type": "application/json" } : {}) },
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError("The server does not answer. Is it running?", 0);
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try {
    message = (await response.json()).error.message ?? message;
  } catch {
    // the body says no more than the status
  }
  if (response.status === 401) dispatchEvent(new CustomEvent("key-wanted"));
  throw new ApiError(message, response.status);
}

export const get = async (path) => (await call(path)).json();

export const send = async (method, path, body) =>
  (await call(path, { method, body: body && JSON.stringify(body) })).json();

// Gives each chunk of a streamed answer to `see`. Throws ApiError for one that breaks off.
export async function stream(path, body, see, signal) {
  const response = await call(path, { method: "POST", body: JSON.stringify(body), signal });
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
      const chunk = JSON.parse(line.slice(6));
      if (chunk.error) throw new ApiError(chunk.error.message, 0);
      see(chunk);
    }
  }
}
