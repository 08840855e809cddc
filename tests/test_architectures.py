"""Invariant: every architecture that TransformerLens lists is computed as Hugging Face computes it, or refused in words.

The registry is `support/architectures.py`, what is asked of each `support/architecture_checks.py`, and what came of it
`docs/architectures.md`, which `python scripts/architectures.py` writes. All of them are a tier of their own,
`pytest -m families` (`make families`), a few of them on TransformerLens 3.9; three are looked at in the fast tier.
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import architecture_checks
import architectures
import frozen_checks
import further_checks
import pytest
import torch
import transformers
from families import TL_MAJOR

from tl_scopes.model.frozen import STATE
from tl_scopes.model.lens import whole

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architectures.md"
DOZEN = [
    "BloomForCausalLM",
    "CohereForCausalLM",
    "DeepseekV3ForCausalLM",
    "FalconForCausalLM",
    "GPTJForCausalLM",
    "Gemma4ForCausalLM",
    "JambaForCausalLM",
    "Mamba2ForCausalLM",
    "MixtralForCausalLM",
    "OPTForCausalLM",
    "Qwen3NextForCausalLM",
    "RwkvForCausalLM",
]
"""Of those, what is run on 3.9 too: one of each kind."""
FAST = ["DeepseekV3ForCausalLM", "MambaForCausalLM", "MixtralForCausalLM"]


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("architectures_script", ROOT / "scripts" / "architectures.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def quiet() -> Any:
    """Hugging Face's advice on kernels that are not installed."""
    before = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    yield
    transformers.logging.set_verbosity(before)


def test_every_architecture_that_transformer_lens_lists_is_built_or_listed_with_a_reason():
    assert not architectures.untested(), "add a line to SPECS or ELSEWHERE of tests/support/architectures.py"
    assert not {spec.architecture for spec in architectures.SPECS.values()} & set(architectures.ELSEWHERE)


@pytest.mark.parametrize("name", FAST)
def test_the_semantic_scope_of_an_unusual_architecture_is_hugging_faces(name):
    found = architecture_checks.examined(name, {"semantic": architecture_checks.semantic})
    assert {outcome.kind for outcome in found.values()} == {"exact"}, found


@pytest.mark.families
@pytest.mark.parametrize("name", architectures.names() if TL_MAJOR > 3 else DOZEN)
def test_every_quantity_is_hugging_faces_or_refused_in_words(name, unchecked):
    found = architecture_checks.examined(name)
    own = found.pop("logits")
    if name in architectures.broken():
        assert own.fault, f"TransformerLens now computes {name} ({own}): take it out of BROKEN"
    else:
        assert not own.fault, f"the bridge's logits are not Hugging Face's: {own} {own.text}"
    faults = {check: outcome for check, outcome in found.items() if outcome.fault}
    assert not faults, faults


@pytest.mark.families
@pytest.mark.parametrize(
    "name", [n for n in (architectures.names() if TL_MAJOR > 3 else DOZEN) if n not in architectures.broken()]
)
def test_what_is_frozen_is_hugging_faces_or_refused_in_words(name, unchecked):
    built = architectures.build(name)
    found = architecture_checks.checked(built, frozen_checks.CHECKS)
    faults = {check: outcome for check, outcome in found.items() if outcome.fault}
    assert not faults, faults
    stateful = any(STATE.search(type(module).__name__) for module in whole(built.model).modules())
    refused = {check for check, outcome in found.items() if outcome.kind == "refused"}
    # the first runs without a gradient, the second has embeddings of another width than its stream
    if not stateful and name not in ("HrmTextForCausalLM", "OPTForCausalLM, projections"):
        assert not refused, refused


@pytest.mark.families
@pytest.mark.skipif(TL_MAJOR < 4, reason="one of the families that are run on the newer TransformerLens alone")
def test_rounding_is_told_from_a_fault_of_its_size():
    removals = further_checks.removals
    built = architectures.build("Glm4ForCausalLM")  # whose predicted removals are small differences of large products
    subject = architecture_checks.Subject(built)
    assert removals(subject) > architecture_checks.EXACT[torch.float64]
    assert architecture_checks.outcome(removals, subject).kind == "exact"
    assert architecture_checks.outcome(lambda s: removals(s) + 2e-6, subject).kind == "off"


@pytest.mark.families
def test_models_are_not_degenerate():
    """Every position of the prompt reaches the last one, and the distribution is neither flat nor one-hot."""
    subject = architecture_checks.Subject(architectures.build("JambaForCausalLM"))
    score = subject.reference.score(subject.reference.z[-1, architecture_checks.TARGET])
    p = subject.reference.z[-1].detach().double().softmax(-1)
    assert float(score.min() / score.max()) > 1e-3
    assert 1 < float(-(p * p.log()).sum()) < 5


def test_the_page_says_what_was_measured(script):
    measured = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    assert PAGE.read_text(encoding="utf-8") == script.page(measured)


def test_the_page_on_trust_states_the_counts_of_the_page(script):
    measured = json.loads(script.RESULTS.read_text(encoding="utf-8"))
    page = " ".join((ROOT / "docs" / "trust.md").read_text(encoding="utf-8").split())
    assert script.sentence(measured["4"]) in page


@pytest.mark.families
@pytest.mark.skipif(TL_MAJOR < 4, reason="the faults are those of the newer TransformerLens")
def test_the_faults_of_transformer_lens_are_raised_as_they_are_quoted():
    blocks = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    for code, quoted in blocks:
        with pytest.raises(Exception) as caught, torch.random.fork_rng():  # noqa: PT011
            exec(code, {})
        assert f"{caught.type.__name__}: {caught.value}".splitlines()[0] == quoted.strip()
