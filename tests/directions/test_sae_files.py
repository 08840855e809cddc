"""Invariant: a feature's direction is the gradient of its activation wherever it fires, however the SAE is kept.

Oracle: each architecture's encoder written out here, and autograd through it; with `sae_lens` at hand, its own `encode`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import tl_scopes as tls
from tl_scopes.demo import BUNDLED_SAE

D_IN, D_SAE, K = 8, 12, 5
HOOK = "blocks.0.hook_resid_post"
OWN = {
    "standard": ["b_enc"],
    "jumprelu": ["b_enc", "threshold"],
    "topk": ["b_enc"],
    "gated": ["b_gate", "b_mag", "r_mag"],
}
ARCHITECTURES = [(name, applied) for name in OWN for applied in (True, False)]


def tensors(architecture: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(4)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    own = {name: noise(D_SAE) / 4 for name in OWN[architecture]}
    return {"W_enc": noise(D_IN, D_SAE), "W_dec": noise(D_SAE, D_IN), "b_dec": noise(D_IN) / 4, **own}


def settings(architecture: str, applied: bool) -> dict[str, Any]:
    rest = {"k": K, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    return {
        "architecture": architecture,
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "float64",
        "apply_b_dec_to_input": applied,
        "metadata": {"sae_lens_version": "6.0.0", "hook_name": HOOK},
        **rest,
    }


def encode(t: Mapping[str, Tensor], cfg: Mapping[str, Any], h: Tensor) -> Tensor:
    """The features at h."""
    u = h - t["b_dec"] if cfg["apply_b_dec_to_input"] else h
    along = u @ t["W_enc"]
    if cfg["architecture"] == "gated":
        return (along + t["b_gate"] > 0) * (along * t["r_mag"].exp() + t["b_mag"]).relu()
    pre = along + t["b_enc"]
    if cfg["architecture"] == "jumprelu":
        return pre.relu() * (pre > t["threshold"])
    if cfg["architecture"] == "topk":
        pre = pre * torch.stack([row.norm() for row in t["W_dec"]])
        return pre.relu() * (pre >= pre.sort(descending=True).values[K - 1])
    return pre.relu()


def saved(folder: Path, kind: str, applied: bool = True, **changed: Any) -> Path:
    """A folder as `sae_lens` writes it."""
    folder.mkdir(exist_ok=True)
    save_file(tensors(kind), folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(settings(kind, applied) | changed))
    return folder


def gradients(act: Callable[[Tensor], Tensor]) -> dict[int, Tensor]:
    """Of each feature, the gradient of its activation at the first of some activations where it fires."""
    found: dict[int, Tensor] = {}
    for seed in range(20):
        h = torch.randn(D_IN, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
        features = act(h)
        for f in features.nonzero()[:, 0].tolist():
            if f not in found:
                (found[f],) = torch.autograd.grad(features[f], h, retain_graph=True)
    assert len(found) > D_SAE // 2, "hardly a feature fires: the oracle says nothing"
    return found


@pytest.mark.one_lens
@pytest.mark.parametrize(("architecture", "applied"), ARCHITECTURES)
def test_the_direction_is_the_gradient_where_the_feature_fires(
    tmp_path: Path, architecture: str, applied: bool
) -> None:
    folder, t, cfg = (
        saved(tmp_path / "sae", architecture, applied),
        tensors(architecture),
        settings(architecture, applied),
    )
    for f, gradient in gradients(lambda h: encode(t, cfg, h)).items():
        found = tls.sae_feature(folder, f)
        assert found.target_hook == HOOK
        assert torch.allclose(found.direction, gradient, rtol=1e-9)
        assert torch.equal(found.direction, tls.sae_feature({**t, "cfg": cfg}, f).direction)


@pytest.mark.parametrize(("architecture", "applied"), ARCHITECTURES)
def test_sae_lens_reads_the_same_from_the_same_folder(tmp_path: Path, architecture: str, applied: bool) -> None:
    sae_lens = pytest.importorskip("sae_lens", reason="needs sae_lens, which excludes TransformerLens 4")
    folder = saved(tmp_path / "theirs", architecture, applied)
    theirs = sae_lens.SAE.load_from_disk(folder)
    theirs.save_model(tmp_path / "again")
    for f, gradient in gradients(lambda h: theirs.encode(h)).items():
        for sae in (folder, tmp_path / "again", theirs):
            found = tls.sae_feature(sae, f)
            assert found.target_hook == HOOK
            assert torch.allclose(found.direction, gradient, rtol=1e-9)


@pytest.mark.one_lens
def test_settings_of_years_ago_are_read(tmp_path: Path) -> None:
    """All in one layer, `hook_point` for the hook, a flag for the normalisation."""
    saved(tmp_path, "standard")
    old = {"hook_point": HOOK, "normalize_activations": True, "hook_point_head_index": None}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    found = tls.sae_feature(tmp_path, 2)
    assert found.target_hook == HOOK
    assert torch.equal(found.direction, tensors("standard")["W_enc"][:, 2])


@pytest.mark.one_lens
def test_gemma_scopes_files(tmp_path: Path) -> None:
    t = tensors("jumprelu")
    np.savez(tmp_path / "params.npz", **{name: value.numpy() for name, value in t.items()})
    expected = t["W_enc"][:, 3]
    assert torch.equal(tls.sae_feature(tmp_path, 3, target_hook=HOOK).direction, expected)
    assert tls.sae_feature(tmp_path / "params.npz", 3, target_hook="here").target_hook == "here"
    with pytest.raises(ValueError, match="names no hook"):
        tls.sae_feature(tmp_path, 3)

    second = tmp_path / "second"
    second.mkdir()
    lower = {name.replace("W_", "w_"): value for name, value in t.items()}
    save_file(lower, second / "params.safetensors")
    for module, hook in (
        ("model.layers.9.output", "blocks.9.hook_resid_post"),
        ("model.layers.12.self_attn.o_proj.input", "blocks.12.attn.hook_z"),
        ("model.layers.0.post_feedforward_layernorm.output", "blocks.0.hook_mlp_out"),
    ):
        (second / "config.json").write_text(json.dumps({"architecture": "jump_relu", "hf_hook_point_in": module}))
        found = tls.sae_feature(str(second), 3)
        assert found.target_hook == hook
        assert torch.equal(found.direction, expected)
    assert torch.equal(tls.sae_feature(second, 3, kind="decoder", target_hook="a").direction, t["W_dec"][3])
    with pytest.raises(ValueError, match="names no hook"):
        tls.sae_feature(second, 3, kind="decoder")


@pytest.mark.one_lens
@pytest.mark.parametrize("normalised", ["layer_norm", "constant_norm_rescale", "covariance_whitening"])
def test_what_is_not_linear_is_refused_by_name(tmp_path: Path, normalised: str) -> None:
    folder = saved(tmp_path, "standard", normalize_activations=normalised)
    with pytest.raises(ValueError, match=f"normalises its input .'{normalised}'"):
        tls.sae_feature(folder, 0)
    assert torch.equal(tls.sae_feature(folder, 0, kind="encoder").direction, tensors("standard")["W_enc"][:, 0])
    with pytest.raises(ValueError, match="its architecture is 'matching_pursuit', not one of"):
        tls.sae_feature(saved(tmp_path, "standard", architecture="matching_pursuit"), 0)


@pytest.mark.one_lens
def test_files_that_are_no_sae_are_refused(tmp_path: Path) -> None:
    t, cfg = tensors("gated"), settings("gated", True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "sae.pt").write_bytes(b"")
    (tmp_path / "sae.txt").write_bytes(b"")
    (tmp_path / "broken.safetensors").write_bytes(b"12345678123")
    (tmp_path / "broken.npz").write_bytes(b"12345678123")
    save_file({"encoder.weight": t["W_enc"]}, tmp_path / "other.safetensors")
    broken = saved(tmp_path / "json", "standard")
    (broken / "cfg.json").write_text("{")
    listed = saved(tmp_path / "list", "standard")
    (listed / "cfg.json").write_text("[]")
    flipped = {**t, "W_enc": t["W_enc"].T.contiguous(), "W_dec": t["W_dec"].T.contiguous()}
    for sae, words in (
        (tmp_path / "nowhere", "no such file or folder"),
        (tmp_path / "empty", "not one file of tensors: none"),
        (tmp_path / "sae.pt", "is a pickle"),
        (tmp_path / "sae.txt", "expected a .safetensors or .npz"),
        (tmp_path / "broken.safetensors", "broken.safetensors cannot be read"),
        (tmp_path / "broken.npz", "broken.npz cannot be read"),
        (tmp_path / "other.safetensors", "has no W_enc and no W_dec"),
        (broken, "cfg.json is not JSON"),
        (listed, "holds no settings, but list"),
        (saved(tmp_path / "size", "standard", d_sae=13), "its cfg says d_sae = 13, its tensors 12"),
        ({**t, "W_dec": t["W_dec"][1:], "cfg": cfg}, r"W_enc \[8, 12\] and W_dec \[11, 8\] of a mapping are not"),
        ({**flipped, "cfg": {}}, "the other way round"),
        ({name: value for name, value in t.items() if name != "r_mag"} | {"cfg": cfg}, "a gated SAE needs r_mag"),
        ({**t, "r_mag": t["r_mag"][:3], "cfg": cfg}, r"r_mag of a mapping has shape \[3\]"),
    ):
        with pytest.raises(ValueError, match=words):
            tls.sae_feature(sae, 0)


@pytest.mark.one_lens
def test_the_bundled_sae_explains_the_demo_model(demo_model: Any) -> None:
    """On prompts that it was not trained on, by TransformerLens' own hooks; and a feature's scores are its gradient's."""
    from tl_scopes.demo import examples

    t, cfg = load_file(BUNDLED_SAE / "sae_weights.safetensors"), json.loads((BUNDLED_SAE / "cfg.json").read_text())
    record = json.loads((BUNDLED_SAE / "training.json").read_text())
    hook = cfg["metadata"]["hook_name"]
    rows = []
    for corpus in ("translation", "binding", "mystery", "instruction", "bias", "series"):
        for example in examples(corpus, 5, seed=7):
            with torch.no_grad():
                _, cache = demo_model.run_with_cache(example.prompt, names_filter=hook)
            rows.append(cache[hook][0, 1:])
    h = torch.cat(rows)
    pre = (h - t["b_dec"]) @ t["W_enc"] + t["b_enc"]
    values, at = pre.topk(cfg["k"], dim=-1)
    error = h - (torch.zeros_like(pre).scatter(-1, at, values.relu()) @ t["W_dec"] + t["b_dec"])
    explained = 1 - float(error.square().sum() / (h - h.mean(0)).square().sum())
    assert explained > record["explained_variance"] - 0.05 > 0.7
    assert sum(file.stat().st_size for file in BUNDLED_SAE.iterdir()) < 2**20
    assert torch.equal(tls.sae_feature("demo", 5).direction, t["W_enc"][:, 5])
