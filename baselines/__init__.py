"""Policies, training, scores and studies that step the environments.

A module at the top is a command, with its settings and its `main`; `entry.py` is what commands share. What a command
does lies in the rooms, each of which imports only those before it:

    policies/    what chooses actions: fixed, planning, learned
    episode/     days played, what is kept of them, and how they are shown
    scoring/     how good a policy is, between no trade and the optimum
    adapters/    the environments as libraries of learning algorithms want them
    training/    how policies are learned
    studies/     commands of many days: jobs, tables, figures
"""
