"""AdamW, gradient clipping and rate for R runs at once: each row of a stack is a run's own."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .slots import Slot

BUCKET = 2**20  # numbers of all runs that are updated at once: few calls on a GPU, little beside the gradients


class StackedAdam:
    """AdamW with no weight decay, as torch.optim.AdamW on every run alone (PROTOCOL).

    The slots are updated in buckets, each one matrix (R, P) of what its slots train: a bank of all biases has a hundred
    slots, and a call for each of them and each operation is what a GPU would wait for.

    Args:
        slots: stacked parameters (R, ...); their gradients are read by `step`.
        rates: learning rate of each run, (R,).
        clip: largest norm of one run's whole gradient.
        eps: added to the root of the second moment. 1e-6 keeps rounding noise, such as the gradient of a null key
            bias, from being scaled up to full steps (THEORY section 5).
        bucket: a bucket has at most so many numbers, or a single slot.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        rates: Tensor,
        clip: float = 1.0,
        eps: float = 1e-6,
        betas: tuple[float, float] = (0.9, 0.999),
        bucket: int = BUCKET,
    ) -> None:
        self.rates, self.clip, self.eps, self.betas = rates, clip, eps, betas
        self.buckets = [_Bucket(together) for together in _together(slots, bucket)]
        self.steps = 0
        self.alone = len(rates) == 1 and any(slot.group == "weights" for slot in slots)

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """Clip every run's gradient to norm `clip`, update its values at `factor` of its rate, forget the gradients."""
        if self.alone:
            return self._fused_step(factor)
        gradients = [bucket.take_gradient() for bucket in self.buckets]  # (R, P) each
        norms = torch.stack([g.square().sum(1) for g in gradients]).sum(0).sqrt()  # (R,)
        scale = (self.clip / (norms + 1e-6)).clamp(max=1.0)[:, None]
        self.steps += 1
        beta1, beta2 = self.betas
        step_size = (self.rates * factor / (1 - beta1**self.steps))[:, None]
        root = (1 - beta2**self.steps) ** 0.5
        for bucket, gradient in zip(self.buckets, gradients, strict=True):
            g, m, v = gradient * scale, bucket.first, bucket.second
            m.lerp_(g, 1 - beta1)
            v.mul_(beta2).addcmul_(g, g, value=1 - beta2)
            bucket.subtract((step_size * m).div_((v.sqrt() / root).add_(self.eps)))

    def _fused_step(self, factor: float) -> None:
        """The step of a run that trains weights: torch's kernel reads its millions of numbers once, not ten times."""
        parts = []  # value, gradient and moments of each slot, in the shape of its values
        for bucket in self.buckets:
            for slot, m, v in zip(bucket.slots, bucket.split(bucket.first), bucket.split(bucket.second), strict=True):
                gradient, slot.values.grad = slot.values.grad, None
                parts.append((slot.values, torch.zeros_like(slot.values) if gradient is None else gradient, m, v))
        values, gradients, first, second = (list(x) for x in zip(*parts, strict=True))
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1.0))
        steps = [torch.tensor(float(self.steps), device=norm.device) for _ in values]
        self.steps += 1
        torch._foreach_add_(steps, 1.0)
        beta1, beta2 = self.betas
        rate = float(self.rates[0]) * factor
        torch._fused_adamw_(
            values,
            gradients,
            first,
            second,
            [],
            steps,
            amsgrad=False,
            lr=rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=0.0,
            eps=self.eps,
            maximize=False,
        )

    def state(self) -> dict[str, Tensor]:
        """Everything needed to go on after a restart, by name."""
        stacks: dict[str, list[Tensor]] = {"value": [], "first": [], "second": []}
        for bucket in self.buckets:
            stacks["value"] += [s.values.detach() for s in bucket.slots]
            stacks["first"] += bucket.split(bucket.first)
            stacks["second"] += bucket.split(bucket.second)
        state = {f"{name}{i}": t.cpu() for name, tensors in stacks.items() for i, t in enumerate(tensors)}
        return state | {"steps": torch.tensor(self.steps)}

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Set values and moments to those of `state()`."""
        self.steps = int(state["steps"])
        i = 0
        for bucket in self.buckets:
            parts = zip(bucket.slots, bucket.split(bucket.first), bucket.split(bucket.second), strict=True)
            for slot, first, second in parts:
                slot.values.copy_(state[f"value{i}"])
                first.copy_(state[f"first{i}"])
                second.copy_(state[f"second{i}"])
                i += 1


class _Bucket:
    """Slots whose P numbers per run are updated at once.

    Attributes:
        first, second: moments of their gradients, (R, P).
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        values = slots[0].values
        self.sizes = [_per_run(s) for s in slots]
        self.first = torch.zeros(len(values), sum(self.sizes), dtype=torch.float32, device=values.device)
        self.second = torch.zeros_like(self.first)
        trained = torch.stack([s.trained for s in slots], 1)  # (R, slots)
        sizes = torch.tensor(self.sizes, device=trained.device)
        self.trained = None if bool(trained.all()) else trained.repeat_interleave(sizes, dim=1)  # (R, P)

    def take_gradient(self) -> Tensor:
        """The gradient (R, P), which the slots forget, with zeros for the runs that do not train a slot.

        Never a product with the mask, since 0 x NaN is NaN.
        """
        parts = []
        for slot in self.slots:
            own = torch.zeros_like(slot.values) if slot.values.grad is None else slot.values.grad
            parts.append(own.flatten(1))
            slot.values.grad = None
        gradient = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
        return gradient if self.trained is None else torch.where(self.trained, gradient, 0.0)

    def subtract(self, update: Tensor) -> None:
        """Take (R, P) from the values."""
        torch._foreach_sub_([s.values for s in self.slots], self.split(update))

    def split(self, numbers: Tensor) -> list[Tensor]:
        """Views of (R, P) in the shapes of the slots."""
        parts = numbers.split(self.sizes, 1)
        return [p.unflatten(1, s.values.shape[1:]) for p, s in zip(parts, self.slots, strict=True)]


def _per_run(slot: Slot) -> int:
    return slot.values[0].numel()


def _together(slots: Sequence[Slot], most: int) -> Iterator[list[Slot]]:
    """Neighbouring slots whose numbers, of all runs, are at most `most`, or one alone."""
    bucket: list[Slot] = []
    for slot in slots:
        if bucket and sum(s.values.numel() for s in bucket) + slot.values.numel() > most:
            yield bucket
            bucket = []
        bucket.append(slot)
    if bucket:
        yield bucket
