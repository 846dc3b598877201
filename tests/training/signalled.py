"""`fqvae train` on `BlobSet`, sent a signal by itself: SIGNAL RANK BATCH FOLDER [key=value ...].

RANK: of the process that is sent it, when it asks for its batch of that number; 0: it never is.
"""

import os
import signal
import sys
from unittest import mock

from blobruns import TINY
from blobset import BlobSet

from fqvae.cli import main


class Signalled(BlobSet):
    """Sends the process a signal when it is asked for its batch number `batch`."""

    calls = 0

    def __init__(self, name, batch):
        self.name_, self.batch = name, batch

    def images(self, index):
        self.calls += 1
        if self.calls == self.batch:
            os.kill(os.getpid(), getattr(signal, self.name_))
        if not self.batch:
            print("batch", self.calls, flush=True)
        return super().images(index)


if __name__ == "__main__":
    # Whatever started the tests may let its children ignore these.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    name, rank, batch, folder, *settings = sys.argv[1:]
    ours = rank == os.environ.get("RANK", "0")
    dataset = Signalled(name, int(batch) if ours else -1)
    with mock.patch("fqvae.training.run.open_data", return_value=dataset):
        sys.exit(main(["train", "smoke", *TINY, *settings, "--out", folder, "--device", "cpu"]))
