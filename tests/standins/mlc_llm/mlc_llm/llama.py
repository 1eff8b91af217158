"""A model of LLaMA's shape in TVM: its functions under the names that MLC-LLM gives them, compiled by TVM, and its weights as TVM loads them."""

import json
import struct

import numpy as np
import tvm
from tvm import relax
from tvm.contrib import tvmjs
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache, RopeMode, TIRPagedKVCache


class Attention(nn.Module):
    def __init__(self, c):
        self.heads, self.kv_heads, self.width = c["heads"], c["kv_heads"], c["head_dim"]
        self.q_proj = nn.Linear(c["hidden"], self.heads * self.width, bias=False)
        self.k_proj = nn.Linear(c["hidden"], self.kv_heads * self.width, bias=False)
        self.v_proj = nn.Linear(c["hidden"], self.kv_heads * self.width, bias=False)
        self.o_proj = nn.Linear(self.heads * self.width, c["hidden"], bias=False)

    def forward(self, x, cache, layer):
        batch, length, _ = x.shape
        each = [
            op.reshape(linear(x), (batch, length, heads, self.width))
            for linear, heads in [(self.q_proj, self.heads), (self.k_proj, self.kv_heads), (self.v_proj, self.kv_heads)]
        ]
        out = cache.attention_with_fused_qkv(layer, op.concat(each, dim=2), self.heads, sm_scale=self.width**-0.5)
        return self.o_proj(op.reshape(out, (batch, length, self.heads * self.width)))


class FeedForward(nn.Module):
    def __init__(self, c):
        self.gate_proj = nn.Linear(c["hidden"], c["inner"], bias=False)
        self.up_proj = nn.Linear(c["hidden"], c["inner"], bias=False)
        self.down_proj = nn.Linear(c["inner"], c["hidden"], bias=False)

    def forward(self, x):
        return self.down_proj(op.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, c):
        self.self_attn = Attention(c)
        self.mlp = FeedForward(c)
        self.input_layernorm = nn.RMSNorm(c["hidden"], -1, c["eps"], bias=False)
        self.post_attention_layernorm = nn.RMSNorm(c["hidden"], -1, c["eps"], bias=False)

    def forward(self, x, cache, layer):
        x = x + self.self_attn(self.input_layernorm(x), cache, layer)
        return x + self.mlp(self.post_attention_layernorm(x))


class Body(nn.Module):
    def __init__(self, c):
        self.embed_tokens = nn.Embedding(c["vocabulary"], c["hidden"])
        self.layers = nn.ModuleList([Layer(c) for _ in range(c["layers"])])
        self.norm = nn.RMSNorm(c["hidden"], -1, c["eps"], bias=False)

    def forward(self, x, cache):
        for index, layer in enumerate(self.layers):
            x = layer(x, cache, index)
        return self.norm(x)


class Llama(nn.Module):
    def __init__(self, c):
        self.c = c
        self.model = Body(c)
        if not c["tied"]:
            self.lm_head = nn.Linear(c["hidden"], c["vocabulary"], bias=False)

    def logits(self, x):
        if self.c["tied"]:
            return op.matmul(x, op.permute_dims(self.model.embed_tokens.weight))
        return self.lm_head(x)

    def embed(self, input_ids):
        return self.model.embed_tokens(input_ids)

    def prefill(self, input_embed, paged_kv_cache):
        x = self.model(input_embed, paged_kv_cache)
        shape = (1, 1, self.c["hidden"])
        last = op.tensor_expr_op(
            lambda t: tvm.te.compute(shape, lambda i, _, k: t[i, t.shape[1] - 1, k], name="last"), "last", [x]
        )
        return self.logits(last), paged_kv_cache

    def decode(self, input_embed, paged_kv_cache):
        return self.logits(self.model(input_embed, paged_kv_cache)), paged_kv_cache

    def batch_prefill(self, input_embed, logit_positions, paged_kv_cache):
        x = self.model(input_embed, paged_kv_cache)
        return self.logits(op.take(x, logit_positions, axis=1)), paged_kv_cache

    def create_tir_paged_kv_cache(self, max_batch_size, max_total_seq_len, prefill_chunk_size, page_size, support_sliding_window):
        c = self.c
        return TIRPagedKVCache(
            "mha", max_batch_size, max_total_seq_len, prefill_chunk_size, page_size, support_sliding_window,
            layer_partition=relax.ShapeExpr([0, c["layers"]]), num_hidden_layers=c["layers"], num_attention_heads=c["heads"],
            num_key_value_heads=c["kv_heads"], qk_head_dim=c["head_dim"], v_head_dim=c["head_dim"], mla_original_qk_head_dim=0,
            mla_original_v_head_dim=0, rope_mode=RopeMode.NORMAL, rope_scale=1, rope_theta=c["theta"], rope_scaling={},
            rope_ext_factors=relax.prim_value(0), rotary_dim=c["head_dim"], enable_disaggregation=False, dtype="float32",
            target=tvm.target.Target.current(),
        )


