"""Reads a checkpoint as TensorRT-LLM's PyTorch backend does: which quantisation it finds, and which tensors of which shapes that asks for."""

import json
import struct
from pathlib import Path


class Checkpoint:
    def __init__(self, folder):
        folder = Path(folder)
        self.config = json.loads((folder / "config.json").read_text())
        file = folder / "hf_quant_config.json"
        self.modelopt = json.loads(file.read_text())["quantization"] if file.is_file() else None
        self.tensors = {}
        for weights in sorted(folder.glob("*.safetensors")):
            with weights.open("rb") as opened:
                (length,) = struct.unpack("<Q", opened.read(8))
                header = json.loads(opened.read(length))
            self.tensors.update((name, part) for name, part in header.items() if name != "__metadata__")

    def summary(self):
        algorithm = self.modelopt["quant_algo"] if self.modelopt else "none"
        return f"{self.config['torch_dtype']} {algorithm}"

    def check(self, dtype):
        assert self.config["torch_dtype"] in ("float16", "bfloat16") and dtype == self.config["torch_dtype"]
        if self.modelopt is None:
            if given := self.config.get("quantization_config"):
                raise NotImplementedError(f"Unsupported quantization_config: {given}.")
            self.each_linear(self.is_number)
            return
        assert self.modelopt["quant_algo"] == "W4A16_AWQ" and self.modelopt["has_zero_point"] is False
        if self.modelopt["group_size"] not in (64, 128):
            raise RuntimeError("Only group size 64 and 128 supported for fine grained kernels.")
        assert self.modelopt["exclude_modules"] == ["lm_head"]
        self.each_linear(self.is_packed)

    def each_linear(self, check):
        hidden, width = self.config["hidden_size"], self.config["intermediate_size"]
        head = hidden // self.config["num_attention_heads"]
        keys = head * self.config["num_key_value_heads"]
        for block in range(self.config["num_hidden_layers"]):
            for name, outputs, inputs in [
                ("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", keys, hidden), ("self_attn.v_proj", keys, hidden),
                ("self_attn.o_proj", hidden, hidden), ("mlp.gate_proj", width, hidden), ("mlp.up_proj", width, hidden),
                ("mlp.down_proj", hidden, width),
            ]:
                check(f"model.layers.{block}.{name}", outputs, inputs)

    def of(self, name, dtypes, shape):
        tensor = self.tensors[name]
        assert tensor["dtype"] in dtypes and tensor["shape"] == shape, (name, tensor)

    def is_number(self, name, outputs, inputs):
        self.of(f"{name}.weight", ("F32", "F16", "BF16"), [outputs, inputs])

    def is_packed(self, name, outputs, inputs):
        self.of(f"{name}.weight", ("U8",), [outputs // 2, inputs])
        self.of(f"{name}.weight_scale", ("F16", "BF16"), [outputs, inputs // self.modelopt["group_size"]])
        # Wanted of those that are not fused with others.
        self.of(f"{name}.pre_quant_scale", ("F16", "BF16"), [inputs])
