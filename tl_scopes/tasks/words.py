"""Words that several tasks share."""

from __future__ import annotations

from tl_scopes.tasks.text import as_list

NAMES = as_list("""
    Alice Brian Carla Daniel Edith Frank Gloria Henry Irene Jack Laura Martin Nora Oliver Peter Rachel Simon
    Teresa Victor Wendy Albert Bella Colin Diana Edward Fiona George Helen Isaac Julia Kevin Linda Marcus Nancy
    Patrick Rosa Samuel Tina Vincent Walter
""")
COLOURS = as_list("""
    red blue green yellow black white purple orange brown pink grey silver gold violet crimson turquoise beige
    scarlet indigo maroon amber ivory olive copper bronze lavender coral emerald cream navy
""")
