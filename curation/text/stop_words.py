"""Lists of the commonest function words of a language, by language code."""

from __future__ import annotations

# English: the eight words of Gopher (Rae et al. 2021, arXiv:2112.11446). German and Chinese: those that FineWeb-2
# (arXiv:2506.20920, configs deu_Latn and cmn_Hani) derived from Wikipedia. Compared exactly, case included.
GOPHER_STOP_WORDS: dict[str, tuple[str, ...]] = {
    "en": ("the", "be", "to", "of", "and", "that", "have", "with"),
    "de": ("der", "und", "die", "in", "von", "im", "den", "des", "mit", "das", "er", "dem", "als", "wurde", "für"),
    "zh": tuple("的年在月是和日了於·為有被人中为他與後也而由"),
}

# Commonest function words, lower case, written for this project: articles, pronouns, prepositions, conjunctions,
# auxiliaries and the like. RedPajama-V2's definition counts words that are in such a list, exactly as they stand.
_ENGLISH = """
a about above after again against all also although am among an and any are as at back be became because become been
before being between both but by can cannot could did do does doing done down during each either else even ever every
few first for from further had has have having he her here hers herself him himself his how however i if in into is it
its itself just last least less like made make many may me might more most much must my myself neither never no nor
not now of off often on once one only or other our ours ourselves out over own perhaps quite rather same shall she
should since so some such than that the their theirs them themselves then there therefore these they this those though
through thus to too toward two under until up upon us very was we well were what when where whether which while who
whom whose why will with within without would yet you your yours yourself yourselves
"""
_GERMAN = """
ab aber alle allem allen aller alles als also am an ander andere anderem anderen anderer anderes auch auf aus bei beim
bin bis bist da dabei dadurch dafür dagegen daher damit danach dann daran darauf daraus darin darum das dass daß davon
dazu dein deine deinem deinen deiner dem den denen denn der deren des dessen dich die dies diese diesem diesen dieser
dieses dir doch dort du durch ein eine einem einen einer eines einige einigen er es etwa etwas euch euer eure für
gegen habe haben hat hatte hatten hier hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im immer in indem ins
ist ja jede jedem jeden jeder jedes jedoch jene jenem jenen jener jenes jetzt kann kein keine keinem keinen keiner
können könnte man manche manchem manchen mancher mehr mein meine meinem meinen meiner mich mir mit muss mußte nach
nachdem nicht nichts noch nun nur ob obwohl oder ohne schon sehr sein seine seinem seinen seiner seit selbst sich sie
sind so sobald solche solchem solchen solcher soll sollte sondern sonst soweit sowie sowohl trotz über um und uns
unser unsere unter viel viele vielen vom von vor wann war waren warum was weder wegen weil weiter welche welchem
welchen welcher welches wenn wer werde werden wie wieder will wir wird wo wurde wurden während zu zum zur zwar
zwischen
"""
_CHINESE = """
的 了 和 是 在 有 不 也 就 都 而 及 與 与 或 這 这 那 其 之 以 于 於 為 为 因 所 從 从 對
对 向 由 被 把 將 将 使 讓 让 到 我 你 他 她 它 們 们 此 該 该 每 各 某 着 著 過 过 得 地
吗 嗎 呢 吧 但 若 如 則 则 且 還 还 又 再 已 很 更 最 太 只 才 能 会 會 可 要 應 应 並 并
"""
STOP_WORDS: dict[str, tuple[str, ...]] = {
    code: tuple(text.split()) for code, text in (("en", _ENGLISH), ("de", _GERMAN), ("zh", _CHINESE))
}
