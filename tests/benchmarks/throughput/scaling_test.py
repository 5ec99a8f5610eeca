import pathlib
import re
import shlex

import pytest

from bmg.benchmarks.throughput import scaling
from bmg.configs import schema
from bmg.launch import cli
from bmg.launch.local import supervisor
from bmg.launch.program import nodes

ROOT = pathlib.Path(__file__).resolve().parents[3]
# 80 frames in an unroll of 10 kB; 6 fresh unrolls and 12 others to a step.
RECIPE = scaling.Recipe(
  frames_per_unroll=80,
  unrolls_per_turn=2,
  fresh_per_step=6,
  reads_per_fresh=3.0,
  queue=24,
  prefetch=2,
  patience_s=5.0,
  unroll_bytes=10_000,
  unroll_array_bytes=200_000,
  params_bytes=4e6,
  server_write_s=4e-4,
  server_read_s=1e-4,
  reader_s=2e-4,
  learner_fetch_s=5e-3,
  relay_fetch_s=4e-3,
  server_cores=4,
)


def loads(actors, actor_rate, **size):
  """Amounts by link."""
  found = scaling.loads(RECIPE, scaling.Size(actors, actor_rate, **size))
  return {load.link: load.amount for load in found}


def test_loads_of_a_learner_that_keeps_up():
  # 8,000 frames/s: 100 unrolls/s, 50 turns/s, 16.7 steps/s.
  found = loads(10, 800.0)
  assert found['fresh unrolls'] == pytest.approx(100)
  assert found['an actor sends'] == pytest.approx(0.1)
  assert found['a replay server takes in'] == pytest.approx(1.0)
  assert found['a replay server gives'] == pytest.approx(3.0)
  assert found['a replay server computes'] == pytest.approx(0.04 + 0.02)
  assert found["a learner's host reads"] == pytest.approx(3.0)
  assert found["a learner's host unpacks"] == pytest.approx(0.06)
  assert found['host to device'] == pytest.approx(60)
  # 5 turns/s of each actor, 4 MB in each.
  assert found['an actor fetches'] == pytest.approx(20)
  assert found['the learner sends parameters'] == pytest.approx(200)
  assert found['the learner answers'] == pytest.approx(0.25)
  assert found['waiting actors ask how replay is'] == 0
  # 20 unrolls in the making.
  assert found['age of fresh unrolls'] == pytest.approx(20 / 6)


def test_a_learner_that_cannot_keep_up_holds_the_actors():
  # 100 unrolls/s at most. 1,000 actors wait: 0.05 turns/s each, of 20 s.
  slow = loads(1000, 800.0, learner_rate=8000.0)
  assert slow['fresh unrolls'] == pytest.approx(100)
  assert slow['a replay server gives'] == pytest.approx(3.0)
  assert slow['the learner sends parameters'] == pytest.approx(200)
  # 0.2 s of 20 s are play; three questions in the rest.
  assert slow['waiting actors ask how replay is'] == pytest.approx(150)
  assert slow['age of fresh unrolls'] == pytest.approx(2048 / 6)
  # Larger batches wait with the learner, and make the rest less old.
  larger = loads(1000, 800.0, learner_rate=8000.0, batches=8)
  assert larger['age of fresh unrolls'] == pytest.approx(2024 / 48 + 4)
  # Two hosts learn twice as fast.
  faster = loads(1000, 800.0, learner_rate=8000.0, hosts=2)
  assert faster['fresh unrolls'] == pytest.approx(200)
  assert faster["a learner's host reads"] == pytest.approx(3.0)


def test_parameters_that_have_not_changed_are_not_sent():
  # 0.1 turns/s of one actor and 0.03 steps/s.
  found = loads(1, 16.0)
  assert found['an actor fetches'] == pytest.approx(4 * 0.2 / 6)


