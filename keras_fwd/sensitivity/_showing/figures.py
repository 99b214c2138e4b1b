"""How our figures look: size, colors, labels, captions. No pyplot, so no global state."""

import functools
import io
import textwrap

import numpy as np

from keras_fwd._checks import needed

# Okabe and Ito's colors, which people tell apart whatever their color vision.
UP, DOWN, UNCLEAR = "#D55E00", "#0072B2", "#999999"
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "D", "v", "P")
FAINT = "#888888"  # readable on white and on black
NAME_LENGTH = 30
SMALL = 8  # points
CHARACTER = 0.062  # mean width of a small one, in inches


def new_figure(call, width, height):
    """An empty `matplotlib.figure.Figure` of that many inches, which lays itself out.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = needed(call, "matplotlib.figure").Figure(figsize=(width, height), layout="constrained")
    # Notebooks show a figure by this; without pyplot nobody else tells them how.
    figure._repr_png_ = functools.partial(_png, figure)
    return figure


def _png(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def one_line(name, limit=NAME_LENGTH):
    """A name in one line, cut in its middle.

    >>> one_line("a very long name of a feature[13, 4]", limit=20)
    'a very lon…re[13, 4]'
    """
    name = " ".join(str(name).split())
    if len(name) > limit:  # the end too, because the numbers of components stand there
        name = f"{name[: limit // 2]}…{name[1 + len(name) - limit + limit // 2 :]}"
    return name


def label(name, limit=NAME_LENGTH):
    r"""A name for a figure, in one line and no mathematics whatever it holds.

    >>> label("price in $ or\n$2")
    'price in \\$ or \\$2'
    """
    # matplotlib takes what stands between two dollars for a formula.
    return one_line(name, limit).replace("$", r"\$")


def finish(figure, title, caption):
    """Give a figure its title and, below all, a caption that explains what is drawn."""
    room = int((figure.get_figwidth() - 0.2) / CHARACTER)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold", wrap=True)
    sentences = " ".join(sentence for sentence in caption if sentence)
    figure.supxlabel(textwrap.fill(sentences, room), x=0.01, ha="left", fontsize=SMALL, color=FAINT)
    return figure


def folded(text, width=36):
    """A label in lines short enough for the side of a small panel."""
    return textwrap.fill(text, width)


def rows_axis(axes, names):
    """Rows of features from the top down, with their names; no frame but a line at 0."""
    axes.set_yticks(range(len(names)), [label(name) for name in names])
    # From large to small: the first row on top.
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    clear(axes)
    axes.grid(axis="x", color=FAINT, alpha=0.25, linewidth=0.8)
    axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)


def clear(axes, sides=("top", "right", "left")):
    """Take away the frame of the axes on some sides; what lies on the grid lies above it."""
    axes.spines[list(sides)].set_visible(False)
    axes.set_axisbelow(True)


def whiskers(axes, low, high, y, color=None, size=0.16):
    """Intervals as horizontal lines with caps; none where an end is not finite."""
    import matplotlib

    known = np.isfinite(low) & np.isfinite(high)
    low, high, y = low[known], high[known], np.asarray(y)[known]
    color = matplotlib.rcParams["text.color"] if color is None else color
    style = {"color": color, "linewidth": 1.1, "zorder": 3}
    axes.hlines(y, low, high, **style)
    for end in (low, high):
        axes.vlines(end, y - size, y + size, **style)


def percent(confidence):
    """The confidence in words.

    >>> percent(0.95), percent(0.999)
    ('95 %', '99.9 %')
    """
    return f"{100 * confidence:.6g} %"


def counted(shown, total, noun):
    """A sentence on what is not shown, empty where all is.

    >>> counted(20, 500, "features"), counted(3, 3, "features")
    ('20 of 500 features shown.', '')
    """
    return "" if shown >= total else f"{shown} of {total} {noun} shown."
