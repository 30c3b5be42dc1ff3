"""One code for each language, whatever the system: ISO 639-1 where it exists, else ISO 639-3.

`language_code` takes ISO 639-1, 639-2 and 639-3 codes, FLORES and GlotLID labels (`deu_Latn`), BCP 47 tags (`zh-Hant`),
fastText labels (`__label__de`) and English names. The table holds the 176 languages of lid.176 and those of FLORES-200.
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

CODE = "code"  # the declared language of program text: no language model is asked about it
UNDETERMINED = "und"  # ISO 639-2: text without any word

# code | other codes | English names
_TABLE = """
ace||Acehnese
af|afr|Afrikaans
am|amh|Amharic
an|arg|Aragonese
ar|ara arb acm acq aeb ajp apc ars ary|Arabic
arz||Egyptian Arabic
as|asm|Assamese
ast||Asturian
av|ava|Avar, Avaric
awa||Awadhi
ay|aym ayr|Aymara
az|aze azj|Azerbaijani
azb||South Azerbaijani
ba|bak|Bashkir
ban||Balinese
bar||Bavarian
bcl||Central Bikol
be|bel|Belarusian
bem||Bemba
bg|bul|Bulgarian
bh|bih|Bihari
bho||Bhojpuri
bjn||Banjar
bm|bam|Bambara
bn|ben|Bengali, Bangla
bo|bod tib|Tibetan
bpy||Bishnupriya
br|bre|Breton
bs|bos|Bosnian
bug||Buginese
bxr|bua|Buryat
ca|cat|Catalan, Valencian
cbk||Chavacano
ce|che|Chechen
ceb||Cebuano
cjk||Chokwe
ckb||Central Kurdish, Sorani
co|cos|Corsican
crh||Crimean Tatar
cs|ces cze|Czech
cv|chv|Chuvash
cy|cym wel|Welsh
da|dan|Danish
de|deu ger|German
dik|din|Dinka
diq|zza|Zazaki
dsb||Lower Sorbian
dty||Doteli
dv|div|Dhivehi, Maldivian
dyu||Dyula
dz|dzo|Dzongkha
ee|ewe|Ewe
el|ell gre|Greek
eml||Emiliano-Romagnolo
en|eng|English
eo|epo|Esperanto
es|spa|Spanish, Castilian
et|est ekk|Estonian
eu|eus baq|Basque
fa|fas per pes|Persian, Farsi
ff|ful fuv|Fulah
fi|fin|Finnish
fj|fij|Fijian
fo|fao|Faroese
fon||Fon
fr|fra fre|French
frr||North Frisian
fur||Friulian
fy|fry|Western Frisian, Frisian
ga|gle|Irish
gd|gla|Scottish Gaelic
gl|glg|Galician
gn|grn gug|Guarani
gom||Goan Konkani
gsw||Alemannic, Swiss German
gu|guj|Gujarati
gv|glv|Manx
ha|hau|Hausa
he|heb iw|Hebrew
hi|hin|Hindi
hif||Fiji Hindi
hne||Chhattisgarhi
hr|hrv|Croatian
hsb||Upper Sorbian
ht|hat|Haitian Creole, Haitian
hu|hun|Hungarian
hy|hye arm|Armenian
ia|ina|Interlingua
id|ind|Indonesian
ie|ile|Interlingue
ig|ibo|Igbo
ilo||Iloko, Ilocano
io|ido|Ido
is|isl ice|Icelandic
it|ita|Italian
ja|jpn|Japanese
jbo||Lojban
jv|jav|Javanese
ka|kat geo|Georgian
kab||Kabyle
kac||Jingpho, Kachin
kam||Kamba
kbp||Kabiye
kea||Kabuverdianu
kg|kon|Kongo, Kikongo
ki|kik|Kikuyu
kk|kaz|Kazakh
km|khm|Khmer
kmb||Kimbundu
kn|kan|Kannada
ko|kor|Korean
kr|kau knc|Kanuri
krc||Karachay-Balkar
ks|kas|Kashmiri
ku|kur kmr|Kurdish, Northern Kurdish, Kurmanji
kv|kom|Komi
kw|cor|Cornish
ky|kir|Kyrgyz
la|lat|Latin
lb|ltz|Luxembourgish
lez||Lezgian
lg|lug|Ganda, Luganda
li|lim|Limburgish
lij||Ligurian
lmo||Lombard
ln|lin|Lingala
lo|lao|Lao
lrc||Northern Luri
lt|lit|Lithuanian
ltg||Latgalian
lua||Luba-Lulua
luo||Luo
lus||Mizo
lv|lav lvs|Latvian
mag||Magahi
mai||Maithili
mg|mlg plt|Malagasy
mhr|chm|Meadow Mari
mi|mri mao|Maori
min||Minangkabau
mk|mkd mac|Macedonian
ml|mal|Malayalam
mn|mon khk|Mongolian
mni||Manipuri, Meitei
mos||Mossi
mr|mar|Marathi
mrj||Hill Mari, Western Mari
ms|msa may zsm|Malay
mt|mlt|Maltese
mwl||Mirandese
my|mya bur|Burmese
myv||Erzya
mzn||Mazanderani
nah||Nahuatl
nap||Neapolitan
nds||Low German, Low Saxon
ne|nep npi|Nepali
new||Newari
nl|nld dut|Dutch, Flemish
nn|nno|Norwegian Nynorsk
no|nor nb nob|Norwegian, Norwegian Bokmål
nso||Northern Sotho
nus||Nuer
ny|nya|Nyanja, Chichewa
oc|oci|Occitan
om|orm gaz|Oromo
or|ori ory|Odia, Oriya
os|oss|Ossetian
pa|pan|Punjabi, Panjabi
pag||Pangasinan
pam||Pampanga
pap||Papiamento
pfl||Palatine German
pl|pol|Polish
pms||Piedmontese
pnb||Western Punjabi
prs||Dari
ps|pus pbt|Pashto
pt|por|Portuguese
qu|que quy|Quechua
rm|roh|Romansh
rn|run|Rundi, Kirundi
ro|ron rum|Romanian
ru|rus|Russian
rue||Rusyn
rw|kin|Kinyarwanda
sa|san|Sanskrit
sah||Yakut
sat||Santali
sc|srd|Sardinian
scn||Sicilian
sco||Scots
sd|snd|Sindhi
sg|sag|Sango
sh|hbs|Serbo-Croatian
shn||Shan
si|sin|Sinhala
sk|slk slo|Slovak
sl|slv|Slovenian, Slovene
sm|smo|Samoan
sn|sna|Shona
so|som|Somali
sq|sqi alb als|Albanian
sr|srp|Serbian
ss|ssw|Swati
st|sot|Southern Sotho
su|sun|Sundanese
sv|swe|Swedish
sw|swa swh|Swahili
szl||Silesian
ta|tam|Tamil
taq||Tamasheq
te|tel|Telugu
tg|tgk|Tajik
th|tha|Thai
ti|tir|Tigrinya
tk|tuk|Turkmen
tl|tgl fil|Tagalog, Filipino
tn|tsn|Tswana
tpi||Tok Pisin
tr|tur|Turkish
ts|tso|Tsonga
tt|tat|Tatar
tum||Tumbuka
tw|twi|Twi
ak|aka|Akan
tyv||Tuvan
tzm||Central Atlas Tamazight
ug|uig|Uyghur
uk|ukr|Ukrainian
umb||Umbundu
ur|urd|Urdu
uz|uzb uzn|Uzbek
vec||Venetian
vep||Veps
vi|vie|Vietnamese
vls||West Flemish
vo|vol|Volapük
wa|wln|Walloon
war||Waray
wo|wol|Wolof
wuu||Wu Chinese
xal||Kalmyk
xh|xho|Xhosa
xmf||Mingrelian
yi|yid ydd|Yiddish
yo|yor|Yoruba
yue||Cantonese
zh|zho chi cmn|Chinese, Mandarin, Mandarin Chinese
zu|zul|Zulu
"""
# lid.176 uses Wikipedia's names: its `als` is Alemannic, while ISO 639-3 `als` is Tosk Albanian.
_FASTTEXT = {"als": "gsw"}


# What people write for codes beside the English names.
_SLIPS = {"deutsch": "de", "python": CODE}

# Codes of ISO 639-1 whose languages no model here identifies, and so are not in the table.
_NOT_IDENTIFIED = "aa ab ae bi ch cr cu ho hz ii ik iu kj kl lu mh na nd ng nr nv oj pi to ty ve za"


@lru_cache(maxsize=1)
def two_letter_codes() -> frozenset[str]:
    """All codes of ISO 639-1."""
    return frozenset(code for code in _known()[0] if len(code) == 2) | frozenset(_NOT_IDENTIFIED.split())


@lru_cache(maxsize=1)
def _known() -> tuple[dict[str, str], dict[str, str]]:
    """Codes of all systems to ours, and lower-case English names to ours."""
    codes = {CODE: CODE, UNDETERMINED: UNDETERMINED}
    names: dict[str, str] = {}
    for line in _TABLE.strip().splitlines():
        code, others, english = line.split("|")
        codes |= dict.fromkeys([code, *others.split()], code)
        names |= dict.fromkeys((name.strip().lower() for name in english.split(",")), code)
    return codes, names


def language_code(label: str) -> str:
    """Our code of a language: `de` for `de`, `deu`, `deu_Latn`, `German`, `de-CH`, `__label__de`.

    Script and region are left out: `zh_Hans` and `zh-TW` are `zh`. Program text is `code`.

    Raises:
        ValueError: for a label that is none of these.
    """
    codes, names = _known()
    bare = label.strip().removeprefix("__label__")
    if label.strip() != bare and bare in _FASTTEXT:
        return _FASTTEXT[bare]
    if bare.lower() in names:
        return names[bare.lower()]
    first = bare.replace("-", "_").split("_")[0].lower()
    if first in codes:
        return codes[first]
    close = difflib.get_close_matches(bare.lower(), [*names, *codes], 3)
    hint = f"; did you mean {' or '.join(repr(x) for x in close)}?" if close else ""
    raise ValueError(f"'{label}' is no language known here: give an ISO 639 code (de, deu) or an English name{hint}")


def declared_code(code: str) -> str:
    """A code as recipes write it: `de`, `code`, or a code of three letters of a language that is not in the table.

    Raises:
        ValueError: for any other spelling, which no identified language would equal, with the one that is meant.
    """
    try:
        meant: str | None = language_code(code)
    except ValueError:
        meant = _SLIPS.get(code.lower())
    if meant not in (None, code):
        raise ValueError(f"not a language code used here; did you mean {meant}?")
    if not re.fullmatch("[a-z]{2,3}|code", code) or (len(code) == 2 and code not in two_letter_codes()):
        raise ValueError("not a language code; write a two-letter code such as de, zh, en, or code")
    return code


def language_name(code: str) -> str:
    """The English name of one of our codes; the code itself where it is no language."""
    for line in _TABLE.strip().splitlines():
        known, _, english = line.split("|")
        if known == code:
            return english.split(",")[0]
    return code
