"""Language tags and names of languages in files and subtitle streams: en, eng, pt-BR, zh-Hans, English."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_TWO_LETTERS = """
    aa ab ae af ak am an ar as av ay az ba be bg bh bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el
    en eo es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu
    ja jv ka kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na
    nb nd ne ng nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so
    sq sr ss st su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu
"""
"""ISO 639-1."""

_THREE_LETTERS = """
    aar abk afr aka alb amh ara arg arm asm ava ave aym aze bak bam baq bel ben bih bis bod bos bre bul bur cat ces
    cha che chi chu chv ckb cmn cor cos cre cym cze dan deu div dut dzo ell eng epo est eus ewe fao fas fij fil fin
    fra fre fry ful geo ger gla gle glg glv gre grn guj hat hau heb her hin hmo hrv hun hye ibo ice ido iii iku ile
    ina ind ipk isl ita jav jpn kal kan kas kat kau kaz khm kik kin kir kom kon kor kua kur lao lat lav lim lin lit
    ltz lub lug mac mah mal mao mar may mkd mlg mlt mon mri msa mul mya nau nav nbl nde ndo nds nep nld nno nob nor
    nya oci oji ori orm oss pan per pli pol por pus que roh ron rum run rus sag san sin slk slo slv sme smo sna snd
    som sot spa sqi srd srp ssw sun swa swe tah tam tat tel tgk tgl tha tib tir ton tsn tso tuk tur twi uig ukr und
    urd uzb ven vie vol wel wln wol xho yid yor yue zha zho zul
"""
"""ISO 639-2 (both sets) of the same languages, and a few that files carry often. Not all codes: `day` is one too."""

_CODES = frozenset(_TWO_LETTERS.split()) | frozenset(_THREE_LETTERS.split())

_TAG = re.compile(
    r"([A-Za-z]{2,3})(?:[-_][A-Za-z]{4})?(?:[-_](?:[A-Za-z]{2}|\d{3}))?(?:[-_](?:orig|auto|[A-Za-z0-9]{5,8}))?"
)
"""Language, script, region, variant (BCP 47, RFC 5646), as far as files use it."""


_NAMES = """
    af afrikaans; sq albanian shqip; am amharic አማርኛ; ar arabic العربية عربي; hy armenian հայերեն;
    az azerbaijani azeri; eu basque euskara; be belarusian беларуская; bn bengali bangla বাংলা;
    bs bosnian bosanski; bg bulgarian български; my burmese မြန်မာ; ca catalan català valencian;
    zh chinese mandarin 中文 汉语 漢語; yue cantonese 粵語 粤语; hr croatian hrvatski;
    cs czech čeština česky; da danish dansk; nl dutch nederlands; nl-BE flemish vlaams; en english;
    et estonian eesti; fil filipino; tl tagalog; fi finnish suomi; fr french français;
    gl galician galego; ka georgian ქართული; de german deutsch; el greek ελληνικά;
    gu gujarati ગુજરાતી; ha hausa; he hebrew עברית; hi hindi हिन्दी हिंदी; hu hungarian magyar;
    is icelandic íslenska; ig igbo; id indonesian; ga irish gaeilge; it italian italiano;
    ja japanese 日本語; kn kannada ಕನ್ನಡ; kk kazakh қазақша; km khmer ខ្មែរ; ko korean 한국어;
    ku kurdish kurdî; lo lao ລາວ; lv latvian latviešu; lt lithuanian lietuvių;
    mk macedonian македонски; ms malay melayu; ml malayalam മലയാളം; mr marathi मराठी;
    mn mongolian монгол; ne nepali नेपाली; nb bokmål; nn nynorsk; no norwegian norsk;
    fa persian farsi فارسی; pl polish polski; pt portuguese português; pt-BR brazilian brasileiro;
    pa punjabi ਪੰਜਾਬੀ; ro romanian română; ru russian русский; sr serbian српски srpski;
    si sinhala sinhalese සිංහල; sk slovak slovenčina slovensky; sl slovenian slovene slovenščina;
    so somali; es spanish español castellano castilian; sw swahili kiswahili; sv swedish svenska;
    ta tamil தமிழ்; te telugu తెలుగు; th thai ไทย; bo tibetan; tr turkish türkçe;
    uk ukrainian українська; ur urdu اردو; uz uzbek; vi vietnamese; cy welsh cymraeg; yi yiddish;
    yo yoruba; zu zulu
"""
"""Tags with the names that files have for the language: in English, and its own."""


def _folded(name: str) -> str:
    """Return a name in small letters without accents."""
    apart = unicodedata.normalize("NFKD", name.casefold())
    return unicodedata.normalize("NFC", "".join(letter for letter in apart if not unicodedata.combining(letter)))


_TAG_OF_NAME = {
    _folded(name): tag for tag, *names in map(str.split, _NAMES.split(";")) for name in names
}
_KINDS = {
    "simplified": "Hans", "简体": "Hans", "traditional": "Hant", "繁體": "Hant", "us": "US", "usa": "US", "american": "US",
    "uk": "GB", "gb": "GB", "british": "GB", "canada": "CA", "canadian": "CA", "brazil": "BR", "brasil": "BR",
    "portugal": "PT", "european": "", "latin": "", "america": "", "cyrillic": "", "mexico": "MX", "spain": "ES",
    "swiss": "CH", "austrian": "AT",
}
"""Words beside the name of a language, with the script or region that they are in a tag; empty if they add nothing."""
_GENERAL = {"pt-BR": "pt", "nl-BE": "nl", "nb": "no", "nn": "no", "yue": "zh"}
"""What a name may say beside a language that is one of its kind: Norwegian Bokmål."""
_APART = re.compile(r"[\s_.,;()\[\]{}+&-]+")


def words_of_name(text: str) -> list[str]:
    """Return the words of a part of a file's name in small letters, without accents; signs part them."""
    return [_folded(word) for word in _APART.split(text) if word]


def tag_of_words(words: Iterable[str]) -> str:
    """Return the tag of the language that words name: `pt-BR` for portuguese and brazil; empty if they name none.

    Args:
        words: As `words_of_name` gives them.
    """
    every = set(words)
    tags = {_TAG_OF_NAME[word] for word in every & _TAG_OF_NAME.keys()}
    tags -= {_GENERAL[tag] for tag in tags if tag in _GENERAL}
    others = every - _TAG_OF_NAME.keys()
    if len(tags) != 1 or others - _KINDS.keys():
        return ""
    tag = tags.pop()
    return "-".join([tag, *sorted({_KINDS[word] for word in others} - {"", *tag.split("-")})])


def is_language(text: str) -> bool:
    """Whether `text` is a language tag."""
    match = _TAG.fullmatch(text)
    return match is not None and match[1].lower() in _CODES
