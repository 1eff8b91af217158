#!/bin/sh
# Builds @NAME@.wasm. The compiler is zig's clang, which brings a C library: `pip install ziglang`. Debian's does as well, with packages clang, lld and
# wasi-libc: CC="clang --target=wasm32-wasi -nostartfiles -Wl,--no-entry" sh build.sh
set -eu
cd "$(dirname "$0")"
CC="${CC:-python3 -m ziglang cc -target wasm32-wasi -mexec-model=reactor}"
$CC -O2 -s -o @NAME@.core.wasm @NAME@.c bindings/metric.c bindings/metric_component_type.o
"${LLMCB_HOST:-llmcb-host}" metrics component @NAME@.core.wasm --output @NAME@.wasm
