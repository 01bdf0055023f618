"""The ground Retort stands on: records, storage, stages, recipes, the engine client and the sampling driver.

Knows nothing of reasoning, and imports nothing from the other packages.
"""
