"""The command ``gold``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import default_methods, library, load_model, require_names


def gold(
    method: options.GoldMethods = None,
    corpus: options.Corpora = None,
    n: options.N = 200,
    seed: options.Seed = 0,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """How often each scope puts the token first that is known to cause the answer.

    MODEL is a bundled one, or one that was trained on the demo corpora. Without --corpus these are the six of 'demo'.
    """
    files = Files(html=html, plot=plot, csv=csv, json=json)
    tls = library()
    from tl_scopes.demo.corpora import ALL_CORPORA
    from tl_scopes.evaluation.gold import known_methods

    methods = tuple(method or default_methods(tls.gold_alignment))
    require_names(methods, known_methods())
    require_names(corpus or (), ALL_CORPORA, "corpus")
    lens = load_model(model, kind, device)
    result = tls.gold_alignment(lens, methods, corpora=corpus or None, n=n, seed=seed)
    files.answer(result)
