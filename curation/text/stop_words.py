"""Lists of the commonest function words of a language, by language code."""

from __future__ import annotations

# English: the eight words of Gopher (Rae et al. 2021, arXiv:2112.11446). German and Chinese: those that FineWeb-2
# (arXiv:2506.20920, configs deu_Latn and cmn_Hani) derived from Wikipedia. Compared exactly, case included.
GOPHER_STOP_WORDS: dict[str, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "de": ("der", "und", "die", "in", "von", "im", "den", "des", "mit", "das", "er", "dem", "als", "wurde", "für"),
    "zh": tuple("的年在月是和日了於·為有被人中为他與後也而由"),
}
