"""What is asked of every architecture beside the scopes: each other function of the package, against plain Hugging Face.

Removals, swaps and patches are really made there, and paths and noise taken there, with the numbers that the package says it
took. `CHECKS` is part of `architecture_checks.CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import families
import torch
from oracles import relative_error
from torch import Tensor

import tl_scopes as tls
from tl_scopes.numerics.draws import prompt_generator
from tl_scopes.numerics.quadrature import split_rule

if TYPE_CHECKING:
    from architecture_checks import Subject

TARGET, MIDDLE = 7, 6
VALUES = {families.VOCAB[str(n)]: float(n) for n in (11, 25, 60, 94)}
SWAPPED = 4
"""Position of the token that is exchanged."""


def direction(s: Subject) -> float:
    """Two rows at once, along directions of nobody's choice."""
    rows = torch.randn(2, s.reference.y.shape[-1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = tls.jacobian_scope(s.model, s.tokens, direction=rows.to(s.built.spec.dtype))
    expected = sum(s.reference.last.along(v) ** 2 for v in rows)
    return relative_error(found.scores * s.scale, torch.as_tensor(expected).sqrt())


def moment(s: Subject) -> float:
    found = tls.moment_scope(s.model, s.tokens, moment="variance", values=VALUES)
    n = torch.tensor(list(VALUES.values()), dtype=torch.float64)
    q = s.reference.z[-1, list(VALUES)].double().softmax(-1)
    return relative_error(found.scores * s.scale, s.reference.score((q * (n - q @ n) ** 2).sum()))


def sampled(s: Subject) -> float:
    """Total information by probes, within six standard errors of the truth."""
    found = tls.total_information(s.model, s.tokens, n_samples=200, rank=4, rtol=None)
    off = (found.scores * s.scale**2 - s.reference.last.total_information()).abs()
    assert found.stderr is not None
    if bool((off > 6 * found.stderr * s.scale**2 + 1e-5 * off.max()).any()):
        raise AssertionError("further from the truth than six standard errors")
    return 0.0


def spectrum(s: Subject) -> float:
    found = tls.fisher_spectrum(s.model, s.tokens, k=3, tol=1e-9)
    return relative_error(found.eigenvalues[0], s.reference.last.values[:3])


def inner_gradient(s: Subject) -> float:
    """Of a stream inside the model, as `grads_at` keeps it; at the embeddings where there is none."""
    name = f"blocks.{len(s.blocks) - 1}.hook_resid_pre"
    name = name if name in s.model.hook_dict else "hook_embed"
    found = tls.semantic_scope(s.model, s.tokens, target=TARGET, grads_at=name)
    place, scale = (s.reference.streams[-2], 1.0) if "resid" in name else (s.reference.x, s.scale)
    (expected,) = s.reference.gradient(s.reference.z[-1, TARGET], place)
    return relative_error(found.cache[f"{name}_grad"][0] * scale, expected)


def times_input(s: Subject) -> float:
    found = tls.input_x_gradient(s.model, s.tokens, target=TARGET, pos=MIDDLE)
    (g,) = s.reference.gradient(s.reference.z[MIDDLE, TARGET])
    return relative_error(found.scores, (g * s.reference.x[0].detach()).norm(dim=-1))


def smoothed(s: Subject) -> float:
    """Mean gradient over noise that is drawn here again."""
    n, sigma = 2, 0.05
    found = tls.smoothgrad(s.model, s.tokens, target=TARGET, n_samples=n, sigma=sigma, seed=3, of="logit")
    shape = (n, *s.reference.x.shape[1:])
    noise = sigma / s.scale * torch.randn(*shape, generator=prompt_generator(3, s.tokens), dtype=torch.float64)
    runs = [s.plain(s.tokens, changed=lambda x, e=e: x + e.to(x)) for e in noise]
    gradients = [run.gradient(run.z[-1, TARGET])[0].double() for run in runs]
    return relative_error(found.scores * s.scale, (sum(gradients) / n).norm(dim=-1))


def path(s: Subject) -> float:
    """Integrated gradients by the same rule."""
    n = 4
    found = tls.integrated_gradients(s.model, s.tokens, target=TARGET, n_steps=n, of="logit", baseline=s.x_of("cat"))
    start, x = s.x_of("cat") / s.scale, s.reference.x.detach()[0].double()
    total = torch.zeros_like(x)
    for alpha, weight in zip(*split_rule(n)[:2], strict=True):
        run = s.plain(s.tokens, changed=lambda x, a=alpha: start.to(x) + a * (x - start.to(x)))
        total += weight * run.gradient(run.z[-1, TARGET])[0].double()
    return relative_error(found.scores, ((x - start) * total).norm(dim=-1))


def path_norms(s: Subject) -> float:
    alphas = (0.4, 0.8)
    found = tls.ig_path(s.model, s.tokens, TARGET, alphas=alphas)
    runs = [s.plain(s.tokens, changed=lambda x, a=alpha: a * x) for alpha in alphas]
    return relative_error(found.grad_norms * s.scale, torch.stack([run.score(run.z[-1, TARGET]) for run in runs]))


def removals(s: Subject) -> float:
    """Predicted and measured changes of a verification, and its verdict's."""
    attribution = tls.semantic_scope(s.model, s.tokens, target=TARGET)
    found = tls.verify(s.model, attribution, top=4, fractions=(0.3,), k=2, n_random=2)
    (g,) = s.reference.gradient(s.reference.z[-1, TARGET])
    along = -(g * s.reference.x[0].detach()).double().sum(-1)
    z = s.reference.z[-1, TARGET].detach()
    predicted = torch.stack([along[list(removed)].sum() for removed in found.positions])
    measured = torch.stack([s.without(*removed).z[-1, TARGET] - z for removed in found.positions])
    assert found.verdict is not None
    assert found.verdict.effect is not None
    effect = s.without(*(p for unit in found.verdict.strongest for p in unit)).log_prob(-1, TARGET)
    off = abs(found.verdict.effect - float(effect - s.reference.log_prob(-1, TARGET)))
    return max(relative_error(found.predicted, predicted), relative_error(found.measured, measured.detach()), off)


def swaps(s: Subject) -> float:
    """A token exchanged: what its embedding predicts, and what the other prompt gives."""
    attribution = tls.semantic_scope(s.model, s.tokens, target=TARGET)
    words = [families.VOCAB[word] for word in ("cat", " ship", "!")]
    found = tls.substitutions(s.model, attribution, position=SWAPPED, k=len(words), candidates=words)
    (g,) = s.reference.gradient(s.reference.z[-1, TARGET])
    predicted, measured = [], []
    for word in found.tokens.tolist():
        other = s.tokens.clone()
        other[SWAPPED] = word
        run = s.plain(other)
        predicted.append((g * (run.x - s.reference.x).detach()[0])[SWAPPED].double().sum())
        measured.append((run.z - s.reference.z)[-1, TARGET].detach())
    return max(
        relative_error(found.predicted, torch.stack(predicted)), relative_error(found.measured, torch.stack(measured))
    )


def patches(s: Subject) -> float:
    """Tokens of a clean run's stream put into a corrupt run, one by one, together, and to first order."""
    corrupt = s.tokens.clone()
    corrupt[[3, SWAPPED]] = torch.tensor([families.VOCAB[" king"], families.VOCAB[" red"]])
    attribution = tls.semantic_scope(s.model, s.tokens, target=TARGET)
    found = tls.patch_top(s.model, s.tokens, corrupt, attribution, k=2, n_random=2)
    clean, other = s.reference, s.plain(corrupt, blocks=s.blocks)

    def patched(layer: int, positions: Any) -> Tensor:
        def put(stream: Tensor) -> Tensor:
            new = stream.clone()
            new[:, list(positions)] = clean.streams[layer].detach()[:, list(positions)]
            return new

        return s.plain(corrupt, blocks=s.blocks, patched={layer: put}).z[-1, TARGET].detach()

    z = other.z[-1, TARGET]
    cells = torch.stack([torch.stack([patched(n, [p]) for p in found.positions]) for n in found.layers])
    joint = torch.stack([patched(n, found.positions) for n in found.layers])
    first = []
    for layer in found.layers:
        (g,) = other.gradient(z, other.streams[layer])
        moved = (clean.streams[layer] - other.streams[layer]).detach()[0]
        first.append(z.detach() + (g * moved).flatten(1).sum(-1)[list(found.positions)])
    assert found.estimate is not None
    pairs = [(found.cells, cells), (found.joint, joint), (found.estimate, torch.stack(first))]
    return max(relative_error(ours, theirs) for ours, theirs in pairs)


CHECKS: dict[str, Callable[[Subject], float]] = {
    check.__name__: check
    for check in (
        direction, moment, sampled, spectrum, inner_gradient, times_input, smoothed, path, path_norms, removals, swaps,
        patches,
    )
}  # fmt: skip
