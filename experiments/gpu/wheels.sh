#!/usr/bin/env bash
# Wheels for a GPU machine without a network that has torch for CUDA, Python 3.12, lightning, torchmetrics, scikit-learn,
# einops, torchdiffeq, pandas and pytest:   experiments/gpu/wheels.sh DIR
# There:   pip install --no-index --no-deps --target SITE DIR/*.whl && export PYTHONPATH=SITE:.
set -euo pipefail
python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 -d "${1:-wheels}" \
  pyro-ppl==1.9.2 pyro-api==0.1.2 \
  jsonargparse==4.53.0 typeshed_client==2.14.0 docstring_parser==0.18.0 \
  diffusers==0.42.1 importlib_metadata==10.2.0 lazy-importer==0.1.0 \
  torchebm==0.8.9 blackjax==1.7.1
