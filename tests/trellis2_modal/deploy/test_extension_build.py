"""An extension of torch builds where Python was built with clang but gcc is there, as in the full image."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from trellis2_modal.service.deploy.image_requirements import COMPILERS

SOURCE = """
#include <Python.h>
#include <string>
static PyObject* answer(PyObject*, PyObject*) { return PyLong_FromSize_t(std::string(42, 'x').size()); }
static PyMethodDef methods[] = {{"answer", answer, METH_NOARGS, ""}, {nullptr, nullptr, 0, nullptr}};
static PyModuleDef module = {PyModuleDef_HEAD_INIT, "answering", "", -1, methods};
PyMODINIT_FUNC PyInit_answering() { return PyModule_Create(&module); }
"""
SETUP = """
import sys, sysconfig
sysconfig.get_config_vars().update({variables})
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension
setup(
    name="answering",
    ext_modules=[CppExtension("answering", ["answering.cpp"])],
    cmdclass={{"build_ext": BuildExtension.with_options(use_ninja=False)}},
    script_args=["build_ext", "--inplace"],
)
"""
CLANG = {
    "CC": "clang -pthread",
    "CXX": "clang++ -pthread",
    "LDSHARED": "clang -pthread -shared",
    "LDCXXSHARED": "clang++ -pthread -shared",
}


def build(folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """Build the extension with a Python that was built with clang; code and output."""
    (folder / "answering.cpp").write_text(SOURCE)
    (folder / "setup.py").write_text(SETUP.format(variables=CLANG))
    tools = folder / "tools"  # gcc and what it calls, and no clang
    tools.mkdir(exist_ok=True)
    for name in ("gcc", "g++", "cc", "c++", "as", "ld", "which"):
        if (found := shutil.which(name)) and not (tools / name).exists():
            (tools / name).symlink_to(found)
    kept = {name: value for name, value in os.environ.items() if name not in COMPILERS}
    done = subprocess.run(
        [sys.executable, "setup.py"],
        cwd=folder,
        env=kept | {"PATH": str(tools), "MAX_JOBS": "1"} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the image is Linux")
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_with_the_images_compilers_it_links_and_without_it_fails(tmp_path: Path) -> None:
    code, said = build(tmp_path, {})
    assert code != 0
    assert "clang" in said
    code, said = build(tmp_path, COMPILERS)
    assert code == 0, said
    (built,) = tmp_path.glob("answering*.so")
    spec = importlib.util.spec_from_file_location("answering", built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.answer() == 42
