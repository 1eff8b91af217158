#!/bin/sh
# Builds @NAME@.wasm. Needs Node.js 20 or newer with npm; componentize-js is installed here when it is not there.
set -eu
cd "$(dirname "$0")"
[ -d node_modules ] || npm install --no-audit --no-fund
node build.mjs
