"""What many predictions together cost: ``python benchmarks/span_cost.py``, ``--shape llama --captum``, ``--model FOLDER``.

M = 100 predictions of a text of T = 200 tokens, explained by one call with ``pos=range(...)``, against: one scope at that T
and the logits of the M positions on bare Hugging Face, which is the floor of a call that says what each token's probability
was; M calls of the scope; the same questions as one list, ``[prompt] * M``; the M rows of ``attribution_matrix``; with
``--captum``, Captum's ``Saliency`` of every prediction on bare Hugging Face, each on the text before it, with one position's
logits. First the sum is compared with that of the single calls' gradients, and of Captum's. Shape M1 (or M0, ``llama``) with
random weights, or the model in the folder; medians of the ratios of interleaved pairs.

With ``--shape llama --flashtrace``, FlashTrace (arXiv 2602.01914; Llama and Qwen shapes) on bare Hugging Face: its one-hop
trace of the M predicted tokens to those before them, of the same weights and tokens and an end-of-text token that it adds
itself, against our sum of logits and of log-probabilities. Only the time is comparable: its scores are not gradients but
how near each token's part of an attention layer comes to the stream behind that layer, from one forward and no backward. It
is not a dependency: ``benchmarks/peers/README.md`` says how it is installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import torch
from shapes import as_bridge, describe, gpt2_small, llama_small, prose, real
from timing import report

import tl_scopes as tls


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder of a pretrained model; None: random weights")
    parser.add_argument("--shape", choices=("gpt2", "llama"), default="gpt2", help="of random weights")
    parser.add_argument("--captum", action="store_true", help="beside Captum's Saliency, a backward per prediction")
    parser.add_argument(
        "--flashtrace", action="store_true", help="beside FlashTrace's trace of the answer (llama only)"
    )
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--length", type=int, default=200)
    parser.add_argument("--predictions", type=int, default=100)
    parser.add_argument(
        "--singles", type=int, default=10, help="single calls that are timed, of as many as predictions"
    )
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.flashtrace:
        if args.shape != "llama" and not args.model:
            parser.error("--flashtrace needs --shape llama, or --model with a folder of a Llama or a Qwen")
        try:
            import flashtrace  # noqa: F401 said before minutes are spent
        except ImportError as missing:
            parser.error(
                f"--flashtrace: {missing}. Install flashtrace and what it imports apart: see the script's docstring"
            )
    torch.set_num_threads(args.threads)
    make = real(args.model) if args.model else gpt2_small if args.shape == "gpt2" else llama_small
    hf, bridge = make(), as_bridge(make())
    generator = torch.Generator().manual_seed(1)
    tokens = prose(args.model) if args.model else torch.randint(1000, 50_000, (args.length,), generator=generator)
    tokens, m = tokens[: args.length], args.predictions
    span = range(len(tokens) - m - 1, len(tokens) - 1)
    print(
        f"torch {torch.__version__}, {args.threads} thread(s), {describe(hf)}, T={len(tokens)}, M={m}, float32",
        flush=True,
    )
    few = list(span)[:: max(1, m // 5)]
    joint = tls.semantic_scope(bridge, tokens, pos=few, keep_gradient=True).gradient
    each = [tls.semantic_scope(bridge, tokens, pos=p, target=int(tokens[p + 1]), keep_gradient=True) for p in few]
    apart = sum(one.gradient for one in each if one.gradient is not None)
    assert joint is not None
    assert isinstance(apart, torch.Tensor)
    difference = float((joint - apart).abs().max() / apart.abs().max())
    print(f"the gradient of a sum is the sum of {len(few)} single calls' to {difference:.1e}")
    assert difference < 1e-4

    def together(**options: Any) -> object:
        return tls.semantic_scope(bridge, tokens, pos=span, **options)

    y = torch.randn(m, hf.lm_head.weight.shape[1])

    def one_and_logits() -> object:
        with torch.no_grad():
            hf.lm_head(y)
        return tls.semantic_scope(bridge, tokens, target=1234)

    positions = list(span)[:: max(1, m // args.singles)]

    def singles() -> object:
        return [tls.semantic_scope(bridge, tokens, pos=p, target=int(tokens[p + 1])) for p in positions]

    report(f"{m} predictions, sum of logits", together, one_and_logits, args.pairs, "one scope and its logits", 1)
    report(
        f"{m} predictions, log-probability", lambda: together(of="log_prob"), together, args.pairs, "sum of logits", 1
    )
    report(f"{m} predictions, combine='norm'", lambda: together(combine="norm"), together, args.pairs, "the sum", 1)
    ratio = report(f"{len(positions)} single calls", singles, together, args.pairs, f"{m} predictions together", 1)
    print(f"so {m} single calls cost {ratio * m / len(positions):.0f} x the span")
    questions = {"pos": list(span), "target": [int(tokens[p + 1]) for p in span]}
    listed = report(
        f"[prompt] * {m}, each prediction by itself",
        lambda: tls.semantic_scope(bridge, [tokens] * m, **questions),
        together,
        1,
        "the span",
        0,
    )
    print(f"so {m} single calls cost {ratio * m / len(positions) / listed:.1f} x the list")
    report(
        f"attribution_matrix, the same {m} rows",
        lambda: tls.attribution_matrix(bridge, tokens, positions=list(span)),
        together,
        1,
        "the span",
        0,
    )
    if args.captum:
        beside_captum(hf, tokens, span, together, args.pairs)
    if args.flashtrace:
        beside_flashtrace(hf, bridge.tokenizer, tokens, span, together, args.pairs)


def beside_captum(hf: Any, tokens: torch.Tensor, span: range, together: Callable[..., Any], pairs: int) -> None:
    """Captum's gradient of every prediction, a forward and a backward each, compared and timed."""
    from captum.attr import Saliency

    embed = hf.get_input_embeddings()
    saliency = Saliency(lambda x: hf(inputs_embeds=x, logits_to_keep=1, use_cache=False).logits[:, -1])

    def each() -> torch.Tensor:
        total = torch.zeros(len(tokens), embed.weight.shape[1])
        for p in span:
            x = embed(tokens[None, : p + 1])
            total[: p + 1] += saliency.attribute(x, target=int(tokens[p + 1]), abs=False)[0]
        return total

    own, theirs = together(keep_gradient=True).gradient, each()
    difference = float((own - theirs).abs().max() / own.abs().max())
    print(f"captum's gradients add up to the span's to {difference:.1e} of the largest")
    assert difference < 1e-3
    report(f"captum Saliency, {len(span)} predictions", each, together, pairs, "the span", 1)


def beside_flashtrace(
    hf: Any, tokenizer: Any, tokens: torch.Tensor, span: range, together: Callable[..., Any], pairs: int
) -> None:
    """FlashTrace's one-hop trace of the predicted tokens to those before them, timed."""
    from flashtrace import FlashTrace

    words = tokenizer.convert_ids_to_tokens(tokens.tolist())
    prompt, answer = " ".join(words[: span.start + 1]), " ".join(words[span.start + 1 :])
    tracer = FlashTrace(hf, tokenizer)

    def trace() -> Any:
        return tracer.trace(prompt=prompt, target=answer, output_span=(0, len(span) - 1), hops=1)

    found = trace()
    assert found.prompt_tokens + found.generation_tokens == [*words, tokenizer.eos_token]
    assert sum(found.scores) > 0
    name = f"flashtrace {version('flashtrace')}, one hop, {len(span)} predictions"
    report(name, trace, together, pairs, "the span", 1)
    report(name, trace, lambda: together(of="log_prob"), pairs, "the span's log-probability", 1)


if __name__ == "__main__":
    main()
