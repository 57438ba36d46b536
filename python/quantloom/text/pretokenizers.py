"""The pre-tokenizers that `tokenizer.ggml.pre` names, as a table of name and patterns.

A pre-tokenizer cuts text into pieces before byte-pair merges. Each pattern is applied to the pieces
that the one before it left; what a pattern matches becomes a piece of its own, and so does the text
between two matches. The pieces are then mapped to the printable alphabet of byte-level BPE.

The patterns are those of the models' own tokenizers, written for the regular expressions of Hugging
Face `tokenizers` (Oniguruma: `\\p{..}` are Unicode categories, `\\s` is Unicode white space, `&&`
intersects classes). GGUF names no Unicode normalization, and none is done.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PreTokenizer:
    """One row of the table.

    Attributes:
        patterns: regular expressions, applied one after the other.
        ignore_merges: a piece that is a token as it stands is not merged from its bytes.
        add_bos: BOS is put first where the file has one and does not say otherwise.
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    add_bos: bool = False


_DIGIT = r"\p{N}"
_TRIPLE = r"\p{N}{1,3}"
_NEWLINE_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORD = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_SYMBOLS = r" ?[^\s\p{L}\p{N}]+[\r\n]*"

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def _words(digits: str) -> str:
    """The llama-3 family: a word takes one sign before it, digits come in groups."""
    return f"{_CONTRACTION}|{_WORD}|{digits}|{_SYMBOLS}|{_NEWLINE_TAIL}"


_UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


def _cased(contraction: str, digits: str, upper: str = _UPPER, lower: str = _LOWER) -> str:
    """The o200k family: a word also ends where lower case turns into upper case."""
    return (
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{contraction}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{contraction}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_NEWLINE_TAIL}"
    )


_GPT4O = _cased(_CONTRACTION + "?", _TRIPLE)

_KIMI_TEXT = _cased(
    _CONTRACTION + "?",
    _TRIPLE,
    r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
    r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]",
).replace(r"[\r\n/]*", r"[\r\n]*")

_ASCII_SIGN = r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"
_DEEPSEEK_TEXT = (
    _ASCII_SIGN + r"[A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"
)
_DEEPSEEK_V3 = (
    _TRIPLE,
    "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
    _DEEPSEEK_TEXT + _NEWLINE_TAIL,
)
_DEEPSEEK_CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"

# The cased letters that deepseek-llm lists one by one: not a Unicode category of any version.
_DEEPSEEK_LETTERS = """
41-5A 61-7A B5 C0-D6 D8-F6 F8-1BA 1BC-1BF 1C4-293 295-2AF 370-373 376 377 37B-37D
37F 386 388-38A 38C 38E-3A1 3A3-3F5 3F7-481 48A-52F 531-556 10A0-10C5 13A0-13F5
13F8-13FD 1C90-1CBA 1CBD-1CBF 1D00-1D2B 1D6B-1D77 1D79-1D9A 1E00-1F15 1F18-1F1D
1F20-1F45 1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE
1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2102 2107
210A-2113 2115 2119-211D 2124 2126 2128 212A-212D 212F-2134 2139 213C-213F 2145-2149
214E 2183 2184 2C00-2C7B 2C7E-2CE4 2CEB-2CEE 2CF2 2CF3 A640-A66D A680-A69B A722-A76F
A771-A787 A78B-A78E AB70-ABBF FB00-FB06 FB13-FB17 FF21-FF3A FF41-FF5A 10400-1044F
104B0-104D3 104D8-104FB 10C80-10CB2 10CC0-10CF2 118A0-118DF 1E900-1E943
"""


def _character_class(ranges: str) -> str:
    return "".join(
        "-".join(chr(int(end, 16)) for end in span.split("-")) for span in ranges.split()
    )


_SPLIT_LINES = r"[^\n]+|[\n]+"
_BLOOM = " ?[^(\\s|.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c)]+"
_HALVING_SPACES = "".join(rf"|\s{{{2**n}}}(?!\S)" for n in range(9, 1, -1))

