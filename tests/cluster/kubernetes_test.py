"""A real run from its manifests, in pods with networks of their own."""

import dataclasses
import json
import time

import pandas as pd
import pytest
from absl import flags

from bmg.launch import cli
from bmg.launch.kubernetes import dns, manifests
from tests.cluster import toy_kubelet
from tests.launch import system_test

pytestmark = [
  pytest.mark.system,
  pytest.mark.timeout(600),
  pytest.mark.skipif(bool(toy_kubelet.problem()), reason=toy_kubelet.problem()),
]


def _config():
  config = cli.parse_with_config(
    flags.FlagValues(),
    [
      '',
      *system_test.SMALL_RUN,
      '--config.actors.num_actors=2',
      '--config.num_frames=120000',
    ],
  )
  return dataclasses.replace(
    config,
    kubernetes=dataclasses.replace(
      config.kubernetes,
      image='registry.example/bmg:1',
      storage_claim='runs',
      mount='/mnt/runs',
    ),
  )


def _rows(path):
  try:
    lines = path.read_text().splitlines()
  except FileNotFoundError:
    return []
  return [json.loads(line)['num_frames'] for line in lines]


def test_the_manifests_make_a_run_that_survives_its_pods(tmp_path):
  name = dns.run_name('/runs/pong')
  documents = manifests.make(_config(), name, 'token')
  rows = tmp_path / 'claims' / 'runs' / name / 'learner.jsonl'
  with toy_kubelet.ToyKubelet(documents, tmp_path) as kubelet:

    def step_until(condition, timeout_s=240):
      until = time.monotonic() + timeout_s
      while not condition():
        assert time.monotonic() < until, {
          pod.host: kubelet.output(pod)[-1000:] for pod in kubelet.pods
        }
        kubelet.step()
        time.sleep(0.2)

    step_until(lambda: _rows(rows))
    for group in ('actor', 'learner', 'replay'):
      before = (_rows(rows) or [0])[-1]
      kubelet.kill(kubelet.pod(group))
      step_until(
        lambda group=group, before=before: (
          kubelet.pod(group).starts == 2 and (_rows(rows) or [0])[-1] > before
        )
      )
    step_until(kubelet.step)
    assert kubelet.pod('learner').completed
  frames = pd.read_csv(rows.with_suffix('.csv'))['num_frames']
  assert frames.iloc[-1] >= 120_000
  assert frames.is_monotonic_increasing
  assert frames.is_unique
