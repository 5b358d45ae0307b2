"""What can be fetched: the released models of the paper, and the networks that judge or train models.

Addresses are those their authors gave; some no longer answer. `docs/released.md` says what each model is for.
"""

from dataclasses import dataclass

_DRIVE = "https://drive.google.com/file/d/"


@dataclass(frozen=True)
class Released:
    """One file: its name here, what it is, where its authors put it, and the name it has on disk.

    size: bytes; megabytes: about, where only that is stated. sha256: of the file, or the digits it begins with;
    unpacked_sha256: of what a .gz file holds. None where nobody has stated it. note: what to know when it is not simply
    fetched. licence: of the weights, as far as their authors state it. takes: what pixels, how many and of what size.
    """

    name: str
    what: str
    address: str
    file: str
    size: int | None = None
    sha256: str | None = None
    unpacked_sha256: str | None = None
    note: str = ""
    megabytes: float | None = None
    licence: str = "not stated"
    takes: str = ""


def _drive(name: str, what: str, key: str) -> Released:
    return Released(name, what, _DRIVE + key, f"{name}.ckpt")


MODELS = (
    _drive("ucf101-vqgan", "UCF-101, VQGAN", "15Otpyr7v6Wnyw2HfQr_cuaRsBiSMd7Rh"),
    _drive("ucf101-tats-base", "UCF-101, TATS-base by class", "1Nxt35mmBDuNANxHP0p8WBMWXOQ-YPkus"),
    _drive("ucf101-tats-base-unconditional", "UCF-101, TATS-base", "1pQsMdO2b84m7asp_lNg44c_UE5DUC6pa"),
    _drive("sky-vqgan", "Sky Time-lapse, VQGAN", "1ExV0XdJKlGP4lzn0X2W9307X-DE240iW"),
    _drive("sky-tats-base", "Sky Time-lapse, TATS-base", "1mtd_mC0ZEvImlPXAdda2-4CvE-10Ljci"),
    _drive("sky-tats-ar", "Sky Time-lapse, hierarchical: coarse frames", "15ay8Lrra6opBU4o__CnrHfR2Caq2G-1G"),
    _drive(
        "sky-tats-interpolation",
        "Sky Time-lapse, hierarchical: frames between",
        "1WJiH3qh1_fe3PLbzKdRKR-h6iFudtAfr",
    ),
    _drive("taichi-vqgan", "Taichi-HD, VQGAN", "1hcWIADkDsm916Xkxfz1YbljHU2ZAQFpQ"),
    _drive("taichi-tats-base", "Taichi-HD, TATS-base", "10j0p4PlkZwqQd7CmZmk9-4_ZboW4r03R"),
    _drive("taichi-hierarchical-vqgan", "Taichi-HD, hierarchical: VQGAN", "15zujnX54wfqhhIToocvyHhdpbsxcTIv0"),
    _drive("taichi-tats-ar", "Taichi-HD, hierarchical: coarse frames", "1TrjbpGwCkFhvsiQrnl5EH76HYZoWszbY"),
    _drive("taichi-tats-interpolation", "Taichi-HD, hierarchical: frames between", "1EQnV3IqmwFsEdza7gz4PUeUqr9bINPkz"),
    Released(
        "mugen-vqgan",
        "MUGEN at 256, VQGAN",
        "https://www.dropbox.com/s/1fjfvapsre3jzjv/vqgan_mugen_256_41616_epoch%3D18-step%3D19999.ckpt?dl=1",
        "mugen-vqgan.ckpt",
    ),
    Released(
        "mugen-tats-base",
        "MUGEN at 256, TATS-base from text",
        "https://www.dropbox.com/s/45y44klhv04yzx8/"
        "coinrun_vqvae_lpips_gpt_16_256_41616_19999__epoch%3D59-step%3D379999-train.ckpt?dl=1",
        "mugen-tats-base.ckpt",
    ),
    _drive("drums-vqgan", "AudioSet-Drums, VQGAN of videos", "1ZpQkVUoGWShL2M8phTzyO6W9-uYPJ40J"),
    _drive("drums-stft-vqgan", "AudioSet-Drums, VQGAN of sounds", "1CNQLfgazb7OI_c69RWUdhO56mg-9HN-o"),
    _drive("drums-tats-base", "AudioSet-Drums, TATS-base from sound", "1eHP0eSv3s-NGAv60HbF3AZsp3SBvR70u"),
)

