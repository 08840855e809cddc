"""Word translation: a word of English, after two that are translated.

    English: house | seen near the old bridge | French: maison. ... English: dog | ... | French: -> chien

Cause: the word. The places between the word and its translation say nothing about it.
"""

from __future__ import annotations

import random

from tl_scopes.demo.corpora.passages import Example
from tl_scopes.tasks.text import Task, Text, as_list, deck, pair

NAME = "translation"
WORDS = {  # English: French, Spanish, German
    "house": "maison casa Haus",
    "bread": "pain pan Brot",
    "water": "eau agua Wasser",
    "dog": "chien perro Hund",
    "horse": "cheval caballo Pferd",
    "book": "livre libro Buch",
    "milk": "lait leche Milch",
    "tree": "arbre árbol Baum",
    "fish": "poisson pescado Fisch",
    "night": "nuit noche Nacht",
    "day": "jour día Tag",
    "head": "tête cabeza Kopf",
    "heart": "cœur corazón Herz",
    "sun": "soleil sol Sonne",
    "moon": "lune luna Mond",
    "snow": "neige nieve Schnee",
    "fire": "feu fuego Feuer",
    "king": "roi rey König",
    "queen": "reine reina Königin",
    "friend": "ami amigo Freund",
    "city": "ville ciudad Stadt",
    "school": "école escuela Schule",
    "church": "église iglesia Kirche",
    "cheese": "fromage queso Käse",
    "apple": "pomme manzana Apfel",
    "bird": "oiseau pájaro Vogel",
    "cow": "vache vaca Kuh",
    "door": "porte puerta Tür",
    "window": "fenêtre ventana Fenster",
    "black": "noir negro schwarz",
    "green": "vert verde grün",
    "wine": "vin vino Wein",
    "flower": "fleur flor Blume",
    "white": "blanc blanco weiß",
}
LANGUAGES = ("French", "Spanish", "German")
PLACES = as_list("""
    bridge station market harbour castle library museum factory bakery hospital stable theatre tower fountain
    cottage village palace lighthouse mill pharmacy monument canal railway courtyard tunnel playground hotel
    vineyard windmill boathouse
""")
FORMS = {  # what stands before a translation, and after it
    "lines": ("English: {word}{places}\n{language}:", "\n"),
    "table": ("English | {word}{places} | {language} |", "\n"),
    "sentences": ("The English word {word}{places} is in {language}:", ". "),
}
N_SOLVED = 3


def make(rng: random.Random, length: int) -> Example:
    """A word to translate after translated ones, ``length`` places between each word and its translation."""
    form, language = rng.choice(sorted(FORMS)), rng.randrange(len(LANGUAGES))
    asks, after = FORMS[form]
    asks = asks.replace("{places}", "".join(f", near the {{place{i}}}" for i in range(length)))
    words, places = deck(rng, list(WORDS)), deck(rng, PLACES)

    def answer(word: str) -> str:
        return WORDS[word].split()[language]

    def solved(word: str) -> str:
        named = {f"place{i}": next(places) for i in range(length)}
        return f"{asks.format(word=word, language=LANGUAGES[language], **named)} {answer(word)}"

    text = Text(rng)
    for _ in range(N_SOLVED):
        text.write(f"{{solved}}{after}", solved=(solved(next(words)), solved(next(words))))
    start, word, other = len(text.text), next(words), next(words)
    named = {f"place{i}": pair(places) for i in range(length)}
    cause = text.write(asks, word=word, language=LANGUAGES[language], **named)["word"]
    return text.example(NAME, form, answer(word), (start, len(text.text)), [(cause, other, answer(other))])


TASK = Task(
    NAME,
    "a word of English after translated ones: what is it in the other language?",
    make,
    lengths=(0, 1, 2),
    unit="places beside the word",
    least=0,
    most=len(PLACES) // (2 * N_SOLVED + 2),
    forms=tuple(sorted(FORMS)),
)
