"""What the browser tests ask of a page."""

from __future__ import annotations

from typing import Any


def prefer(browser: Any, scheme: str, media: str = "screen") -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})


CUT = """
const width = document.documentElement.clientWidth, found = document.documentElement.scrollWidth > width ? ['the page scrolls'] : [];
for (const its of document.querySelectorAll('main *')) {
  if (its.closest('svg, thead, .vh, .plot') || !its.getClientRects().length) continue;
  const box = its.getBoundingClientRect(), name = `${its.tagName}.${its.className}`;
  if (box.right > width + 1 || box.left < -1) found.push(`${name} ends at ${Math.round(box.right)}`);
  const cuts = ['auto', 'hidden', 'scroll'].includes(getComputedStyle(its).overflowX);
  if (cuts && its.scrollWidth > its.clientWidth + 1) found.push(`${name} is cut`);
}
return found.slice(0, 5);
"""
"""What ends outside of the page or is cut by a box that scrolls."""
