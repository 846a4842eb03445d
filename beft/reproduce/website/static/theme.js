// Before the page is drawn: the reader's choice of light or dark, and that scripts run.
"use strict";
document.documentElement.classList.add("scripts");
try {
  document.documentElement.style.colorScheme = localStorage.getItem("colour-scheme") || "";
} catch {
  // A browser that keeps nothing for pages from files: the system's choice holds.
}
