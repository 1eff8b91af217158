#!/bin/sh
# Builds @NAME@.wasm. Needs Rust with the target wasm32-unknown-unknown: `rustup target add wasm32-unknown-unknown`.
set -eu
cd "$(dirname "$0")"
cargo build --release --target wasm32-unknown-unknown --target-dir target
"${LLMCB_HOST:-llmcb-host}" metrics component target/wasm32-unknown-unknown/release/@NAME@.wasm --output @NAME@.wasm
