import dataclasses

import pytest

from bmg.configs import schema
from bmg.launch.sweep import machine
from tests.launch import processes


@pytest.mark.parametrize(
  ('cores', 'memory_gb', 'gpus', 'expected'),
  [
    (2, 24.0, (), 1),
    (1, 1.0, (), 1),
    (64, 1000.0, (), 16),
    (64, 20.0, (), 2),
    (64, 1000.0, ('0', '1', '5'), 3),
  ],
)
def test_a_machine_takes_what_it_has_room_for(cores, memory_gb, gpus, expected):
  config = processes.small_config(num_actors=3)
  config = dataclasses.replace(config, learner=schema.Learner(num_devices=1))
  here = machine.Machine(cores, memory_gb, gpus)
  assert machine.max_running([config], here) == expected
  slots = machine.slots([config], here, expected)
  assert len(slots) == expected
  if gpus:
    assert [slot['CUDA_VISIBLE_DEVICES'] for slot in slots] == list(gpus)


def test_cells_that_take_all_gpus_run_alone():
  config = processes.small_config()
  here = machine.Machine(64, 1000.0, ('0', '1'))
  assert machine.max_running([config], here) == 1
  assert machine.slots([config], here, 2)[1]['CUDA_VISIBLE_DEVICES'] == '0,1'


def test_variants_are_given_the_room_of_the_most_demanding():
  acts, learns = (
    dataclasses.replace(
      processes.small_config(num_actors),
      learner=schema.Learner(num_devices=num_devices),
    )
    for num_actors, num_devices in ((15, 1), (3, 2))
  )
  here = machine.Machine(64, 1000.0, ('0', '1', '2', '3'))
  for configs in ([acts, learns], [learns, acts]):
    assert machine.max_running(configs, here) == 2
    slots = machine.slots(configs, here, 2)
    assert [s['CUDA_VISIBLE_DEVICES'] for s in slots] == ['0,1', '2,3']
    assert machine.max_running(configs, here._replace(cores=16)) == 1
