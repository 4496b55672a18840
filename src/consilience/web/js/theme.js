/* Light, dark, or as the system has it. The colours themselves are in `css/tokens.css`. */

import { keep, kept } from "./keeping.js";
import { label, t } from "./words.js";

export const THEMES = ["auto", "light", "dark"];

/** The theme that was chosen. */
export function theme() {
  const found = kept("consilience.theme");
  return THEMES.includes(found) ? found : "auto";
}

/** Choose a theme and remember it. */
export function paint(chosen) {
  keep("consilience.theme", chosen);
  if (chosen === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  showTheme();
}

/** The button goes from one theme to the next. */
export function startTheme() {
  const next = () => paint(THEMES[(THEMES.indexOf(theme()) + 1) % THEMES.length]);
  document.getElementById("theme").addEventListener("click", next);
  showTheme();
}

function showTheme() {
  const chosen = theme();
  document.getElementById("theme-icon").setAttribute("href", `icons/all.svg#theme-${chosen}`);
  label(document.getElementById("theme"), "theme_now", { theme: () => t(`theme_${chosen}`) });
}
