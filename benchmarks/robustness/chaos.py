"""Kills processes of a real run, again and again, and sees what comes of it.

Usage: python -m bmg.benchmarks.robustness.chaos [--kills=100] [--minutes=30]
         [--seed=1] [--config=configs/atari_local.py] [--config.<field>=...]
         [--noreference] [--out=FOLDER]

Then makes the same run undisturbed. docs/benchmarks.md says how to read the log
and the figures.
"""

import csv
import dataclasses
import math
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from rich.console import Console
from rich.table import Table

from bmg.benchmarks.harness import command, live_run, report
from bmg.benchmarks.robustness import kills, watch
from bmg.configs import schema
from bmg.evaluation import numbers, read
from bmg.launch import cli
from bmg.launch.run import topology

# More or less what two CPU cores do in a minute when nothing disturbs them, so
# that the run goes on for a while after its last kill.
_FRAMES_PER_MINUTE = 200_000
# Part of the run, at its end, whose training returns count.
_LAST_PART = 0.1
_POLL_S = 0.1


def main(argv: Sequence[str]) -> int:
  """Makes the runs, prints and saves what came of them.

  Args:
    argv: the command line, with the program's name first.

  Returns:
    The exit status: 1 where a run did not go as it should.

  Raises:
    UsageError, ConfigError: the command line cannot be obeyed.
    FatalError: a run does not stop.
  """
  flag_values = _define_flags()
  cli.parse_with_config(flag_values, command.with_recipe(argv))
  arguments = _run_arguments(flag_values)
  config = cli.parse_with_config(flags.FlagValues(), ['', *arguments])
  folder = command.new_folder(command.value(flag_values, 'out'))
  command.clean_up_on_sigterm()
  console = Console(soft_wrap=not sys.stdout.isatty())
  saved = command.circumstances(argv, config, console)
  chaos = _Chaos(config, arguments, folder, flag_values, console)
  chaos.disturb()
  command.save(folder / 'chaos.json', {**saved, **chaos.results()})
  if command.value(flag_values, 'reference'):
    chaos.make_reference()
    command.save(folder / 'chaos.json', {**saved, **chaos.results()})
  chaos.print()
  return int(bool(chaos.problems))


