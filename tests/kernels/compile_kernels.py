"""Compiles every kernel for GPUs that need not be here, with the tiles of a GPU, and prints one line for each.

Each op is called with tensors on the CPU; what it would launch is caught and compiled instead. Run by test_compile.py,
in a process of its own, because Triton's interpreter must be off. With --all, other types and head widths too: minutes.
"""

import sys

import torch
import triton
from tats.kernels.attention.fused import attention_fused
from tats.kernels.decode_attention.fused import decode_attention_fused
from tats.kernels.draw_code.fused import draw_code_fused
from tats.kernels.nearest_code.fused import nearest_code_fused
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
TYPES |= {torch.int8: "i8", torch.int32: "i32", torch.int64: "i64"}
SHARED = 163 * 1024  # bytes of shared memory that a program may have on sm_80
launched = []


def kind(value):
    if isinstance(value, torch.Tensor):
        return "*" + TYPES[value.dtype]
    return "fp32" if isinstance(value, float) else "i32"


def caught(kernel, *args, grid, warmup, **options):
    assert all(1 <= n < 2**31 for n in grid)
    launched.append((kernel, args, options))


def compiled(kernel, args, options, capability):
    names = kernel.arg_names
    constants = {name: options[name] for name in names if name in options}
    values = dict(zip(names, args, strict=False))
    signature = {name: "constexpr" if name in constants else kind(values[name]) for name in names}
    source = ASTSource(kernel, signature, constants)
    launch = {name: value for name, value in options.items() if name.startswith("num_")}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=launch)


def attention(dtype, width):
    q = torch.zeros(1, 2, 64, width, dtype=dtype, requires_grad=True)
    attention_fused(q, q, q, 3, 2).sum().backward()


def decode(dtype, width):
    cache, lengths = torch.zeros(1, 2, 256, width, dtype=dtype), torch.tensor([9])
    decode_attention_fused(cache[:, :, :1], cache, cache, 9)
    scales = torch.ones(1, 2, 256), torch.ones(1, 2, 256)
    decode_attention_fused(cache[:, :, :4], cache.to(torch.int8), cache.to(torch.int8), lengths, scales)


def main():
    JITFunction.run = caught
    attention(torch.bfloat16, 64)
    decode(torch.bfloat16, 64)
    nearest_code_fused(torch.zeros(100, 256), torch.zeros(300, 256))
    if "--all" in sys.argv:
        attention(torch.float16, 128)
        attention(torch.float32, 128)
        nearest_code_fused(torch.zeros(100, 256), torch.zeros(300, 256), "tf32x3")
    draw_code_fused(torch.zeros(2, 16485), torch.zeros(2, dtype=torch.float64), 1.0, 2048, 0.92)
    seen = {}
    for kernel, args, options in launched:
        seen.setdefault((kernel.fn.__name__, str(list(map(kind, args))), str(options)), (kernel, args, options))
    for kernel, args, options in seen.values():
        for capability in (80, 90):
            found = compiled(kernel, args, options, capability)
            assert f".target sm_{capability}" in found.asm["ptx"]
            assert found.metadata.shared <= SHARED, f"{kernel.fn.__name__}: {found.metadata.shared} bytes"
            print(
                kernel.fn.__name__,
                kind(args[0]),
                options.get("D", ""),
                f"sm_{capability}",
                found.metadata.shared,
                flush=True,
            )


if __name__ == "__main__":
    main()
