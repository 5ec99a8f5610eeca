"""How all figures look."""

from typing import Any

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9')
LINE_STYLES = ('-', '--', ':', '-.')
# For `matplotlib.rc_context`.
STYLE: dict[str, Any] = {
  'axes.grid': True,
  'axes.spines.right': False,
  'axes.spines.top': False,
  'axes.titlesize': 'medium',
  'font.size': 10,
  'grid.alpha': 0.3,
  'legend.frameon': False,
  'lines.linewidth': 1.8,
}


def line(index: int) -> dict[str, Any]:
  """Returns the look of the line of that number: no two of 24 are alike."""
  return {
    'color': COLORS[index % len(COLORS)],
    'linestyle': LINE_STYLES[index // len(COLORS) % len(LINE_STYLES)],
  }
