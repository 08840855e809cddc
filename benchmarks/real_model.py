"""Every public call once on a real model: ``python benchmarks/real_model.py --model FOLDER``.

One paragraph of some 100 tokens, defaults wherever a call has them. The table says what each call costs in CPU seconds and
over *lean* (a bare Hugging Face forward with the unembedding at one position, and one vector-Jacobian product, on the same
tokens), and whether it answered, or refused with which words. A traceback is neither, and makes the script exit with 1.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from scope_cost import lean
from shapes import real

import tl_scopes as tls
from tl_scopes import timeseries

PARAGRAPH = (
    "The lighthouse at the end of the harbour was built in 1887 by the engineer Anna Berg, whose company had already built "
    "the bridge and the railway station. At first the fishermen laughed at its red tower, but in the first winter its light "
    "saved two boats from the rocks, and from then on nobody laughed any more. Today it is a museum. Every summer thousands "
    "of visitors climb its narrow stairs, and from the top they can see the whole bay. The woman who built the lighthouse "
    "was called Anna"
)
OTHER = PARAGRAPH.replace("Anna", "Clara")
REFUSED = (ValueError, TypeError, NotImplementedError, MemoryError)


def calls(model: Any, folder: str) -> dict[str, Callable[[], Any]]:
    """Name of each public function, and one call of it."""
    made: dict[str, Any] = {}

    def attribution() -> Any:
        if not made:
            made["semantic"] = tls.semantic_scope(model, PARAGRAPH)
        return made["semantic"]

    def on_text(name: str, **options: Any) -> Callable[[], Any]:
        return lambda: getattr(tls, name)(model, PARAGRAPH, **options)

    direction = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(0))
    series = timeseries.logistic_map(40)
    eye, where = torch.eye(model.cfg.d_model), SimpleNamespace(hook_name="blocks.8.hook_resid_post")
    sae = SimpleNamespace(W_enc=eye, W_dec=eye, cfg=SimpleNamespace(metadata=where))
    passages = [PARAGRAPH, OTHER]
    plain = {
        name: on_text(name)
        for name in (
            "semantic_scope",
            "fisher_scope",
            "temperature_scope",
            "total_information",
            "scopes",
            "attribution_matrix",
            "input_x_gradient",
            "gradient_norm",
            "smoothgrad",
            "integrated_gradients",
            "leave_one_out",
            "random_attribution",
            "attention_rollout",
            "layer_influence",
            "head_influence",
            "attention_sinks",
            "positional_baseline",
            "ig_path",
            "fisher_spectrum",
        )
    }
    return plain | {
        "contrast_scope": on_text("contrast_scope", foil=" the"),
        "moment_scope": on_text("moment_scope", values={236770 + i: float(i) for i in range(3)}),
        "jacobian_scope": on_text("jacobian_scope", direction=direction),
        "sae_feature": lambda: tls.jacobian_scope(model, PARAGRAPH, **tls.sae_feature(sae, 1)._asdict()),
        "generate": lambda: tls.generate(model, PARAGRAPH, max_new_tokens=5),
        "semantic_scope, an answer": on_text("semantic_scope", target=" Berg, whose company"),
        "fisher_scope, 5 positions": on_text("fisher_scope", pos=range(-6, -1)),
        "contrast_scope, two answers": on_text("contrast_scope", target=" Berg.", foil=" of the Sea"),
        "semantic_scope, a chat": lambda: tls.semantic_scope(model, [{"role": "user", "content": PARAGRAPH}]),
        "semantic_scope, frozen": on_text("semantic_scope", frozen="all"),
        "input_x_gradient, frozen": on_text("input_x_gradient", frozen="all"),
        "gold_alignment, answers": lambda: tls.gold_alignment(model, ["semantic"], n=2, answers="whole"),
        "aopc, answers": lambda: tls.aopc(model, [(PARAGRAPH, " Berg, whose company")], ["semantic", "random"]),
        "[prompt] * 3": lambda: tls.semantic_scope(model, [PARAGRAPH] * 3, pos=[-1, -9, -20]),
        "by_unit": lambda: attribution().by_unit("sentence"),
        "verdict": lambda: tls.verdict(model, attribution()),
        "verify": lambda: tls.verify(model, attribution()),
        "substitutions": lambda: tls.substitutions(model, attribution()),
        "patch_top": lambda: tls.patch_top(model, PARAGRAPH, OTHER, attribution()),
        "check_model": lambda: tls.check_model(model),
        "aopc": lambda: tls.aopc(model, passages, preset="paper"),
        "gold_alignment": lambda: tls.gold_alignment(model, ["semantic"], n=2),
        "timeseries.forecast_scope": lambda: timeseries.forecast_scope(model, series),
        "timeseries.rolling_forecast": lambda: timeseries.rolling_forecast(model, series[:24]),
        "load_model": lambda: tls.load_model(folder),
    }


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True, help="folder of a pretrained model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", nargs="*", help="these calls alone")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    hf, model = real(args.model)(), tls.load_model(args.model)
    tokens = tls.semantic_scope(model, PARAGRAPH).tokens
    floor = min(seconds(lambda: lean(hf, tokens, 1)) for _ in range(3))
    print(
        f"torch {torch.__version__}, TransformerLens {tls.semantic_scope(model, 'A b').provenance['transformer_lens']}, "
        f"{args.threads} thread(s), {type(hf).__name__}, {len(tokens)} tokens; lean {floor:.2f} CPU s"
    )
    print(f"{'call':30} {'CPU s':>8} {'x lean':>8}  answer")
    broken = 0
    for name, call in calls(model, args.model).items():
        if args.only and name not in args.only:
            continue
        try:
            spent = seconds(call)
            answer = "ok"
        except REFUSED as error:
            spent, answer = float("nan"), f"refused: {' '.join(str(error).split())}"
        except Exception as error:
            broken += 1
            spent, answer = float("nan"), f"BROKEN: {type(error).__name__}: {error}"[:160]
        print(f"{name:30} {spent:8.1f} {spent / floor:8.1f}  {answer}", flush=True)
    return int(broken > 0)


def seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of the whole process."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    sys.exit(main())
