import threading

import pytest

from bmg.launch.program import address_book, addresses
from bmg.launch.run import files


def test_an_address_is_waited_for(tmp_path):
  workdir = str(tmp_path)
  files.begin_launch(workdir)
  address_book.publish(workdir, 'learner.0.courier', 'before:1')
  files.begin_launch(workdir)
  address = addresses.BookedAddress(workdir, 'learner.0.courier')
  writer = threading.Timer(
    0.5, address_book.publish, (workdir, 'learner.0.courier', 'there:1')
  )
  writer.start()
  assert address.build() == 'there:1'
  writer.join()


def test_an_address_that_never_comes_is_named(tmp_path, monkeypatch):
  monkeypatch.setattr(addresses, '_LOOKUP_TIMEOUT_S', 0.1)
  address = addresses.BookedAddress(str(tmp_path), 'replay.0.reverb')
  with pytest.raises(TimeoutError, match=r'replay\.0\.reverb'):
    address.build()
