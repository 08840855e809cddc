"""How results show themselves: one view each, in notebooks, on a page and in a terminal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tl_scopes.views import View


class Shown(ABC):
    """A result with a :meth:`view`; what it looks like is in :mod:`tl_scopes.views`, which is imported when it is drawn."""

    @abstractmethod
    def view(self) -> View:
        """The result as an interactive view."""

    def html(self) -> str:
        """A page of its own that works offline."""
        return self.view().html()

    def _repr_html_(self) -> str:
        return self.view()._repr_html_()

    def show(self) -> None:
        """Display it in a notebook; print its text elsewhere."""
        self.view().show()
