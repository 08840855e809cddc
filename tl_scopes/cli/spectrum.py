"""The command ``spectrum``."""

from __future__ import annotations

from tl_scopes.cli import options
from tl_scopes.cli.output import Files
from tl_scopes.cli.support import library, load_model


def spectrum(
    prompt: options.Prompts = None,
    n: options.N = 10,
    k: options.Eigenvalues = None,
    model: options.Model = "demo",
    kind: options.Kind = "auto",
    device: options.Device = None,
    html: options.Html = None,
    plot: options.Plot = None,
    csv: options.Csv = None,
    json: options.Json = None,
) -> None:
    """Eigenvalues of the Fisher information of next-token distributions, and the tokens each direction moves."""
    files = Files(html=html, plot=plot, csv=csv, json=json)
    tls = library()
    from tl_scopes.demo import CORPORA, examples

    if "" in (prompt or ()):
        raise ValueError("a prompt is empty")
    texts = prompt or [e.prompt for corpus in CORPORA for e in examples(corpus, n)]
    lens = load_model(model, kind, device)
    files.answer(tls.fisher_spectrum(lens, texts, k=k))
