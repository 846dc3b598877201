"""The child of supervise.py: python -m gpu_check.worker PIPE MODULE BACKEND FIRST STEP."""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback
from typing import Any

from gpu_check.place import PRETENDED, device_is_broken
from gpu_check.supervise import BROKEN


def main() -> int:
    pipe, module, backend, first, step = sys.argv[1:]
    if PRETENDED:
        from gpu_check import pretend

        pretend.install()
    asked: list[str] = []
    compiled: list[str] = []
    if backend == "triton":
        from gpu_check import programs

        programs.listen(asked, compiled)
    cases = importlib.import_module(module).cases(backend)

    def tell(**message: Any) -> None:
        os.write(int(pipe), (json.dumps(message, default=str) + "\n").encode())

    for number in range(int(first), len(cases), int(step)):
        about, run = cases[number]
        tell(begin=number, about=about)
        begun = time.perf_counter()
        try:
            found = run()
        except Exception as error:
            text = f"{type(error).__name__}: {error}"[:600]
            traceback.print_exc()
            found = {"ok": False, "error": text}
        if asked:
            found |= {"asked": asked.copy(), "compiled": compiled.copy()}
            asked.clear()
            compiled.clear()
        took = round(time.perf_counter() - begun, 4)
        # What was asked for and what was chosen may have one name: the choice counts.
        tell(**(about | found | {"number": number, "took_s": took}))
        if not found.get("ok", True) and device_is_broken():
            os._exit(BROKEN)
    return 0


if __name__ == "__main__":
    sys.exit(main())