_PLAIN_GPT2 = PreTokenizer((_GPT2,))
_DIGITS_GPT2 = PreTokenizer((_DIGIT, _GPT2))
_LLAMA3 = PreTokenizer((_words(_TRIPLE),), ignore_merges=True, add_bos=True)
_TRIPLE_WORDS = PreTokenizer((_words(_TRIPLE),))
_QWEN2 = PreTokenizer((_words(_DIGIT),))
_O200K = PreTokenizer((_GPT4O,))
_V3 = PreTokenizer(_DEEPSEEK_V3)
_AYA = PreTokenizer((r"\d{1,3}(?=(?:\d{3})*\b)", _GPT4O))
_BAILING = PreTokenizer(
    (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*"
        r"|\s*[\r\n]|\s+(?!\S)|\s+",
    )
)
_GLM4 = PreTokenizer((_words(_TRIPLE),), ignore_merges=True)

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}$+<=>\^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    "gpt-2": _PLAIN_GPT2,
    "phi-2": _PLAIN_GPT2,
    "mpt": _PLAIN_GPT2,
    "olmo": _PLAIN_GPT2,
    "jais": _PLAIN_GPT2,
    "trillion": _PLAIN_GPT2,
    "granite-docling": _PLAIN_GPT2,
    "exaone4": _PLAIN_GPT2,
    "gigachat": _PLAIN_GPT2,
    "a.x-4.0": _PLAIN_GPT2,
    "mellum": _PLAIN_GPT2,
    "modern-bert": _PLAIN_GPT2,
    "jina-es": _PLAIN_GPT2,
    "jina-de": _PLAIN_GPT2,
    "jina-v2-es": _PLAIN_GPT2,
    "jina-v2-de": _PLAIN_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "command-r": _DIGITS_GPT2,
    "smollm": _DIGITS_GPT2,
    "codeshell": _DIGITS_GPT2,
    "exaone": _DIGITS_GPT2,
    "minerva-7b": _DIGITS_GPT2,
    "mellum2": _DIGITS_GPT2,
    "falcon": PreTokenizer((r"[\p{P}$+<=>\^~|`]+", _GPT2, "[0-9][0-9][0-9]")),
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "falcon3": _LLAMA3,
    "falcon-h1": _LLAMA3,
    "pixtral": _LLAMA3,
    "midm-2.0": _LLAMA3,
    "lfm2": _LLAMA3,
    "jina-v5-nano": _LLAMA3,
    "dbrx": _TRIPLE_WORDS,
    "smaug-bpe": _TRIPLE_WORDS,
    "chatglm-bpe": _TRIPLE_WORDS,
    "glm4": _GLM4,
    "glm5": _GLM4,
    "jais-2": PreTokenizer(
        (
            _words(_TRIPLE).removesuffix(r"|\s+(?!\S)|\s+")
            + _HALVING_SPACES
            + r"|\s{1,2}(?!\S)|\s{1}",
        )
    ),
    "minicpm5": PreTokenizer((_TRIPLE, _words(r"\p{N}+")), ignore_merges=True),
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "stablelm2": _QWEN2,
    "hunyuan": _QWEN2,
    "megrez": _QWEN2,
    "kormo": _QWEN2,
    "f2llmv2": _QWEN2,
    "solar-open": _QWEN2,
    "grok-2": _QWEN2,
    "laguna": PreTokenizer((_SPLIT_LINES, _words(_DIGIT))),
    "ufakzeka": PreTokenizer((f"{_WORD}|{_DIGIT}|{_SYMBOLS}|{_NEWLINE_TAIL}",)),
    "qwen35": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}"
            rf"| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_NEWLINE_TAIL}",
        )
    ),
    "seed-coder": PreTokenizer(
        (rf"{_CONTRACTION}|{_WORD}|\p{{N}}{{1}}| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_NEWLINE_TAIL}",)
    ),
    "exaone-moe": PreTokenizer(
        (
            rf"{_CONTRACTION}|[^\r\n\p{{L}}\p{{N}}]?(?:\p{{L}}\p{{M}}*(?: \p{{L}}\p{{M}}*)*)+"
            r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+",
        )
    ),
    "bailingmoe": _BAILING,
    "bailingmoe2": _BAILING,
    "llada-moe": _BAILING,
    "tekken": PreTokenizer((_cased("", _DIGIT),), ignore_merges=True, add_bos=True),
    "gpt-4o": _O200K,
    "llama4": _O200K,
    "kanana2": _O200K,
    "talkie": _O200K,
    "minimax-m2": _O200K,
    "tiny_aya": _AYA,
    "cohere2moe": _AYA,
    "youtu": PreTokenizer(
        (
            "[\uac00-\ud7a3\u3131-\u318e]+"
            "|[\uff01\u2026\u201c\u201d\u2018\u2019\u2014\uff1a\uff1b\uff0c"
            "\u3001-\u303f\ufe30-\ufe4f]+"
            "|[\u3105-\u312f]+|[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+",
            _cased(_CONTRACTION + "?", _DIGIT),
        ),
        ignore_merges=True,
    ),
    "kimi-k2": PreTokenizer((rf"\p{{Han}}+|{_KIMI_TEXT}",)),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{_character_class(_DEEPSEEK_LETTERS)}]+",
            "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
            r"\s+$",
            _DEEPSEEK_CJK,
            r"\p{N}+",
        )
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _DEEPSEEK_CJK, _DIGIT)),
    "deepseek-v3": _V3,
    "hunyuan-dense": _V3,
    "joyai-llm": _V3,
    "hy_v4": _V3,
    "spark2_5": PreTokenizer(
        (
            *_DEEPSEEK_V3[:2],
            _DEEPSEEK_TEXT.removesuffix(r"[\r\n]*|") + r"|[\r\n]|\s+(?!\S)|\s+",
            _DIGIT,
        )
    ),
    "superbpe": PreTokenizer((r"\p{N}+", r"(?=(\d{3})+(?!\d))")),
    "bloom": PreTokenizer((_BLOOM,)),
    "gpt3-finnish": PreTokenizer((_BLOOM,)),
    "poro-chat": PreTokenizer((_BLOOM,)),
    "viking": PreTokenizer((_BLOOM, _DIGIT)),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z",
            r"([\t\n]|    |  )",
            _DIGIT,
            r"[\p{P}!-/:-@\[-`{-~]",
            _GPT2,
        ),
        add_bos=True,
    ),
}
