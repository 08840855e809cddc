"""Numbers that ``check_model`` measures on a short random prompt, by running the model.

Legend: ``x`` ``[pos, d_model]`` the activation at the source hook, ``z`` the logit of the model's top prediction there, ``g``
the package's gradient of z at x.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from tl_scopes.directions.logits import Semantic
from tl_scopes.kernel.explain import explain
from tl_scopes.kernel.options import RunOptions
from tl_scopes.model.forward import embedded, run_with_hooks
from tl_scopes.model.hooks import attached
from tl_scopes.model.lens import LensModel
from tl_scopes.model.prompts import EncodedPrompt
from tl_scopes.numerics.precision import compute_dtype
from tl_scopes.results.attribution import Attribution

FIRST_BLOCK = "blocks.0.hook_resid_pre"
"""The source where the embeddings are not ``d_model`` wide."""


def embedding_width(model: LensModel) -> int:
    """Width of what stands at ``hook_embed``."""
    return embedded(model, torch.zeros(1, 1, dtype=torch.int64)).shape[-1]


@dataclass(frozen=True, eq=False)
class Probe:
    """One prompt on one model, and the source hook at which it is differentiated."""

    model: LensModel
    prompt: EncodedPrompt
    at: str
    generator: torch.Generator

    def attribution(self) -> Attribution:
        """The Semantic Scope of the prompt with its gradient."""
        return explain(self.model, [self.prompt], [Semantic((None,))], RunOptions(at=self.at, keep_gradient=True))[0][0]

    def _z(self, shift: Tensor, target: int) -> float:
        """``z(x + shift)``."""
        hooks = [(self.at, lambda x, hook: x + shift.to(x))]
        with torch.no_grad():
            logits = run_with_hooks(self.model, self.prompt.tokens[None], hooks)
        return float(logits[0, self.prompt.pos, target].double())

    def gradient_error(self, attr: Attribution) -> tuple[float, torch.dtype]:
        """Largest ``|⟨g, δ⟩ − (z(x+hδ) − z(x−hδ))/2h|`` over a few directions δ, relative to ``⟨g, δ⟩``; and the dtype that
        the model computes in.

        A float64 model may compute in float32 in places, as Hugging Face does its norms. Then a tiny h changes z by the noise
        of float32, ``z(x+hδ) − 2z(x) + z(x−hδ)`` is not 0, or not at all; and quotients are as exact as float32 allows.
        """
        g, target = attr.gradient, attr.target
        assert g is not None
        assert target is not None
        dtype, size = self.model.W_U.dtype, max(float(g.norm()), 1e-12)
        deltas = []
        for _ in range(4):
            # Half along the gradient, half random: a direction with a derivative to measure.
            random = torch.randn(g.shape, generator=self.generator, dtype=g.dtype)
            deltas.append(g / g.norm() + random / random.norm())
        if dtype == torch.float64:
            z, tiny = self._z(torch.zeros_like(g), target), 1e-7 / size
            steps = [(self._z(tiny * d, target) - z, z - self._z(-tiny * d, target)) for d in deltas]
            if any(abs(up - down) > LEAST_NOISE * max(1.0, abs(z)) or up == down == 0 for up, down in steps):
                dtype = torch.float32
        step = float(torch.finfo(dtype).eps) ** (1 / 3) / size
        errors = []
        for delta in deltas:
            quotient = (self._z(step * delta, target) - self._z(-step * delta, target)) / (2 * step)
            predicted = float((g * delta).sum())
            errors.append(abs(quotient - predicted) / abs(predicted))
        return max(errors), dtype

    def rounding_noise(self, attr: Attribution) -> float:
        """Largest change of a score, relative to the largest, when x is perturbed by half a unit in the last place."""

        def perturb(x: Tensor, hook: object) -> Tensor:
            noise = torch.rand(x.shape, generator=self.generator).to(x.device) - 0.5
            return (x.to(compute_dtype(x.dtype)) * (1 + torch.finfo(x.dtype).eps * noise)).to(x.dtype)

        with attached(self.model.hook_dict, [(self.at, perturb)]):
            again = self.attribution()
        return float((again.scores - attr.scores).abs().max() / attr.scores.max())


LEAST_NOISE = 1e-12
"""Of a logit of a float64 model, from which it was computed in float32: float64 leaves 1e-15, float32 from 1e-8 on."""
