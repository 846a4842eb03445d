"""AdamW, gradient clipping and rate for R runs at once: each row of a stack is a run's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .slots import Slot


class StackedAdam:
    """AdamW with no weight decay, as torch.optim.AdamW on every run alone (PROTOCOL).

    Args:
        slots: stacked parameters (R, ...); their gradients are read by `step`.
        rates: learning rate of each run, (R,).
        clip: largest norm of one run's whole gradient.
        eps: added to the root of the second moment. 1e-6 keeps rounding noise, such as the gradient of a null key
            bias, from being scaled up to full steps (THEORY section 5).
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        rates: Tensor,
        clip: float = 1.0,
        eps: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
    ) -> None:
        self.slots, self.rates, self.clip, self.eps, self.betas = list(slots), rates, clip, eps, betas
        self.first = [torch.zeros_like(s.values) for s in self.slots]
        self.second = [torch.zeros_like(s.values) for s in self.slots]
        self.steps = 0

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """Clip every run's gradient to norm `clip`, update its values at `factor` of its rate, forget the gradients."""
        gradients = [_own_rows(s) for s in self.slots]
        norms = torch.stack([g.flatten(1).square().sum(1) for g in gradients]).sum(0).sqrt()  # (R,)
        scale = (self.clip / (norms + 1e-6)).clamp(max=1.0)
        self.steps += 1
        beta1, beta2 = self.betas
        step_size = self.rates * factor / (1 - beta1**self.steps)
        root = (1 - beta2**self.steps) ** 0.5
        for slot, g, m, v in zip(self.slots, gradients, self.first, self.second, strict=True):
            per_run = (-1, *[1] * (g.dim() - 1))
            g = g * scale.view(per_run)
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            slot.values.sub_(step_size.view(per_run) * m / (v.sqrt() / root + self.eps))
            slot.values.grad = None

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on after a restart, by name."""
        stacks = {"value": [s.values.detach() for s in self.slots], "first": self.first, "second": self.second}
        state = {f"{name}{i}": t.cpu() for name, tensors in stacks.items() for i, t in enumerate(tensors)}
        return state | {"steps": torch.tensor(self.steps)}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Set values and moments to those of `state()`."""
        self.steps = int(state["steps"])
        for i, slot in enumerate(self.slots):
            slot.values.copy_(state[f"value{i}"])
            self.first[i].copy_(state[f"first{i}"])
            self.second[i].copy_(state[f"second{i}"])


def _own_rows(slot: Slot) -> Tensor:
    """The gradient with zeros for the runs that do not train this slot; never a product, since 0 x NaN is NaN."""
    if slot.values.grad is None:
        return torch.zeros_like(slot.values)
    mask = slot.trained.view(-1, *[1] * (slot.values.dim() - 1))
    return torch.where(mask, slot.values.grad, 0.0)
