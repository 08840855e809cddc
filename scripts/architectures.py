"""Measure every architecture that the installed TransformerLens lists: ``python scripts/architectures.py``.

Each is a tiny random model, compared with plain Hugging Face autograd in every quantity that the package computes
(``tests/support/architecture_checks.py``). The results of this version of TransformerLens go into
``benchmarks/results/architectures.json`` beside those of the other, and ``docs/architectures.md`` is written from both;
``--page`` writes the page alone; names of variants measure these again. Some minutes on one core.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "architectures.json"
PAGE = ROOT / "docs" / "architectures.md"
SUPPORT = ROOT / "tests" / "support"
CALLS = {
    "semantic": "semantic_scope",
    "contrast": "contrast_scope",
    "temperature": "temperature_scope",
    "fisher": "fisher_scope",
    "rank_3": "fisher_scope(rank=3)",
    "total_information": "total_information",
    "middle": "a middle position",
    "matrix": "attribution_matrix",
    "batch": "prompts of unequal length",
    "checkpoint": "checkpoint=True",
    "elsewhere": 'at="blocks.0.hook_resid_pre"',
    "layers": "layer_influence",
    "heads": "head_influence",
    "sinks": "attention_sinks",
    "rollout": "attention_rollout",
    "leave_one_out": "leave_one_out",
    "model_check": "check_model",
    "direction": "jacobian_scope",
    "moment": "moment_scope",
    "sampled": "total information by probes",
    "spectrum": "fisher_spectrum",
    "inner_gradient": "grads_at=",
    "times_input": "input_x_gradient",
    "smoothed": "smoothgrad",
    "path": "integrated_gradients",
    "path_norms": "ig_path",
    "removals": "verify",
    "swaps": "substitutions",
    "patches": "patch_top",
}
"""What each check is called on the page."""

LONGEST = 220
"""Characters of a reason."""

BRIDGE = "from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module"


def _report(hf: str, sizes: str, then: str) -> str:
    """A script that builds a bridge of these sizes, laid out as the linter lays it out."""
    config = f"config = transformers.{hf}Config({sizes})"
    if len(config) > 120:
        lines = "".join(f"    {size},\n" for size in sizes.split(", "))
        config = f"config = transformers.{hf}Config(\n{lines})"
    return (
        f"import torch\nimport transformers\n{BRIDGE}\n\n{config}\n"
        f"hf = transformers.{hf}ForCausalLM(config).eval()\n"
        f'bridge = build_bridge_from_module(hf, "{hf}ForCausalLM", hf_config=config)\n{then}'
    )


RUN = "bridge(torch.tensor([[1, 2, 3]]))\n"
UPSTREAM: list[tuple[str, str, str]] = [
    (
        "CodeGen does not run",
        _report("CodeGen", "vocab_size=99, n_embd=32, n_layer=2, n_head=4, rotary_dim=4", RUN),
        "AttributeError: 'CodeGenAttention' object has no attribute 'embed_positions'",
    ),
    (
        "GraniteMoeHybrid does not run without rotary embeddings, its default",
        _report(
            "GraniteMoeHybrid",
            "vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=1, layer_types=["
            '"full_attention"], num_attention_heads=4, num_key_value_heads=2, mamba_n_heads=4, mamba_d_head=16, '
            "pad_token_id=0",
            RUN,
        ),
        "RuntimeError: Original component not set for model.rotary_emb. Call set_original_component() first.",
    ),
    (
        "OPT with the norms after the layers (OPT-350m) does not run",
        _report(
            "OPT",
            "vocab_size=99, hidden_size=32, word_embed_proj_dim=32, ffn_dim=64, num_hidden_layers=2, "
            "num_attention_heads=4, do_layer_norm_before=False",
            RUN,
        ),
        "RuntimeError: Original component not set for model.decoder.final_layer_norm. Call set_original_component() first.",
    ),
    (
        "Falcon with the new decoder (Falcon-40B, Falcon 2) is not built",
        _report(
            "Falcon",
            "vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_kv_heads=2, "
            "new_decoder_architecture=True",
            "",
        ),
        "RuntimeError: split_with_sizes expects split_sizes to sum exactly to 64 (input tensor's size at dimension 0), but "
        "got split_sizes=[32, 8, 8]",
    ),
    (
        "GPT-1 sees later tokens once an attention mask is given, be it all ones",
        (
            f"import torch\nimport transformers\n{BRIDGE}\n\n"
            "config = transformers.OpenAIGPTConfig(vocab_size=99, n_embd=32, n_layer=2, n_head=4)\n"
            "torch.manual_seed(0)\nhf = transformers.OpenAIGPTLMHeadModel(config).eval()\n"
            'bridge = build_bridge_from_module(hf, "OpenAIGPTLMHeadModel", hf_config=config)\n'
            "tokens = torch.tensor([[1, 2, 3]])\nones = torch.ones_like(tokens)\n"
            "torch.testing.assert_close(bridge(tokens), bridge(tokens, attention_mask=ones))\n"
        ),
        "AssertionError: Tensor-likes are not close!",
    ),
]
"""TransformerLens' own faults: what, a script that shows it, and the first line of its error."""


