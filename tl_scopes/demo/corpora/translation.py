"""Word-by-word causes of translations into English, with reordering.

    German: ich hoffe, dass der Hund die Katze sieht. English: I hope that the dog -> sees  (sieht)
    Spanish: el perro negro ve una flor. English: the -> black  (negro)
    Japanese: inu ga niwa de akai hana o mita. English: the dog -> saw  (mita)

Adjectives follow their noun in Spanish and mostly in French; the verb comes last in Japanese, in German
subordinate clauses and, as a participle, in the German perfect. The cause of an English word is the word it
translates; the other content words of the source are the others. No content word occurs twice in a passage.
Words without one such cause ("of", "in", "the" for Japanese, which has no article, "a" for "ein großer",
where the adjective's ending tells it too) are read in training and are no examples.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from tl_scopes.demo.corpora import lexicon
from tl_scopes.demo.corpora.passages import Draft, Example, Passage, Span, Split, Swap, is_held_out


@dataclass
class Word:
    """One source word: its text, its slot, and what a swap puts in its place (source word, English word)."""

    text: str
    slot: str = ""
    swap: tuple[str, str] = ("", "")
    span: Span = (0, 0)


@dataclass
class Clause:
    """Source words in source order, and English words, each with the source word that causes it."""

    source: list[Word] = field(default_factory=list)
    english: list[tuple[str, Word | None]] = field(default_factory=list)


class Vocabulary:
    """Draws content words of one language without repetition."""

    def __init__(self, rng: random.Random, language: str) -> None:
        """Nothing drawn yet."""
        self.rng, self.language = rng, language
        self.used: set[str] = set()

    def draw(self, table: dict[str, str]) -> str:
        """A word of `table` that the passage does not have yet."""
        word = self.rng.choice([word for word in table if word not in self.used])
        self.used.add(word)
        return word

    def rival(self, candidates: list[str]) -> str:
        """A counterpart that the passage does not have and will not draw; any candidate if all are taken."""
        word = self.rng.choice([word for word in candidates if word not in self.used] or candidates)
        self.used.add(word)
        return word

    def noun_swap(self, english: str, table: dict[str, str]) -> tuple[str, str]:
        """Another noun of the same table and gender."""
        gender = lexicon.noun(english, self.language)[1]
        same = [word for word in table if word != english and lexicon.noun(word, self.language)[1] == gender]
        other = self.rival(same)
        return lexicon.noun(other, self.language)[0], other

    def noun_phrase(self, english: str, table: dict[str, str], case: int, adjective_rate: float) -> Clause:
        """Article, adjective and noun in `case` (0 subject, 1 object), in both languages' order."""
        rng, language = self.rng, self.language
        word, gender = lexicon.noun(english, language)
        definite = language == "Japanese" or rng.random() < 0.6
        noun = Word(word, "noun", self.noun_swap(english, table))
        source, translated = [noun], [(english, noun)]
        has_adjective = rng.random() < adjective_rate
        if has_adjective:
            name = self.draw(lexicon.ADJECTIVES)
            text, before = lexicon.adjective(name, language, gender, definite, case)
            forms = {
                other: form
                for other in lexicon.ADJECTIVES
                for form, place in [lexicon.adjective(other, language, gender, definite, case)]
                if other != name and place == before
            }
            other = self.rival(sorted(forms))
            adjective = Word(text, "adjective", (forms[other], other))
            source.insert(0 if before else 1, adjective)
            translated.insert(0, (name, adjective))
        english_article = "the" if definite else "a"
        if language == "Japanese":
            return Clause(source, [(english_article, None), *translated])
        articles = {d: lexicon.ARTICLES[language, d, gender][case] for d in (True, False)}
        article = Word(articles[definite])
        if not (language == "German" and has_adjective):
            article.slot, article.swap = "article", (articles[not definite], "a" if definite else "the")
        return Clause([article, *source], [(english_article, article), *translated])

    def place_phrase(self) -> Clause:
        """ "in the garden"."""
        english = self.draw(lexicon.PLACES)
        word, gender = lexicon.noun(english, self.language)
        place = Word(word, "place", self.noun_swap(english, lexicon.PLACES))
        before = {
            "German": ["in", "der"] if gender == "f" else ["im"],
            "Spanish": ["en", "la" if gender == "f" else "el"],
            "French": ["dans", "la" if gender == "f" else "le"],
            "Japanese": [],
        }[self.language]
        after = ["de"] if self.language == "Japanese" else []
        source = [*map(Word, before), place, *map(Word, after)]
        return Clause(source, [("in", None), ("the", None), (english, place)])


