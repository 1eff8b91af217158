"""The configuration of the cache, as the driver asks for it."""

from dataclasses import dataclass


@dataclass
class KvCacheConfig:
    enable_block_reuse: bool = True
    free_gpu_memory_fraction: float = 0.9
    dtype: str = "auto"
