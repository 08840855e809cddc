"""What a model is fit for: the result of :func:`tl_scopes.check_model`."""

from __future__ import annotations

from dataclasses import dataclass

from tl_scopes.directions.by_name import SCOPES
from tl_scopes.results.base import Displayable, Serializable


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, whether it is in order, and the remedy if it is not."""

    subject: str
    ok: bool
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        mark = "ok  " if self.ok else "NO  "
        return f"{mark}{self.subject:<23} {self.text}" + (f". {self.remedy}" if self.remedy else "")


@dataclass(frozen=True)
class ModelReport(Displayable, Serializable):
    """Findings about a model; prints one line each.

    Attributes:
        findings: in the order they print.
    """

    findings: tuple[Finding, ...]

    def __repr__(self) -> str:
        return str(self)

    def __getitem__(self, subject: str) -> Finding:
        for finding in self.findings:
            if finding.subject == subject:
                return finding
        raise KeyError(f"{subject!r}; the report has {[f.subject for f in self.findings]}")

    @property
    def ok(self) -> bool:
        """Is everything in order?"""
        return all(f.ok for f in self.findings)

    @property
    def valid_scopes(self) -> tuple[str, ...]:
        """Names of the scopes that this model supports."""
        of_function = {scope.function: name for name, scope in SCOPES.items()}
        return tuple(of_function[f.subject] for f in self.findings if f.ok and f.subject in of_function)