def clause(words: Vocabulary, split: Split, level: float, verb_final: bool) -> Clause:
    """Subject, verb, object and perhaps a place, in the language's order."""
    rng, language = words.rng, words.language
    living, objects = {**lexicon.PEOPLE, **lexicon.ANIMALS}, {**lexicon.ANIMALS, **lexicon.THINGS}
    while True:
        subject, name, thing = (rng.choice(sorted(table)) for table in (living, lexicon.VERBS, objects))
        new = {subject, name, thing}
        held_out = is_held_out("translation", subject, name, thing)
        if len(new) == 3 and not new & words.used and held_out == (split == "held_out"):
            break
    words.used |= new

    past = language != "French" and rng.random() < 0.4 * level
    adjective_rate = 0.15 + 0.2 * level
    english_verb, foreign_verb = lexicon.verb(name, language, past)
    rival = words.rival([other for other in lexicon.VERBS if other != name])
    rival_english, rival_foreign = lexicon.verb(rival, language, past)
    action = Word(foreign_verb, "verb", (rival_foreign, rival_english))
    agent = words.noun_phrase(
        subject, lexicon.PEOPLE if subject in lexicon.PEOPLE else lexicon.ANIMALS, 0, adjective_rate
    )
    patient = words.noun_phrase(
        thing, lexicon.THINGS if thing in lexicon.THINGS else lexicon.ANIMALS, 1, adjective_rate
    )
    place = words.place_phrase() if rng.random() < 0.25 * level else Clause()

    auxiliary = [Word("hat")] if language == "German" and past else []
    if language == "Japanese":
        source = [*agent.source, Word("ga"), *place.source, *patient.source, Word("o"), action]
    elif verb_final:
        source = [*agent.source, *patient.source, *place.source, action, *auxiliary]
    elif auxiliary:
        source = [*agent.source, *auxiliary, *patient.source, *place.source, action]
    else:
        source = [*agent.source, action, *patient.source, *place.source]
    return Clause(source, [*agent.english, (english_verb, action), *patient.english, *place.english])


def sentence(words: Vocabulary, split: Split, level: float) -> Clause:
    """One clause, a German subordinate clause, or two clauses joined by "and"."""
    rng = words.rng
    if words.language == "German" and rng.random() < 0.35:
        belief, other = rng.sample(sorted(lexicon.BELIEFS), 2)
        verb = Word(lexicon.BELIEFS[belief], "belief", (lexicon.BELIEFS[other], other))
        inner = clause(words, split, level, verb_final=True)
        english: list[tuple[str, Word | None]] = [("I", None), (belief, verb), ("that", None)]
        return Clause([Word("ich"), verb, Word(","), Word("dass"), *inner.source], english + inner.english)
    first = clause(words, split, level, verb_final=False)
    if rng.random() < 0.25 * level:
        joint = {"German": "und", "Spanish": "y", "French": "et", "Japanese": "soshite"}[words.language]
        second = clause(words, split, level, verb_final=False)
        return Clause([*first.source, Word(joint), *second.source], [*first.english, ("and", None), *second.english])
    return first


def translation(rng: random.Random, split: Split = "train", level: float = 1.0) -> Passage:
    """One sentence and its translation; every translated word is an example."""
    language = rng.choice(lexicon.LANGUAGES)
    drawn = sentence(Vocabulary(rng, language), split, level)
    draft = Draft(f"{language}:")
    for word in drawn.source:
        word.span = draft.add(word.text if word.text == "," else f" {word.text}")
    source = (len(language) + 2, draft.add(".")[1])
    draft.add(" English:")

    target_start = len(draft.text) + 1
    examples: list[Example] = []
    for english, cause in drawn.english:
        if cause is not None and cause.slot:
            answer = f" {english}"
            replacement, changed = cause.swap
            others = tuple(
                Swap(word.span, word.swap[0], answer)
                for word in drawn.source
                if word is not cause and word.slot and word.slot != "article"
            )
            causes = (Swap(cause.span, replacement, f" {changed}"),)
            examples.append(Example("translation", cause.slot, draft.text, answer, source, causes, others))
        draft.add(f" {english}")
    draft.add(".")
    return Passage("translation", draft.text, ((target_start, len(draft.text)),), tuple(examples))
