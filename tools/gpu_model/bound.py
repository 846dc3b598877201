"""The model's bound for the CUDA kernels that this installation holds, to set beside what was measured."""

from __future__ import annotations

import math
import re
import tempfile
from pathlib import Path as FilePath

from . import sass
from .cost import Path, least_seconds, paths_of
from .specs import GPUS, Gpu, bytes_per_row, kind_of

_KERNELS = {"forward": "forward_z_float", "backward": "backward_z_float"}


class Bounds:
    """Least seconds of each pass for one GPU. `missing`: why there are none, or an empty string."""

    def __init__(self, device_name: str) -> None:
        self._paths: dict[str, list[Path]] = {name: [] for name in _KERNELS}
        self._gpu = gpu_of(device_name)
        self.missing = ""
        if self._gpu is None:
            self.missing = f"the cost model knows {', '.join(GPUS)}, not {device_name}"
            return
        try:
            self._read(self._gpu)
        except sass.CodeError as error:
            self.missing = str(error)

    def seconds(self, name: str, scalars: int, codes: int) -> float | None:
        """The least of all paths of the float32 kernel of a pass, "forward" or "backward"; None if none."""
        if self._gpu is None or self.missing:
            return None
        works = [path.work(codes, 1, rows_a_thread=math.inf) for path in self._paths[name]]
        traffic = bytes_per_row(kind_of(_KERNELS[name]), codes)
        return min((least_seconds(work, self._gpu, scalars, traffic) for work in works), default=None)

    def _read(self, gpu: Gpu) -> None:
        import fqvae_kernels

        # The extension of the CUDA backend; the CPU's holds no device code.
        libraries = sorted(FilePath(fqvae_kernels.__file__).parent.glob("_cuda*.so"))
        with tempfile.TemporaryDirectory() as folder:
            for library in libraries:
                for cubin in sass.cubins_of(library, (gpu.architecture,), FilePath(folder)):
                    for function in sass.parse(sass.disassemble(cubin)):
                        for name, kernel in _KERNELS.items():
                            if function.name == kernel:
                                self._paths[name] += paths_of(function)
        if not any(self._paths.values()):
            self.missing = f"this installation holds no CUDA kernels for {gpu.architecture}"


def gpu_of(device_name: str) -> Gpu | None:
    """The GPU of the model whose name is a word of the device's: a GH200 is no H200."""
    return next((gpu for name, gpu in GPUS.items() if re.search(rf"\b{name}\b", device_name)), None)
