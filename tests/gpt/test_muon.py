"""Muon beside AdamW, and the start weights that know codes and places."""

import torch
from torch import nn

from tats.gpt.config import GPTConfig
from tats.gpt.model import GPT
from tats.gpt.muon import MuonAdamW, muon_groups, orthogonal
from tats.gpt.start import codes_from_codebook, positions_from_grid
from tats.gpt.train import parameter_groups


def test_orthogonal_has_singular_values_near_one():
    torch.manual_seed(0)
    for shape in [(16, 16), (8, 40), (40, 8)]:
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape) * 30))
        assert values.min() > 0.6 and values.max() < 1.3


def test_orthogonal_keeps_the_directions():
    torch.manual_seed(0)
    matrix = torch.randn(12, 20)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix)
    assert torch.allclose(u.T @ found @ v.T, torch.diag(torch.diagonal(u.T @ found @ v.T)), atol=1e-4)


def test_without_muon_groups_it_is_torchs_adamw():
    torch.manual_seed(0)
    ours, theirs = nn.Linear(5, 7), nn.Linear(5, 7)
    theirs.load_state_dict(ours.state_dict())
    mine = MuonAdamW([{"params": list(ours.parameters()), "weight_decay": 0.1}], lr=0.01)
    other = torch.optim.AdamW(theirs.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.1)
    for _ in range(5):
        x = torch.randn(3, 5)
        for model, optimizer in ((ours, mine), (theirs, other)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-6) and torch.allclose(ours.bias, theirs.bias, atol=1e-6)


def small() -> GPT:
    config = GPTConfig(n_layer=1, n_head=2, n_embd=24, block_size=0).fitted(
        (2, 3, 3), n_codes=11, conditions=[("label", 1, 2)]
    )
    torch.manual_seed(0)
    return GPT(config)


def test_muon_takes_the_matrices_of_the_blocks_and_nothing_else():
    gpt = small()
    matrices = [p for p in gpt.blocks.parameters() if p.ndim == 2]
    groups = muon_groups(parameter_groups(gpt), matrices, lr=0.02)
    taken = [p for group in groups if group.get("muon") for p in group["params"]]
    assert {id(p) for p in taken} == {id(p) for p in matrices}
    everything = [id(p) for group in groups for p in group["params"]]
    assert sorted(everything) == sorted(id(p) for p in gpt.parameters())


def test_its_state_goes_on_as_if_never_stopped():
    def train(steps: int, stop: int | None) -> nn.Module:
        torch.manual_seed(0)
        gpt = small()
        made = lambda: MuonAdamW(muon_groups(parameter_groups(gpt), [gpt.blocks[0].mlp[0].weight], 0.02), 0.01)
        optimizer = made()
        for step in range(steps):
            if step == stop:
                stored = optimizer.state_dict()
                optimizer = made()
                optimizer.load_state_dict(stored)
            tokens = torch.randint(13, (2, 18), generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            gpt(tokens, torch.arange(18)).square().mean().backward()
            optimizer.step()
        return gpt

    for a, b in zip(train(4, None).parameters(), train(4, 2).parameters()):
        assert torch.equal(a, b)


def test_alike_codes_start_with_alike_rows():
    gpt = small()
    vectors = torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
    vectors[7] = vectors[3] + 0.01
    codes_from_codebook(gpt, vectors, torch.Generator().manual_seed(2))
    for table in (gpt.tok_emb.weight, gpt.head.weight):
        rows = table[gpt.config.code_offset :]
        distance = torch.cdist(rows, rows)[3]
        distance[3] = float("inf")
        assert distance.argmin() == 7


def test_neighbouring_places_start_alike():
    gpt = small()
    positions_from_grid(gpt)
    rows = gpt.pos_emb[0].view(2, 3, 3, -1)
    near, far = (rows[0, 0, 0] - rows[0, 0, 1]).norm(), (rows[0, 0, 0] - rows[0, 0, 2]).norm()
    assert 0 < near < far
    assert len(gpt.pos_emb[0].unique(dim=0)) == 18