NETWORKS = (
    Released(
        "i3d-torchscript",
        "I3D (Kinetics-400, TorchScript), features of FVD",
        "https://www.dropbox.com/s/ge9e5ujwgetktms/i3d_torchscript.pt?dl=1",
        "i3d_torchscript.pt",
        note="mirror: https://huggingface.co/flateon/FVD-I3D-torchscript",
        megabytes=51,
        licence="not stated for the conversion; the original network: Apache-2.0",
        takes="clips of 10 frames or more, uint8 of any size: rescale=True, resize=True",
    ),
    Released(
        "i3d-plain",
        "I3D (Kinetics-400, state dict), features of FVD as in the paper",
        "",
        "i3d_pretrained_400.pt",
        note="lies in the published code of the paper as tats/fvd/i3d_pretrained_400.pt (50.9 MB): copy it from there",
        megabytes=50.9,
        licence="not stated for the conversion; the original network: Apache-2.0",
        takes="clips of 9 frames or more, [-1, 1], 224x224",
    ),
    Released(
        "c3d-ucf101",
        "C3D (UCF-101, TorchScript), inception score of videos",
        "https://www.dropbox.com/s/jxpu7avzdc9n97q/c3d_ucf101.pt?dl=1",
        "c3d_ucf101.pt",
        takes="clips of 16 frames, uint8 of any size (TorchScript); 0 to 255, blue first, 112x112 (plain weights)",
    ),
    Released(
        "inception-2015",
        "Inception of 2015, features of FID",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "pt_inception-2015-12-05-6726825d.pth",
        sha256="6726825d",
        megabytes=91,
        licence="Apache-2.0",
        takes="pictures, [-1, 1], 299x299",
    ),
    Released(
        "inception-torchscript",
        "Inception of 2015 (TorchScript), features of FID as in StyleGAN",
        "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
        "inception-2015-12-05.pt",
        licence="Apache-2.0 (the original network)",
        takes="pictures, uint8 of any size: return_features=True",
    ),
    Released(
        "videomae-ssv2",
        "VideoMAE v2, giant (Something-Something v2), features of the content-debiased FVD",
        "https://huggingface.co/OpenGVLab/InternVideoMAE_models/resolve/main/mae-g/vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        "vit_g_hybrid_pt_1200e_ssv2_ft.pth",
        takes="clips of 16 frames, [0, 1], 224x224",
    ),
    Released(
        "vgg16",
        "VGG16 (ImageNet), the network below LPIPS",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
        "vgg16-397923af.pth",
        sha256="397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        megabytes=528,
        licence="CC BY 4.0",
        takes="pictures of 16x16 or more, less the mean and divided by the deviation of ImageNet",
    ),
    Released(
        "alexnet",
        "AlexNet (ImageNet), the other network below LPIPS",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
        "alexnet-owt-7be5be79.pth",
        sha256="7be5be79",
        megabytes=233,
        licence="BSD-3-Clause",
        takes="pictures of 31x31 or more, less the mean and divided by the deviation of ImageNet",
    ),
    Released(
        "lpips-vgg",
        "heads of LPIPS over VGG16",
        "",
        "vgg.pth",
        size=7289,
        sha256="a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
        note="lies in the package torchmetrics as functional/image/lpips_models/vgg.pth: copy it from there",
        licence="BSD-2-Clause",
    ),
    Released(
        "lpips-alex",
        "heads of LPIPS over AlexNet",
        "",
        "alex.pth",
        size=6009,
        sha256="df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
        note="lies in the package torchmetrics as functional/image/lpips_models/alex.pth: copy it from there",
        licence="BSD-2-Clause",
    ),
    Released(
        "clip-bpe",
        "byte pairs of CLIP, for text conditions",
        "https://github.com/openai/CLIP/raw/main/clip/bpe_simple_vocab_16e6.txt.gz",
        "bpe_simple_vocab_16e6.txt.gz",
        unpacked_sha256="67603cfda2e032ad77b5f8808af37789d590db664b26df8705d2bf8b3c553fc8",
        licence="MIT",
    ),
)

ALL = {each.name: each for each in (*MODELS, *NETWORKS)}
