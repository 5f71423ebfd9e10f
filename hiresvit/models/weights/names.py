"""What a pickle calls the classes and functions that it wants: a name, and what may be thought of it.

Nothing that has a name is ever looked up. Which names are refused is a courtesy: a file that wants to run a program
is none to take weights from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

# What no checkpoint needs and what runs programs: a file that names any of them is not read at all.
_RUNS = re.compile(
    r"os|posix|nt|subprocess|sys|shutil|pty|_?socket|_?ctypes|importlib|runpy|code|codeop|_?pickle|marshal|_?thread(ing)?"
    r"|_?multiprocessing|signal|webbrowser|pip|platform|imp|zipimport|pdb|bdb|timeit|cProfile|profile|trace|doctest"
    r"|asyncio|concurrent|http|urllib|ftplib|smtplib|telnetlib|tempfile|inspect|gc|commands|popen2|distutils|setuptools"
    r"|ensurepip|venv|idlelib|dill|cloudpickle|pexpect"
)
_BUILTINS = re.compile(
    r"eval|exec|execfile|compile|open|file|__import__|input|raw_input|breakpoint|globals|locals|vars|setattr|delattr"
    r"|exit|quit|help|apply|reload"
)
# Lower-case names that make plain values. By custom other functions are lower-case and classes are not.
_MAKERS = re.compile(
    r"collections\.\w+|datetime\.\w+|(copyreg|copy_reg)\.(_reconstructor|__newobj__|__newobj_ex__)|_codecs\.encode"
    r"|(builtins|__builtin__)\.(object|set|frozenset|list|dict|tuple|int|long|float|bool|str|unicode|bytes|bytearray"
    r"|complex|x?range|slice|getattr|type)"
    r"|numpy\.(dtype|ndarray|(u?int|float|complex|bool|str|bytes)\w*)|numpy\.ma\.core\._mareconstruct"
    r"|numpy\._?core\.(multiarray\.(scalar|_reconstruct)|numeric\._frombuffer)|numpy\.random\.[\w.]+"
    r"|torch\._utils\._rebuild_\w+|torch\._tensor\._rebuild_from_type_v2|torch\.(device|dtype)"
    r"|torch\.storage\._load_from_bytes|torch\.serialization\._get_layout"
    r"|functools\.partial|operator\.\w+getter|re\._compile|zoneinfo\.ZoneInfo\._unpickle|pandas\._libs\.[\w.]+"
    r"|pandas\.core\.[\w.]+|omegaconf\.[\w.]+"
)


@dataclass(frozen=True, eq=False)
class Name:
    """What a file calls a class or a function; it was never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        whole = f"{self.module}.{self.name}"
        return whole if whole.isprintable() and len(whole) <= 80 else ascii(whole)[:80]

    @property
    def plain(self) -> bool:
        """Whether it is a known maker of plain values."""
        return _MAKERS.fullmatch(f"{self.module}.{self.name}") is not None

    @property
    def runs(self) -> bool:
        """Whether it belongs to what runs programs."""
        root = self.module.partition(".")[0]
        in_builtins = root in ("builtins", "__builtin__") and _BUILTINS.fullmatch(self.name.partition(".")[0])
        return bool(_RUNS.fullmatch(root) or in_builtins)

    @property
    def function(self) -> bool:
        """Whether it is called as functions are, and is none that makes plain values."""
        return not self.name.rpartition(".")[2].lstrip("_")[:1].isupper() and not self.plain
