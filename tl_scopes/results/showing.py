"""How an attribution shows itself: as coloured text, or as bars; by the sizes of its scores, or by their signs."""

from __future__ import annotations

from typing import Any, Literal

from tl_scopes.numerics.arguments import public_call
from tl_scopes.results.base import Displayable, Picture, views

ScaleName = Literal["auto", "linear", "minmax", "log"]
"""How colours follow scores."""


class _Shown(Displayable):
    """An :class:`~tl_scopes.Attribution` as a picture."""

    def view(self, *, scale: ScaleName = "auto", baseline: Any = None, signed: bool | None = None) -> Picture:
        """Coloured tokens, the scale, the predictions.

        Args:
            scale: how colours follow scores: ``"linear"`` from 0, ``"minmax"`` from the lowest shown score, ``"log"``.
                ``"auto"`` is log where the highest score is more than 50 times the median, minmax where the lowest is
                above a fifth of the highest (with a box to tick for 0), else linear. The picture says which.
            baseline: of :func:`tl_scopes.positional_baseline`; a box to tick shows the scores over what it has.
            signed: two colours around 0 for :attr:`signed`: blue raises what is explained, orange lowers it; False for
                the sizes of scores. None is signed where the signed scores add up, as ``details["completeness"]`` says
                (with a box to tick for sizes).
        """
        found: Picture = views().view(self, scale=scale, baseline=baseline, signed=signed)
        return found

    def html(self, *, scale: ScaleName = "auto", baseline: Any = None, signed: bool | None = None) -> str:
        """The view as a page of its own that works offline."""
        return self.view(scale=scale, baseline=baseline, signed=signed).html()

    def show(self, *, scale: ScaleName = "auto", baseline: Any = None, signed: bool | None = None) -> None:
        """Display the view in a notebook; print its text elsewhere."""
        self.view(scale=scale, baseline=baseline, signed=signed).show()

    @public_call
    def plot(
        self, *, kind: Literal["text", "bars"] = "text", scale: ScaleName = "auto", signed: bool | None = None
    ) -> Any:
        """A matplotlib figure, for a paper: ``.plot().savefig("text.pdf")``, or ``.png``, ``.svg``.

        Args:
            kind: ``"text"``, the coloured text as the page has it, prompt and answer apart, what is explained outlined; or
                ``"bars"``, a bar for each score with its :attr:`stderr`, beside the most probable next tokens.
            scale: how colours, or the axis of the bars, follow scores; as in :meth:`view`.
            signed: as in :meth:`view`.

        >>> attr = semantic_scope(model, "German: der Hund sieht die Katze. English: the", target=" dog sees the cat")
        >>> attr.plot().axes[0].get_label()
        "Semantic Scope: which tokens move the log-probability of ' dog sees the cat'"
        """
        return views().plot(self, kind=kind, scale=scale, signed=signed)
