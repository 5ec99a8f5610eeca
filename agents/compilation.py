"""What XLA is told about functions that hold the network."""


def compiler_options(platform: str) -> dict[str, bool | str] | None:
  """Returns options for `jax.jit`: CPUs then respect optimization barriers."""
  if platform != 'cpu':
    return None
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'}
