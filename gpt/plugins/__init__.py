"""Plugins: losses, optimisers and schedules of the user's own, in a file or an installed package.

A plugin is a Python module that adds entries to LOSSES, OPTIMIZERS or SCHEDULES as ours do:

    from gpt.losses import LOSSES, Loss, LogitStats, Option

    def sharp(s: LogitStats, sharpness: float):
        return s.cross_entropy + sharpness * s.cross_entropy.square()

    LOSSES["sharp"] = Loss(sharp, {"sharpness": Option(0.1, low=0.01, high=1.0, log=True)})

A file is named by a study or a configuration, and is one file: its SHA-256 is all that pins it. A
package names such a module as an entry point of the group `squen_sweep.plugins`; its version pins
it. Only what trains runs a plugin's code: a run directory or a database that is read does not.
"""
