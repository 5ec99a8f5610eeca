"""All that knows Reverb.

Importing the package imports Reverb, and with it TensorFlow: four seconds, a
quarter of them for Keras, which nothing here uses.
"""

import sys


def _import_reverb() -> None:
  """Imports Reverb without Keras, which TensorFlow does without if it must."""
  if 'tensorflow' in sys.modules or 'keras' in sys.modules:
    return
  sys.modules['keras'] = None  # type: ignore[assignment]
  try:
    import reverb  # noqa: F401
  finally:
    # From now on, whoever wants Keras finds it.
    del sys.modules['keras']


_import_reverb()
