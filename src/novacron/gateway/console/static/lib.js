// One import for all pages: elements by template literal, hooks, and reading again and again.
import { h, render } from "preact";
import { useCallback, useEffect, useRef, useState } from "preact/hooks";
import htm from "htm";
import { ApiError, get } from "./api.js";

export const html = htm.bind(h);
export { render, useCallback, useEffect, useRef, useState };

// The JSON at `path`, read now and every `seconds` (0: once) while the page can be seen.
// Returns { data, error, refresh }; the last good data stay when a later reading fails.
export function useData(path, seconds = 0) {
  const [state, setState] = useState({ data: null, error: null });
  const read = useCallback(async () => {
    try {
      const data = await get(path);
      setState({ data, error: null });
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      setState((last) => ({ data: last.data, error }));
    }
  }, [path]);
  useEffect(() => {
    setState({ data: null, error: null });
    read();
    if (!seconds) return undefined;
    const timer = setInterval(() => document.hidden || read(), seconds * 1000);
    return () => clearInterval(timer);
  }, [read, seconds]);
  return { ...state, refresh: read };
}

export function Problem({ error }) {
  return error && html`<p class="problem" role="alert">${error.message}</p>`;
}
