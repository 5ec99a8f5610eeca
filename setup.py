"""Installs BMG: distributed actor-learner RL with bootstrapped meta-gradients.

The exact versions that are known to work together are in `requirements.lock`;
the ranges here say what each room of the house needs and why it is held back.
"""

import setuptools

# Launchpad 0.5.2 and Reverb 0.7 were built against TensorFlow 2.8, which sets
# the ceiling for Python, protobuf, NumPy and setuptools (see docs/stack.md).
_RUNTIME = [
  'absl-py',
  'ale-py==0.12.1',
  'chex==0.1.90',
  'dm-haiku==0.0.17',
  'dm-launchpad==0.5.2',
  'dm-reverb==0.7.2',
  'gymnasium==1.4.0',
  'imageio>=2.34',
  'imageio-ffmpeg>=0.5',
  'jax==0.6.2',
  'jaxlib==0.6.2',
  'matplotlib>=3.10',
  'ml-collections==1.1.0',
  'numpy>=1.26,<2',
  'optax==0.2.8',
  'orbax-checkpoint==0.11.39',
  'pandas>=2.3,<3',
  'pillow',
  'protobuf>=3.19,<3.20',
  'psutil',
  'pyyaml>=6',
  'rich',
  'rliable==1.0.8',
  'scikit-learn>=1.5,<1.8',
  'scipy',
  'setuptools<80',
  'tensorboardX>=2.6',
  'tensorflow-cpu==2.8.4',
]

_EXTRAS = {
  'cuda': ['jax[cuda12]==0.6.2'],
  'tpu': ['jax[tpu]==0.6.2'],
  'dev': [
    # Schemas of Kubernetes and of JobSet, for the tests of manifests.
    'kubeflow-trainer-api==2.3.0',
    'kubernetes-validate==1.37.0',
    'mypy',
    'pandas-stubs',
    'pytest',
    'pytest-timeout',
    'pytest-xdist',
    'rlax',
    'ruff',
    'types-protobuf',
    'types-psutil',
    'types-pyyaml',
  ],
}

# Folders of the checkout; installed, they are packages of `bmg`.
_ROOMS = (
  'actors',
  'agents',
  'configs',
  'engine',
  'evaluation',
  'experiments',
  'launch',
  'learner',
  'replay',
)
_PACKAGES = setuptools.find_packages(
  include=[f'{room}{suffix}' for room in _ROOMS for suffix in ('', '.*')]
)

setuptools.setup(
  name='bmg',
  version='0.1.0',
  license='Apache-2.0',
  description='Distributed RL meta-learned with bootstrapped meta-gradients.',
  python_requires='>=3.10,<3.11',
  packages=['bmg', *(f'bmg.{package}' for package in _PACKAGES)],
  package_dir={'bmg': 'bmg', **{f'bmg.{room}': room for room in _ROOMS}},
  package_data={
    'bmg.evaluation': ['*.csv'],
    'bmg.evaluation.report': ['*.css'],
  },
  install_requires=_RUNTIME,
  extras_require=_EXTRAS,
  entry_points={
    'console_scripts': ['bmg = bmg.__main__:main'],
  },
)
