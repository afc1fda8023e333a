"""Interim analyses: the ledger of all, and seeds that are added until the answer is settled."""