class _Chaos:
  """Makes the runs, and knows what came of them."""

  def __init__(
    self,
    config: schema.Config,
    arguments: Sequence[str],
    folder: pathlib.Path,
    flag_values: flags.FlagValues,
    console: Console,
  ):
    self._config = config
    self._arguments = arguments
    self._folder = folder
    self._deadline_s: float = command.value(flag_values, 'deadline_s')
    self._planned = kills.plan_kills(
      command.value(flag_values, 'kills'),
      60 * command.value(flag_values, 'minutes'),
      topology.nodes(schema.to_dict(config)),
      command.value(flag_values, 'seed'),
    )
    self._console = console
    self._log: list[kills.Kill] = []
    self._outcomes: dict[str, kills.Outcome] = {}
    self.problems: list[str] = []

  def disturb(self) -> None:
    """Makes the run whose processes are killed."""
    self._run('disturbed', self._planned)
    self.problems += kills.kill_problems(
      self._log, len(self._planned), self._deadline_s
    )
    write_log(self._folder / 'kills.csv', self._log)

  def make_reference(self) -> None:
    """Makes the run that is left alone."""
    self._run('undisturbed', [])

  def results(self) -> Mapping[str, Any]:
    """Returns all there is by now, in JSON types."""
    return {
      'groups': kills.summarize(self._log),
      'runs': {
        name: dataclasses.asdict(outcome)
        | {'frames_per_second': outcome.frames_per_second}
        for name, outcome in self._outcomes.items()
      },
      'problems': self.problems,
    }

  def print(self) -> None:
    """Prints all results."""
    for table in (groups_table(self._log), runs_table(self._outcomes)):
      self._console.print()
      self._console.print(table)
    self._console.print()
    for problem in self.problems:
      self._console.print(f'Problem: {problem}', markup=False)
    self._console.print(
      f'Kills: {len(self._log)}. Problems: {len(self.problems)}. '
      f'Saved in {self._folder}'
    )

  def _run(self, name: str, planned: Sequence[kills.Planned]) -> None:
    """Makes one run, in a folder of that name, and judges it."""
    self._console.print(f'{name} ...')
    workdir = str(self._folder / name)
    with live_run.start(
      name, self._arguments, self._config, workdir, str(self._folder)
    ) as run:
      watcher = watch.Watch(
        run, self._config, planned, self._deadline_s, self._report
      )
      if planned:
        self._log = watcher.log
      with self._console.status('') as line:
        while watcher.look():
          line.update(watcher.describe())
          time.sleep(_POLL_S)
      outcome = watcher.outcome()
    outcome.orphans = live_run.find_orphans(workdir)
    problems = [
      *kills.outcome_problems(outcome, self._frames_at_end()),
      *_judge_records(outcome, workdir),
    ]
    self._outcomes[name] = outcome
    self.problems += [f'{name}: {problem}' for problem in problems]

  def _report(self, kill: kills.Kill) -> None:
    self._console.print(
      f'{kill.seconds:.0f} s, {numbers.large(kill.num_frames)} frames: '
      f'{kill.node} killed, back after {kill.back_s:.1f} s, new frames after '
      f'{kill.new_frames_s:.1f} s'
    )
    # So far: should the benchmark be interrupted.
    write_log(self._folder / 'kills.csv', self._log)

  def _frames_at_end(self) -> int:
    """The number of frames at which a run is over: that of whole steps."""
    per_step = self._config.meta.updates_per_step
    steps = -(-self._config.total_updates // per_step)
    return steps * per_step * self._config.frames_per_update


def _judge_records(outcome: kills.Outcome, workdir: str) -> list[str]:
  """Reads a run's returns into `outcome`, and says what its records lack."""
  try:
    learner = read.read_records(workdir, 'learner')
    evaluation = read.read_records(workdir, 'evaluation')
  except read.RecordsError as error:
    return [str(error)]
  frames = learner['num_frames']
  last = learner[frames > (1 - _LAST_PART) * frames.iloc[-1]]
  outcome.training_return = _known(last['episode_return'].mean())
  outcome.evaluation_return = _known(evaluation['mean_return'].iloc[-1])
  return [
    *kills.record_problems('learner.csv', frames.tolist()),
    *kills.record_problems('evaluation.csv', evaluation['num_frames'].tolist()),
  ]


def _known(value: float) -> float | None:
  """JSON has no NaN."""
  return None if math.isnan(value) else float(value)


def write_log(path: pathlib.Path, log: Sequence[kills.Kill]) -> None:
  """Writes one line for each kill."""
  columns = [field.name for field in dataclasses.fields(kills.Kill)]
  with path.open('w', encoding='utf-8', newline='') as file:
    writer = csv.DictWriter(file, columns, lineterminator='\n')
    writer.writeheader()
    for kill in log:
      values = dataclasses.asdict(kill)
      writer.writerow(
        {
          name: round(value, 2) if isinstance(value, float) else value
          for name, value in values.items()
        }
      )


def groups_table(log: Sequence[kills.Kill]) -> Table:
  """How the run got over kills, by group."""
  table = report.make_table(
    'killed',
    'times',
    'back, s',
    'slowest',
    'new frames, s',
    'slowest',
    'frames lost',
    'most',
  )
  for group, summary in kills.summarize(log).items():
    table.add_row(
      group,
      str(summary['kills']),
      *_median_and_max(summary['back_s'], '{:.1f}'.format),
      *_median_and_max(summary['new_frames_s'], '{:.1f}'.format),
      *_median_and_max(summary['lost_frames'], numbers.large),
    )
  return table


def _median_and_max(
  values: Mapping[str, float] | None, form: Callable[[float], str]
) -> list[str]:
  if values is None:
    return ['-', '-']
  return [form(values['median']), form(values['max'])]


def runs_table(outcomes: Mapping[str, kills.Outcome]) -> Table:
  """The runs, side by side."""
  table = report.make_table('run', *outcomes)
  rows: Mapping[str, Callable[[kills.Outcome], str]] = {
    'exit status': lambda run: str(run.exit_status),
    'frames': lambda run: f'{run.num_frames:,}',
    'seconds': lambda run: f'{run.seconds:,.0f}',
    'frames/s': lambda run: f'{run.frames_per_second:,.0f}',
    'longest without new frames, s': lambda run: f'{run.longest_silence_s:.1f}',
    'hangs': lambda run: str(len(run.hangs)),
    'left behind': lambda run: str(len(run.orphans)),
    'training return': lambda run: _score(run.training_return),
    'evaluation return': lambda run: _score(run.evaluation_return),
  }
  for name, form in rows.items():
    table.add_row(name, *map(form, outcomes.values()))
  return table


def _score(value: float | None) -> str:
  return '-' if value is None else f'{value:.2f}'


def _define_flags() -> flags.FlagValues:
  flag_values = flags.FlagValues()
  flags.DEFINE_integer(
    'kills', 100, 'How many processes to kill.', 1, flag_values=flag_values
  )
  flags.DEFINE_float(
    'minutes',
    30.0,
    'From the first row of the learner to the last kill.',
    0.01,
    flag_values=flag_values,
  )
  flags.DEFINE_integer(
    'seed', 1, 'Of victims and moments.', flag_values=flag_values
  )
  flags.DEFINE_float(
    'deadline_s',
    120.0,
    'A process that is away for longer, or a longer time with neither new '
    'frames nor kills, is a problem.',
    1.0,
    flag_values=flag_values,
  )
  flags.DEFINE_boolean(
    'reference',
    True,
    'Make the same run undisturbed, too.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'out',
    'benchmarks/results/chaos',
    'A new folder for the results and the runs.',
    flag_values=flag_values,
  )
  return flag_values


def _run_arguments(flag_values: flags.FlagValues) -> list[str]:
  """Returns the flags of both runs for `bmg train`."""
  num_kills = command.value(flag_values, 'kills')
  frames = _FRAMES_PER_MINUTE * command.value(flag_values, 'minutes')
  return command.run_arguments(
    flag_values,
    {
      'num_frames': int(frames),
      # The limit is meant for nodes that fail by themselves.
      'launch.max_restarts': num_kills,
      # A learner that lives for a minute must save before it dies, or the run
      # would never come to its end.
      'learner.checkpoint_period_s': 10.0,
      'learner.log_period_s': 1.0,
    },
  )


if __name__ == '__main__':
  cli.run_main(main)
