"""Small files of the layouts that the readers expect, and readers that expect so few images."""

import io
import zipfile

import h5py
import numpy as np
from PIL import Image

from fqvae.data import Isaac3D, MPI3DComplex, Shapes3D


class SmallShapes3D(Shapes3D):
    factor_sizes = (2, 1, 2, 3, 2, 2)


class SmallIsaac3D(Isaac3D):
    factor_sizes = (3, 1, 2, 1, 1, 2, 1, 2, 1)


class SmallMPI3DComplex(MPI3DComplex):
    factor_sizes = (2, 2, 1, 1, 3, 1, 4)


def count(kind):
    return int(np.prod(kind.factor_sizes))


def pictures(number, size=64, seed=0):
    """Noise on a gradient, so that no two images and no two axes are alike: uint8 (number, size, size, 3)."""
    noise = np.random.default_rng(seed).integers(0, 200, (number, size, size, 3))
    return (noise + np.arange(size)[:, None] * 55 // size).astype(np.uint8)


def labels(kind):
    """Labels as floats with a scale and offset for every factor."""
    grid = np.stack(np.unravel_index(np.arange(count(kind)), kind.factor_sizes), 1)
    return -30 + grid * np.linspace(0.07, 5, grid.shape[1])


def write_shapes3d(path, images=None, values=None, **options):
    images = pictures(count(SmallShapes3D)) if images is None else images
    with h5py.File(path, "w") as file:
        file.create_dataset("images", data=images, chunks=(8, *images.shape[1:]), **options)
        file.create_dataset("labels", data=labels(SmallShapes3D) if values is None else values)
    return images


def write_mpi3d(path, images=None, save=np.savez):
    images = pictures(count(SmallMPI3DComplex)) if images is None else images
    save(path, images=images)
    return images


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def npy(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def isaac_files(images=None):
    """{name: bytes} of the unpacked folder, and the images (count, 128, 128, 3)."""
    images = pictures(count(SmallIsaac3D), 128) if images is None else images
    files = {f"images/{k:06d}.png": png(image) for k, image in enumerate(images)}
    return {**files, "labels.npy": npy(labels(SmallIsaac3D))}, images


def write_folder(folder, files):
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def write_zip(path, files, prefix=""):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(prefix + name, data)
