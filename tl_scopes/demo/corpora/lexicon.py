"""Words of the translation corpus: four languages and English.

Nouns are written ``word/gender``; a word stands in the form that every sentence of the corpus uses. French
nouns and adjectives begin with a consonant, so that no article is elided; English ones too, so that "a" is
never "an". German nouns are strong, so that case shows on the article and the adjective only.
"""

from __future__ import annotations

LANGUAGES = ("German", "Spanish", "French", "Japanese")

# English: German, Spanish, French, Japanese
PEOPLE = {
    "king": "König/m rey/m roi/m ou/-",
    "teacher": "Lehrer/m maestro/m professeur/m sensei/-",
    "queen": "Königin/f reina/f reine/f joou/-",
    "woman": "Frau/f mujer/f femme/f onna/-",
    "child": "Kind/n niño/m gosse/m kodomo/-",
    "girl": "Mädchen/n niña/f fille/f shoujo/-",
}
ANIMALS = {
    "dog": "Hund/m perro/m chien/m inu/-",
    "cat": "Katze/f gata/f chatte/f neko/-",
    "horse": "Pferd/n caballo/m cheval/m uma/-",
    "bird": "Vogel/m pájaro/m moineau/m tori/-",
    "cow": "Kuh/f vaca/f vache/f ushi/-",
    "wolf": "Wolf/m lobo/m loup/m ookami/-",
    "fox": "Fuchs/m zorro/m renard/m kitsune/-",
    "mouse": "Maus/f rata/f souris/f nezumi/-",
    "goat": "Ziege/f cabra/f chèvre/f yagi/-",
    "sheep": "Schaf/n oveja/f mouton/m hitsuji/-",
    "pig": "Schwein/n cerdo/m cochon/m buta/-",
    "frog": "Frosch/m rana/f grenouille/f kaeru/-",
}
THINGS = {
    "book": "Buch/n libro/m livre/m hon/-",
    "house": "Haus/n casa/f maison/f ie/-",
    "bread": "Brot/n pan/m pain/m panko/-",
    "boat": "Boot/n barco/m bateau/m fune/-",
    "letter": "Brief/m carta/f lettre/f tegami/-",
    "stone": "Stein/m piedra/f pierre/f ishi/-",
    "hat": "Hut/m sombrero/m chapeau/m boushi/-",
    "key": "Schlüssel/m llave/f clé/f kagi/-",
    "flower": "Blume/f flor/f fleur/f hana/-",
    "door": "Tür/f puerta/f porte/f tobira/-",
    "bell": "Glocke/f campana/f cloche/f kane/-",
}
PLACES = {
    "garden": "Garten/m jardín/m jardin/m niwa/-",
    "forest": "Wald/m bosque/m bois/m mori/-",
    "castle": "Schloss/n castillo/m château/m shiro/-",
    "street": "Straße/f calle/f rue/f michi/-",
    "kitchen": "Küche/f cocina/f cuisine/f daidokoro/-",
    "valley": "Tal/n valle/m vallon/m tani/-",
}

# English present: English past; German present, participle; Spanish present, past; French;
# Japanese present, past
VERBS = {
    "sees": "saw; sieht gesehen; ve vio; voit; miru mita",
    "hears": "heard; hört gehört; oye oyó; écoute; kiku kiita",
    "finds": "found; findet gefunden; halla halló; trouve; mitsukeru mitsuketa",
    "loves": "loved; liebt geliebt; ama amó; aime; aisuru aishita",
    "seeks": "sought; sucht gesucht; busca buscó; cherche; sagasu sagashita",
    "paints": "painted; malt gemalt; pinta pintó; peint; egaku egaita",
    "washes": "washed; wäscht gewaschen; lava lavó; lave; arau aratta",
    "buys": "bought; kauft gekauft; compra compró; achète; kau katta",
    "steals": "stole; stiehlt gestohlen; roba robó; vole; nusumu nusunda",
    "builds": "built; baut gebaut; construye construyó; construit; tsukuru tsukutta",
    "holds": "held; hält gehalten; tiene tuvo; tient; motsu motta",
    "eats": "ate; isst gegessen; come comió; mange; taberu tabeta",
}

# English: German stem; Spanish m f; French m f, place; Japanese
ADJECTIVES = {
    "red": "rot; rojo roja; rouge rouge after; akai",
    "black": "schwarz; negro negra; noir noire after; kuroi",
    "white": "weiß; blanco blanca; blanc blanche after; shiroi",
    "blue": "blau; azul azul; bleu bleue after; aoi",
    "yellow": "gelb; amarillo amarilla; jaune jaune after; kiiroi",
    "quick": "schnell; rápido rápida; rapide rapide after; hayai",
    "strong": "stark; fuerte fuerte; fort forte after; tsuyoi",
    "small": "klein; pequeño pequeña; petit petite before; chiisai",
    "big": "groß; grande grande; grand grande before; ookii",
    "beautiful": "schön; hermoso hermosa; beau belle before; utsukushii",
}
BELIEFS = {
    "know": "weiß",
    "believe": "glaube",
    "hope": "hoffe",
    "say": "sage",
}  # German main clauses: "ich ..., dass"

ARTICLES = {  # language, definite?, gender -> nominative, accusative
    ("German", True, "m"): ("der", "den"),
    ("German", True, "f"): ("die", "die"),
    ("German", True, "n"): ("das", "das"),
    ("German", False, "m"): ("ein", "einen"),
    ("German", False, "f"): ("eine", "eine"),
    ("German", False, "n"): ("ein", "ein"),
    ("Spanish", True, "m"): ("el", "el"),
    ("Spanish", True, "f"): ("la", "la"),
    ("Spanish", False, "m"): ("un", "un"),
    ("Spanish", False, "f"): ("una", "una"),
    ("French", True, "m"): ("le", "le"),
    ("French", True, "f"): ("la", "la"),
    ("French", False, "m"): ("un", "un"),
    ("French", False, "f"): ("une", "une"),
}
GERMAN_ENDINGS = {  # definite?, gender -> nominative, accusative
    (True, "m"): ("e", "en"),
    (True, "f"): ("e", "e"),
    (True, "n"): ("e", "e"),
    (False, "m"): ("er", "en"),
    (False, "f"): ("e", "e"),
    (False, "n"): ("es", "es"),
}


def noun(english: str, language: str) -> tuple[str, str]:
    """The word and its gender in `language`."""
    table = next(nouns for nouns in (PEOPLE, ANIMALS, THINGS, PLACES) if english in nouns)
    word, gender = table[english].split()[LANGUAGES.index(language)].split("/")
    return word, gender


def verb(english: str, language: str, past: bool) -> tuple[str, str]:
    """The English and the foreign verb in one tense (German past: the participle; French: none)."""
    english_past, *foreign = VERBS[english].split("; ")
    forms = foreign[LANGUAGES.index(language)].split()
    return (english_past if past else english), forms[-1 if past else 0]


def adjective(english: str, language: str, gender: str, definite: bool, case: int) -> tuple[str, bool]:
    """The inflected adjective, and whether it stands before its noun."""
    forms = ADJECTIVES[english].split("; ")[LANGUAGES.index(language)].split()
    if language == "German":
        return forms[0] + GERMAN_ENDINGS[definite, gender][case], True
    if language == "Japanese":
        return forms[0], True
    return forms[gender == "f"], language == "French" and forms[2] == "before"
