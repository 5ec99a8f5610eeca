"""Distributed actor-learner RL with bootstrapped meta-gradients.

Every room of the house is a package of this one: `bmg.agents`, `bmg.learner`.
In an installed copy the rooms lie in this folder; in a checkout they lie beside
it, where they are found all the same. Standard library only, and quick to
import: supervisors do.
"""

import os.path

__version__ = '0.1.0'

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
# On the PYTHONPATH of every process: the root of a checkout, or site-packages.
ROOT = os.path.dirname(_PACKAGE)

if not os.path.isdir(os.path.join(_PACKAGE, 'agents')):
  __path__.append(ROOT)
