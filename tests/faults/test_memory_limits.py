"""A process of limited memory: what does not fit is OutOfMemory with its size."""

from __future__ import annotations

from pathlib import Path

import pytest
from children import run

from synthetic_model import Synthetic

LIMITED = """
import resource

def with_room(mib, call):
    used = int(open("/proc/self/statm").read().split()[0]) * os.sysconf("SC_PAGESIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (mib << 20), before[1]))
    try:
        return call()
    except quantloom.OutOfMemory as error:
        print(error.subject, "|", error)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

quantloom.load(path, device="cpu", context_length=8).close()
"""

CASES = {
    "RoPE table": (
        "with_room(100, lambda: quantloom.load(path, device='cpu', context_length=1 << 22))",
        "RoPE table needs 268435456 bytes of host memory",
    ),
    "KV cache": (
        "model = quantloom.load(path, device='cpu', context_length=1 << 20)\n"
        "with_room(60, lambda: model.session())",
        "KV cache needs 268435456 bytes of host memory",
    ),
    "logits": (
        "model = quantloom.load(path, device='cpu', context_length=1 << 19)\n"
        "with_room(220, lambda: model.logits([1] * (1 << 19)))",
        "no room for the logits of 524288 tokens",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_what_does_not_fit(what: str, tmp_path: Path) -> None:
    path = Synthetic(context=1 << 22, layers=2).write(tmp_path)
    call, said = CASES[what]
    usable = "\nwith quantloom.load(path, device='cpu', context_length=8) as again:\n"
    usable += "    assert len(again.generate([1], max_new_tokens=2, ignore_eos=True).tokens) == 2\n"
    ended = run(LIMITED + call + usable, path)
    assert (ended.code, ended.err) == (0, "")
    assert said in ended.out
