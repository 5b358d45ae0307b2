"""Names and sizes of the released architectures, written from their published templates, not from our code."""

from itertools import pairwise
from pathlib import Path

HERE = Path(__file__).parent


def norm(name: str, channels: int) -> dict[str, list[int]]:
    """Batch normalisation."""
    names = {f"{name}.{part}": [channels] for part in ("weight", "bias", "running_mean", "running_var")}
    return {**names, f"{name}.num_batches_tracked": []}


def conv(name: str, *shape: int) -> dict[str, list[int]]:
    """A convolution; the bias of a transposed one is as long as its second size."""
    return {f"{name}.weight": list(shape), f"{name}.bias": [shape[1] if name.endswith("convt") else shape[0]]}


def residual(name: str, channels: int) -> dict[str, list[int]]:
    """Two normalised convolutions."""
    found = {}
    for i in (1, 2):
        found |= norm(f"{name}.norm{i}", channels)
        found |= conv(f"{name}.conv{i}.conv", channels, channels, 3, 3, 3)
    return found


def vqgan(hiddens: int = 32, blocks: int = 3, codes: int = 16384, width: int = 256, channels: int = 3) -> dict:
    """The VQGAN of the published command: --n_hiddens 32 --downsample 4 8 8 --n_codes 16384 --norm_type batch."""
    top = hiddens * 2**blocks
    found = conv("encoder.conv_first.conv", hiddens, channels, 3, 3, 3)
    for i in range(blocks):
        n = hiddens * 2**i
        found |= conv(f"encoder.conv_blocks.{i}.down.conv", 2 * n, n, 4, 4, 4)
        found |= residual(f"encoder.conv_blocks.{i}.res", 2 * n)
    found |= norm("encoder.final_block.0", top) | norm("decoder.final_block.0", top)
    for i in range(blocks):
        n_out = hiddens * 2 ** (blocks - i)
        n_in = top if i == 0 else 2 * n_out
        found |= conv(f"decoder.conv_blocks.{i}.up.convt", n_in, n_out, 4, 4, 4)
        found |= residual(f"decoder.conv_blocks.{i}.res1", n_out) | residual(f"decoder.conv_blocks.{i}.res2", n_out)
    found |= conv("decoder.conv_last.conv", channels, 2 * hiddens, 3, 3, 3)
    found |= conv("pre_vq_conv.conv", width, top, 1, 1, 1) | conv("post_vq_conv.conv", top, width, 1, 1, 1)
    return found | {"codebook.embeddings": [codes, width], "codebook.N": [codes], "codebook.z_avg": [codes, width]}


def gpt(layers: int = 24, width: int = 1024, vocabulary: int = 16384, window: int = 1024) -> dict:
    """The transformer of the published command, unconditional, without the prefix `transformer.`."""
    found = {"pos_emb": [1, window, width], "tok_emb.weight": [vocabulary, width], "head.weight": [vocabulary, width]}
    for i in range(layers):
        for part in ("ln1", "ln2"):
            found |= {f"blocks.{i}.{part}.weight": [width], f"blocks.{i}.{part}.bias": [width]}
        for part in ("key", "query", "value", "proj"):
            found |= conv(f"blocks.{i}.attn.{part}", width, width)
        found |= conv(f"blocks.{i}.mlp.0", 4 * width, width) | conv(f"blocks.{i}.mlp.2", width, 4 * width)
    return found | {"ln_f.weight": [width], "ln_f.bias": [width]}


def critic(kernel: tuple[int, ...], channels: int = 64, layers: int = 3) -> dict:
    """A PatchGAN critic of three-channel images (a kernel of two sizes) or videos (of three)."""
    wide = [3, *(min(channels * 2**j, 512) for j in range(layers + 1)), 1]
    found = {}
    for j, (n_in, n_out) in enumerate(pairwise(wide)):
        found |= conv(f"model{j}.0", n_out, n_in, *kernel)
        if 0 < j < layers + 1:
            found |= norm(f"model{j}.1", n_out)
    return found


def lpips() -> dict:
    """The perceptual distance: VGG16 in five slices, and a head for each."""
    found: dict[str, list[int]] = {f"scaling_layer.{part}": [1, 3, 1, 1] for part in ("shift", "scale")}
    slices = {1: ((0, 64), (2, 64)), 2: ((5, 128), (7, 128)), 3: ((10, 256), (12, 256), (14, 256))}
    slices |= {4: ((17, 512), (19, 512), (21, 512)), 5: ((24, 512), (26, 512), (28, 512))}
    n_in = 3
    for i, layers in slices.items():
        for layer, n_out in layers:
            found |= conv(f"net.slice{i}.{layer}", n_out, n_in, 3, 3)
            n_in = n_out
        found[f"lin{i - 1}.model.1.weight"] = [1, n_in, 1, 1]
    return found


ALL = {
    "vqgan": vqgan,
    "gpt": gpt,
    "image_critic": lambda: critic((4, 4)),
    "video_critic": lambda: critic((4, 4, 4)),
    "lpips": lpips,
}

if __name__ == "__main__":
    for kind, make in ALL.items():
        made = make()
        lines = [f"{name} {' '.join(map(str, shape))}".rstrip() for name, shape in sorted(made.items())]
        (HERE / f"{kind}.txt").write_text("\n".join(lines) + "\n")
        print(kind, len(lines))
