#!/bin/sh
# Builds @NAME@.wasm. Needs Python 3.10 or newer with pip; componentize-py is installed here when it is not there.
set -eu
cd "$(dirname "$0")"
if [ ! -x .venv/bin/componentize-py ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet componentize-py==0.25.1
fi
# --stub-wasi: a metric may not import WASI; what would need it (files, clocks, print) traps.
.venv/bin/componentize-py --wit-path metric.wit --world metric componentize --stub-wasi @NAME@ -o @NAME@.wasm