def measure(chosen: Sequence[str] = ()) -> dict[str, Any]:
    """The chosen variants, or every one, on the installed TransformerLens."""
    sys.path.insert(0, str(SUPPORT))
    import architecture_checks
    import architectures
    import torch
    import transformers

    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    transformers.logging.set_verbosity_error()
    rows: dict[str, Any] = {}
    for name in chosen or architectures.names():
        found = architecture_checks.examined(name)
        rows[name] = {check: [o.kind, float(f"{o.error:.0e}"), _brief(o.text)] for check, o in found.items()}
        faults = [check for check, o in found.items() if o.fault]
        print(f"{name:40}" + (f"faults: {', '.join(faults)}" if faults else "ok"), flush=True)
    elsewhere: dict[str, list[str]] = {}
    for name, reason in architectures.ELSEWHERE.items():
        if name in architectures.SUPPORTED_ARCHITECTURES:
            elsewhere.setdefault(reason, []).append(name)
    return {
        "versions": {p: version(p) for p in ("transformer_lens", "transformers", "torch")},
        "rows": rows,
        "broken": architectures.broken(),
        "elsewhere": elsewhere,
    }


def _brief(text: str) -> str:
    """An error without what is different in every call."""
    text = " ".join(text.split("; did you mean")[0].split())
    text = re.sub(r"^[a-z_]+(?=[(:])", "", text).removeprefix(": ")
    text = re.sub(
        r"\((?:grads_at|cache)='(?:blocks\.\d+\.)?([\w.]+)'\): this model", r"a block without \1: this model", text
    )
    text = re.sub(r"^vjp differs from central differences by \S+ of its size.*", "`vjp` not accepted", text)
    text = re.sub(r"\[\d+(, \d+)*\]", "[…]", re.sub(r"blocks\.\d+", "blocks.…", text))
    text = re.sub(r"position \d+", "position …", text)
    return text if len(text) < LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " …"


def _called(check: str) -> str:
    """A check as the page names it."""
    name = CALLS[check]
    return name if " " in name else f"`{name}`"


def architecture(name: str) -> str:
    """The architecture of a variant."""
    return name.split(",")[0]


def exact(rows: dict[str, Any]) -> list[str]:
    """The variants whose scopes are all Hugging Face's, or refused."""
    asked = [check for check in CALLS if check != "model_check"]
    return [
        name
        for name, row in rows.items()
        if row["logits"][0] == "exact"
        and all(row[check][0] in ("exact", "refused") for check in asked)
        and "exact" in (row["semantic"][0], row["elsewhere"][0])
    ]


def sentence(measured: dict[str, Any]) -> str:
    """The counts, for the pages."""
    rows = measured["rows"]
    good = exact(rows)
    n_good, n_all = (len({architecture(name) for name in names}) for names in (good, rows))
    return (
        f"{n_good} of the {n_all} text-only causal architectures that TransformerLens "
        f"{measured['versions']['transformer_lens']} and transformers both have, in {len(good)} of {len(rows)} configurations"
    )


def _cells(row: dict[str, Any] | None, broken: dict[str, str], name: str, notes: dict[str, int]) -> list[str]:
    """Error of the scope, largest error of all that is exact, and what is not."""
    if row is None:
        return ["", "", "not in this version"]
    if row["logits"][0] != "exact":
        why = broken.get(name) or f"its logits are not Hugging Face's: {row['logits'][2] or row['logits'][1]}"
        answered = {"refused": "; refused", "off": "; **wrong**: answered all the same"}
        return ["–", "–", f"TransformerLens: {why}{answered[row['unsound'][0]] if 'unsound' in row else ''}"]
    best = row["semantic"] if row["semantic"][0] == "exact" else row["elsewhere"]
    errors = [error for kind, error, _ in row.values() if kind == "exact"]
    rest: dict[tuple[str, str], list[str]] = {}
    for check, (kind, _, text) in row.items():
        if kind != "exact":
            reason = _brief(text) or "another answer than Hugging Face's"
            rest.setdefault(("refused" if kind == "refused" else "**wrong**", reason), []).append(check)
    said = [
        f"{kind} {', '.join(map(_called, checks))} [{notes.setdefault(text, len(notes) + 1)}]"
        for (kind, text), checks in rest.items()
    ]
    if row["semantic"][0] != "exact" and row["elsewhere"][0] == "exact":
        said.append('exact with `at="blocks.0.hook_resid_pre"`')
    return [f"{best[1]:.0e}" if best[0] == "exact" else "–", f"{max(errors):.0e}" if errors else "–", "; ".join(said)]


