import json

import pytest

from bmg import errors
from bmg.benchmarks.throughput import inference
from bmg.launch import cli

SMALL = (
  '--config=configs/atari_local.py',
  '--config.actors.envs_per_actor=2',
)


def test_both_kinds_are_measured_for_each_number(tmp_path, capsys):
  output = tmp_path / 'inference.json'
  options = ('--actors=1,3', '--seconds=0.2', '--repeats=2')
  arguments = [*SMALL, *options, f'--out={output}']
  assert inference.main(['inference', *arguments]) == 0
  saved = json.loads(output.read_text())
  assert saved['device'] == 'cpu'
  assert list(saved['steps_per_second']) == ['1', '3']
  for rates in saved['steps_per_second'].values():
    assert len(rates['policy']) == len(rates['server']) == 2
    assert min(rates['policy'] + rates['server']) > 0
  assert 'server / policy' in capsys.readouterr().out


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
  monkeypatch.setattr(inference, '_FIRST_ANSWER_S', 0.1)
  with pytest.raises(Exception, match='has not answered within 0 s'):
    inference._Answers(num_threads=1).rate(seconds=0.1)


def test_a_server_that_fails_is_reported_at_once():
  class Server:
    def act(self, frames, starts):
      raise RuntimeError('out of memory')

  with inference._asking(Server(), None, None, num_threads=2) as answers:
    answers.active.set()
    with pytest.raises(errors.FatalError, match='no answer: out of memory'):
      answers.rate(seconds=0.1)


def test_numbers_of_actors_are_checked():
  with pytest.raises(cli.UsageError, match="'none' must be a whole number"):
    inference.main(['inference', *SMALL, '--actors=none'])
