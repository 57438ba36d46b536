"""Writes a fuzz target's starting corpus and the dictionary: small files with every feature.

    python tests/fuzz/make_corpus.py TARGET FOLDER DICTIONARY

What is kept minimized beside this file (corpus/TARGET.zip) and the found cases (found/TARGET/) are
put with it.
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "gguf"))

from builder import (  # noqa: E402
    REMOVED_TYPES,
    SCALARS,
    TENSOR_TYPES,
    Builder,
    data_size,
    small_file,
)
from hazard_cases import CASES  # noqa: E402

LARGEST_SEED = 1 << 16
UNSERVED = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64", "Q1_0"}


def gguf() -> dict[str, bytes]:
    """For the reader: every kind of value, every type, and each hazard that is small."""
    files = {
        "empty": Builder().build(),
        "small_version2": small_file(version=2).build(),
        "small_version3": small_file().build(),
        "aligned_1": small_file(alignment=1).build(),
        "aligned_256": small_file(alignment=256).build(),
        "header_only": Builder().tensor("t", "F32", (8,)).header(),
        "split_1": split(1).build(),
        "split_2": split(2).build(),
        "split-00001-of-00003": b"model-00001-of-00003.gguf",
    }
    for kind in SCALARS:
        files[f"scalar_{kind}"] = Builder().key("key", kind, 1).build()
        files[f"array_{kind}"] = Builder().key("key", f"array:{kind}", [0, 1]).build()
    files["array_string"] = Builder().key("key", "array:string", ["a", "bc", ""]).build()
    for name, (_, elements, _) in TENSOR_TYPES.items():
        files[f"tensor_{name}"] = Builder().tensor("t", name, (elements, 2)).build()
    for count in range(1, 5):
        files[f"dimensions_{count}"] = Builder().tensor("t", "F16", (2,) * count).build()
    for number, case in enumerate(CASES):
        if len(case.data) <= LARGEST_SEED:
            files[f"hazard_{case.row}_{number}"] = case.data
    return files


def split(count: int) -> Builder:
    builder = Builder().key("split.no", "uint16", 0).key("split.count", "uint16", count)
    return builder.key("split.tensors.count", "int32", 1).tensor("t", "F32", (8,))


def blocks(kind: str, shape: tuple[int, ...]) -> bytes:
    """Random bits of which every half, float and exponent is finite, and below 2."""
    size, state = data_size(kind, shape), 1
    out = bytearray(size)
    for i in range(size):
        state = state * 1103515245 + 12345 & 0x7FFFFFFF
        out[i] = state >> 16 & 0x3F
    return bytes(out)


def model(kind: str, architecture: str = "llama", **changes: object) -> Builder:
    """A model of one layer whose matrices are of one type where their rows allow it."""
    columns = max(32, TENSOR_TYPES[kind][1])
    heads, rows = 32, 8
    keys: dict[str, object] = {
        "context_length": 16,
        "embedding_length": columns,
        "block_count": 1,
        "feed_forward_length": 32,
        "attention.head_count": 2,
        "attention.head_count_kv": 1,
        "attention.key_length": heads // 2,
        "attention.value_length": heads // 2,
        **changes,
    }
    builder = Builder().key("general.architecture", "string", architecture)
    for key, value in keys.items():
        if isinstance(value, int):
            builder.key(f"{architecture}.{key}", "uint32", value)
        elif isinstance(value, float):
            builder.key(f"{architecture}.{key}", "float32", value)
        elif isinstance(value, str):
            builder.key(f"{architecture}.{key}", "string", value)
    builder.key(f"{architecture}.attention.layer_norm_rms_epsilon", "float32", 1e-5)
    builder.key("tokenizer.ggml.tokens", "array:string", [chr(97 + i) for i in range(rows)])

    def add(name: str, *shape: int) -> None:
        fits = len(shape) == 2 and shape[0] % TENSOR_TYPES[kind][1] == 0
        used = kind if fits else "Q4_0" if len(shape) == 2 else "F32"
        builder.tensor(name, used, shape, blocks(used, shape))

    add("token_embd.weight", columns, rows)
    for name in ("attn_norm", "ffn_norm"):
        add(f"blk.0.{name}.weight", columns)
    add("blk.0.attn_q.weight", columns, heads)
    add("blk.0.attn_k.weight", columns, heads // 2)
    add("blk.0.attn_v.weight", columns, heads // 2)
    if architecture == "qwen2":
        add("blk.0.attn_q.bias", heads)
        add("blk.0.attn_k.bias", heads // 2)
        add("blk.0.attn_v.bias", heads // 2)
    if architecture == "qwen3":
        add("blk.0.attn_q_norm.weight", heads // 2)
        add("blk.0.attn_k_norm.weight", heads // 2)
    add("blk.0.attn_output.weight", heads, columns)
    add("blk.0.ffn_gate.weight", columns, 32)
    add("blk.0.ffn_up.weight", columns, 32)
    add("blk.0.ffn_down.weight", 32, columns)
    add("output_norm.weight", columns)
    return builder


def load() -> dict[str, bytes]:
    """For the loader: a model of every type and architecture, and what their keys can say."""
    files = {f"model_{kind}": model(kind).build() for kind in TENSOR_TYPES if kind not in UNSERVED}
    for architecture in ("qwen2", "qwen3"):
        files[architecture] = model("Q8_0", architecture).build()
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0}
    files["yarn"] = model("Q4_0", **yarn, **{"rope.scaling.original_context_length": 4}).build()
    files["window"] = model("Q4_0", **{"attention.sliding_window": 3}).build()
    files["caps"] = model("Q4_0", attn_logit_softcapping=30.0, final_logit_softcapping=20.0).build()
    hazards: dict[str, dict[str, object]] = {
        "no_heads": {"attention.head_count": 0},
        "many_blocks": {"block_count": 10**9},
        "odd_embedding": {"embedding_length": 66},
        "experts": {"expert_count": 8},
        "other_type": {"block_count": "2"},
        "other_shape": {"feed_forward_length": 64},
        "head_groups": {"attention.head_count_kv": 3},
        "rope": {"rope.dimension_count": 64},
        "unserved": {},
    }
    for name, changes in hazards.items():
        files[f"hazard_{name}"] = model("I8" if name == "unserved" else "Q4_0", **changes).build()
    for type_id in sorted(REMOVED_TYPES)[:2]:
        raw = Builder().key("general.architecture", "string", "llama")
        files[f"removed_{type_id}"] = raw.raw_tensor(
            b"\x01\0\0\0\0\0\0\0t\x01\0\0\0" + (32).to_bytes(8, "little")
            + type_id.to_bytes(4, "little") + bytes(8)
        ).build()  # fmt: skip
    return files


def vocabulary() -> dict[str, bytes]:
    """For the tokenizer: each kind of vocabulary, whole and with its hazards."""
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = ["\u2581", "a", "b", "\u2581a", "ab", "<tool>"]
    letters = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters += [chr(256 + i) for i in range(256 - len(letters))]
    words = ["ab", "bc", "abc", "<|im_start|>", "<|im_end|>"]

    def spm(tokens: list[str] = byte_tokens, **changes: object) -> bytes:
        every = ["<unk>", "<s>", "</s>", *tokens, *pieces]
        kinds = [2, 3, 3] + [6] * len(tokens) + [1] * (len(pieces) - 1) + [4]
        scores = [0.0] * (3 + len(tokens)) + [-1.0 - i for i in range(len(pieces))]
        return file("llama", every, kinds, scores=scores, **changes)

    def bpe(**changes: object) -> bytes:
        every = [*letters, *words]
        merges = ["a b", "b c", "ab c"]
        return file(
            "gpt2", every, [1] * (len(every) - 2) + [3, 3], merges=merges, pre="gpt-2", **changes
        )

    def file(kind: str, tokens: list[str], kinds: list[int], **keys: object) -> bytes:
        builder = Builder().key("general.architecture", "string", "llama")
        builder.key("tokenizer.ggml.model", "string", kind)
        builder.key("tokenizer.ggml.tokens", "array:string", tokens)
        builder.key("tokenizer.ggml.token_type", "array:int32", kinds)
        for key, value in keys.items():
            if key == "scores":
                builder.key("tokenizer.ggml.scores", "array:float32", value)
            elif isinstance(value, list):
                builder.key(f"tokenizer.ggml.{key}", "array:string", value)
            elif isinstance(value, bool):
                builder.key(f"tokenizer.ggml.{key}", "bool", value)
            elif isinstance(value, int):
                builder.key(f"tokenizer.ggml.{key}", "uint32", value)
            else:
                name = "tokenizer.chat_template" if key == "template" else f"tokenizer.ggml.{key}"
                builder.key(name, "string", value)
        return builder.build()

    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ m.content }}<|im_end|>{% endfor %}"
    )
    files = {
        "spm": spm(),
        "spm_bos": spm(bos_token_id=1, eos_token_id=2, add_bos_token=True, add_space_prefix=False),
        "bpe": bpe(bos_token_id=256 + 3, eos_token_id=256 + 4, template=template),
        "hazard_byte_minus": spm([*byte_tokens[:9], "<0x-1>", *byte_tokens[10:]]),
        "hazard_byte_zz": spm([*byte_tokens[:9], "<0xZZ>", *byte_tokens[10:]]),
        "hazard_duplicate": spm([*byte_tokens[:9], "a", *byte_tokens[10:]]),
        "hazard_id": spm(eos_token_id=10**6),
        "hazard_no_bos": bpe(add_bos_token=True),
        "hazard_scores": file("llama", ["<unk>", "a"], [2, 1], scores=[0.0]),
        "hazard_types": file("gpt2", ["a", "b"], [1]),
        "hazard_kind": file("bert", ["a", "b"], [1, 1]),
        "hazard_escape": bpe(template="{{ ''.__class__.__mro__ }}"),
        "hazard_loop": bpe(template="{% for i in range(10**9) %}x{% endfor %}"),
    }
    for pre in ("llama-bpe", "qwen2", "tekken", "deepseek-llm", "gpt-4o"):
        files[f"pre_{pre}"] = bpe().replace(
            b"\x05\0\0\0\0\0\0\0gpt-2", len(pre).to_bytes(8, "little") + pre.encode()
        )
    return files


TARGETS = {"gguf": gguf, "load": load, "vocabulary": vocabulary}

WORDS = [
    '"GGUF"',
    '"general.alignment"',
    '"general.architecture"',
    '"split.no"',
    '"split.count"',
    '"split.tensors.count"',
    '"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"',
    '"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f"',
    '"\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x80"',
    '"\\x00\\x00\\x00\\x00\\x01\\x00\\x00\\x00"',
    '"-00001-of-00003.gguf"',
]


def main(target: str, folder: Path, dictionary: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in TARGETS[target]().items():
        (folder / name).write_bytes(data)
    kept = HERE / "corpus" / f"{target}.zip"
    if kept.exists():
        with zipfile.ZipFile(kept) as archive:
            for name in archive.namelist():
                (folder / f"kept_{name}").write_bytes(archive.read(name))
    for path in sorted((HERE / "found" / target).glob("*")):
        (folder / f"found_{path.name}").write_bytes(path.read_bytes())
    dictionary.write_text("\n".join(WORDS) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
