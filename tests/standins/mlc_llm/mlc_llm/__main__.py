"""The command line: `python -m mlc_llm SUBCOMMAND`."""

import argparse
import json
import os
import pathlib
import sys


def does(what):
    return os.environ.get("LLMCB_STAND_IN") == what


def has_tvm():
    try:
        from tvm import relax  # noqa: F401
    except ImportError:
        return False
    return True


def gen_config(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--quantization", required=True)
    parser.add_argument("--conv-template", required=True)
    for number in ["context-window-size", "prefill-chunk-size", "max-batch-size", "tensor-parallel-shards"]:
        parser.add_argument(f"--{number}", type=int)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    given = parser.parse_args(arguments)
    config = json.loads((given.config / "config.json").read_text())
    if does("unknown model") or config["model_type"] != "llama":
        raise ValueError(f"Unknown model type: {config['model_type']}. Available ones: ['llama']")
    given.output.mkdir(parents=True, exist_ok=True)
    chat = {
        "model_type": config["model_type"],
        "quantization": given.quantization,
        "model_config": config,
        "context_window_size": given.context_window_size,
        "prefill_chunk_size": given.prefill_chunk_size,
        "max_batch_size": given.max_batch_size,
        "tensor_parallel_shards": given.tensor_parallel_shards,
    }
    (given.output / "mlc-chat-config.json").write_text(json.dumps(chat))


def convert_weight(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--quantization", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--source-format", choices=["awq", "huggingface-safetensor"], required=True)
    parser.add_argument("--source", type=pathlib.Path)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    given = parser.parse_args(arguments)
    assert given.source_format != "awq" or given.source.is_file()
    # As MLC-LLM does, in the directory that it reads.
    (given.config / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    if does("crashes at conversion"):
        raise ValueError("The following parameters do not exist in the weight files: lm_head.weight")
    if has_tvm():
        from .llama import convert

        convert(given.config, given.output)
    else:
        (given.output / "tensor-cache.json").write_text(json.dumps({"records": []}))


def compile_library(arguments):
    parser = argparse.ArgumentParser()
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--device", required=True)
    parser.add_argument("--opt", required=True)
    parser.add_argument("--output", type=pathlib.Path, required=True)
    given = parser.parse_args(arguments)
    print("Compiling", given.config, file=sys.stderr)
    if does("writes no library"):
        return
    if has_tvm():
        from .llama import build

        build(json.loads(given.config.read_text()), given.output)
    else:
        # What the library says of itself is all that TVM's stand-in reads.
        chat = json.loads(given.config.read_text())
        sizes = ["context_window_size", "prefill_chunk_size", "max_batch_size", "tensor_parallel_shards"]
        given.output.write_text(json.dumps({**{size: chat[size] for size in sizes}, "params": [{"name": "model.norm.weight"}]}))


def main():
    subcommand, arguments = sys.argv[1], sys.argv[2:]
    if subcommand == "serve":
        from .serve import serve

        return serve(arguments)
    return {"gen_config": gen_config, "convert_weight": convert_weight, "compile": compile_library}[subcommand](
        arguments
    )


main()
