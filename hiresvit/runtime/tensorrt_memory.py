"""Where a tensor of a plan lives, on the host and on the GPU."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from hiresvit.device.cuda import Cuda


class Buffer:
    """Memory of one tensor: pinned on the host, with its double on the GPU unless both can see it (``mapped``).

    ``pointer`` is where the GPU finds it. There is none before the first `resize`.
    """

    def __init__(self, cuda: Cuda, mapped: bool) -> None:
        self._cuda, self._mapped = cuda, mapped
        self._host: NDArray[np.uint8] | None = None
        self._device: int | None = None
        self._size = 0
        self.pointer = 0

    @property
    def used(self) -> NDArray[np.uint8]:
        """The bytes that belong to the tensor at its present size."""
        assert self._host is not None
        return self._host[: self._size]

    def resize(self, size: int) -> None:
        """Hold ``size`` bytes; what was there is lost if that is more than ever before."""
        if self._host is None or self._host.nbytes < size:
            self.free()
            try:
                self._host = self._cuda.host_alloc(max(size, 1), mapped=self._mapped)
                if not self._mapped:
                    self._device = self._cuda.malloc(max(size, 1))
                self.pointer = self._device or self._cuda.device_pointer(self._host)
            except BaseException:
                self.free()
                raise
        self._size = size

    def to_device(self, stream: int) -> None:
        """Queue the copy to the GPU, if there are two."""
        if self._device is not None and self._size:
            self._cuda.copy_to_device(self._device, self.used, stream)

    def to_host(self, stream: int) -> None:
        """Queue the copy back."""
        if self._device is not None and self._size:
            self._cuda.copy_to_host(self.used, self._device, stream)

    def free(self) -> None:
        """Give both back."""
        host, self._host = self._host, None
        device, self._device = self._device, None
        try:
            if host is not None:
                self._cuda.host_free(host)
        finally:
            if device is not None:
                self._cuda.free(device)
