"""Invariant: each row of the matrix is the scope of that position, called by itself."""

from __future__ import annotations

import dataclasses

import families
import oracles
import pytest
import torch

import tl_scopes as tls
from tl_scopes.jacobian_scopes import matrix as every_target
from tl_scopes.kernel import shared_backward

TOKENS = families.prompt_tokens(12)


def test_rows_equal_single_calls(pair: families.Pair) -> None:
    model = families.build(pair.family, pair.kind, torch.float32).model
    for method, scope in (("semantic", tls.semantic_scope), ("temperature", tls.temperature_scope)):
        matrix = tls.attribution_matrix(model, TOKENS, method=method)
        assert matrix.positions == tuple(range(12))
        for s in (0, 1, 4, 7, 11):
            options = {"target": int(TOKENS[s + 1])} if method == "semantic" and s + 1 < 12 else {}
            alone = scope(model, TOKENS, pos=s, **options)
            assert matrix.targets[s] == alone.target
            assert oracles.relative_error(matrix.scores[s], alone.scores) < families.FLOAT32_RTOL, (method, s)


@pytest.mark.parametrize("kind", families.kinds_available())
def test_fisher_contrast_and_total_information_rows_equal_single_calls(kind: str) -> None:
    model = families.build("gpt2", kind).model
    fisher = tls.attribution_matrix(model, TOKENS, method="fisher", rank=3, positions=[4, -1])
    contrast = tls.attribution_matrix(model, TOKENS, method="contrast", foil=3, positions=[4])
    for row, s in ((0, 4), (1, 11)):
        alone = tls.fisher_scope(model, TOKENS, rank=3, pos=s)
        assert oracles.relative_error(fisher.scores[row], alone.scores) < 1e-9
        assert fisher.details["first_eigenvalue"][row] == pytest.approx(alone.details["eigenvalues"][0])
    alone = tls.contrast_scope(model, TOKENS, target=int(TOKENS[5]), foil=3, pos=4)
    assert oracles.relative_error(contrast.scores[0], alone.scores) < 1e-9
    full = tls.attribution_matrix(model, TOKENS, method="total_information", rank=families.D_MODEL, positions=[6])
    exact = tls.total_information(model, TOKENS, method="exact", pos=6)
    assert oracles.relative_error(full.scores[0], exact.scores) < 1e-9


@pytest.mark.parametrize("kind", families.kinds_available())
def test_moment_and_jacobian_rows_equal_single_calls(kind: str) -> None:
    model = families.build("gpt2", kind).model
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(2, families.D_MODEL, generator=generator, dtype=torch.float64)
    for moment in ("mean", "variance"):
        matrix = tls.attribution_matrix(model, TOKENS, method="moment", moment=moment, positions=[3, 7])
        alone = tls.moment_scope(model, TOKENS, moment=moment, pos=7)
        assert matrix.method == alone.method
        assert oracles.relative_error(matrix.scores[1], alone.scores) < 1e-9
    matrix = tls.attribution_matrix(model, TOKENS, method="jacobian", direction=direction, positions=[5])
    alone = tls.jacobian_scope(model, TOKENS, direction=direction, pos=5)
    assert oracles.relative_error(matrix.scores[0], alone.scores) < 1e-9
    assert "<table" in matrix.html() or "tls-targets" in matrix.html()


def test_a_keyword_that_the_method_does_not_read_is_refused() -> None:
    model = families.build("gpt2", "bridge").model
    with pytest.raises(ValueError, match="method 'temperature' does not read it"):
        tls.attribution_matrix(model, TOKENS, method="temperature", rank=2)
    with pytest.raises(TypeError, match=r"attribution_matrix\(\) got an unexpected keyword argument 'target'"):
        tls.attribution_matrix(model, TOKENS, target=5)


def test_the_upper_triangle_is_exactly_zero() -> None:
    scores = tls.attribution_matrix(families.build("llama", "bridge").model, TOKENS).scores
    assert bool((scores.triu(1) == 0).all())
    assert bool((scores.tril() > 0).any())


def test_the_last_row_explains_the_top_prediction_and_says_so() -> None:
    model = families.build("gpt2", "bridge").model
    matrix = tls.attribution_matrix(model, TOKENS)
    assert matrix.targets[:-1] == tuple(TOKENS[1:].tolist())
    assert matrix.targets[-1] == int(model(TOKENS[None])[0, -1].argmax())
    assert matrix.top_target_flagged
    assert not tls.attribution_matrix(model, TOKENS, positions=[3]).top_target_flagged


def test_blocks_do_not_change_the_numbers(monkeypatch) -> None:
    model = families.build("gpt2", "bridge").model
    several = tls.attribution_matrix(model, TOKENS).scores
    monkeypatch.setattr(every_target, "blocks", lambda n: 1)
    assert oracles.relative_error(tls.attribution_matrix(model, TOKENS).scores, several) < 1e-9


