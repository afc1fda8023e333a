"""Python imports this first in a process whose PYTHONPATH has this folder.

The modules of PATCHED are changed as soon as they have been imported, also in a fork server, whose
forks are then given their faults by SQUEN_FAULT. Everything else is as without this folder.
"""

import sys

PATCHED = ("gpt.events", "gpt.trainer", "gpt.checkpoint")


class _Finder:
    """Finds a module as the other finders do, and patches it once its code has run."""

    def find_spec(self, name, path=None, target=None):
        if name not in PATCHED:
            return None
        others = (finder for finder in sys.meta_path if finder is not self)
        spec = next(filter(None, (f.find_spec(name, path, target) for f in others)), None)
        if spec is not None:
            run = spec.loader.exec_module

            def exec_module(module):
                run(module)
                import injector

                injector.patch(module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _Finder())