def page(measured: dict[str, Any]) -> str:
    """The whole page."""
    new, old = measured["4"], measured["3"]
    notes: dict[str, int] = {}
    lines = []
    for name in sorted({*new["rows"], *old["rows"]}):
        cells = [c for m in (new, old) for c in _cells(m["rows"].get(name), m["broken"], name, notes)]
        if cells[5] == cells[2]:
            cells[5] = "as 4" if cells[2] else ""
        lines.append("| " + " | ".join([f"`{architecture(name)}`{name[len(architecture(name)) :]}", *cells]) + " |")
    both = "; ".join(
        f"TransformerLens {m['versions']['transformer_lens']} (transformers {m['versions']['transformers']}, torch "
        f"{m['versions']['torch'].split('+')[0]})"
        for m in (new, old)
    )
    parts = [
        "# Architectures",
        "Written by `python scripts/architectures.py`, run once on each TransformerLens; do not edit. Tests of the same: "
        "`make families`.",
        f"Exact, or refused in words, on {sentence(new)}; and on {sentence(old)}.",
        "Each architecture is a tiny random model in float64 (XGLM float32) with its own configuration class, and in further "
        "configurations where the defaults leave something out. The reference is the plain Hugging Face model: the output of "
        "its embedding module is replaced by a leaf, and autograd runs from there to the input of its head. Errors are "
        "relative to the largest entry; most of them are the float32 steps (norms, rotary angles, softmax) that Hugging Face "
        f"takes inside a float64 model, which come in another order in batches. Measured on {both}.",
        "*scope*: `semantic_scope`. *all*: the largest error of " + ", ".join(map(_called, CALLS)) + ", as far "
        "as they are answered. *refused*: the call raises, before or after the run, and says why. **wrong**: a fault of this "
        "package.",
        "| architecture | 4: scope | all | not exact | 3.9: scope | all | not exact |\n"
        + "|---" * 7
        + "|\n"
        + "\n".join(lines),
        "\n".join(f"{number}. {text.replace('|', '¦')}" for text, number in notes.items()),
        "Where a model multiplies its embeddings (Granite) or normalises them (Bloom, BERT, ModernBERT), `hook_embed` is "
        "behind that, and the reference's leaf too. Where every layer reads the embeddings a second time (Gemma 4, Zamba 2), "
        "that way is in the scope at `hook_embed`, and not in `layer_influence`, which begins in the residual stream.",
        "## Not in the table",
        "\n".join(f"- {reason}: " + ", ".join(f"`{n}`" for n in names) for reason, names in new["elsewhere"].items()),
        f"## Faults of TransformerLens {new['versions']['transformer_lens']}",
        "Each with a script that shows it, for a report upstream.",
    ]
    for what, code, error in UPSTREAM:
        parts += [f"### {what}", f"```python\n{code}```", f"```text\n{error}\n```"]
    return "\n\n".join(parts) + "\n"


def written(measured: dict[str, Any]) -> str:
    """The results as JSON with one line for each variant."""
    parts = []
    for major, found in sorted(measured.items()):
        rows = ",\n".join(
            f"{json.dumps(name)}: {json.dumps(row, ensure_ascii=False)}" for name, row in found["rows"].items()
        )
        rest = json.dumps({k: v for k, v in found.items() if k != "rows"}, ensure_ascii=False)
        parts.append(f'"{major}": {{"rows": {{\n{rows}\n}},\n{rest[1:]}')
    return "{" + ",\n".join(parts) + "}\n"


def main() -> None:
    """Measure, unless ``--page``; write the page."""
    chosen = [argument for argument in sys.argv[1:] if argument != "--page"]
    found = None if "--page" in sys.argv else measure(chosen)
    measured = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    if found is not None:
        major = found["versions"]["transformer_lens"].split(".")[0]
        if chosen:
            found["rows"] = dict(sorted((measured[major]["rows"] | found["rows"]).items()))
        measured[major] = found
        RESULTS.write_text(written(measured), encoding="utf-8")
    if {"3", "4"} <= set(measured):
        PAGE.write_text(page(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
