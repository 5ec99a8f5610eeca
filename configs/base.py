"""The starting point of every recipe: all fields, with the paper's defaults."""

import dataclasses

import ml_collections
from ml_collections import config_dict

from bmg.configs import schema


def get_config() -> ml_collections.ConfigDict:
  """Returns every field of `schema.Config` as an overridable ConfigDict.

  Environment fields that a protocol sets are empty placeholders, so that
  `config.env.protocol = ...` alone switches all of them and each can still be
  overridden by itself.
  """
  config = ml_collections.ConfigDict(dataclasses.asdict(schema.Config()))
  for name, value in schema.PROTOCOLS['paper'].items():
    config.env[name] = config_dict.placeholder(type(value))
  return config