@pytest.mark.parametrize("kind", families.kinds_available())
def test_one_pass_over_the_unembedding_reads_several_blocks(kind: str, monkeypatch) -> None:
    model = families.build("gpt2", kind).model
    asked = []
    real = every_target.forward_pass

    def watched(*args, **kwargs):
        asked.append((len(args[2]), args[3].table))
        return real(*args, **kwargs)

    monkeypatch.setattr(every_target, "forward_pass", watched)
    monkeypatch.setattr(every_target, "blocks", lambda n: 3)
    together = tls.attribution_matrix(model, TOKENS, method="fisher")
    assert asked == [(12, True), (4, False), (4, False)]
    asked.clear()
    monkeypatch.setattr(every_target, "READS", 1)
    alone = tls.attribution_matrix(model, TOKENS, method="fisher")
    assert asked == [(4, True)] * 3
    assert oracles.relative_error(together.scores, alone.scores) < 1e-9
    assert [[word for word, _ in row] for row in together.top_predictions] == [
        [word for word, _ in row] for row in alone.top_predictions
    ]


@pytest.mark.parametrize("kind", families.kinds_available())
def test_directions_of_all_positions_go_back_together_to_the_last_attention(kind: str, monkeypatch) -> None:
    model = families.build("gpt2", kind).model
    model.run_with_cache(TOKENS[None])  # Hugging Face's recorders stay on a bridge's modules
    together = tls.attribution_matrix(model, TOKENS, method="fisher", rank=2).scores
    pulled = []
    real = every_target.pull_back

    def watched(end, sources, V, *args, **kwargs):
        pulled.append((len(V), sources[0].shape[1]))
        return real(end, sources, V, *args, **kwargs)

    monkeypatch.setattr(every_target, "pull_back", watched)
    monkeypatch.setattr(shared_backward, "pull_back", watched)
    monkeypatch.setattr(every_target, "blocks", lambda n: 2)
    tls.attribution_matrix(model, TOKENS, method="fisher", rank=2)
    # Two blocks of six positions with two rows each: of both rows a cotangent for the last position and one for the others,
    # then all rows; the last block first, whose graph is there.
    assert pulled == [(rows, length) for length in (12, 6) for rows in (4, 12)]
    monkeypatch.setattr(shared_backward, "_separates", lambda cut, end: False)
    alone = tls.attribution_matrix(model, TOKENS, method="fisher", rank=2).scores
    assert oracles.relative_error(together, alone) < 1e-12


def test_rows_of_very_different_size_share_a_cotangent_in_float16() -> None:
    """Variances of the predicted number span many powers of ten: a common scale would flush the small rows to 0."""
    values = {token: float(token - 70) for token in range(70, 160)}
    models = {}
    for dtype in (torch.float16, torch.float64):
        models[dtype] = families.build("gpt2", "bridge", dtype, fresh=True).model
        with torch.no_grad():
            models[dtype].unembed.original_component.weight.mul_(5)
    tokens = families.prompt_tokens(24)
    wide = tls.attribution_matrix(
        models[torch.float64], tokens, method="moment", moment="variance", values=values
    ).scores
    half = tls.attribution_matrix(
        models[torch.float16], tokens, method="moment", moment="variance", values=values
    ).scores
    sizes = wide.amax(1)
    assert float(sizes.max() / sizes.min()) > 1e4
    for row, exact in zip(half, wide, strict=True):
        assert oracles.relative_error(row.double(), exact) < 0.1


def test_only_what_every_path_passes_separates() -> None:
    x = torch.ones(3, requires_grad=True)
    cut = x * 2
    assert shared_backward._separates(cut, (cut * 3 + cut).sum())
    assert not shared_backward._separates(cut, (cut * 3 + x).sum())
    assert not shared_backward._separates(x, (x * 3).sum())  # a leaf has nothing before it to be separated from


