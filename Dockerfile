# docker build -t bmg .                                 for CPUs
# docker build -t bmg --build-arg ACCELERATOR=cuda .    for NVIDIA GPUs (or tpu)
# docker run --init --rm -v "$PWD/runs:/runs" bmg --config=configs/atari_local.py

# This image's Python has the shared libpython that Launchpad links.
FROM python:3.10-slim-bookworm AS build
ARG ACCELERATOR=cpu
WORKDIR /bmg
RUN python -m venv /opt/venv
# An ACCELERATOR that there is none of ends here.
COPY requirements-${ACCELERATOR}.lock requirements.lock
# The lock file is complete, and only wheels need no compiler.
RUN /opt/venv/bin/python -m pip install --no-cache-dir --no-compile --no-deps \
      --only-binary :all: --require-hashes -r requirements.lock
# Bytecode saves each process 10 s at its start. An image never changes, so it
# need not be compared with its source. What does not compile is a template.
RUN /opt/venv/bin/python -m compileall -qq -j 0 \
      --invalidation-mode unchecked-hash /opt/venv/lib || true
COPY . .
RUN /opt/venv/bin/python -m compileall -q \
      --invalidation-mode unchecked-hash /bmg

FROM python:3.10-slim-bookworm
RUN useradd --create-home --uid 1000 bmg && install -d -o bmg -g bmg /runs
COPY --from=build /opt/venv /opt/venv
COPY --from=build /bmg /bmg
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1
WORKDIR /bmg
USER 1000:1000
VOLUME /runs
# No HEALTHCHECK: the supervisor watches every process of a run, restarts those
# that hang or die, and ends with an error what cannot go on.
ENTRYPOINT ["python", "-m", "bmg", "train"]
CMD ["--config=configs/atari_local.py", "--workdir=/runs/pong"]