def test_servers_and_relays_divide_the_load():
  found = loads(1000, 800.0, servers=4)
  whole = loads(1000, 800.0)
  for link in ('takes in', 'gives', 'computes'):
    link = f'a replay server {link}'
    assert found[link] == pytest.approx(whole[link] / 4)
  # 10,000 unrolls/s, 1,667 steps/s: a relay asks ten times a second.
  found = loads(1000, 800.0, actors_per_relay=64)
  assert found['the learner sends parameters'] == pytest.approx(16 * 10 * 4)
  assert found['a relay sends'] == pytest.approx(64 * 5 * 4)
  assert found['a relay answers'] == pytest.approx(64 * 5 * 4e-3)
  found = loads(1000, 800.0, actors_per_relay=64, relay_period_s=0.5)
  assert found['the learner sends parameters'] == pytest.approx(16 * 2 * 4)
  # 2 steps/s, three questions to each relay: every version once.
  size = {'learner_rate': 960.0, 'actors_per_relay': 50}
  found = loads(100, 800.0, **size)
  assert found['the learner sends parameters'] == pytest.approx(2 * 2 * 4)
  # Twenty relays are asked 0.3 times a second each, for another one each time.
  found = loads(1000, 800.0, **size)
  assert found['the learner sends parameters'] == pytest.approx(20 * 0.3 * 4)


def test_a_link_is_full_at_the_first_number_of_actors_that_is_too_many():
  size = scaling.Size(1, 800.0, network=1e8)
  rows = [load.link for load in scaling.loads(RECIPE, size)]
  # 0.1 MB/s of each actor, 100 MB/s in all.
  row = rows.index('a replay server takes in')
  assert scaling.full_at(RECIPE, size, row) in (1000, 1001, 1002)
  assert scaling.full_at(RECIPE, size, rows.index('fresh unrolls')) is None
  held = size._replace(learner_rate=800.0)
  assert scaling.full_at(RECIPE, held, row) is None


def test_what_is_not_measured_is_as_in_the_code():
  assert 3 / supervisor._SHARED_POLL_S == scaling._LOOKS_PER_S
  assert 1 / nodes._HEARTBEAT_PERIOD_S == scaling._TOUCHES_PER_S
  assert schema.Cluster().relay_period_s == scaling.Size(1, 1).relay_period_s


def test_table_marks_what_is_too_much():
  printed = scaling.table(RECIPE, scaling.Size(1, 800.0), [10, 100, 1000])
  lines = [
    [cell.strip() for cell in line.strip('|').split('|')]
    for line in printed.splitlines()
  ]
  assert lines[0] == ['actors', '10', '100', '1,000', 'full at']
  sends = next(
    line for line in lines if line[0].startswith('the learner sends')
  )
  # 10 Gbit/s are 1,250 MB/s.
  assert sends[1:4] == [
    '200 (16 %)',
    '**2,000 (160 %)**',
    '**20,000 (1,600 %)**',
  ]
  assert sends[4] == '63'


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    (['--links=nowhere.json'], '--links=nowhere.json does not hold all links'),
    (['--actors=10,many'], "--actors: 'many' must be a whole number"),
    (['--servers=0'], 'servers'),
    (['--actor_rate=0'], 'actor_rate'),
  ],
)
def test_bad_command_lines_are_refused(arguments, message, tmp_path):
  with pytest.raises(cli.UsageError, match=message):
    scaling.main(['scaling', *arguments])


def test_tables_of_the_page_are_what_its_commands_print(capsys, monkeypatch):
  monkeypatch.chdir(ROOT)
  page = (ROOT / 'docs/scaling.md').read_text(encoding='utf-8')
  commands = re.findall(
    r'```sh\npython -m bmg\.benchmarks\.throughput\.scaling ((?:.|\n)*?)```',
    page,
  )
  assert len(commands) >= 4
  for arguments in commands:
    given = shlex.split(arguments.replace('\\\n', ' '))
    assert scaling.main(['scaling', *given]) == 0
    assert capsys.readouterr().out in page, given
