/* Runs before the first paint, so that neither the language nor the colours change under the
   reader's eyes. A classic script on purpose: modules run after the first paint. */
(() => {
  let kept = null;
  try {
    kept = window.localStorage;
  } catch {
    // Storage is refused: what the browser asks for holds.
  }
  const language = kept?.getItem("consilience.language") ?? navigator.language;
  document.documentElement.lang = language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
  const theme = kept?.getItem("consilience.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
