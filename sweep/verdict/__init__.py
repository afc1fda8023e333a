"""The verdict: fresh runs of each arm's best settings, their statistics, the answer in words."""
