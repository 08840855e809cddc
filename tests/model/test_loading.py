"""Invariant: load_model gives unprocessed weights in evaluation mode, of the class asked for, or says why it cannot."""

from __future__ import annotations

from pathlib import Path

import families
import pytest
import torch
import transformers

import tl_scopes as tls
from tl_scopes.demo import BUNDLED, DEMO_PATH
from tl_scopes.model.lens import class_kind, hooked_class
from tl_scopes.model.state import model_state

CLASSES = {"bridge": "TransformerBridge", "hooked": "HookedTransformer"}


@pytest.mark.parametrize("kind", families.kinds_available())
def test_the_demo_model_loads_as_every_class_and_gives_the_same_scores(kind, demo_model) -> None:
    model = tls.load_model("demo", kind=kind)
    assert class_kind(model) == CLASSES[kind]
    state = model_state(model)
    assert not state.folded_norm
    assert not state.constant_norm
    assert not state.centred_unembedding
    prompt = "German: der Hund sieht die Katze. English: the"
    for scope in (tls.semantic_scope, tls.fisher_scope, tls.temperature_scope):
        ours, reference = scope(model, prompt), scope(demo_model, prompt)
        assert ours.str_tokens == reference.str_tokens
        assert ours.str_tokens[0] == "<|endoftext|>"
        torch.testing.assert_close(ours.scores, reference.scores, rtol=0, atol=1e-5 * float(reference.scores.max()))


@pytest.mark.parametrize("kind", families.kinds_available())
def test_the_llama_loads_as_every_class_as_hugging_face_has_it(kind) -> None:
    model = tls.load_model("demo-llama", kind=kind)
    assert class_kind(model) == CLASSES[kind]
    state = model_state(model)
    assert not state.folded_norm
    assert not state.centred_unembedding
    reference = transformers.AutoModelForCausalLM.from_pretrained(BUNDLED["demo-llama"]).eval()
    tokens = model.to_tokens("German: der Hund sieht die Katze. English: the")
    torch.testing.assert_close(model(tokens), reference(tokens).logits, rtol=0, atol=1e-4)
    attr = tls.semantic_scope(model, tokens, target=" dog")
    assert attr.top_predictions[0][0] == " dog"
    assert attr.provenance["model_name"] == "demo-llama"


@pytest.mark.parametrize("kind", families.kinds_available())
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_local_folder_loads_as_every_class(kind, family, tmp_path) -> None:
    pair = families.build(family, kind, torch.float32)
    folder = tmp_path / f"my-{family}-checkpoint"  # a path with "llama" in it misleads TransformerLens
    pair.hf.save_pretrained(folder)
    pair.tokenizer.save_pretrained(folder)
    model = tls.load_model(folder, kind=kind, device="cpu")
    tokens = families.prompt_tokens(9)
    ours = tls.semantic_scope(model, tokens, target=3).scores
    expected = tls.semantic_scope(pair.model, tokens, target=3).scores
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5 * float(expected.max()))


@pytest.mark.parametrize("name", ["gemma-3-270m", "./gemma-3-270m", Path("gemma-3-270m")])
def test_a_folder_is_no_name_of_transformerlens(name, tmp_path, monkeypatch) -> None:
    families.build("llama", "bridge").hf.save_pretrained(tmp_path / "gemma-3-270m")
    families.tokenizer().save_pretrained(tmp_path / "gemma-3-270m")
    monkeypatch.chdir(tmp_path)
    assert tls.load_model(name).cfg.d_vocab == families.D_VOCAB


def test_the_bundled_folder_is_small() -> None:
    assert sum(f.stat().st_size for f in DEMO_PATH.iterdir()) <= 8 * 2**20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "/no/such/folder"}, "there is no such folder"),
        ({"name": ""}, "give 'demo', a Hub name or a local folder"),
        ({"kind": "Hooked"}, "expected 'auto', 'bridge' or 'hooked'"),
        ({"name": __file__}, "this is a file"),
        ({"device": "banana"}, r"load_model\(device='banana'\): cannot be used here"),
        ({"device": "cuda:99"}, r"load_model\(device='cuda:99'\): cannot be used here"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_cannot_be_loaded_is_refused(arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        tls.load_model(**arguments)


def test_a_folder_without_a_model_is_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        tls.load_model(tmp_path)


def test_hooked_on_transformerlens_4_says_what_to_do() -> None:
    if hooked_class() is not None:
        assert "hooked" in families.kinds_available()
        return
    with pytest.raises(ValueError, match="removed in TransformerLens 4.*kind='bridge'"):
        tls.load_model(kind="hooked")


def test_weights_that_are_a_pickle_are_refused_with_the_way_out(tmp_path) -> None:
    for file in DEMO_PATH.iterdir():
        if file.suffix == ".json":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pickle \(pytorch_model\.bin\).*save_pretrained.*model\.safetensors"):
        tls.load_model(tmp_path)


def test_what_the_libraries_stumble_over_is_a_value_error_with_the_name(tmp_path) -> None:
    for file in DEMO_PATH.iterdir():
        if file.suffix in (".json", ".txt"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_text("no weights", encoding="utf-8")
    with pytest.raises(ValueError, match=r"load_model\(name=.*cannot be loaded \(SafetensorError"):
        tls.load_model(tmp_path)
