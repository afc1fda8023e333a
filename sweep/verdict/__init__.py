"""The verdict: fresh runs of each arm's best configurations, statistics, the answer in words."""
