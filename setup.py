"""Builds the C++ library of native/ where a compiler is, and goes on without it where none is.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError, LinkError, PlatformError

SOURCES = Path("native")
# No contraction: a * b + c is rounded once where the code says so, so that every path gives the same bits.
FLAGS = ["-std=c++17", "-O3", "-g0", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno", "-Wall", "-Wextra"]
# Each kernel is compiled for its own instruction set, and chosen at run time (native/choose.cpp).
KERNELS = {"kernel_plain": []}
MACHINE = sysconfig.get_platform().rpartition("-")[2]  # that is built for, also by a cross compiler
if MACHINE in ("x86_64", "amd64"):
    AVX2 = ["-mavx2", "-mfma", "-mf16c"]
    AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"]
    # GCC 12 takes its own AVX-512 headers for reads of uninitialised memory (GCC bug 105593).
    KERNELS |= {
        "kernel_avx2": AVX2,
        "kernel_avx512": [*AVX2, *AVX512, "-Wno-uninitialized", "-Wno-maybe-uninitialized"],
    }
if MACHINE in ("aarch64", "arm64"):
    KERNELS["kernel_dotprod"] = ["-march=armv8.2-a+dotprod"]
COMMON = ["choose", "interface", "model", "team"]


class BuildLibrary(build_ext):
    """Compiles a plain shared library, which ctypes loads: it knows nothing of Python."""

    def build_extension(self, extension: Extension) -> None:
        Path(self.get_ext_fullpath(extension.name)).unlink(missing_ok=True)  # of an earlier build, of another version
        try:
            self._build(extension)
        except (CompileError, LinkError, PlatformError, OSError, subprocess.SubprocessError) as exc:
            message = f"The C++ kernels are not built, the slower forward pass in torch is used: {exc}"
            print(message, file=sys.stderr)  # noqa: T201  an installation has no log

    def copy_extensions_to_source(self) -> None:
        """Of an installation that uses the checkout; without a new library, none of another version stays there."""
        for extension in self.extensions:
            Path(self.get_ext_filename(extension.name)).unlink(missing_ok=True)
        super().copy_extensions_to_source()

    def get_ext_filename(self, fullname: str) -> str:
        return f"{fullname.replace('.', '/')}.so"

    def _build(self, extension: Extension) -> None:
        objects = []
        for name in [*COMMON, *KERNELS]:
            objects += self.compiler.compile(
                [str(SOURCES / f"{name}.cpp")],
                output_dir=self.build_temp,
                extra_postargs=["-fPIC", *FLAGS, *KERNELS.get(name, [])],
            )
        path = self.get_ext_fullpath(extension.name)
        self.compiler.link_shared_object(objects, path, extra_postargs=["-pthread"], target_lang="c++")


setup(
    ext_modules=[
        Extension(
            "qwen_aio.engine.native.libqwen_aio",
            sources=[],
            depends=[str(path) for path in sorted(SOURCES.glob("*"))],
            optional=True,
        )
    ],
    cmdclass={"build_ext": BuildLibrary},
)
