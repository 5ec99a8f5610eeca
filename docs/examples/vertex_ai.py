"""Runs a program on Google's Vertex AI, by Launchpad's own launcher.

  python docs/examples/vertex_ai.py gs-bucket pong

Needs a project on Google Cloud, and an `xmanager` as old as Launchpad, which
knows `xm_local.Caip`. There are no supervisors: Vertex AI alone starts workers
again. Buckets are mounted at /gcs in every worker.
"""

import pathlib
import sys

import launchpad as lp
from launchpad.nodes.python import xm_docker
from xmanager import xm

from bmg.configs import atari_paper, schema
from bmg.launch.program import program as program_lib
from bmg.launch.run import topology

_ROOT = pathlib.Path(__file__).resolve().parents[2]


def main(bucket: str, name: str) -> None:
  """Packs the source into containers and starts them."""
  config = schema.from_config_dict(atari_paper.get_config())
  program = program_lib.make_program(config, f'/gcs/{bucket}/{name}')

  def resources(group: str) -> xm_docker.DockerConfig:
    needed = getattr(config.cluster, group)
    requirements = {'cpu': needed.cpus, 'ram': needed.memory_gb * xm.GiB}
    if needed.accelerators:
      requirements['a100'] = needed.accelerators
    return xm_docker.DockerConfig(
      code_directory=str(_ROOT),
      docker_requirements=str(_ROOT / 'requirements.lock'),
      hw_requirements=xm.JobRequirements(**requirements),
    )

  lp.launch(
    program,
    launch_type=lp.LaunchType.VERTEX_AI,
    xm_resources={group: resources(group) for group in topology.TASK_GROUPS},
  )


if __name__ == '__main__':
  main(*sys.argv[1:])