def shape(config):
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    return {
        "hidden": hidden,
        "inner": config["intermediate_size"],
        "layers": config["num_hidden_layers"],
        "heads": heads,
        "kv_heads": config.get("num_key_value_heads", heads),
        "head_dim": config.get("head_dim") or hidden // heads,
        "eps": config["rms_norm_eps"],
        "theta": int(config.get("rope_theta", 10000)),
        "vocabulary": config["vocab_size"],
        "tied": config.get("tie_word_embeddings", False),
    }


def specification(c):
    cache = nn.spec.Object(object_type=PagedKVCache)

    def of(mode, **arguments):
        return {**arguments, "$": {"param_mode": mode, "effect_mode": "none"}}

    def reads(batch, length, **further):
        embedded = nn.spec.Tensor([batch, length, c["hidden"]], "float32")
        return of("packed", input_embed=embedded, **further, paged_kv_cache=cache)

    sizes = ["max_batch_size", "max_total_seq_len", "prefill_chunk_size", "page_size", "support_sliding_window"]
    return {
        "embed": of("packed", input_ids=nn.spec.Tensor(["seq_len"], "int32")),
        "prefill": reads(1, "seq_len"),
        "decode": reads(1, 1),
        "batch_prefill": reads(1, "seq_len", logit_positions=nn.spec.Tensor(["batch_size"], "int32")),
        "batch_decode": reads("batch_size", 1),
        "batch_verify": reads(1, "seq_len"),
        "create_tir_paged_kv_cache": of("none", **{size: int for size in sizes}),
    }


# Logits after every token; the shapes of their inputs are all that sets these two apart.
Llama.batch_decode = Llama.decode
Llama.batch_verify = Llama.decode


def build(chat, output):
    c = shape(chat["model_config"])
    target = tvm.target.Target("llvm")
    with target:
        module, parameters = Llama(c).export_tvm(spec=specification(c))
        metadata = {
            "model_type": "llama",
            "quantization": chat["quantization"],
            "context_window_size": chat["context_window_size"],
            "prefill_chunk_size": chat["prefill_chunk_size"],
            "max_batch_size": chat["max_batch_size"],
            "sliding_window_size": -1,
            "kv_state_kind": "kv_cache",
            "params": [{"name": name} for name, _ in parameters],
        }
        builder = relax.BlockBuilder(module)
        with builder.function("_metadata", params=[]):
            builder.emit_func_output(relax.StringImm(json.dumps(metadata)))
        relax.build(builder.finalize(), target=target).export_library(str(output))


def tensors(file):
    """The tensors of a safetensors file, in single precision."""
    data = file.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + at for at in entry["data_offsets"])
        part = data[begin:end]
        if entry["dtype"] == "BF16":
            numbers = (np.frombuffer(part, "<u2").astype("<u4") << 16).view("<f4")
        else:
            numbers = np.frombuffer(part, {"F32": "<f4", "F16": "<f2"}[entry["dtype"]]).astype("float32")
        yield name, numbers.reshape(entry["shape"])


def convert(model, output):
    c = shape(json.loads((model / "config.json").read_text()))
    found = dict(pair for file in sorted(model.glob("*.safetensors")) for pair in tensors(file))
    names = [name for name, _ in Llama(c).named_parameters()]
    tvmjs.dump_tensor_cache({name: found[name] for name in names}, str(output), encode_format="raw", show_progress=False)
