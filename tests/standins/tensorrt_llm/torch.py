"""Stands in for as much of PyTorch as the driver of TensorRT-LLM asks: the GPUs that there are."""

import os


class OutOfMemoryError(RuntimeError):
    pass


class cuda:
    @staticmethod
    def is_available():
        return os.environ.get("LLMCB_STAND_IN") != "no GPU"

    @staticmethod
    def device_count():
        return 1

    @staticmethod
    def get_device_name(device):
        return f"NVIDIA Stand-in {device}"

    @staticmethod
    def mem_get_info(device):
        return 3 << 30, 8 << 30
