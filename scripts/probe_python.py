"""Says whether the Python that runs this file can carry the dependencies.

Exit status 0 and nothing printed: it can. Exit status 0 and a path printed: it
can once that libpython is loaded by its path. Exit status 1: the line printed
says what it lacks. Older and newer Pythons run it as well,
so that they can say so.
"""

from __future__ import annotations

import ctypes
import os
import sys
import sysconfig

_LIBRARY = 'libpython3.10.so.1.0'


def loaded_path() -> str | None:
  """Returns the path of the libpython in this process, or None."""
  with open('/proc/self/maps') as maps:
    for line in maps:
      if line.rstrip().endswith('/' + _LIBRARY):
        return line[line.index('/') :].rstrip()
  return None


def find_library() -> str | None:
  """Returns '' where Python itself loads libpython, else its path, or None."""
  if loaded_path():
    return ''
  # uv's and Debian's Pythons are linked statically; the library lies apart.
  folders = [sysconfig.get_config_var('LIBDIR'), sys.base_prefix + '/lib', '']
  for folder in folders:
    try:
      ctypes.CDLL(os.path.join(folder or '', _LIBRARY))
      return loaded_path()
    except OSError:
      pass
  return None


def main() -> None:
  """Prints what the module's docstring says."""
  version = '.'.join(str(part) for part in sys.version_info[:3])
  if sys.version_info[:2] != (3, 10):
    sys.exit('is Python ' + version + ', not 3.10')
  library = find_library()
  if library is None:
    sys.exit(
      'has no shared libpython (' + _LIBRARY + '), which Launchpad links'
    )
  if '--needs-venv' in sys.argv:
    try:
      import ensurepip  # noqa: F401
      import venv  # noqa: F401
    except ImportError as error:
      sys.exit(
        'has no module ' + str(error.name) + ' (package python3.10-venv)'
      )
  if library:
    print(library)


if __name__ == '__main__':
  main()
