"""The report's two charts as inline SVG: no fonts, scripts or addresses to load, the same bytes each time."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"  # a colour no chart uses: it becomes the text colour of the page, light or dark
ACCEPTED, REJECTED = "#0b7fab", "#d9822b"  # told apart by the colour-blind, readable on white and on black
BINS = 40


def loss_curve(points: Sequence[tuple[float, float]]) -> str:
    """Return the training loss over steps as an <svg> element."""
    figure, axes = _axes("step", "loss")
    axes.plot([step for step, _ in points], [loss for _, loss in points], color=ACCEPTED, linewidth=1.5)
    if len(points) == 1:  # a line of one point cannot be seen
        axes.plot([points[0][0]], [points[0][1]], "o", color=ACCEPTED)
    return _svg(figure, "loss", "Training loss over steps")


def length_histogram(accepted: Sequence[int], rejected: Sequence[int]) -> str:
    """Return the histogram of completion tokens, accepted and rejected stacked, as an <svg> element."""
    figure, axes = _axes("completion tokens", "traces")
    axes.hist(
        [list(accepted), list(rejected)],
        bins=BINS,
        stacked=True,
        color=[ACCEPTED, REJECTED],
        label=["accepted", "rejected"],
    )
    axes.legend(frameon=False, labelcolor=INK)
    return _svg(figure, "lengths", "Histogram of completion tokens of accepted and rejected traces")


def _axes(x: str, y: str) -> tuple[Figure, Axes]:
    # No pyplot: a Figure of its own draws with no display, and without global state.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.8), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    for side, spine in axes.spines.items():
        spine.set_color(INK)
        spine.set_visible(side in ("left", "bottom"))
    return figure, axes


def _svg(figure: Figure, name: str, label: str) -> str:
    import matplotlib

    out = io.StringIO()
    # The salt and the missing date make the bytes depend on the data alone.
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "path"}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Inside HTML the namespaces are known; ids must not clash with the other chart's.
    text = re.sub(r'\s+xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace(INK, "currentColor")
    # The width is the page's; the viewBox keeps the proportions.
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 role="img" aria-label="{label}">', text, count=1)
