"""Trainers: what a trial runs. Add one by adding a class like GPTTrainer and a TRAINERS entry."""
