"""What XLA is told about functions that hold the network."""


def compiler_options(platform: str) -> dict[str, bool | str] | None:
  """Returns options for `jax.jit`, or None.

  XLA for CPUs drops optimization barriers early. The pass that does so is left
  out: a barrier here keeps pixels bytes while they are moved (`networks`), and
  another has what is to be computed again not be taken for known.

  Args:
    platform: 'cpu', 'gpu' or 'tpu'.
  """
  if platform != 'cpu':
    return None
  return {'xla_disable_hlo_passes': 'cse_barrier_expander'}
