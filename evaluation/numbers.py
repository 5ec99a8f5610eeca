"""Numbers for people."""


def large(value: float) -> str:
  """1234567 -> '1.23M'."""
  for size, suffix in ((1e9, 'G'), (1e6, 'M'), (1e3, 'k')):
    if abs(value) >= size:
      return f'{value / size:.3g}{suffix}'
  return f'{value:.3g}'
