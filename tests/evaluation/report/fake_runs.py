"""Makes small folders of runs."""

import json

import pandas as pd


def make(
  folder,
  game='pong',
  seed=1,
  mode='bmg',
  num_frames=1000,
  returns=((500, 0.0), (960, 1.0), (1000, 3.0)),
  evaluations=((1000, 8.0),),
  meta=True,
  travels=None,
  **config,
):
  """Makes a run; returns its folder.

  Args:
    folder: where to make it.
    game: a ROM name.
    seed: of the run.
    mode: of meta-learning.
    num_frames: that it was asked for.
    returns: (frames, training return) of each row.
    evaluations: (frames, mean return) of each row.
    meta: whether meta-parameters were recorded.
    travels: {name: (travel, share of the nominal step)}, each the same in all
      rows or one per row; after 2,000 updates.
    **config: more of its configuration.
  """
  folder.mkdir(parents=True)
  config = {
    'seed': seed,
    'num_frames': num_frames,
    'env': {'game': game},
    'meta': {'mode': mode},
    **config,
  }
  (folder / 'config.json').write_text(json.dumps(config))
  start = {
    'python': '3.10.13',
    'packages': {'jax': '0.6.2'},
    'git': {'revision': 'abcdef0123456789', 'dirty': False},
    'platform': 'Linux <5>',
  }
  (folder / 'provenance.json').write_text(json.dumps([start]))
  rows = pd.DataFrame(returns, columns=['num_frames', 'episode_return'])
  if meta:
    rows['meta/discount'] = 0.991
    rows['meta/discount_aux1'] = 0.95
    rows['meta/grad_norm'] = 0.5
  for name, (travel, share) in (travels or {}).items():
    rows['num_updates'] = 2000
    rows[f'travel/{name}'] = travel
    rows[f'step/{name}'] = share
  rows.to_csv(folder / 'learner.csv', index=False)
  if evaluations:
    rows = pd.DataFrame(evaluations, columns=['num_frames', 'mean_return'])
    rows.to_csv(folder / 'evaluation.csv', index=False)
  return str(folder)


def make_sweep(folder, variants):
  """Makes the folder of a sweep of these variants, of Pong with one seed.

  Returns:
    The folders of its runs, by variant.
  """
  runs = {v: make(folder / v / 'pong-1') for v in variants}
  folders = {f'{variant}/pong-1': variant for variant in variants}
  (folder / 'sweep.json').write_text(json.dumps({'folders': folders}))
  return runs
