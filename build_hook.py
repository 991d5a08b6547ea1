"""Compiles the kernels of all shipped rules when a wheel is made or the package is installed, editable or not.

A wheel carries what `optgen build` makes, in `optgen/build/`, so that nobody who installs it needs a compiler. The
libraries know nothing of Python's ABI: one wheel serves every version of Python on a platform. The stubs, which type
checkers and editors read, are written into the package itself, where an editable install has them too.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelBuildHook(BuildHookInterface):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        sys.path.insert(0, self.root)
        from optgen.compiler import build as builder
        from optgen.compiler import catalogue, toolchain
        from optgen.compiler.lock import sole_builder
        from optgen.compiler.manifest import Manifest, note_sources
        from optgen.errors import OptgenError

        folder = Path(self.root, "build")
        try:
            compiler = toolchain.find_compiler()
            jobs = list(builder.jobs(list(catalogue.shipped())))
            folder.mkdir(exist_ok=True)
            with sole_builder(folder), ThreadPoolExecutor(os.cpu_count()) as pool:
                for _ in pool.map(lambda job: builder.build(job, folder, compiler), jobs):
                    pass
                sources = note_sources(folder)
            builder.write_stubs(jobs)
        except OptgenError as error:
            self.app.abort(f"optgen could not be built.\n{error}")
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform}"
        if version != "editable":
            build_data["force_include"][str(folder / sources)] = f"optgen/build/{sources}"
            for job in jobs:
                manifest = Manifest.read(folder / f"{job.stem}.json")
                for name in (f"{job.stem}.json", *manifest.files):
                    build_data["force_include"][str(folder / name)] = f"optgen/build/{name}"