@pytest.mark.parametrize("kind", families.kinds_available())
def test_a_source_after_the_last_attention_is_that_of_the_single_call(kind: str) -> None:
    model = families.build("llama", kind).model
    branch = {"bridge": "blocks.1.mlp.gate.hook_in", "hooked": "blocks.1.ln2.hook_normalized"}[kind]
    for at in (branch, "blocks.1.hook_resid_post"):
        matrix = tls.attribution_matrix(model, TOKENS, at=at)
        for s in (0, 5):
            alone = tls.semantic_scope(model, TOKENS, pos=s, target=int(TOKENS[s + 1]), at=at)
            assert oracles.relative_error(matrix.scores[s], alone.scores) < families.FLOAT32_RTOL, at


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("by", ["hook", "torch hook", "the model: all", "the model: 1 back", "the model: 2 back"])
def test_positions_mixed_after_the_last_attention_go_back_by_themselves(kind: str, by: str, monkeypatch) -> None:
    """By a user's hook, or by the model's own last MLP, which no family here does: as hooks that the check does not see."""
    model = families.build("gpt2", kind).model
    plain = tls.attribution_matrix(model, TOKENS).scores
    monkeypatch.setattr(every_target, "blocks", lambda n: 2)
    block = f"blocks.{model.cfg.n_layers - 1}"
    point = model.hook_dict[f"{block}.hook_mlp_out"]
    first_to_third = lambda x: torch.cat([x[:, :2], x[:, 2:3] + x[:, :1], x[:, 3:]], 1)  # noqa: E731
    back = int(by[-6]) if by.endswith("back") else 0
    handle = None
    if by == "torch hook":
        handle = model.blocks[-1].mlp.register_forward_hook(lambda module, given, out: first_to_third(out))
    else:
        mix = (lambda x: torch.cat([x[:, :back], x[:, back:] + x[:, :-back]], 1)) if back else (lambda x: x.cumsum(1))
        model.add_hook(point.name, lambda activation, hook: mix(activation))
    if by.startswith("the model"):
        monkeypatch.setattr(every_target, "last_attention", lambda model: f"{block}.hook_resid_mid")
    try:
        mixed = tls.attribution_matrix(model, TOKENS)
        following = [*TOKENS[1:].tolist(), None]
        alone = {s: tls.semantic_scope(model, TOKENS, pos=s, target=following[s]) for s in (0, 2, 5, 6, 8, 11)}
    finally:
        model.reset_hooks()
        if handle is not None:
            handle.remove()
    for s, single in alone.items():
        assert oracles.relative_error(mixed.scores[s], single.scores) < 1e-9
    assert oracles.relative_error(mixed.scores[2], plain[2]) > 1e-3


def test_rows_come_in_the_order_asked_for() -> None:
    model = families.build("gpt2", "bridge").model
    forth = tls.attribution_matrix(model, TOKENS, positions=[2, 9, 5])
    back = tls.attribution_matrix(model, TOKENS, positions=[5, 9, 2])
    assert forth.positions == (2, 9, 5)
    assert oracles.relative_error(back.scores.flip(0), forth.scores) < 1e-9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"positions": [12]}, r"positions must be in -12\.\.11"),
        ({"positions": []}, "positions must be in"),
        ({"positions": [3, -9]}, "each position once"),
        ({"method": "nonsense"}, "expected one of"),
        ({"method": "contrast"}, "needs a foil"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_refused(options, message) -> None:
    with pytest.raises(ValueError, match=message):
        tls.attribution_matrix(families.build("gpt2", "bridge").model, TOKENS, **options)


@pytest.mark.usefixtures("unchecked")
def test_a_list_of_prompts_is_refused() -> None:
    with pytest.raises(TypeError, match="expected one prompt"):
        tls.attribution_matrix(families.build("gpt2", "bridge").model, ["the dog"])


def test_rows_carry_the_predictions_of_their_position(demo_model) -> None:
    text = "German: der Hund sieht die Katze. English: the dog"
    matrix = tls.attribution_matrix(demo_model, text, positions=[-1, 3, 7])
    for i, pos in enumerate(matrix.positions):
        one = tls.semantic_scope(demo_model, text, pos=pos)
        row = matrix.row(i).top_predictions
        assert [word for word, _ in row] == [word for word, _ in one.top_predictions]
        assert [p for _, p in row] == pytest.approx([p for _, p in one.top_predictions], rel=1e-5)


def test_predictions_must_fit_the_rows(demo_model) -> None:
    matrix = tls.attribution_matrix(demo_model, "German: der Hund", method="temperature")
    with pytest.raises(ValueError, match="top_predictions: "):
        dataclasses.replace(matrix, top_predictions=matrix.top_predictions[1:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_matrix_comes_back_bit_for_bit(dtype: torch.dtype, tmp_path) -> None:
    model = families.build("gpt2", "bridge", dtype).model
    before = tls.attribution_matrix(model, TOKENS, method="fisher", positions=[7, 2, -1]).without("sinks")
    after = tls.AttributionMatrix.load(before.save(tmp_path / "matrix.json"))
    assert after.scores.dtype == dtype
    half = dataclasses.replace(before, scores=before.scores.bfloat16())
    assert torch.equal(tls.AttributionMatrix.from_dict(half.to_dict()).scores, half.scores)
    for field in dataclasses.fields(before):
        one, other = getattr(before, field.name), getattr(after, field.name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other, field.name
    assert after.html() == before.html()
    assert after.row(1).to_dict() == before.row(1).to_dict()
    with pytest.raises(ValueError, match=r"not written by Attribution\.save"):
        tls.Attribution.load(tmp_path / "matrix.json")
