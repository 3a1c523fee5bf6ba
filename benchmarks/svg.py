"""Just enough SVG: shapes and text, escaped, in colours that suit a light page and a dark one.

A picture on a page does not know the page's colours, but it does know what its reader prefers: so the ground is
transparent, and every colour is a class with two values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from xml.sax.saxutils import escape, quoteattr

FONT = "font-family: system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; font-size: 13px"
HUES = {  # class: on light, on dark
    "h0": ("#0b62c4", "#6cb2ff"),
    "h1": ("#c2410c", "#ff9f63"),
    "h2": ("#15803d", "#5fd38a"),
    "h3": ("#7e3ab5", "#c99bf5"),
    "h4": ("#0e7490", "#5cc8dd"),
    "h5": ("#6b7280", "#a3abb8"),
    "h6": ("#9a6b00", "#e3b341"),
}
INK = ("#1f2328", "#e6e8eb")
FAINT = ("#d0d4da", "#454b55")


@dataclass
class Drawing:
    """Shapes in the order in which they were added.

    Attributes:
        width, height: in pixels, as long as nobody scales it.
        title: what it shows, for those who cannot see it.
    """

    width: int
    height: int
    title: str
    _parts: list[str] = field(default_factory=list)

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """From one point to another."""
        self._parts.append(f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')

    def path(self, points: list[tuple[float, float]], kind: str) -> None:
        """Through all of them."""
        drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        self._parts.append(f'<path class="{kind}" d="M{drawn}"/>')

    def dot(self, x: float, y: float, kind: str) -> None:
        """A small disc."""
        self._parts.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>')

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A filled rectangle."""
        size = f'width="{width:.1f}" height="{height:.1f}" rx="2"'
        self._parts.append(f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}/>')

    def text(self, x: float, y: float, text: str, kind: str = "ink", anchor: str = "start") -> None:
        """One line, its baseline at ``y``."""
        self._parts.append(
            f'<text class={quoteattr(kind)} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
        )

    def __str__(self) -> str:
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img"'
        size = f'width="{self.width}" height="{self.height}"'
        title = f"<title>{escape(self.title)}</title>"
        style = f"<style>{_style(0)} @media (prefers-color-scheme: dark) {{ {_style(1)} }}</style>"
        return "\n".join([f"{head} {size}>", title, style, *self._parts, "</svg>", ""])


def _style(side: int) -> str:
    rules = [
        f"text {{ {FONT}; fill: {INK[side]} }}",
        ".small { font-size: 11px }",
        f".grid, .axis {{ stroke: {FAINT[side]}; fill: none }}",
        f".limit {{ stroke: {INK[side]}; stroke-dasharray: 4 3; fill: none; opacity: .45 }}",
        f".whisker {{ stroke: {INK[side]}; fill: none; opacity: .6 }}",
    ]
    for name, hue in HUES.items():
        rules.append(f"path.{name} {{ stroke: {hue[side]}; stroke-width: 2; fill: none }}")
        rules.append(f"circle.{name}, rect.{name}, text.{name} {{ fill: {hue[side]} }}")
    return " ".join(rules)
