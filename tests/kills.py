"""Training that is killed at a chosen step."""

from transformers import TrainerCallback


class Killed(Exception):
    pass


class KillAt(TrainerCallback):
    """Stops after a step's checkpoint is written, as a kill between steps would."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise Killed
