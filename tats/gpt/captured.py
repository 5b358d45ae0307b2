"""A latent frame drawn by one recorded step: on a GPU, the host says once per code that the step runs again.

Everything that changes from code to code lies in tensors that stay where they are, counters included, and the draw is
part of the step. On a GPU the step is captured as a CUDA graph, one for each batch and way to draw: nothing is
allocated, and nothing waits for the host between two codes. Elsewhere the same step runs without a graph, for tests.
"""

import torch
from torch import Tensor

from tats.flags import UserError
from tats.gpt.draw import Draw
from tats.gpt.guidance import Guided, Stepper
from tats.kernels.dispatch import Choice, verdict

OP = "captured_step"  # its name in the stored results of GPUs
WARM = 3  # steps before a capture, so that every kernel is loaded


def choice(device: torch.device, width: int, asked: bool | None) -> Choice:
    """Whether frames are drawn this way, `fused`, or step by step, `torch`; and why.

    asked: --cuda_graph; None: as a stored result of this GPU says for transformers of this width.

    Raises:
        UserError: it is asked for where there is no GPU.
    """
    if asked and device.type != "cuda":
        raise UserError(f"--cuda_graph needs a GPU, the transformer is on {device.type}: leave it out")
    if asked is not None:
        return Choice("fused" if asked else "torch", f"--cuda_graph {str(asked).lower()}")
    if device.type != "cuda":
        return Choice("torch", f"CUDA graphs are for GPUs, not for {device.type}")
    return verdict(OP, torch.cuda.get_device_name(device), width)


def captured(stepper: Stepper, table: Tensor | None) -> "Captured | None":
    """What draws the frames of an engine that captures its steps; None for others.

    table: where the codes of a window lie in the table of places (`tats.gpt.sample.table_places`), if there is one.
    """
    engine = stepper.engine if isinstance(stepper, Guided) else stepper
    if not engine.captures:
        return None
    return engine.captured.setdefault(isinstance(stepper, Guided), Captured(stepper, table))


class Captured:
    """Draws latent frames by recorded steps of one engine, always guided or never."""

    def __init__(self, stepper: Stepper, table: Tensor | None = None):
        self.guided, self.table = isinstance(stepper, Guided), table
        self.engine = stepper.engine if isinstance(stepper, Guided) else stepper
        self.steps: dict[tuple[Draw, int], _Step] = {}

    @torch.inference_mode()
    def __call__(
        self, stepper: Stepper, draw: Draw, logits: Tensor, numbers: Tensor, start: int, n_cond: int, show_last: bool
    ) -> tuple[Tensor, Tensor]:
        """Draw a frame whose first code stands at position `start`: tokens int64 [B, n], and the logits behind it.

        logits [B, V]: of the first code. numbers float [B, n] in [0, 1). n_cond: tokens of the condition. show_last:
        the last code is shown too; without, the logits are those that it was drawn from.
        """
        key = draw, numbers.shape[1]
        if key not in self.steps:
            self.steps[key] = _Step(self, draw, logits, numbers)
        step, last = self.steps[key], numbers.shape[1] - 1
        step.load(logits, numbers, start, n_cond, stepper.scale if isinstance(stepper, Guided) else None)
        for _ in range(last + show_last):
            step()
        if not show_last:
            step.tokens[:, last] = draw(step.logits, step.numbers[:, last]) + self.engine.first_id
        self.engine.rewind([seen + last + show_last for seen in self.engine.seen()])
        return step.tokens.clone(), step.logits.clone()


class _Step:
    """Draw from the logits, keep the token, show it, count on."""

    def __init__(self, frames: Captured, draw: Draw, logits: Tensor, numbers: Tensor):
        self.frames, self.draw = frames, draw
        engine, device = frames.engine, frames.engine.device
        self.logits, self.numbers = torch.empty_like(logits), torch.empty_like(numbers)
        self.tokens = torch.zeros(numbers.shape, dtype=torch.long, device=device)
        self.number = torch.zeros(1, dtype=torch.long, device=device)  # of the next code in the frame
        self.position = torch.zeros(1, dtype=torch.long, device=device)  # where it stands in the window
        self.place = torch.zeros(1, dtype=torch.long, device=device)  # in the table, of the code behind it
        self.lengths = torch.zeros(engine.batch, dtype=torch.long, device=device)
        self.scale = torch.ones(len(logits), 1, device=device, dtype=logits.dtype)  # of guidance
        self.graph = self._capture() if device.type == "cuda" else None

    def load(self, logits: Tensor, numbers: Tensor, start: int, n_cond: int, scale: float | Tensor | None) -> None:
        """Put what a frame begins with into place."""
        self.logits.copy_(logits)
        self.numbers.copy_(numbers)
        self.number.zero_()
        self.position.fill_(start)
        self.place.fill_(start - n_cond + 1)
        self.lengths.copy_(torch.tensor(self.frames.engine.seen()))
        if isinstance(scale, Tensor):
            self.scale.copy_(scale[:, None])
        elif scale is not None:
            self.scale.fill_(scale)

    def __call__(self) -> None:
        """One code."""
        if self.graph is None:
            self._run()
        else:
            self.graph.replay()

    def _run(self) -> None:
        engine = self.frames.engine
        number = self.numbers.index_select(1, self.number)[:, 0]  # [B]
        token = self.draw(self.logits, number) + engine.first_id  # [B]
        self.tokens.index_copy_(1, self.number, token[:, None])
        table = self.frames.table
        places = None if table is None else table.index_select(1, self.place.clamp(max=table.shape[1] - 1))
        shown = torch.cat([token, token]) if self.frames.guided else token
        logits = engine.fixed(shown[:, None], self.position, self.lengths, places)
        if self.frames.guided:
            conditional, empty = logits.to(self.scale.dtype).chunk(2)
            logits = empty + self.scale * (conditional - empty)
        self.logits.copy_(logits)
        for counter in (self.number, self.position, self.place, self.lengths):
            counter += 1

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Record the step; what the steps before it write over is put back."""
        cache = self.frames.engine.cache
        before = [room[:, :, :WARM].clone() for pair in cache.kv + cache.scales for room in pair]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self.logits.zero_()
            self.numbers.zero_()
            for _ in range(WARM):
                self._run()
                self.number.zero_()
        torch.cuda.current_stream().wait_stream(stream)
        self.lengths.zero_()
        self.number.zero_()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._run()
        rooms = [room for pair in cache.kv + cache.scales for room in pair]
        for room, first in zip(rooms, before):
            room[:, :, :WARM] = first
        return graph
